//! The state machine towards a POP3 back end.

use crate::conversation::{BackGrammar, LogInLines, Sasl, Talk, Way, line, send};
use crate::frame::Framer;
use crate::limits::{BACK_LINE_BYTES_MAX, PASSED_TEXT_BYTES_MAX, POP3_AUTH_LINE_BYTES_MAX};
use crate::protocols::{BackFault, BackLogin, BackSetup, BackStep, Welcome};
use crate::secret::Secret;
use crate::text::{behind, printable};

/// See the module's documentation.
pub(super) struct Back {
    setup: BackSetup,
    /// As whom to log in; `None`: it is only looked at.
    login: Option<BackLogin>,
    talk: Talk,
    state: State,
    /// What it can do, on the channel in use now; `None`: it doesn't say.
    capabilities: Option<Vec<String>>,
    /// It takes XCLIENT from us. Dovecot says so in its greeting alone, which comes before TLS: whoever could change
    /// that could also keep a client's address from it, and nothing worse.
    takes_xclient: bool,
}

/// Where the conversation stands.
enum State {
    Greeting,
    StartTls,
    /// STLS is agreed; TLS comes up elsewhere.
    Securing,
    /// CAPA is asked; `Some`: its list is coming.
    Capabilities(Option<Vec<String>>),
    Xclient,
    Utf8,
    /// The log-in is sent, but for what waits for the back end's word.
    LogIn {
        log_in: LogInLines,
        /// Which word that is: `+OK` between USER and PASS, a bare `+` in an exchange.
        waits_for: Word,
    },
    Leaving,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Ok,
    Err,
    More,
}

impl Back {
    pub(super) fn new(setup: BackSetup, login: Option<BackLogin>) -> Self {
        let talk = Talk::new(Framer::of_lines(BACK_LINE_BYTES_MAX), setup.trace);
        Self { setup, login, talk, state: State::Greeting, capabilities: None, takes_xclient: false }
    }

    fn greeting(&mut self, text: &[u8], out: &mut Vec<u8>) -> BackStep {
        if text.trim_ascii_end() == self.setup.own_greeting.as_bytes() {
            return BackStep::Fault(BackFault::Loop);
        }
        self.takes_xclient = has_code(text, "[XCLIENT]");
        if self.setup.starttls {
            // What it can do may come from an attacker, so it is not asked: one without STLS says so itself.
            return send("STLS\r\n", State::StartTls, &mut self.state, out);
        }
        self.ask_capabilities(out)
    }

    fn ask_capabilities(&mut self, out: &mut Vec<u8>) -> BackStep {
        send("CAPA\r\n", State::Capabilities(None), &mut self.state, out)
    }

    /// Says on whose behalf we come, where the back end wants to know.
    fn introduce(&mut self, out: &mut Vec<u8>) -> BackStep {
        match &self.setup.client {
            Some(facts) if self.takes_xclient => send(&facts.xclient(), State::Xclient, &mut self.state, out),
            _ => self.go_on(out),
        }
    }

    fn go_on(&mut self, out: &mut Vec<u8>) -> BackStep {
        if self.setup.introduction.utf8 {
            return send("UTF8\r\n", State::Utf8, &mut self.state, out);
        }
        self.log_in(out)
    }

    /// What a look at it leaves.
    fn farewell(&mut self) -> Welcome {
        let capabilities = self.capabilities.take().map(|list| names(&list));
        Welcome { capabilities, ..Welcome::default() }
    }

    /// Logs in, or leaves.
    fn log_in(&mut self, out: &mut Vec<u8>) -> BackStep {
        let Some(login) = &self.login else { return send("QUIT\r\n", State::Leaving, &mut self.state, out) };
        let takes = |way: &Way<'_>| match way {
            Way::Command { name, password } => self.takes("USER", None) && has_syntax(name, password),
            Way::Sasl(sasl) => self.capabilities.is_some() && self.takes("SASL", Some(sasl.name())),
        };
        let Some(way) = Way::choose(login, takes) else { return BackStep::Fault(BackFault::NoMechanism) };
        let (lines, waits_for) = match &way {
            Way::Command { name, password } => {
                ([line(&[b"USER ", name.as_bytes()]), line(&[b"PASS ", password.expose()])].into(), Word::Ok)
            }
            Way::Sasl(sasl) => {
                // Exchange Online wants tokens in a line of their own.
                let is_inline = matches!(sasl, Sasl::Plain { .. });
                (sasl.auth_lines(is_inline, POP3_AUTH_LINE_BYTES_MAX), Word::More)
            }
        };
        let log_in = LogInLines::begin(way.token(), lines, out);
        self.talk.note(|| format!("C: {} [struck out]", way.mechanism().name()));
        self.state = State::LogIn { log_in, waits_for };
        BackStep::Read
    }

    fn log_in_answered(
        &mut self,
        mut log_in: LogInLines,
        waits_for: Word,
        word: Word,
        text: &[u8],
        out: &mut Vec<u8>,
    ) -> BackStep {
        let asks = if log_in.is_said() { Word::More } else { waits_for };
        if word == asks {
            let step = log_in.go_on(out);
            self.state = State::LogIn { log_in, waits_for };
            return step;
        }
        match word {
            Word::Ok if log_in.is_said() => {
                let mut status = b"+OK".to_vec();
                if !text.is_empty() {
                    status.push(b' ');
                    status.extend_from_slice(text);
                }
                let capabilities = self.capabilities.take().map(|list| names(&list));
                BackStep::Done(Welcome { untagged: Vec::new(), status, capabilities })
            }
            Word::Err if !text.starts_with(b"[") || has_code(text, "[AUTH]") => BackStep::BadCredentials,
            Word::Err if has_code(text, "[SYS/TEMP]") => {
                BackStep::Fault(BackFault::Unavailable(printable(text, PASSED_TEXT_BYTES_MAX)))
            }
            Word::Err => BackStep::Passed(printable(text, PASSED_TEXT_BYTES_MAX)),
            Word::Ok | Word::More => BackStep::Fault(BackFault::Protocol("it answers out of turn")),
        }
    }

    /// Whether it says that it has this capability, with this word behind it; one that says nothing has USER.
    fn takes(&self, name: &str, argument: Option<&str>) -> bool {
        let has = |line: &String| {
            let mut words = line.split(' ');
            words.next() == Some(name) && argument.is_none_or(|argument| words.any(|word| word == argument))
        };
        self.capabilities.as_ref().is_none_or(|list| list.iter().any(has))
    }
}

impl BackGrammar for Back {
    fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> BackStep {
        if let State::Capabilities(Some(list)) = &mut self.state {
            if line == b"." {
                self.capabilities = Some(std::mem::take(list));
                return self.introduce(out);
            }
            list.push(printable(line, PASSED_TEXT_BYTES_MAX).trim().to_ascii_uppercase());
            return BackStep::Read;
        }
        let Some((word, text)) = split(line) else {
            return BackStep::Fault(match self.state {
                State::Greeting => BackFault::Greeting(printable(line, PASSED_TEXT_BYTES_MAX)),
                _ => BackFault::Protocol("a line is no response"),
            });
        };
        match (std::mem::replace(&mut self.state, State::Over), word) {
            (State::Greeting, Word::Ok) => self.greeting(text, out),
            (State::Greeting, _) if has_code(text, "[SYS/TEMP]") => {
                BackStep::Fault(BackFault::Unavailable(printable(text, PASSED_TEXT_BYTES_MAX)))
            }
            (State::Greeting, _) => BackStep::Fault(BackFault::Greeting(printable(line, PASSED_TEXT_BYTES_MAX))),
            (State::StartTls, Word::Ok) => {
                self.state = State::Securing;
                self.talk.begin_tls()
            }
            (State::StartTls, _) => BackStep::Fault(BackFault::NoStartTls),
            (State::Capabilities(_), Word::Ok) => {
                self.state = State::Capabilities(Some(Vec::new()));
                BackStep::Read
            }
            // An old server, which has no CAPA.
            (State::Capabilities(_), _) => self.introduce(out),
            // Whether or not it believes us.
            (State::Xclient, _) => self.go_on(out),
            (State::Utf8, Word::Ok) => self.log_in(out),
            (State::Utf8, _) => BackStep::Fault(BackFault::Protocol("it refuses UTF8, which it offers")),
            (State::LogIn { log_in, waits_for }, word) => self.log_in_answered(log_in, waits_for, word, text, out),
            (State::Leaving, _) => BackStep::Done(self.farewell()),
            (State::Securing | State::Over, _) => BackStep::Fault(BackFault::Protocol("it speaks out of turn")),
        }
    }

    fn tls_up(&mut self, out: &mut Vec<u8>) -> BackStep {
        self.ask_capabilities(out)
    }

    fn left(&mut self) -> Option<Welcome> {
        matches!(self.state, State::Leaving).then(|| self.farewell())
    }
}

/// A response's word and its text.
fn split(line: &[u8]) -> Option<(Word, &[u8])> {
    let (word, rest) = match line {
        [b'+', b'O', b'K', rest @ ..] => (Word::Ok, rest),
        [b'-', b'E', b'R', b'R', rest @ ..] => (Word::Err, rest),
        [b'+', rest @ ..] => (Word::More, rest),
        _ => return None,
    };
    match rest {
        [] => Some((word, rest)),
        [b' ', text @ ..] => Some((word, text)),
        _ => None,
    }
}

fn has_code(text: &[u8], code: &str) -> bool {
    behind(text, code.as_bytes()).is_some()
}

/// Whether USER and PASS can say it: what holds a line end would be two commands.
fn has_syntax(name: &str, password: &Secret) -> bool {
    let is_sound = |bytes: &[u8]| !bytes.iter().any(|b| [0, b'\r', b'\n'].contains(b));
    is_sound(name.as_bytes()) && is_sound(password.expose())
}

/// The names alone, divided by spaces.
fn names(list: &[String]) -> String {
    list.iter().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join(" ")
}
