//! The state machine towards an IMAP client.

use super::syntax::{capability_list, response_code};
use super::{passed_counts, words};
use crate::conversation::{FrontGrammar, Talk};
use crate::cursor::Cursor;
use crate::exchange::{Exchange, Turn, ask};
use crate::frame::{Announced, Framer, is_http};
use crate::limits::{ID_PAIRS_MAX, LINE_BYTES_MAX, LITERAL_BYTES_MAX};
use crate::protocols::{
    Answer, Carry, ClientTls, FrontSetup, Introduction, Mechanism, Outcome, Refusal, Step, Welcome,
};
use crate::sasl;
use crate::secret::Secret;
use crate::text::printable;

/// How much of a line the log may show.
const TRACE_BYTES_MAX: usize = 512;

/// See the module's documentation.
pub(super) struct Front {
    setup: FrontSetup,
    talk: Talk,
    state: State,
    carry: Carry,
    introduction: Introduction,
}

/// Where the conversation stands.
enum State {
    /// Waiting for a command.
    Command,
    /// Waiting for a line of the exchange that AUTHENTICATE began.
    Sasl { tag: String, exchange: Exchange },
    /// Waiting for the answer to a log-in.
    Asked { tag: String, mechanism: Mechanism },
}

/// What a wrong command is told; counted against `max_errors`.
struct Wrong {
    status: &'static str,
    text: &'static str,
}

const fn bad(text: &'static str) -> Wrong {
    Wrong { status: "BAD", text }
}

const fn no(text: &'static str) -> Wrong {
    Wrong { status: "NO", text }
}

impl Front {
    pub(super) fn new(setup: FrontSetup) -> Self {
        let (talk, carry) = (Talk::new(Framer::new(LINE_BYTES_MAX), setup.trace), setup.carry);
        Self { setup, talk, state: State::Command, carry, introduction: Introduction::default() }
    }

    /// Does what a command says.
    fn obey(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        if is_http(line) {
            return bye(Refusal::Misbehaved, "This is not a web server.", out);
        }
        let mut cursor = Cursor::new(line);
        let Some(tag) = cursor.tag().map(str::to_owned).filter(|_| cursor.expect(b" ").is_some()) else {
            return self.wrong("*", &bad("A command is: tag SP name."), out);
        };
        let name = cursor.word().unwrap_or_default();
        self.keep_trace(&tag, &name, cursor.rest());
        if is_broken {
            let refused = match name.as_str() {
                "LOGIN" if !self.setup.passwords => return self.refuse_in_clear(&tag, out),
                _ if line.contains(&b'{') => bad("[TOOBIG] This literal is too large, or may not stand here."),
                _ => bad("Lines end in CRLF."),
            };
            return self.wrong(&tag, &refused, out);
        }
        match name.as_str() {
            "CAPABILITY" if cursor.end().is_some() => {
                self.carry.asked_capabilities = true;
                let list = self.capabilities();
                out.extend_from_slice(format!("* CAPABILITY {list}\r\n{tag} OK Capability completed.\r\n").as_bytes());
                Step::Read
            }
            "NOOP" if cursor.end().is_some() => {
                out.extend_from_slice(format!("{tag} OK Nothing done.\r\n").as_bytes());
                Step::Read
            }
            "LOGOUT" if cursor.end().is_some() => {
                out.extend_from_slice(format!("* BYE Logging out.\r\n{tag} OK Logout completed.\r\n").as_bytes());
                Step::Close(Outcome::LoggedOut)
            }
            "STARTTLS" if cursor.end().is_some() => self.start_tls(&tag, out),
            "ID" if self.setup.id => self.identify(&tag, cursor, out),
            "LOGIN" => self.login(tag, cursor, out),
            "AUTHENTICATE" => self.authenticate(tag, cursor, out),
            "CAPABILITY" | "NOOP" | "LOGOUT" | "STARTTLS" => {
                self.wrong(&tag, &bad("This command takes no arguments."), out)
            }
            _ => self.wrong(&tag, &bad("Unknown command, or not allowed before log-in."), out),
        }
    }

    /// Only what can't hold a secret is kept as it is.
    fn keep_trace(&mut self, tag: &str, name: &str, arguments: &[u8]) {
        self.talk.note(|| match name {
            "CAPABILITY" | "NOOP" | "LOGOUT" | "STARTTLS" | "ID" => {
                format!("{tag} {name}{}", printable(arguments, TRACE_BYTES_MAX))
            }
            "LOGIN" => format!("{tag} LOGIN [struck out]"),
            "AUTHENTICATE" => {
                let word = arguments.split(|&b| b == b' ').nth(1).unwrap_or_default();
                let known = Mechanism::SASL.iter().find(|known| known.name().as_bytes().eq_ignore_ascii_case(word));
                format!("{tag} AUTHENTICATE {} [struck out]", known.map_or("", |known| known.name()))
            }
            // Whatever it is, it may be a password that came without being asked for.
            _ => "[struck out]".to_owned(),
        });
    }

    fn start_tls(&mut self, tag: &str, out: &mut Vec<u8>) -> Step {
        match self.setup.tls {
            ClientTls::Offered => {
                out.extend_from_slice(format!("{tag} OK Begin TLS negotiation now.\r\n").as_bytes());
                Step::StartTls
            }
            ClientTls::Up => self.wrong(tag, &bad("TLS is already active."), out),
            ClientTls::Never => self.wrong(tag, &bad("TLS is not available here."), out),
        }
    }

    /// ID (RFC 2971): answered each time, merged, and told to the back end once. What only a proxy may
    /// say of the client's address is the proxy's to say, so such fields are dropped.
    fn identify(&mut self, tag: &str, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Step {
        let parsed = (|| {
            cursor.expect(b" ")?;
            let pairs = cursor.id_parameters()?;
            cursor.end()?;
            Some(pairs)
        })();
        let Some(pairs) = parsed else {
            return self.wrong(tag, &bad("ID takes NIL or at most 30 pairs of strings."), out);
        };
        let known_pairs = &mut self.introduction.id;
        for (key, value) in pairs.into_iter().filter(|(key, _)| !key.to_ascii_lowercase().starts_with("x-")) {
            if let Some(known) = known_pairs.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(&key)) {
                known.1 = value;
            } else if known_pairs.len() < ID_PAIRS_MAX {
                known_pairs.push((key, value));
            }
        }
        out.extend_from_slice(b"* ID (\"name\" \"Gatepost\")\r\n");
        out.extend_from_slice(format!("{tag} OK ID completed.\r\n").as_bytes());
        Step::Read
    }

    fn login(&mut self, tag: String, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Step {
        if !self.setup.passwords {
            return self.refuse_in_clear(&tag, out);
        }
        if !self.setup.has_passwords {
            return self.wrong(&tag, &no("Passwords are not taken here."), out);
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
            return self.wrong(&tag, &bad("LOGIN takes a user name and a password."), out);
        };
        let credentials = sasl::user_name(&user).zip(sasl::password(password.expose()));
        let mechanism = Mechanism::Command;
        self.turn(tag, Turn::Ask(mechanism, ask(mechanism, credentials)), out)
    }

    fn authenticate(&mut self, tag: String, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Step {
        let name = cursor.expect(b" ").and_then(|()| cursor.word());
        let initial = match cursor.rest() {
            [] => None,
            [b' ', initial @ ..] if !initial.is_empty() => Some(initial),
            _ => return self.wrong(&tag, &bad("AUTHENTICATE takes a mechanism and perhaps an initial response."), out),
        };
        let Some(name) = name else {
            return self.wrong(&tag, &bad("AUTHENTICATE takes a mechanism."), out);
        };
        let Some(mechanism) = self.setup.mechanisms.iter().copied().find(|m| m.name() == name) else {
            return self.wrong(&tag, &no("This mechanism is not offered."), out);
        };
        if !self.setup.passwords {
            return self.refuse_in_clear(&tag, out);
        }
        self.turn(tag, Exchange::begin(mechanism, initial), out)
    }

    /// Goes where an exchange leads.
    fn turn(&mut self, tag: String, turn: Turn, out: &mut Vec<u8>) -> Step {
        match turn {
            Turn::Challenge(exchange, text) => {
                out.extend_from_slice(format!("+ {text}\r\n").as_bytes());
                self.state = State::Sasl { tag, exchange };
                Step::Read
            }
            Turn::Ask(mechanism, ask) => {
                self.state = State::Asked { tag, mechanism };
                Step::Ask(ask)
            }
            Turn::Dismissed => self.refuse(&tag, Refusal::BadCredentials, out),
            Turn::Malformed => self.wrong(&tag, &bad("Invalid base64."), out),
        }
    }

    /// A line of a SASL exchange.
    fn response(&mut self, tag: String, exchange: Exchange, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        self.talk.note(|| "[struck out]".to_owned());
        match line {
            line if exchange.is_dismissal() => self.turn(tag, exchange.take(line), out),
            _ if is_broken => self.wrong(&tag, &bad("Invalid base64, or a line that does not end in CRLF."), out),
            b"*" => self.wrong(&tag, &bad("AUTHENTICATE cancelled."), out),
            line => self.turn(tag, exchange.take(line), out),
        }
    }

    fn refuse(&mut self, tag: &str, refusal: Refusal, out: &mut Vec<u8>) -> Step {
        let (code, text) = words(refusal);
        out.extend_from_slice(format!("{tag} NO {code} {text}\r\n").as_bytes());
        self.count_failure(refusal.counts(), out)
    }

    /// The end after too many failed log-ins.
    fn count_failure(&mut self, counts: bool, out: &mut Vec<u8>) -> Step {
        if counts && self.carry.count_failure(self.setup.max_auth_errors) {
            return bye(Refusal::Misbehaved, "Too many failed log-ins.", out);
        }
        Step::Read
    }

    /// The back end's OK under the client's tag. Its capabilities must reach the client, and every other
    /// response code must survive: only one code fits on the line.
    fn welcome(&self, tag: &str, welcome: &Welcome, out: &mut Vec<u8>) {
        let code = response_code(welcome.status.strip_prefix(b"OK ").unwrap_or_default());
        let announces = code.is_some_and(|code| capability_list(code).is_some());
        let list = welcome.capabilities.as_deref();
        if let Some(list) = list.filter(|_| self.carry.asked_capabilities || (code.is_some() && !announces)) {
            out.extend_from_slice(format!("* CAPABILITY {list}\r\n").as_bytes());
        }
        out.extend_from_slice(&welcome.untagged);
        out.extend_from_slice(tag.as_bytes());
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

    /// Passwords are refused before the secret is sent, where it isn't sent already.
    fn refuse_in_clear(&mut self, tag: &str, out: &mut Vec<u8>) -> Step {
        self.wrong(tag, &no("[PRIVACYREQUIRED] Passwords are only taken under TLS."), out)
    }

    /// One reply for one wrong command, and the end after too many.
    fn wrong(&mut self, tag: &str, wrong: &Wrong, out: &mut Vec<u8>) -> Step {
        out.extend_from_slice(format!("{tag} {} {}\r\n", wrong.status, wrong.text).as_bytes());
        if self.carry.count_error(self.setup.max_errors) {
            return bye(Refusal::Misbehaved, words(Refusal::Misbehaved).1, out);
        }
        Step::Read
    }

    /// What is true on this connection at this moment. `IMAP4rev2` is claimed where every back end has it.
    fn capabilities(&self) -> String {
        let mut list = String::from("IMAP4rev1");
        for name in self.setup.offers.names(&super::PROTOCOL) {
            list.push(' ');
            list.push_str(name);
        }
        list.push_str(" SASL-IR LITERAL-");
        if self.setup.id {
            list.push_str(" ID");
        }
        if self.setup.tls == ClientTls::Offered {
            list.push_str(" STARTTLS");
        }
        for mechanism in self.setup.mechanisms.iter().filter(|_| self.setup.passwords) {
            list.push_str(" AUTH=");
            list.push_str(mechanism.name());
        }
        if !self.setup.passwords || !self.setup.has_passwords {
            list.push_str(" LOGINDISABLED");
        }
        list
    }
}

impl FrontGrammar for Front {
    fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        let FrontSetup { name, greeting, .. } = &self.setup;
        let greeting = format!("* OK [CAPABILITY {}] {name} {greeting}\r\n", self.capabilities());
        out.extend_from_slice(greeting.as_bytes());
    }

    fn command(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Sasl { tag, exchange } => self.response(tag, exchange, line, is_broken, out),
            State::Command | State::Asked { .. } => self.obey(line, is_broken, out),
        }
    }

    /// A literal is announced: it is taken where the command may carry one and its secret may be sent.
    fn literal(&mut self, announced: Announced, out: &mut Vec<u8>) -> Step {
        let mut cursor = Cursor::new(self.talk.command());
        let command = (|| {
            cursor.tag()?;
            cursor.expect(b" ")?;
            cursor.word()
        })();
        let carries_literals = !self.talk.is_broken()
            && match command.as_deref() {
                Some("LOGIN") => self.setup.passwords && self.setup.has_passwords,
                Some("ID") => self.setup.id,
                _ => false,
            };
        if carries_literals && announced.size <= LITERAL_BYTES_MAX && matches!(self.state, State::Command) {
            self.talk.accept_literal();
            if announced.waits {
                out.extend_from_slice(b"+ OK\r\n");
            }
            return Step::Read;
        }
        if self.talk.reject_literal() { Step::Read } else { bye(Refusal::Misbehaved, "Literal too large.", out) }
    }

    fn answer(&mut self, answer: &Answer, out: &mut Vec<u8>) -> Step {
        let State::Asked { tag, mechanism } = std::mem::replace(&mut self.state, State::Command) else {
            return Step::Read;
        };
        match answer {
            Answer::Challenge(message) => self.turn(tag, Exchange::carry(mechanism, message), out),
            Answer::Welcome(welcome) => {
                self.welcome(&tag, welcome, out);
                Step::Through
            }
            Answer::Refused(Refusal::BadCredentials) => match Exchange::refuse_token(mechanism, &self.setup.oauth) {
                Some(turn) => self.turn(tag, turn, out),
                None => self.refuse(&tag, Refusal::BadCredentials, out),
            },
            Answer::Refused(refusal) => self.refuse(&tag, *refusal, out),
            Answer::Passed(text) => {
                out.extend_from_slice(format!("{tag} NO {text}\r\n").as_bytes());
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

    fn introduction(&self) -> Introduction {
        self.introduction.clone()
    }

    fn is_exchanging(&self) -> bool {
        matches!(self.state, State::Sasl { .. })
    }
}

/// The last words, and the end.
fn bye(refusal: Refusal, text: &str, out: &mut Vec<u8>) -> Step {
    let code = words(refusal).0;
    out.extend_from_slice(format!("* BYE {code} {text}\r\n").as_bytes());
    Step::Close(Outcome::Refused(refusal))
}
