//! The state machine towards an IMAP client.

use super::syntax::{capability_list, response_code};
use super::{code, passed_counts};
use crate::conversation::{Client, FrontGrammar, LogIn, has_client};
use crate::cursor::Cursor;
use crate::exchange::Turn;
use crate::frame::{Announced, Framer};
use crate::limits::{COMMAND_BYTES_MAX, ID_PAIRS_MAX, IMAP_LITERAL_BYTES_MAX, LINE_BYTES_MAX, TRACE_BYTES_MAX};
use crate::protocols::{ClientSetup, ClientTls, LogInRules, Mechanism, Outcome, Refusal, Step, Welcome};
use crate::sasl;
use crate::secret::Secret;
use crate::text::printable;

/// What answers a line without a tag.
const UNTAGGED: &str = "*";

/// See the module's documentation.
pub(super) struct Front {
    client: Client,
    /// Of the command that is obeyed, or whose log-in goes on.
    tag: String,
}

impl Front {
    pub(super) fn new(setup: ClientSetup, rules: LogInRules) -> Self {
        Self { client: Client::new(setup, rules, Framer::new(LINE_BYTES_MAX, COMMAND_BYTES_MAX)), tag: String::new() }
    }

    /// Only what can't hold a secret is kept as it is.
    fn keep_trace(&mut self, name: &str, arguments: &[u8]) {
        let tag = &self.tag;
        self.client.talk.note(|| match name {
            "ID" => format!("{tag} ID{}", printable(arguments, TRACE_BYTES_MAX)),
            "CAPABILITY" | "NOOP" | "LOGOUT" | "STARTTLS" if arguments.is_empty() => format!("{tag} {name}"),
            "LOGIN" => format!("{tag} LOGIN [struck out]"),
            "AUTHENTICATE" => {
                let word = arguments.split(|&b| b == b' ').nth(1).unwrap_or_default();
                format!("{tag} AUTHENTICATE {} [struck out]", Mechanism::named(word).map_or("", Mechanism::name))
            }
            // Whatever it is, it may be a password that came without being asked for.
            _ => "[struck out]".to_owned(),
        });
    }

    /// ID (RFC 2971): answered each time, merged, and told to the back end once. What only a proxy may
    /// say of the client's address is the proxy's to say, so such fields are dropped.
    fn identify(&mut self, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Step {
        let parsed = (|| {
            cursor.expect(b" ")?;
            let pairs = cursor.id_parameters()?;
            cursor.end()?;
            Some(pairs)
        })();
        let Some(pairs) = parsed else {
            return self.wrong("ID takes NIL or at most 30 pairs of strings.", out);
        };
        let known_pairs = &mut self.client.introduction.id;
        for (key, value) in pairs.into_iter().filter(|(key, _)| !key.to_ascii_lowercase().starts_with("x-")) {
            if let Some(known) = known_pairs.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(&key)) {
                known.1 = value;
            } else if known_pairs.len() < ID_PAIRS_MAX {
                known_pairs.push((key, value));
            }
        }
        out.extend_from_slice(b"* ID (\"name\" \"Gatepost\")\r\n");
        self.say(out, "OK ID completed.");
        Step::Read
    }

    fn login(&mut self, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Step {
        if !self.client.rules.takes_secrets {
            return self.refuse_in_clear(out);
        }
        if !self.client.rules.has_password_command {
            return self.deny("Passwords are not taken here.", out);
        }
        let parsed = (|| {
            cursor.expect(b" ")?;
            let user = cursor.astring()?;
            cursor.expect(b" ")?;
            let password = Secret::new(cursor.astring()?);
            cursor.end()?;
            Some((user, password))
        })();
        let Some((user, password)) = parsed else {
            return self.wrong("LOGIN takes a user name and a password.", out);
        };
        let credentials = sasl::user_name(&user).zip(sasl::password(password.expose()));
        self.turn(Turn::by_command(credentials), out)
    }

    fn authenticate(&mut self, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Step {
        let name = cursor.expect(b" ").and_then(|()| cursor.word());
        let initial = match cursor.rest() {
            [] => None,
            [b' ', initial @ ..] if !initial.is_empty() => Some(initial),
            _ => return self.wrong("AUTHENTICATE takes a mechanism and perhaps an initial response.", out),
        };
        let Some(name) = name else {
            return self.wrong("AUTHENTICATE takes a mechanism.", out);
        };
        self.begin_exchange(name.as_bytes(), initial, out)
    }

    /// As [`FrontGrammar::wrong`], for a command that is right but can't be had here.
    fn deny(&mut self, text: &str, out: &mut Vec<u8>) -> Step {
        self.say(out, &format!("NO {text}"));
        self.count_error(out)
    }

    /// Answers the command.
    fn say(&self, out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(format!("{} {text}\r\n", self.tag).as_bytes());
    }

    /// What is true on this connection at this moment. `IMAP4rev2` is claimed where every back end has it.
    fn capabilities(&self) -> String {
        let mut list = String::from("IMAP4rev1");
        for name in self.client.setup.offers.names(&super::PROTOCOL) {
            list.push(' ');
            list.push_str(name);
        }
        list.push_str(" SASL-IR LITERAL-");
        if self.client.rules.id {
            list.push_str(" ID");
        }
        if self.client.setup.tls == ClientTls::Offered {
            list.push_str(" STARTTLS");
        }
        for mechanism in self.client.advertised() {
            list.push_str(" AUTH=");
            list.push_str(mechanism.name());
        }
        if !self.client.rules.takes_secrets || !self.client.rules.has_password_command {
            list.push_str(" LOGINDISABLED");
        }
        list
    }
}

has_client!(Front);

impl FrontGrammar for Front {
    fn start(&mut self, out: &mut Vec<u8>) {
        let ClientSetup { name, greeting, .. } = &self.client.setup;
        let greeting = format!("* OK [CAPABILITY {}] {name} {greeting}\r\n", self.capabilities());
        out.extend_from_slice(greeting.as_bytes());
    }

    fn command(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        let mut cursor = Cursor::new(line);
        let tag = cursor.tag().filter(|_| cursor.expect(b" ").is_some());
        tag.unwrap_or(UNTAGGED).clone_into(&mut self.tag);
        if tag.is_none() {
            return self.wrong("A command is: tag SP name.", out);
        }
        let name = cursor.word().unwrap_or_default();
        self.keep_trace(&name, cursor.rest());
        if is_broken {
            return match name.as_str() {
                "LOGIN" if !self.client.rules.takes_secrets => self.refuse_in_clear(out),
                _ if line.contains(&b'{') => {
                    self.wrong("[TOOBIG] This literal is too large, or may not stand here.", out)
                }
                _ => self.wrong("Lines end in CRLF.", out),
            };
        }
        match name.as_str() {
            "CAPABILITY" if cursor.end().is_some() => {
                self.client.carry.asked_capabilities = true;
                let list = self.capabilities();
                out.extend_from_slice(format!("* CAPABILITY {list}\r\n").as_bytes());
                self.say(out, "OK Capability completed.");
                Step::Read
            }
            "NOOP" if cursor.end().is_some() => {
                self.say(out, "OK Nothing done.");
                Step::Read
            }
            "LOGOUT" if cursor.end().is_some() => {
                out.extend_from_slice(b"* BYE Logging out.\r\n");
                self.say(out, "OK Logout completed.");
                Step::Close(Outcome::LoggedOut)
            }
            "STARTTLS" if cursor.end().is_some() => {
                self.start_tls(&format!("{} OK Begin TLS negotiation now.", self.tag), out)
            }
            "ID" if self.client.rules.id => self.identify(cursor, out),
            "LOGIN" => self.login(cursor, out),
            "AUTHENTICATE" => self.authenticate(cursor, out),
            "CAPABILITY" | "NOOP" | "LOGOUT" | "STARTTLS" => self.wrong("This command takes no arguments.", out),
            _ => self.wrong("Unknown command, or not allowed before log-in.", out),
        }
    }

    /// A literal is announced: it is taken where the command may carry one and its secret may be sent.
    fn literal(&mut self, announced: Announced, out: &mut Vec<u8>) -> Step {
        let mut cursor = Cursor::new(self.client.talk.command());
        let command = (|| {
            cursor.tag()?;
            cursor.expect(b" ")?;
            cursor.word()
        })();
        let carries_literals = !self.client.talk.is_broken()
            && match command.as_deref() {
                Some("LOGIN") => self.client.rules.takes_secrets && self.client.rules.has_password_command,
                Some("ID") => self.client.rules.id,
                _ => false,
            };
        if carries_literals && announced.size <= IMAP_LITERAL_BYTES_MAX && matches!(self.client.log_in, LogIn::Idle) {
            self.client.talk.accept_literal();
            if announced.waits {
                out.extend_from_slice(b"+ OK\r\n");
            }
            return Step::Read;
        }
        self.reject_literal(out)
    }

    fn response(&self, line: &[u8], is_broken: bool) -> Result<Secret, &'static str> {
        match line {
            _ if is_broken => Err("Invalid base64, or a line that does not end in CRLF."),
            b"*" => Err("AUTHENTICATE cancelled."),
            line => Ok(Secret::new(line.to_vec())),
        }
    }

    fn refuse_mechanism(&mut self, out: &mut Vec<u8>) -> Step {
        self.deny("This mechanism is not offered.", out)
    }

    fn say_challenge(&self, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("+ {text}\r\n").as_bytes());
    }

    /// The back end's OK under the client's tag. Its capabilities must reach the client, and every other
    /// response code must survive: only one code fits on the line.
    fn say_welcome(&self, welcome: &Welcome, out: &mut Vec<u8>) {
        let code = response_code(welcome.status.strip_prefix(b"OK ").unwrap_or_default());
        let announces = code.is_some_and(|code| capability_list(code).is_some());
        let list = welcome.capabilities.as_deref();
        if let Some(list) = list.filter(|_| self.client.carry.asked_capabilities || (code.is_some() && !announces)) {
            out.extend_from_slice(format!("* CAPABILITY {list}\r\n").as_bytes());
        }
        out.extend_from_slice(&welcome.untagged);
        out.extend_from_slice(self.tag.as_bytes());
        match list {
            Some(list) if code.is_none() => {
                out.extend_from_slice(format!(" OK [CAPABILITY {list}]").as_bytes());
                out.extend_from_slice(welcome.status.strip_prefix(b"OK").unwrap_or_default());
            }
            _ => {
                out.push(b' ');
                out.extend_from_slice(&welcome.status);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn say_refused(&self, refusal: Refusal, out: &mut Vec<u8>) {
        self.say(out, &format!("NO {} {}", code(refusal), refusal.text()));
    }

    fn say_passed(&self, text: &str, out: &mut Vec<u8>) -> bool {
        self.say(out, &format!("NO {text}"));
        passed_counts(text)
    }

    fn say_wrong(&self, text: &str, out: &mut Vec<u8>) {
        self.say(out, &format!("BAD {text}"));
    }

    fn say_bye(&self, refusal: Refusal, text: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("* BYE {} {}\r\n", code(refusal), text.unwrap_or(refusal.text())).as_bytes());
    }
}
