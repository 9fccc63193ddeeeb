//! The state machine towards a `ManageSieve` back end.

use crate::conversation::{BackGrammar, LogInLines, Sasl, Talk, send};
use crate::cursor::Cursor;
use crate::frame::Framer;
use crate::limits::{BACK_LINE_BYTES_MAX, BACK_TALK_BYTES_MAX, PASSED_TEXT_BYTES_MAX, SIEVE_QUOTED_BYTES_MAX};
use crate::protocols::{BackFault, BackLogin, BackSetup, BackStep, Welcome};
use crate::secret::Secret;
use crate::text::{begins_with_any, printable, quote};

/// See the module's documentation.
pub(super) struct Back {
    setup: BackSetup,
    /// As whom to log in; `None`: it is only looked at.
    login: Option<BackLogin>,
    talk: Talk,
    state: State,
    /// What it can do, name and value, on the channel in use now.
    capabilities: Vec<(String, String)>,
}

/// Where the conversation stands.
enum State {
    /// Its capabilities are coming, with the greeting or behind TLS.
    Capabilities {
        is_greeting: bool,
    },
    StartTls,
    /// STARTTLS is agreed; TLS comes up elsewhere.
    Securing,
    Xclient,
    /// The log-in is sent, but for what waits for a challenge.
    LogIn(LogInLines),
    Leaving,
    Over,
}

/// A line, taken apart.
enum Line {
    /// A string, perhaps with another: a capability, or a challenge.
    Strings(String, Option<String>),
    Response {
        word: Word,
        /// With its brackets; empty: none.
        code: String,
        text: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Ok,
    No,
    Bye,
}

impl Back {
    pub(super) fn new(setup: BackSetup, login: Option<BackLogin>) -> Self {
        let talk = Talk::new(Framer::new(BACK_LINE_BYTES_MAX, BACK_TALK_BYTES_MAX), setup.trace);
        Self { setup, login, talk, state: State::Capabilities { is_greeting: true }, capabilities: Vec::new() }
    }

    /// Strings stand alone as capabilities, and as challenges.
    fn strings(&mut self, name: &str, value: Option<String>, out: &mut Vec<u8>) -> BackStep {
        match &mut self.state {
            State::Capabilities { .. } => {
                self.capabilities.push((name.to_ascii_uppercase(), value.unwrap_or_default()));
                BackStep::Read
            }
            State::LogIn(log_in) => log_in.go_on(out),
            // What a server says of itself after XCLIENT or with its goodbye is nothing to us.
            State::Xclient | State::Leaving => BackStep::Read,
            State::StartTls | State::Securing | State::Over => {
                BackStep::Fault(BackFault::Protocol("it speaks out of turn"))
            }
        }
    }

    fn greeting(&mut self, text: &str, out: &mut Vec<u8>) -> BackStep {
        if text.trim_end() == self.setup.own_greeting {
            return BackStep::Fault(BackFault::Loop);
        }
        if self.setup.starttls {
            // What it can do may come from an attacker: a back end without STARTTLS says so itself.
            return send("STARTTLS\r\n", State::StartTls, &mut self.state, out);
        }
        self.introduce(out)
    }

    /// Says on whose behalf we come, where the back end wants to know.
    fn introduce(&mut self, out: &mut Vec<u8>) -> BackStep {
        match &self.setup.client {
            Some(facts) if self.capability("XCLIENT").is_some() => {
                send(&facts.xclient(), State::Xclient, &mut self.state, out)
            }
            _ => self.log_in(out),
        }
    }

    /// What a look at it leaves.
    fn farewell(&mut self) -> Welcome {
        let capabilities = self.capability("SIEVE").map(str::to_owned);
        Welcome { capabilities, ..Welcome::default() }
    }

    /// Logs in, or leaves.
    fn log_in(&mut self, out: &mut Vec<u8>) -> BackStep {
        let Some(login) = &self.login else { return send("LOGOUT\r\n", State::Leaving, &mut self.state, out) };
        let offered = self.capability("SASL").unwrap_or_default();
        let takes = |sasl: &Sasl<'_>| offered.split(' ').any(|name| name.eq_ignore_ascii_case(sasl.name()));
        let Some(sasl) = Sasl::choose(login, takes) else { return BackStep::Fault(BackFault::NoMechanism) };
        let command = format!("AUTHENTICATE \"{}\"", sasl.name());
        let lines = sasl.lines(&command, |message| Secret::new(string(message.expose())), |_| true);
        self.talk.note(|| format!("C: AUTHENTICATE {} [struck out]", sasl.name()));
        self.state = State::LogIn(LogInLines::begin(sasl.token(), lines, out).dismissing(string));
        BackStep::Read
    }

    fn capability(&self, name: &str) -> Option<&str> {
        self.capabilities.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Base64 as a string, which is quoted unless it is too long for that.
fn string(base64: &[u8]) -> Vec<u8> {
    if base64.len() > SIEVE_QUOTED_BYTES_MAX {
        return [format!("{{{}+}}\r\n", base64.len()).as_bytes(), base64].concat();
    }
    [b"\"", base64, b"\""].concat()
}

impl BackGrammar for Back {
    fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> BackStep {
        let Some(parsed) = parse(line) else {
            return BackStep::Fault(match self.state {
                State::Capabilities { is_greeting: true } => {
                    BackFault::Greeting(printable(line, PASSED_TEXT_BYTES_MAX))
                }
                _ => BackFault::Protocol("a line is no response"),
            });
        };
        let (word, code, text) = match parsed {
            Line::Strings(name, value) => return self.strings(&name, value, out),
            Line::Response { word, code, text } => (word, code, text),
        };
        let said = || printable(format!("{code} {text}").trim().as_bytes(), PASSED_TEXT_BYTES_MAX);
        let comes_later = code.to_ascii_uppercase().starts_with("(TRYLATER");
        match (std::mem::replace(&mut self.state, State::Over), word) {
            (State::Leaving, _) => BackStep::Done(self.farewell()),
            (State::Capabilities { is_greeting: true }, Word::Ok) => self.greeting(&text, out),
            (State::Capabilities { is_greeting: false }, Word::Ok) => self.introduce(out),
            (State::StartTls, Word::Ok) => {
                self.state = State::Securing;
                self.capabilities.clear();
                self.talk.begin_tls()
            }
            (State::StartTls, Word::No) => BackStep::Fault(BackFault::NoStartTls),
            // Whether or not it believes us.
            (State::Xclient, Word::Ok | Word::No) => self.log_in(out),
            (State::LogIn(log_in), Word::Ok) if log_in.is_said() => {
                let sieve = self.capability("SIEVE").map(str::to_owned);
                BackStep::Done(Welcome { untagged: Vec::new(), status: line.to_vec(), capabilities: sieve })
            }
            (State::LogIn(_), Word::No) if !comes_later && code.is_empty() => BackStep::BadCredentials,
            (State::LogIn(_), Word::No) if begins_with_any(&code, &["(ENCRYPT-NEEDED"]) => {
                BackStep::Fault(BackFault::WantsTls)
            }
            (State::LogIn(_), Word::No) if !comes_later => {
                let code = printable(code.as_bytes(), PASSED_TEXT_BYTES_MAX);
                BackStep::Passed(format!("{code} {}", quote(&printable(text.as_bytes(), PASSED_TEXT_BYTES_MAX))))
            }
            (_, Word::No | Word::Bye) if comes_later => BackStep::Fault(BackFault::Unavailable(said())),
            (State::Capabilities { .. }, _) => BackStep::Fault(BackFault::Greeting(said())),
            (_, Word::Bye) => BackStep::Fault(BackFault::Bye(said())),
            (State::Securing | State::Over, _) | (State::LogIn(_), Word::Ok | Word::No) => {
                BackStep::Fault(BackFault::Protocol("it speaks out of turn"))
            }
        }
    }

    /// It says again unasked what it can do (RFC 5804, section 2.2).
    fn tls_up(&mut self, _out: &mut Vec<u8>) -> BackStep {
        self.state = State::Capabilities { is_greeting: false };
        BackStep::Read
    }

    fn left(&mut self) -> Option<Welcome> {
        matches!(self.state, State::Leaving).then(|| self.farewell())
    }
}

/// A response or strings (RFC 5804, sections 1.2 and 4).
fn parse(line: &[u8]) -> Option<Line> {
    let mut cursor = Cursor::new(line);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if matches!(line.first(), Some(b'"' | b'{')) {
        let first = text(cursor.string()?);
        if cursor.rest().is_empty() {
            return Some(Line::Strings(first, None));
        }
        cursor.expect(b" ")?;
        let second = text(cursor.string()?);
        cursor.end()?;
        return Some(Line::Strings(first, Some(second)));
    }
    let word = match cursor.word()?.as_str() {
        "OK" => Word::Ok,
        "NO" => Word::No,
        "BYE" => Word::Bye,
        _ => return None,
    };
    let mut rest = cursor.rest().strip_prefix(b" ").unwrap_or(cursor.rest());
    let mut code = String::new();
    if rest.starts_with(b"(") {
        let end = rest.iter().position(|&b| b == b')')?;
        code = String::from_utf8_lossy(&rest[..=end]).into_owned();
        rest = rest[end + 1..].strip_prefix(b" ").unwrap_or(&rest[end + 1..]);
    }
    let mut cursor = Cursor::new(rest);
    let text = if rest.is_empty() { String::new() } else { text(cursor.string()?) };
    cursor.end()?;
    Some(Line::Response { word, code, text })
}
