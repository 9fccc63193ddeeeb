//! The state machine towards a `ManageSieve` client.

use super::{code, passed_counts};
use crate::conversation::{Client, FrontGrammar, LogIn, has_client};
use crate::cursor::Cursor;
use crate::frame::{Announced, Framer};
use crate::limits::{COMMAND_BYTES_MAX, LINE_BYTES_MAX};
use crate::protocols::{ClientSetup, ClientTls, LogInRules, Mechanism, Outcome, Refusal, Step};
use crate::secret::Secret;
use crate::text::quote;

/// See the module's documentation.
pub(super) struct Front {
    client: Client,
}

impl Front {
    pub(super) fn new(setup: ClientSetup, rules: LogInRules) -> Self {
        Self { client: Client::new(setup, rules, Framer::new(LINE_BYTES_MAX, COMMAND_BYTES_MAX)) }
    }

    /// The command's name, as far as it has come.
    fn word(&self) -> Vec<u8> {
        let command = self.client.talk.command();
        command.split(|&b| b == b' ').next().unwrap_or_default().to_ascii_uppercase()
    }

    /// Only what can't hold a secret is kept as it is.
    fn keep_trace(&mut self, name: &str, arguments: &[u8]) {
        self.client.talk.note(|| match name {
            "CAPABILITY" | "LOGOUT" | "STARTTLS" if arguments.is_empty() => name.to_owned(),
            "AUTHENTICATE" => {
                let mut cursor = Cursor::new(arguments);
                let word = cursor.expect(b" ").and_then(|()| cursor.string()).unwrap_or_default();
                format!("AUTHENTICATE {} [struck out]", Mechanism::named(&word).map_or("", Mechanism::name))
            }
            // Whatever it is, it may be a password that came without being asked for.
            _ => "[struck out]".to_owned(),
        });
    }

    /// NOOP, with what it is to be answered by (RFC 5804, section 2.13).
    fn noop(&mut self, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Step {
        let tag = match cursor.rest() {
            [] => None,
            _ => match cursor.expect(b" ").and_then(|()| cursor.string()).map(String::from_utf8) {
                Some(Ok(tag)) if cursor.end().is_some() && !tag.chars().any(char::is_control) => Some(tag),
                _ => return self.wrong("NOOP takes a string, or nothing.", out),
            },
        };
        let code = tag.map(|tag| format!("(TAG {}) ", quote(&tag))).unwrap_or_default();
        say(out, &format!("OK {code}\"Nothing done.\""));
        Step::Read
    }

    fn authenticate(&mut self, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Step {
        let parsed = (|| {
            cursor.expect(b" ")?;
            let name = cursor.string()?;
            let initial = match cursor.rest() {
                [] => None,
                _ => {
                    cursor.expect(b" ")?;
                    Some(Secret::new(cursor.string()?))
                }
            };
            cursor.end()?;
            Some((name, initial))
        })();
        let Some((name, initial)) = parsed else {
            return self.wrong("AUTHENTICATE takes a mechanism and perhaps an initial response, as strings.", out);
        };
        self.begin_exchange(&name, initial.as_ref().map(Secret::expose), out)
    }

    /// What is true on this connection at this moment; of the language, what every back end has.
    fn capabilities(&self, text: &str, out: &mut Vec<u8>) {
        let extensions: Vec<_> = self.client.setup.offers.names(&super::PROTOCOL).collect();
        let offered = self.client.advertised().iter();
        let mechanisms: Vec<_> = offered.map(|mechanism| mechanism.name()).collect();
        let mut lines = vec![
            "\"IMPLEMENTATION\" \"Gatepost\"".to_owned(),
            format!("\"SIEVE\" {}", quote(&extensions.join(" "))),
            format!("\"SASL\" {}", quote(&mechanisms.join(" "))),
        ];
        if self.client.setup.tls == ClientTls::Offered {
            lines.push("\"STARTTLS\"".to_owned());
        }
        lines.push("\"VERSION\" \"1.0\"".to_owned());
        lines.push(format!("OK {}", quote(text)));
        lines.iter().for_each(|line| say(out, line));
    }
}

has_client!(Front);

impl FrontGrammar for Front {
    fn start(&mut self, out: &mut Vec<u8>) {
        let greeting = format!("{} {}", self.client.setup.name, self.client.setup.greeting);
        self.capabilities(&greeting, out);
    }

    /// Said again unasked, since what was said in clear proves nothing (RFC 5804, section 2.2).
    fn tls_up(&mut self, out: &mut Vec<u8>) {
        self.capabilities("TLS is up.", out);
    }

    fn command(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        let mut cursor = Cursor::new(line);
        let name = cursor.word().unwrap_or_default();
        self.keep_trace(&name, cursor.rest());
        if is_broken {
            return match name.as_str() {
                "AUTHENTICATE" if !self.client.rules.takes_secrets => self.refuse_in_clear(out),
                _ => self.wrong("Lines end in CRLF, and a literal may not stand here.", out),
            };
        }
        match name.as_str() {
            "CAPABILITY" if cursor.end().is_some() => {
                self.capabilities("Capability completed.", out);
                Step::Read
            }
            "LOGOUT" if cursor.end().is_some() => {
                say(out, "OK \"Logging out.\"");
                Step::Close(Outcome::LoggedOut)
            }
            "NOOP" => self.noop(cursor, out),
            "STARTTLS" if cursor.end().is_some() => self.start_tls("OK \"Begin TLS negotiation now.\"", out),
            "AUTHENTICATE" => self.authenticate(cursor, out),
            _ => self.wrong("Unknown command, or not allowed before log-in.", out),
        }
    }

    /// A literal is announced: clients send theirs unasked (RFC 5804, section 4), and only credentials come in one.
    fn literal(&mut self, announced: Announced, out: &mut Vec<u8>) -> Step {
        let carries = matches!(self.client.log_in, LogIn::Exchanging(_))
            || (self.client.rules.takes_secrets && self.word() == b"AUTHENTICATE");
        let is_fit = !announced.waits && announced.size <= LINE_BYTES_MAX as u64 && !self.client.talk.is_broken();
        if carries && is_fit {
            self.client.talk.accept_literal();
            return Step::Read;
        }
        self.reject_literal(out)
    }

    /// It comes as a string.
    fn response(&self, line: &[u8], is_broken: bool) -> Result<Secret, &'static str> {
        let mut cursor = Cursor::new(line);
        match cursor.string().map(Secret::new) {
            Some(text) if cursor.end().is_some() && !is_broken => match text.expose() {
                b"*" => Err("AUTHENTICATE cancelled."),
                _ => Ok(text),
            },
            _ => Err("A string is expected."),
        }
    }

    fn say_challenge(&self, text: &str, out: &mut Vec<u8>) {
        say(out, &quote(text));
    }

    fn say_refused(&self, refusal: Refusal, out: &mut Vec<u8>) {
        say(out, &format!("NO {}\"{}\"", code(refusal), refusal.text()));
    }

    fn say_passed(&self, text: &str, out: &mut Vec<u8>) -> bool {
        say(out, &format!("NO {text}"));
        passed_counts(text)
    }

    fn say_wrong(&self, text: &str, out: &mut Vec<u8>) {
        say(out, &format!("NO \"{text}\""));
    }

    fn say_bye(&self, refusal: Refusal, text: Option<&str>, out: &mut Vec<u8>) {
        say(out, &format!("BYE {}\"{}\"", code(refusal), text.unwrap_or(refusal.text())));
    }
}

fn say(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}
