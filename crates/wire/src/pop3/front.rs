//! The state machine towards a POP3 client.

use super::{code, passed_counts};
use crate::conversation::{Client, FrontGrammar, has_client};
use crate::exchange::Turn;
use crate::frame::Framer;
use crate::limits::LINE_BYTES_MAX;
use crate::protocols::{ClientSetup, ClientTls, LogInRules, Mechanism, Outcome, Refusal, Step};
use crate::sasl;

/// See the module's documentation.
pub(super) struct Front {
    client: Client,
    /// USER came last: a password goes with the name just before it, which may be none.
    named: Option<Named>,
}

/// What USER said.
struct Named {
    user: Option<String>,
}

impl Front {
    pub(super) fn new(setup: ClientSetup, rules: LogInRules) -> Self {
        Self { client: Client::new(setup, rules, Framer::of_lines(LINE_BYTES_MAX)), named: None }
    }

    /// Only what can't hold a secret is kept as it is.
    fn keep_trace(&mut self, word: &[u8], argument: Option<&[u8]>) {
        self.client.talk.note(|| match word {
            b"CAPA" | b"STLS" | b"QUIT" | b"UTF8" if argument.is_none() => String::from_utf8_lossy(word).into_owned(),
            b"USER" => "USER [struck out]".to_owned(),
            b"PASS" => "PASS [struck out]".to_owned(),
            b"AUTH" => {
                let word = argument.unwrap_or_default().split(|&b| b == b' ').next().unwrap_or_default();
                format!("AUTH {} [struck out]", Mechanism::named(word).map_or("", Mechanism::name))
            }
            // Whatever it is, it may be a password that came without being asked for.
            _ => "[struck out]".to_owned(),
        });
    }

    fn user(&mut self, name: &[u8], out: &mut Vec<u8>) -> Step {
        if !self.client.rules.takes_secrets {
            return self.refuse_in_clear(out);
        }
        if !self.client.rules.has_password_command {
            return self.wrong("Passwords are not taken here.", out);
        }
        // Whether it can be a name is told with the password, as whether anybody has it.
        self.named = Some(Named { user: sasl::user_name(name) });
        say(out, "+OK");
        Step::Read
    }

    fn pass(&mut self, named: Option<Named>, password: &[u8], out: &mut Vec<u8>) -> Step {
        if !self.client.rules.takes_secrets {
            return self.refuse_in_clear(out);
        }
        let Some(Named { user }) = named else { return self.wrong("USER comes first.", out) };
        self.turn(Turn::by_command(user.zip(sasl::password(password))), out)
    }

    /// AUTH by itself is in no RFC, but many ask so.
    fn list_mechanisms(&self, out: &mut Vec<u8>) -> Step {
        say(out, "+OK");
        let offered = self.client.advertised().iter();
        offered.for_each(|mechanism| say(out, mechanism.name()));
        say(out, ".");
        Step::Read
    }

    fn auth(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Step {
        let mut words = arguments.splitn(2, |&b| b == b' ');
        let name = words.next().unwrap_or_default();
        self.begin_exchange(name, words.next(), out)
    }

    fn offers(&self, name: &str) -> bool {
        self.client.setup.offers.has(&super::PROTOCOL, name)
    }

    /// What is true on this connection at this moment; of what only back ends can do, what all of them do.
    fn capabilities(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.client.setup.offers.names(&super::PROTOCOL).map(str::to_owned).collect();
        if self.client.setup.tls == ClientTls::Offered {
            lines.push("STLS".to_owned());
        }
        if self.client.rules.takes_secrets && self.client.rules.has_password_command {
            lines.push("USER".to_owned());
        }
        let names: Vec<_> = self.client.advertised().iter().map(|mechanism| mechanism.name()).collect();
        if !names.is_empty() {
            lines.push(format!("SASL {}", names.join(" ")));
        }
        lines
    }
}

has_client!(Front);

impl FrontGrammar for Front {
    fn start(&mut self, out: &mut Vec<u8>) {
        // Without a time stamp in it, which would offer APOP.
        let ClientSetup { name, greeting, .. } = &self.client.setup;
        say(out, &format!("+OK {name} {greeting}"));
    }

    fn command(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        let named = self.named.take();
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
            (b"STLS", None) => self.start_tls("+OK Begin TLS negotiation now.", out),
            (b"QUIT", None) => {
                say(out, "+OK Logging out.");
                Step::Close(Outcome::LoggedOut)
            }
            (b"UTF8", None) if self.offers("UTF8") => {
                self.client.introduction.utf8 = true;
                say(out, "+OK UTF-8 it is.");
                Step::Read
            }
            (b"USER", Some(name)) => self.user(name, out),
            (b"PASS", Some(password)) => self.pass(named, password, out),
            (b"AUTH", None) => self.list_mechanisms(out),
            (b"AUTH", Some(arguments)) => self.auth(arguments, out),
            (b"APOP", _) => self.wrong("APOP is not available here: it needs passwords in clear.", out),
            (b"USER" | b"PASS", None) => self.wrong("This command takes an argument.", out),
            (b"CAPA" | b"STLS" | b"QUIT", Some(_)) => self.wrong("This command takes no argument.", out),
            _ => self.wrong("Unknown command, or not allowed before log-in.", out),
        }
    }

    fn say_challenge(&self, text: &str, out: &mut Vec<u8>) {
        say(out, &format!("+ {text}"));
    }

    fn say_refused(&self, refusal: Refusal, out: &mut Vec<u8>) {
        self.say_bye(refusal, None, out);
    }

    fn say_passed(&self, text: &str, out: &mut Vec<u8>) -> bool {
        self.say_wrong(text, out);
        passed_counts(text)
    }

    fn say_wrong(&self, text: &str, out: &mut Vec<u8>) {
        say(out, &format!("-ERR {text}"));
    }

    fn say_bye(&self, refusal: Refusal, text: Option<&str>, out: &mut Vec<u8>) {
        say(out, &format!("-ERR {} {}", code(refusal), text.unwrap_or(refusal.text())));
    }

    /// POP3 has no word for it but the answer just given.
    fn say_enough(&self, _: Option<&str>, _: &mut Vec<u8>) {}
}

fn say(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}
