//! The state machine towards a client that submits mail.

use super::{
    SUBMISSION, announces_chunk, bye, code, extensions, hello_name, passed_counts, say, say_lines, starttls, told,
};
use crate::conversation::{Client, FrontGrammar, has_client};
use crate::frame::Framer;
use crate::limits::LINE_BYTES_MAX;
use crate::protocols::{ClientSetup, ClientTls, LogInRules, Mechanism, Outcome, Refusal, Step};

/// See the module's documentation.
pub(super) struct Front {
    client: Client,
    /// It has said EHLO, and so knows what there is.
    is_extended: bool,
}

/// Commands that only make sense after a log-in.
const LATER_COMMANDS: [&[u8]; 8] = [b"MAIL", b"RCPT", b"DATA", b"VRFY", b"EXPN", b"ETRN", b"BURL", b"TURN"];

impl Front {
    pub(super) fn new(setup: ClientSetup, rules: LogInRules) -> Self {
        Self { client: Client::new(setup, rules, Framer::of_lines(LINE_BYTES_MAX)), is_extended: false }
    }

    /// Only what can't hold a secret is kept as it is.
    fn keep_trace(&mut self, word: &[u8], argument: &[u8]) {
        self.client.talk.note(|| match word {
            b"AUTH" => {
                format!("AUTH {} [struck out]", Mechanism::named(first_word(argument)).map_or("", Mechanism::name))
            }
            _ => told(word, argument),
        });
    }

    fn hello(&mut self, is_extended: bool, name: &[u8], out: &mut Vec<u8>) -> Step {
        let Some(name) = hello_name(name) else {
            return self.wrong("501 5.5.4 A host name or an address literal is missing.", out);
        };
        self.client.introduction.helo = Some(name.to_owned());
        self.is_extended = is_extended;
        let Client { setup, rules, .. } = &self.client;
        let mut lines = vec![setup.name.clone()];
        if is_extended {
            // What is true on this connection at this moment; of what only back ends can do, what all of them do.
            lines.extend(extensions(&SUBMISSION, setup.offers));
            if setup.tls == ClientTls::Offered {
                lines.push("STARTTLS".to_owned());
            }
            if rules.takes_secrets && !rules.mechanisms.is_empty() {
                let names: Vec<_> = rules.mechanisms.iter().map(|mechanism| mechanism.name()).collect();
                lines.push(format!("AUTH {}", names.join(" ")));
            }
        }
        say_lines(out, 250, &lines);
        Step::Read
    }

    fn auth(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Step {
        // Before a word of EHLO: a client told to say that first would say its password next.
        if !self.client.rules.takes_secrets {
            return self.refuse_in_clear(out);
        }
        if !self.is_extended {
            return self.wrong("503 5.5.1 EHLO comes first.", out);
        }
        let mut arguments = arguments.splitn(2, |&b| b == b' ');
        let name = arguments.next().unwrap_or_default();
        self.begin_exchange(name, arguments.next(), out)
    }
}

has_client!(Front);

impl FrontGrammar for Front {
    fn start(&mut self, out: &mut Vec<u8>) {
        let ClientSetup { name, greeting, .. } = &self.client.setup;
        say(out, &format!("220 {name} ESMTP {greeting}"));
    }

    fn command(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
        let word = first_word(line);
        let argument = line[word.len()..].trim_ascii();
        let word = word.to_ascii_uppercase();
        self.keep_trace(&word, argument);
        if announces_chunk(line) {
            return self.end(Refusal::Misbehaved, Some("Authentication required."), out);
        }
        if is_broken {
            return self.wrong("500 5.5.2 Lines end in CRLF.", out);
        }
        match word.as_slice() {
            b"EHLO" => self.hello(true, argument, out),
            b"HELO" => self.hello(false, argument, out),
            b"STARTTLS" => match starttls(self.client.setup.tls, argument, out) {
                Ok(()) => Step::StartTls,
                Err(text) => self.wrong(text, out),
            },
            b"AUTH" => self.auth(argument, out),
            b"NOOP" | b"RSET" => {
                say(out, "250 2.0.0 Ok.");
                Step::Read
            }
            b"HELP" => {
                say(out, "214 2.0.0 EHLO, STARTTLS, AUTH, then mail.");
                Step::Read
            }
            b"QUIT" => {
                say(out, "221 2.0.0 Bye.");
                Step::Close(Outcome::LoggedOut)
            }
            word if LATER_COMMANDS.contains(&word) => self.wrong("530 5.7.0 Authentication required.", out),
            _ => self.wrong("500 5.5.1 Unknown command.", out),
        }
    }

    fn refuse_mechanism(&mut self, out: &mut Vec<u8>) -> Step {
        self.wrong("504 5.5.4 This mechanism is not offered.", out)
    }

    fn say_challenge(&self, text: &str, out: &mut Vec<u8>) {
        say(out, &format!("334 {text}"));
    }

    fn say_refused(&self, refusal: Refusal, out: &mut Vec<u8>) {
        say(out, &format!("{} {}", code(refusal), refusal.text()));
    }

    /// The back end's words come with its code.
    fn say_passed(&self, text: &str, out: &mut Vec<u8>) -> bool {
        say(out, text);
        passed_counts(text)
    }

    /// What is wrong within an exchange comes without a code.
    fn say_wrong(&self, text: &str, out: &mut Vec<u8>) {
        let has_code = text.starts_with(|c: char| c.is_ascii_digit());
        say(out, &if has_code { text.to_owned() } else { format!("501 5.5.2 {text}") });
    }

    fn say_bye(&self, refusal: Refusal, text: Option<&str>, out: &mut Vec<u8>) {
        bye(refusal, text, out);
    }
}

fn first_word(line: &[u8]) -> &[u8] {
    line.split(|&b| b == b' ').next().unwrap_or_default()
}
