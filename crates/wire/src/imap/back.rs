//! The state machine towards an IMAP back end.

use std::collections::VecDeque;

use super::syntax::{capability_list, push_id, response_code};
use crate::conversation::{BackGrammar, LogInLines, Talk, Way, send};
use crate::frame::Framer;
use crate::limits::{
    BACK_LINE_BYTES_MAX, BACK_TALK_BYTES_MAX, CLIENT_ID_BYTES_MAX, ID_PAIRS_MAX, PASSED_TEXT_BYTES_MAX,
};
use crate::protocols::{BackFault, BackLogin, BackSetup, BackStep, ClientFacts, Welcome};
use crate::secret::{Secret, WipedBuffer};
use crate::text::{behind, printable, push_quoted};

/// Our tags, one for each kind of command, so that an answer says what it answers.
const TAG_STARTTLS: &str = "S";
const TAG_CAPABILITY: &str = "C";
const TAG_ID: &str = "I";
const TAG_LOGIN: &str = "L";
const TAG_LOGOUT: &str = "Q";

/// See the module's documentation.
pub(super) struct Back {
    setup: BackSetup,
    /// As whom to log in; `None`: it is only looked at.
    login: Option<BackLogin>,
    talk: Talk,
    state: State,
    /// The capabilities as announced last, on the channel in use now.
    capabilities: Option<String>,
}

/// Where the conversation stands.
enum State {
    Greeting,
    StartTls,
    /// STARTTLS is agreed; TLS comes up elsewhere.
    Securing,
    Capability,
    /// The log-in is sent, but for what waits for the back end's `+`.
    LogIn {
        log_in: LogInLines,
        /// What the client should see of what came meanwhile.
        untagged: Vec<u8>,
    },
    /// Logged in by an answer that names no capabilities.
    Capabilities(Welcome),
    /// It is in order; goodbye is said.
    Leaving,
    Over,
}

/// A response line, taken apart.
enum Response<'a> {
    Continue,
    Untagged(&'a [u8]),
    Tagged { tag: &'a [u8], status: Status, text: &'a [u8] },
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Status {
    Ok,
    No,
    Bad,
}

impl Back {
    pub(super) fn new(setup: BackSetup, login: Option<BackLogin>) -> Self {
        let talk = Talk::new(Framer::new(BACK_LINE_BYTES_MAX, BACK_TALK_BYTES_MAX), setup.trace);
        Self { setup, login, talk, state: State::Greeting, capabilities: None }
    }

    fn greeting(&mut self, line: &[u8], out: &mut Vec<u8>) -> BackStep {
        let Some(text) = line.strip_prefix(b"* OK ") else {
            return BackStep::Fault(BackFault::Greeting(printable(line, PASSED_TEXT_BYTES_MAX)));
        };
        let code = response_code(text);
        let words = code.map_or(text, |code| text[code.len() + 2..].trim_ascii());
        if words == self.setup.own_greeting.as_bytes() {
            return BackStep::Fault(BackFault::Loop);
        }
        self.capabilities = code.and_then(capability_list);
        if self.setup.starttls {
            // The list may come from an attacker, so it is not asked: a back end without STARTTLS says so itself.
            return send(&format!("{TAG_STARTTLS} STARTTLS\r\n"), State::StartTls, &mut self.state, out);
        }
        self.go_on_when_known(out)
    }

    /// Keeps what an untagged response brings: capabilities, and during the log-in what the client should see.
    fn untagged(&mut self, line: &[u8], text: &[u8]) {
        if let Some(list) = capability_list(text) {
            self.capabilities = Some(list);
        } else if let State::LogIn { untagged, .. } | State::Capabilities(Welcome { untagged, .. }) = &mut self.state
            && !starts_with_word(text, b"ID")
        {
            untagged.extend_from_slice(line);
            untagged.extend_from_slice(b"\r\n");
        }
    }

    fn proceed(&mut self, out: &mut Vec<u8>) -> BackStep {
        match &mut self.state {
            State::LogIn { log_in, .. } => log_in.go_on(out),
            _ => BackStep::Fault(BackFault::Protocol("it asks for more than there is to send")),
        }
    }

    fn tagged(&mut self, tag: &[u8], status: Status, text: &[u8], out: &mut Vec<u8>) -> BackStep {
        let expected = |known: &str| tag == known.as_bytes();
        match std::mem::replace(&mut self.state, State::Over) {
            State::StartTls if expected(TAG_STARTTLS) && status == Status::Ok => {
                self.state = State::Securing;
                self.capabilities = None;
                self.talk.begin_tls()
            }
            State::StartTls if expected(TAG_STARTTLS) => BackStep::Fault(BackFault::NoStartTls),
            State::Capability if expected(TAG_CAPABILITY) && self.capabilities.is_some() => self.go_on_when_known(out),
            State::Capability if expected(TAG_CAPABILITY) => {
                BackStep::Fault(BackFault::Protocol("it announces no capabilities"))
            }
            state @ State::LogIn { .. } if expected(TAG_ID) => {
                self.state = state;
                BackStep::Read
            }
            State::LogIn { log_in, .. } if expected(TAG_LOGIN) && status == Status::Ok && !log_in.is_said() => {
                BackStep::Fault(BackFault::Protocol("it answers out of turn"))
            }
            State::LogIn { untagged, .. } if expected(TAG_LOGIN) => self.logged_in(status, text, untagged, out),
            // Some have no BYE.
            State::Leaving if expected(TAG_LOGOUT) => BackStep::Done(Welcome::default()),
            State::Capabilities(mut welcome) if expected(TAG_CAPABILITY) => {
                welcome.capabilities = self.capabilities.take();
                BackStep::Done(welcome)
            }
            _ => BackStep::Fault(BackFault::Protocol("an answer carries a tag that was not asked")),
        }
    }

    fn logged_in(&mut self, status: Status, text: &[u8], untagged: Vec<u8>, out: &mut Vec<u8>) -> BackStep {
        let code = response_code(text);
        let code_word = code.map(|code| code.split(|&b| b == b' ').next().unwrap_or_default().to_ascii_uppercase());
        match (status, code_word.as_deref()) {
            (Status::Ok, _) => {
                let mut words = b"OK ".to_vec();
                words.extend_from_slice(text);
                let announced = code.and_then(capability_list);
                let mut welcome = Welcome { untagged, status: words, capabilities: announced };
                if welcome.capabilities.is_some() {
                    return BackStep::Done(welcome);
                }
                // An untagged list that came within the log-in is as good as one in the code.
                welcome.capabilities = self.capabilities.take();
                if welcome.capabilities.is_some() {
                    return BackStep::Done(welcome);
                }
                send(&format!("{TAG_CAPABILITY} CAPABILITY\r\n"), State::Capabilities(welcome), &mut self.state, out)
            }
            (Status::No, None | Some(b"AUTHENTICATIONFAILED")) => BackStep::BadCredentials,
            (Status::No, Some(b"UNAVAILABLE")) => {
                BackStep::Fault(BackFault::Unavailable(printable(text, PASSED_TEXT_BYTES_MAX)))
            }
            (Status::No, Some(b"PRIVACYREQUIRED")) => BackStep::Fault(BackFault::WantsTls),
            (Status::No, Some(_)) => BackStep::Passed(printable(text, PASSED_TEXT_BYTES_MAX)),
            (Status::Bad, _) => BackStep::Fault(BackFault::NotUnderstood),
        }
    }

    /// Logs in, or leaves, once the capabilities are known.
    fn go_on_when_known(&mut self, out: &mut Vec<u8>) -> BackStep {
        let Some(list) = &self.capabilities else {
            return send(&format!("{TAG_CAPABILITY} CAPABILITY\r\n"), State::Capability, &mut self.state, out);
        };
        let Some(login) = &self.login else {
            return send(&format!("{TAG_LOGOUT} LOGOUT\r\n"), State::Leaving, &mut self.state, out);
        };
        let offers = |name: &str| list.split(' ').any(|word| word.eq_ignore_ascii_case(name));
        let way = Way::choose(login, |way| match way {
            Way::Command { .. } => !offers("LOGINDISABLED"),
            Way::Sasl(sasl) => offers(&format!("AUTH={}", sasl.name())),
        });
        let takes_initial = offers("SASL-IR");
        let unasked = offers("LITERAL+") || offers("LITERAL-");
        let id = if offers("ID") { announcement(&self.setup) } else { Vec::new() };
        let Some(way) = way else { return BackStep::Fault(BackFault::NoMechanism) };
        if !id.is_empty() {
            out.extend_from_slice(format!("{TAG_ID} ID ").as_bytes());
            push_id(&id, out);
            out.extend_from_slice(b"\r\n");
        }
        let lines = match &way {
            Way::Command { name, password } => login_command(name, password, unasked),
            Way::Sasl(sasl) => {
                let command = format!("{TAG_LOGIN} AUTHENTICATE {}", sasl.name());
                sasl.lines(&command, |message| message, |_| takes_initial)
            }
        };
        let log_in = LogInLines::begin(way.token(), lines, out);
        self.talk.note(|| format!("C: {TAG_LOGIN} [struck out]"));
        self.capabilities = None;
        self.state = State::LogIn { log_in, untagged: Vec::new() };
        BackStep::Read
    }
}

impl BackGrammar for Back {
    fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> BackStep {
        if matches!(self.state, State::Greeting) {
            return self.greeting(line, out);
        }
        match parse(line) {
            Some(Response::Untagged(text)) if starts_with_word(text, b"BYE") => {
                if matches!(self.state, State::Leaving) {
                    self.state = State::Over;
                    return BackStep::Done(Welcome::default());
                }
                BackStep::Fault(BackFault::Bye(printable(text, PASSED_TEXT_BYTES_MAX)))
            }
            Some(Response::Untagged(text)) => {
                self.untagged(line, text);
                BackStep::Read
            }
            Some(Response::Continue) => self.proceed(out),
            Some(Response::Tagged { tag, status, text }) => self.tagged(tag, status, text, out),
            None => BackStep::Fault(BackFault::Protocol("a line is no response")),
        }
    }

    fn tls_up(&mut self, out: &mut Vec<u8>) -> BackStep {
        self.go_on_when_known(out)
    }

    fn left(&mut self) -> Option<Welcome> {
        matches!(self.state, State::Leaving).then(Welcome::default)
    }
}

/// What ID tells the back end: what only the proxy can know, then the client's own words. Dovecot takes the `x-` fields
/// from the networks in its `login_trusted_networks`.
fn announcement(setup: &BackSetup) -> Vec<(String, String)> {
    let Some(ClientFacts { addresses, session, .. }) = &setup.client else { return Vec::new() };
    let mut pairs = Vec::new();
    if let Some((client, local)) = addresses {
        let fields = [
            ("x-originating-ip", client.ip().to_canonical().to_string()),
            ("x-originating-port", client.port().to_string()),
            ("x-connected-ip", local.ip().to_canonical().to_string()),
            ("x-connected-port", local.port().to_string()),
        ];
        pairs.extend(fields.map(|(key, value)| (key.to_owned(), value)));
    }
    pairs.push(("x-session-id".to_owned(), session.clone()));
    // The client's own words get what room is left (RFC 2971, section 3.3: at most 30 pairs). Beyond ASCII they would have to
    // be literals, and a back end that takes them amiss takes the whole ID amiss.
    let mut bytes = 0;
    let fits = |(key, value): &&(String, String)| {
        bytes += key.len() + value.len();
        bytes <= CLIENT_ID_BYTES_MAX
    };
    let room = ID_PAIRS_MAX - pairs.len();
    let is_plain = |(key, value): &&(String, String)| key.is_ascii() && value.is_ascii();
    pairs.extend(setup.introduction.id.iter().filter(is_plain).take(room).take_while(fits).cloned());
    pairs
}

/// The LOGIN command; `unasked`: the back end takes literals without agreeing to each.
fn login_command(name: &str, password: &Secret, unasked: bool) -> VecDeque<Secret> {
    let mut lines = VecDeque::new();
    let mut line = WipedBuffer::default();
    line.extend(format!("{TAG_LOGIN} LOGIN ").as_bytes());
    push_astring(name.as_bytes(), unasked, &mut line, &mut lines);
    line.extend(b" ");
    push_astring(password.expose(), unasked, &mut line, &mut lines);
    line.extend(b"\r\n");
    lines.push_back(Secret::new(line.take()));
    lines
}

/// Appends an astring to the line: quoted where it can be, else a literal. A literal that the back end
/// must first agree to ends the line, and the rest of the command becomes a further line.
fn push_astring(text: &[u8], unasked: bool, line: &mut WipedBuffer, lines: &mut VecDeque<Secret>) {
    if text.iter().all(|&b| b.is_ascii() && !b.is_ascii_control()) {
        let mut quoted = Vec::with_capacity(text.len() * 2 + 2);
        push_quoted(text, &mut quoted);
        line.extend(Secret::new(quoted).expose());
        return;
    }
    // LITERAL- ends at 4,096 bytes, and longer passwords don't come this far.
    let sign = if unasked { "+" } else { "" };
    line.extend(format!("{{{}{sign}}}\r\n", text.len()).as_bytes());
    if !unasked {
        lines.push_back(Secret::new(line.take()));
    }
    line.extend(text);
}

fn parse(line: &[u8]) -> Option<Response<'_>> {
    if line.first() == Some(&b'+') {
        return Some(Response::Continue);
    }
    if let Some(text) = line.strip_prefix(b"* ") {
        return Some(Response::Untagged(text));
    }
    let space = line.iter().position(|&b| b == b' ')?;
    let (tag, text) = (&line[..space], &line[space + 1..]);
    let end = text.iter().position(|&b| b == b' ').unwrap_or(text.len());
    let status = match text[..end].to_ascii_uppercase().as_slice() {
        b"OK" => Status::Ok,
        b"NO" => Status::No,
        b"BAD" => Status::Bad,
        _ => return None,
    };
    Some(Response::Tagged { tag, status, text: text.get(end + 1..).unwrap_or_default() })
}

fn starts_with_word(text: &[u8], word: &[u8]) -> bool {
    behind(text, word).is_some_and(|rest| rest.first().is_none_or(|&b| b == b' '))
}
