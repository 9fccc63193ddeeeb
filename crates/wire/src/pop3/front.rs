//! The state machine towards a POP3 client.

use super::{passed_counts, words};
use crate::conversation::{FrontGrammar, Talk};
use crate::exchange::{Exchange, Turn, ask};
use crate::frame::{Announced, Framer, is_http};
use crate::limits::LINE_BYTES_MAX;
use crate::protocols::{
    Answer, Carry, ClientTls, FrontSetup, Introduction, Mechanism, Outcome, Refusal, Step, Welcome,
};
use crate::sasl;

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
    /// Waiting for the password of this user, whose name may be none.
    Password { user: Option<String> },
    /// Waiting for a line of the exchange that AUTH began.
    Sasl(Exchange),
    /// Waiting for the answer to a log-in.
    Asked(Mechanism),
}

impl Front {
    pub(super) fn new(setup: FrontSetup) -> Self {
        let (talk, carry) = (Talk::new(Framer::of_lines(LINE_BYTES_MAX), setup.trace), setup.carry);
        Self { setup, talk, state: State::Command, carry, introduction: Introduction::default() }
    }

    /// A command. `before` is where the conversation stood: a password goes with the name just before it.
    fn obey(&mut self, before: State, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        if is_http(line) {
            return end(Refusal::Misbehaved, "This is not a web server.", out);
        }
        let (word, argument) = match line.iter().position(|&b| b == b' ') {
            Some(space) => (&line[..space], Some(&line[space + 1..])),
            None => (line, None),
        };
        let word = word.to_ascii_uppercase();
        self.keep_trace(&word, argument);
        if is_broken {
            return self.wrong("Lines end in CRLF.", out);
        }
        match (word.as_slice(), argument) {
            (b"CAPA", None) => {
                say(out, "+OK Capability list follows.");
                self.capabilities().iter().for_each(|line| say(out, line));
                say(out, ".");
                Step::Read
            }
            (b"STLS", None) => match self.setup.tls {
                ClientTls::Offered => {
                    say(out, "+OK Begin TLS negotiation now.");
                    Step::StartTls
                }
                ClientTls::Up => self.wrong("TLS is already active.", out),
                ClientTls::Never => self.wrong("TLS is not available here.", out),
            },
            (b"QUIT", None) => {
                say(out, "+OK Logging out.");
                Step::Close(Outcome::LoggedOut)
            }
            (b"UTF8", None) if self.offers("UTF8") => {
                self.introduction.utf8 = true;
                say(out, "+OK UTF-8 it is.");
                Step::Read
            }
            (b"USER", Some(name)) => self.user(name, out),
            (b"PASS", Some(password)) => self.pass(before, password, out),
            (b"AUTH", None) => self.list_mechanisms(out),
            (b"AUTH", Some(arguments)) => self.auth(arguments, out),
            (b"APOP", _) => self.wrong("APOP is not available here: it needs passwords in clear.", out),
            (b"USER" | b"PASS", None) => self.wrong("This command takes an argument.", out),
            (b"CAPA" | b"STLS" | b"QUIT", Some(_)) => self.wrong("This command takes no argument.", out),
            _ => self.wrong("Unknown command, or not allowed before log-in.", out),
        }
    }

    /// Only what can't hold a secret is kept as it is.
    fn keep_trace(&mut self, word: &[u8], argument: Option<&[u8]>) {
        let known = |name: &str| argument.is_some_and(|argument| starts_with_word(argument, name));
        self.talk.note(|| match word {
            b"CAPA" | b"STLS" | b"QUIT" | b"UTF8" if argument.is_none() => String::from_utf8_lossy(word).into_owned(),
            b"USER" => "USER [struck out]".to_owned(),
            b"PASS" => "PASS [struck out]".to_owned(),
            b"AUTH" => {
                let mechanism = Mechanism::SASL.iter().map(|mechanism| mechanism.name()).find(|name| known(name));
                format!("AUTH {} [struck out]", mechanism.unwrap_or_default())
            }
            // Whatever it is, it may be a password that came without being asked for.
            _ => "[struck out]".to_owned(),
        });
    }

    fn user(&mut self, name: &[u8], out: &mut Vec<u8>) -> Step {
        if !self.setup.passwords {
            return self.refuse_in_clear(out);
        }
        if !self.setup.has_passwords {
            return self.wrong("Passwords are not taken here.", out);
        }
        // Whether it can be a name is told with the password, as whether anybody has it.
        self.state = State::Password { user: sasl::user_name(name) };
        say(out, "+OK");
        Step::Read
    }

    fn pass(&mut self, before: State, password: &[u8], out: &mut Vec<u8>) -> Step {
        if !self.setup.passwords {
            return self.refuse_in_clear(out);
        }
        let State::Password { user } = before else { return self.wrong("USER comes first.", out) };
        let mechanism = Mechanism::Command;
        self.turn(Turn::Ask(mechanism, ask(mechanism, user.zip(sasl::password(password)))), out)
    }

    /// AUTH by itself is in no RFC, but many ask so.
    fn list_mechanisms(&self, out: &mut Vec<u8>) -> Step {
        say(out, "+OK");
        let offered = self.setup.mechanisms.iter().filter(|_| self.setup.passwords);
        offered.for_each(|mechanism| say(out, mechanism.name()));
        say(out, ".");
        Step::Read
    }

    fn auth(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Step {
        let mut words = arguments.splitn(2, |&b| b == b' ');
        let name = words.next().unwrap_or_default().to_ascii_uppercase();
        let offered = self.setup.mechanisms.iter().copied().find(|mechanism| mechanism.name().as_bytes() == name);
        let Some(mechanism) = offered else { return self.wrong("This mechanism is not offered.", out) };
        if !self.setup.passwords {
            return self.refuse_in_clear(out);
        }
        self.turn(Exchange::begin(mechanism, words.next()), out)
    }

    /// Goes where an exchange leads.
    fn turn(&mut self, turn: Turn, out: &mut Vec<u8>) -> Step {
        match turn {
            Turn::Challenge(exchange, text) => {
                say(out, &format!("+ {text}"));
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

    /// A line of a SASL exchange.
    fn response(&mut self, exchange: Exchange, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        self.talk.note(|| "[struck out]".to_owned());
        match line {
            line if exchange.is_dismissal() => self.turn(exchange.take(line), out),
            _ if is_broken => self.wrong("Lines end in CRLF.", out),
            b"*" => self.wrong("AUTH cancelled.", out),
            line => self.turn(exchange.take(line), out),
        }
    }

    fn refuse(&mut self, refusal: Refusal, out: &mut Vec<u8>) -> Step {
        let (code, text) = words(refusal);
        say(out, &format!("-ERR {code} {text}"));
        self.count_failure(refusal.counts())
    }

    /// The end after too many failed log-ins: POP3 has no word for it but the answer just given.
    fn count_failure(&mut self, counts: bool) -> Step {
        if counts && self.carry.count_failure(self.setup.max_auth_errors) {
            return Step::Close(Outcome::Refused(Refusal::Misbehaved));
        }
        Step::Read
    }

    fn refuse_in_clear(&mut self, out: &mut Vec<u8>) -> Step {
        let (code, text) = words(Refusal::TlsRequired);
        self.wrong(&format!("{code} {text}"), out)
    }

    /// One reply for one wrong command, and the end after too many.
    fn wrong(&mut self, text: &str, out: &mut Vec<u8>) -> Step {
        say(out, &format!("-ERR {text}"));
        if self.carry.count_error(self.setup.max_errors) {
            return Step::Close(Outcome::Refused(Refusal::Misbehaved));
        }
        Step::Read
    }

    fn offers(&self, name: &str) -> bool {
        self.setup.offers.names(&super::PROTOCOL).any(|offered| offered == name)
    }

    /// What is true on this connection at this moment; of what only back ends can do, what all of them do.
    fn capabilities(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.setup.offers.names(&super::PROTOCOL).map(str::to_owned).collect();
        if self.setup.tls == ClientTls::Offered {
            lines.push("STLS".to_owned());
        }
        if self.setup.passwords {
            if self.setup.has_passwords {
                lines.push("USER".to_owned());
            }
            if !self.setup.mechanisms.is_empty() {
                let names: Vec<_> = self.setup.mechanisms.iter().map(|mechanism| mechanism.name()).collect();
                lines.push(format!("SASL {}", names.join(" ")));
            }
        }
        lines
    }
}

impl FrontGrammar for Front {
    fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        // Without a time stamp in it, which would offer APOP.
        let FrontSetup { name, greeting, .. } = &self.setup;
        say(out, &format!("+OK {name} {greeting}"));
    }

    fn command(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Sasl(exchange) => self.response(exchange, line, is_broken, out),
            before => self.obey(before, line, is_broken, out),
        }
    }

    /// POP3 has none, and its framer finds none.
    fn literal(&mut self, _: Announced, _: &mut Vec<u8>) -> Step {
        Step::Read
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
                say(out, &format!("-ERR {text}"));
                self.count_failure(passed_counts(text))
            }
        }
    }

    fn end(&mut self, refusal: Refusal, text: Option<&'static str>, out: &mut Vec<u8>) -> Step {
        end(refusal, text.unwrap_or(words(refusal).1), out)
    }

    fn carry(&self) -> Carry {
        self.carry
    }

    fn introduction(&self) -> Introduction {
        self.introduction.clone()
    }

    fn is_exchanging(&self) -> bool {
        matches!(self.state, State::Sasl(_))
    }
}

fn say(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The last words, and the end.
fn end(refusal: Refusal, text: &str, out: &mut Vec<u8>) -> Step {
    say(out, &format!("-ERR {} {text}", words(refusal).0));
    Step::Close(Outcome::Refused(refusal))
}

fn starts_with_word(text: &[u8], word: &str) -> bool {
    text.split(|&b| b == b' ').next().is_some_and(|first| first.eq_ignore_ascii_case(word.as_bytes()))
}
