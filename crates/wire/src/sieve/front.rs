//! The state machine towards a `ManageSieve` client.

use super::{passed_counts, words};
use crate::conversation::{FrontGrammar, Talk};
use crate::cursor::Cursor;
use crate::exchange::{Exchange, Turn};
use crate::frame::{Announced, Framer, is_http};
use crate::limits::LINE_BYTES_MAX;
use crate::protocols::{Answer, Carry, ClientTls, FrontSetup, Mechanism, Outcome, Refusal, Step, Welcome};
use crate::secret::Secret;
use crate::text::quote;

/// See the module's documentation.
pub(super) struct Front {
    setup: FrontSetup,
    talk: Talk,
    state: State,
    carry: Carry,
}

/// Where the conversation stands.
enum State {
    /// Waiting for a command.
    Command,
    /// Waiting for a string of the exchange that AUTHENTICATE began.
    Sasl(Exchange),
    /// Waiting for the answer to a log-in.
    Asked(Mechanism),
}

impl Front {
    pub(super) fn new(setup: FrontSetup) -> Self {
        let (talk, carry) = (Talk::new(Framer::new(LINE_BYTES_MAX), setup.trace), setup.carry);
        Self { setup, talk, state: State::Command, carry }
    }

    /// The command's name, as far as it has come.
    fn word(&self) -> Vec<u8> {
        let command = self.talk.command();
        command.split(|&b| b == b' ').next().unwrap_or_default().to_ascii_uppercase()
    }

    /// Does what a command says.
    fn obey(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        if is_http(line) {
            return bye(Refusal::Misbehaved, "This is not a web server.", out);
        }
        let mut cursor = Cursor::new(line);
        let name = cursor.word().unwrap_or_default();
        self.keep_trace(&name, cursor.rest());
        if is_broken {
            return match name.as_str() {
                "AUTHENTICATE" if !self.setup.passwords => self.refuse_in_clear(out),
                _ => self.wrong("Lines end in CRLF, and a literal may not stand here.", out),
            };
        }
        match name.as_str() {
            "CAPABILITY" if cursor.end().is_some() => {
                self.capabilities("Capability completed.", out);
                Step::Read
            }
            "LOGOUT" if cursor.end().is_some() => {
                out.extend_from_slice(b"OK \"Logging out.\"\r\n");
                Step::Close(Outcome::LoggedOut)
            }
            "NOOP" => self.noop(cursor, out),
            "STARTTLS" if cursor.end().is_some() => match self.setup.tls {
                ClientTls::Offered => {
                    out.extend_from_slice(b"OK \"Begin TLS negotiation now.\"\r\n");
                    Step::StartTls
                }
                ClientTls::Up => self.wrong("TLS is already active.", out),
                ClientTls::Never => self.wrong("TLS is not available here.", out),
            },
            "AUTHENTICATE" => self.authenticate(cursor, out),
            _ => self.wrong("Unknown command, or not allowed before log-in.", out),
        }
    }

    /// Only what can't hold a secret is kept as it is.
    fn keep_trace(&mut self, name: &str, arguments: &[u8]) {
        self.talk.note(|| match name {
            "CAPABILITY" | "LOGOUT" | "STARTTLS" if arguments.is_empty() => name.to_owned(),
            "AUTHENTICATE" => {
                let mut cursor = Cursor::new(arguments);
                let word = cursor.expect(b" ").and_then(|()| cursor.string()).unwrap_or_default();
                let known = Mechanism::SASL.iter().find(|known| known.name().as_bytes().eq_ignore_ascii_case(&word));
                format!("AUTHENTICATE {} [struck out]", known.map_or("", |known| known.name()))
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
        out.extend_from_slice(format!("OK {code}\"Nothing done.\"\r\n").as_bytes());
        Step::Read
    }

    fn authenticate(&mut self, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Step {
        let parsed = (|| {
            cursor.expect(b" ")?;
            let name = cursor.string()?.to_ascii_uppercase();
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
        let offered = self.setup.mechanisms.iter().copied().find(|mechanism| mechanism.name().as_bytes() == name);
        let Some(mechanism) = offered else { return self.wrong("This mechanism is not offered.", out) };
        if !self.setup.passwords {
            return self.refuse_in_clear(out);
        }
        self.turn(Exchange::begin(mechanism, initial.as_ref().map(Secret::expose)), out)
    }

    /// Goes where an exchange leads.
    fn turn(&mut self, turn: Turn, out: &mut Vec<u8>) -> Step {
        match turn {
            Turn::Challenge(exchange, text) => {
                out.extend_from_slice(format!("{}\r\n", quote(&text)).as_bytes());
                self.state = State::Sasl(exchange);
                Step::Read
            }
            Turn::Ask(mechanism, ask) => {
                self.state = State::Asked(mechanism);
                Step::Ask(ask)
            }
            Turn::Dismissed => self.refuse(Refusal::BadCredentials, out),
            Turn::Malformed => self.wrong("Invalid base64.", out),
        }
    }

    /// A string of a SASL exchange.
    fn response(&mut self, exchange: Exchange, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        self.talk.note(|| "[struck out]".to_owned());
        if exchange.is_dismissal() {
            return self.turn(exchange.take(line), out);
        }
        let mut cursor = Cursor::new(line);
        let text = cursor.string().filter(|_| cursor.end().is_some() && !is_broken).map(Secret::new);
        match text {
            None => self.wrong("A string is expected.", out),
            Some(text) if text.expose() == b"*" => self.wrong("AUTHENTICATE cancelled.", out),
            Some(text) => self.turn(exchange.take(text.expose()), out),
        }
    }

    fn refuse(&mut self, refusal: Refusal, out: &mut Vec<u8>) -> Step {
        let (code, text) = words(refusal);
        out.extend_from_slice(format!("NO {code}\"{text}\"\r\n").as_bytes());
        self.count_failure(refusal.counts(), out)
    }

    /// The end after too many failed log-ins.
    fn count_failure(&mut self, counts: bool, out: &mut Vec<u8>) -> Step {
        if counts && self.carry.count_failure(self.setup.max_auth_errors) {
            return bye(Refusal::Misbehaved, "Too many failed log-ins.", out);
        }
        Step::Read
    }

    fn refuse_in_clear(&mut self, out: &mut Vec<u8>) -> Step {
        let (code, text) = words(Refusal::TlsRequired);
        out.extend_from_slice(format!("NO {code}\"{text}\"\r\n").as_bytes());
        self.count_error(out)
    }

    /// One reply for one wrong command, and the end after too many.
    fn wrong(&mut self, text: &str, out: &mut Vec<u8>) -> Step {
        out.extend_from_slice(format!("NO \"{text}\"\r\n").as_bytes());
        self.count_error(out)
    }

    fn count_error(&mut self, out: &mut Vec<u8>) -> Step {
        if self.carry.count_error(self.setup.max_errors) {
            return bye(Refusal::Misbehaved, words(Refusal::Misbehaved).1, out);
        }
        Step::Read
    }

    /// What is true on this connection at this moment; of the language, what every back end has.
    fn capabilities(&self, text: &str, out: &mut Vec<u8>) {
        let extensions: Vec<_> = self.setup.offers.names(&super::PROTOCOL).collect();
        let offered = self.setup.mechanisms.iter().filter(|_| self.setup.passwords);
        let mechanisms: Vec<_> = offered.map(|mechanism| mechanism.name()).collect();
        let mut lines = vec![
            "\"IMPLEMENTATION\" \"Gatepost\"".to_owned(),
            format!("\"SIEVE\" {}", quote(&extensions.join(" "))),
            format!("\"SASL\" {}", quote(&mechanisms.join(" "))),
        ];
        if self.setup.tls == ClientTls::Offered {
            lines.push("\"STARTTLS\"".to_owned());
        }
        lines.push("\"VERSION\" \"1.0\"".to_owned());
        lines.push(format!("OK {}", quote(text)));
        lines.iter().for_each(|line| out.extend_from_slice(format!("{line}\r\n").as_bytes()));
    }
}

impl FrontGrammar for Front {
    fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        let greeting = format!("{} {}", self.setup.name, self.setup.greeting);
        self.capabilities(&greeting, out);
    }

    /// Said again unasked, since what was said in clear proves nothing (RFC 5804, section 2.2).
    fn tls_up(&mut self, out: &mut Vec<u8>) {
        self.capabilities("TLS is up.", out);
    }

    fn command(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Sasl(exchange) => self.response(exchange, line, is_broken, out),
            State::Command | State::Asked(_) => self.obey(line, is_broken, out),
        }
    }

    /// A literal is announced: clients send theirs unasked (RFC 5804, section 1.4), and only credentials come in one.
    fn literal(&mut self, announced: Announced, out: &mut Vec<u8>) -> Step {
        let carries = matches!(self.state, State::Sasl(_)) || (self.setup.passwords && self.word() == b"AUTHENTICATE");
        let is_fit = !announced.waits && announced.size <= LINE_BYTES_MAX as u64 && !self.talk.is_broken();
        if carries && is_fit {
            self.talk.accept_literal();
            return Step::Read;
        }
        if self.talk.reject_literal() { Step::Read } else { bye(Refusal::Misbehaved, "Literal too large.", out) }
    }

    fn answer(&mut self, answer: &Answer, out: &mut Vec<u8>) -> Step {
        let State::Asked(mechanism) = std::mem::replace(&mut self.state, State::Command) else { return Step::Read };
        match answer {
            Answer::Challenge(message) => self.turn(Exchange::carry(mechanism, message), out),
            Answer::Welcome(Welcome { status, .. }) => {
                out.extend_from_slice(status);
                out.extend_from_slice(b"\r\n");
                Step::Through
            }
            Answer::Refused(Refusal::BadCredentials) => match Exchange::refuse_token(mechanism, &self.setup.oauth) {
                Some(turn) => self.turn(turn, out),
                None => self.refuse(Refusal::BadCredentials, out),
            },
            Answer::Refused(refusal) => self.refuse(*refusal, out),
            Answer::Passed(text) => {
                out.extend_from_slice(format!("NO {text}\r\n").as_bytes());
                self.count_failure(passed_counts(text), out)
            }
        }
    }

    fn end(&mut self, refusal: Refusal, text: Option<&'static str>, out: &mut Vec<u8>) -> Step {
        bye(refusal, text.unwrap_or(words(refusal).1), out)
    }

    fn carry(&self) -> Carry {
        self.carry
    }

    fn is_exchanging(&self) -> bool {
        matches!(self.state, State::Sasl(_))
    }
}

/// The last words, and the end.
fn bye(refusal: Refusal, text: &str, out: &mut Vec<u8>) -> Step {
    let (code, _) = words(refusal);
    out.extend_from_slice(format!("BYE {code}\"{text}\"\r\n").as_bytes());
    Step::Close(Outcome::Refused(refusal))
}
