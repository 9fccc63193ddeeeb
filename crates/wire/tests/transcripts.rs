//! Replays the conversations in `src/*/transcripts` (of SMTP's family, `src/smtp/transcripts/*`): whole, a byte at a time, and cut at every point.
//!
//! A transcript begins with `front` or `back` and settings as `key=value`. Then, a line each:
//! `C:` and `S:` what client and server say (`C>` and `S>` without a line end; `\r \n \0 \xNN` are
//! bytes), `=` the step that follows, `!` what the outside answers, `~` what is left for the relay, or of a chunk.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use gatepost_wire::smtp::{self, Dialect, Receiver, Reply};
use gatepost_wire::{
    Answer, Ask, BackEvent, BackLogin, BackSetup, BackStep, Carry, ClientFacts, ClientSetup, ClientTls, Course, Event,
    Introduction, LogInBy, LogInRules, Mechanism, OAuthHints, Offered, Offers, PROTOCOLS, Protocol, Refusal, Secret,
    Step, Welcome,
};

/// How a transcript's input is cut into pieces.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Bytes,
    /// All of it whole, but for one cut at this offset of all input.
    At(usize),
}

/// A state machine with what it said since it was last asked.
trait Machine {
    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> String;
    fn outside(&mut self, words: &str, out: &mut Vec<u8>) -> String;
    /// What is left for the relay, or of a chunk of this size.
    fn rest(&mut self, chunk: Option<usize>) -> Vec<u8>;
}

struct Front {
    protocol: &'static Protocol,
    machine: Box<dyn gatepost_wire::Front>,
    setup: ClientSetup,
    rules: LogInRules,
}

fn shown(secret: &Secret) -> Cow<'_, str> {
    String::from_utf8_lossy(secret.expose())
}

impl Front {
    fn describe(step: &Step) -> String {
        match step {
            Step::Read => "read".into(),
            Step::StartTls => "starttls".into(),
            Step::Through => "through".into(),
            Step::Close(outcome) => format!("close {outcome:?}"),
            Step::Ask(Ask::Reply(message)) => format!("reply {:?}", shown(message)),
            Step::Ask(Ask::Begin(offered)) => match offered {
                Offered::Password(by, None) => format!("malformed {}", Mechanism::Password(*by).name()),
                Offered::Token(by, None) => format!("malformed {}", Mechanism::Token(*by).name()),
                Offered::External(message) => format!("exchange {} {:?}", Mechanism::External.name(), shown(message)),
                Offered::Scram(by, message) => {
                    format!("exchange {} {:?}", Mechanism::Scram(*by).name(), shown(message))
                }
                Offered::Password(by, Some((user, password))) => {
                    format!("ask {} {user:?} {:?}", Mechanism::Password(*by).name(), shown(password))
                }
                Offered::Token(by, Some((user, token))) => {
                    let user = user.as_deref().unwrap_or_default();
                    format!("ask {} {user:?} {:?}", Mechanism::Token(*by).name(), shown(token))
                }
            },
        }
    }
}

impl Machine for Front {
    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> String {
        Self::describe(&self.machine.step(Event::Input(bytes), out))
    }

    fn outside(&mut self, words: &str, out: &mut Vec<u8>) -> String {
        let (kind, rest) = words.split_once(' ').unwrap_or((words, ""));
        let event = match kind {
            "start" => Event::Start,
            "welcome" => {
                let (status, capabilities) = rest.split_once(" | ").unwrap_or((rest, ""));
                Event::Answer(Answer::Welcome(Welcome {
                    untagged: Vec::new(),
                    status: status.into(),
                    capabilities: Some(capabilities.to_owned()).filter(|list| !list.is_empty()),
                }))
            }
            "challenge" => Event::Answer(Answer::Challenge(unescape(rest))),
            "refused" => Event::Answer(Answer::Refused(refusal(rest))),
            "passed" => Event::Answer(Answer::Passed(rest.to_owned())),
            "close" => Event::Close(refusal(rest)),
            "tls" => {
                let carry = self.machine.carry();
                let setup = ClientSetup { tls: ClientTls::Up, carry, ..self.setup.clone() };
                let rules = LogInRules { takes_secrets: true, ..self.rules.clone() };
                self.machine = (self.protocol.course.log_in().expect("a log-in").front)(setup, rules);
                Event::TlsUp
            }
            _ => panic!("! {words}"),
        };
        Self::describe(&self.machine.step(event, out))
    }

    fn rest(&mut self, _chunk: Option<usize>) -> Vec<u8> {
        self.machine.take_rest()
    }
}

/// A receiver of mail. Its questions are answered by `! reply CODE TEXT`, and in the end by `! outcome CODE TEXT | …`.
struct Mail {
    protocol: &'static Protocol,
    dialect: Dialect,
    is_strict: bool,
    machine: Receiver,
    setup: ClientSetup,
}

impl Mail {
    fn describe(step: &smtp::Step) -> String {
        match step {
            smtp::Step::Read => "read".into(),
            smtp::Step::StartTls => "starttls".into(),
            smtp::Step::Sender(sender) => {
                let name = sender.mailbox.as_ref().map(smtp::Mailbox::name).unwrap_or_default();
                let said = sender.command(|_| true).expect("all that it wants");
                format!("sender {name:?} {}", said.strip_prefix("MAIL FROM:").expect("MAIL"))
            }
            smtp::Step::Recipient(recipient) => {
                let said = recipient.command(|_| true).expect("all that it wants");
                format!("recipient {:?} {}", recipient.mailbox.name(), said.strip_prefix("RCPT TO:").expect("RCPT"))
            }
            smtp::Step::Content => "content".into(),
            smtp::Step::Chunk(chunk) => {
                format!("chunk {}{}", chunk.size, if chunk.is_last { " LAST" } else { "" })
            }
            smtp::Step::Reset => "reset".into(),
            smtp::Step::Close(outcome) => format!("close {outcome:?}"),
        }
    }

    fn reply(text: &str) -> Reply {
        let (code, text) = text.split_once(' ').expect("a code and a text");
        Reply::ours(code.parse().expect("a code"), text)
    }
}

impl Machine for Mail {
    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> String {
        Self::describe(&self.machine.step(smtp::Event::Input(bytes), out))
    }

    fn outside(&mut self, words: &str, out: &mut Vec<u8>) -> String {
        let (kind, rest) = words.split_once(' ').unwrap_or((words, ""));
        let event = match kind {
            "start" => smtp::Event::Start,
            "reply" => smtp::Event::Reply(Self::reply(rest)),
            "outcome" => smtp::Event::Outcome(rest.split(" | ").map(Self::reply).collect()),
            "done" => smtp::Event::Done,
            "close" => smtp::Event::Close(refusal(rest)),
            "tls" => {
                let setup = ClientSetup { tls: ClientTls::Up, carry: self.machine.carry(), ..self.setup.clone() };
                self.machine = Receiver::new(self.protocol, self.dialect, self.is_strict, setup);
                smtp::Event::Go
            }
            _ => panic!("! {words}"),
        };
        Self::describe(&self.machine.step(event, out))
    }

    fn rest(&mut self, chunk: Option<usize>) -> Vec<u8> {
        self.machine.take_content(chunk.unwrap_or(usize::MAX) as u64)
    }
}

fn refusal(name: &str) -> Refusal {
    use Refusal::{BadCredentials, Disabled, Expired, Forbidden, ShuttingDown, TimedOut, TooMany, Unavailable};
    let all = [BadCredentials, Disabled, Expired, TooMany, Forbidden, Unavailable, ShuttingDown, TimedOut];
    all.into_iter().find(|refusal| format!("{refusal:?}") == name).unwrap_or_else(|| panic!("no refusal {name:?}"))
}

struct Back(Box<dyn gatepost_wire::Back>);

impl Back {
    fn describe(step: BackStep) -> String {
        match step {
            BackStep::Read => "read".into(),
            BackStep::StartTls => "starttls".into(),
            BackStep::BadCredentials => "bad credentials".into(),
            BackStep::Passed(text) => format!("passed {text}"),
            BackStep::Fault(fault) => format!("fault {fault:?}"),
            BackStep::Done(welcome) => format!(
                "done {:?} | {} | {:?}",
                String::from_utf8_lossy(&welcome.status),
                welcome.capabilities.unwrap_or_default(),
                String::from_utf8_lossy(&welcome.untagged)
            ),
        }
    }
}

impl Machine for Back {
    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> String {
        Self::describe(self.0.step(BackEvent::Input(bytes), out))
    }

    fn outside(&mut self, words: &str, out: &mut Vec<u8>) -> String {
        let event = match words {
            "tls" => BackEvent::TlsUp,
            "closed" => BackEvent::Closed,
            _ => panic!("! {words}"),
        };
        Self::describe(self.0.step(event, out))
    }

    fn rest(&mut self, _chunk: Option<usize>) -> Vec<u8> {
        self.0.take_rest()
    }
}

/// Builds the machine that a transcript's first line describes.
fn machine(protocol: &'static Protocol, head: &str) -> Box<dyn Machine> {
    let mut words = head.split(' ');
    let kind = words.next().expect("a first word");
    let settings: Vec<(&str, &str)> = words.map(|word| word.split_once('=').expect("key=value")).collect();
    let get = |key: &str| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    if kind == "back" {
        let password = Secret::new(unescape(get("password").unwrap_or("secret")));
        let by = match (get("master"), get("token")) {
            (Some(name), _) => LogInBy::Master { name: name.to_owned(), password },
            (None, Some(token)) => LogInBy::Token(Secret::new(unescape(token))),
            (None, None) => LogInBy::Password(password),
        };
        let mechanism = get("mechanism")
            .map(|name| if name == "command" { Mechanism::COMMAND } else { mechanisms(name).remove(0) });
        let login = BackLogin { user: text(get("user").unwrap_or("kim")), by, mechanism };
        let setup = BackSetup {
            starttls: get("starttls") == Some("yes"),
            client: get("id").map(|session| ClientFacts {
                addresses: get("client")
                    .map(|client| (client.parse().expect("an address"), "192.0.2.9:110".parse().expect("an address"))),
                session: session.to_owned(),
                name: get("name").map(str::to_owned),
            }),
            introduction: Introduction {
                id: Vec::new(),
                utf8: get("utf8") == Some("yes"),
                helo: get("helo").map(text),
            },
            own_greeting: "mail.example.org Gatepost ready.".into(),
            trace: false,
        };
        return Box::new(Back(match (get("aim"), protocol.course) {
            (Some("look"), _) => (protocol.look)(setup),
            (None, Course::Mail(dialect)) => dialect.back(setup),
            (None, Course::LogIn(machines) | Course::Submission(machines)) => (machines.back)(setup, login),
            (Some(aim), _) => panic!("there is no aim {aim:?}"),
        }));
    }
    let number = |key, default| NonZeroU32::new(get(key).map_or(default, |n| n.parse().expect("a number")));
    let tls = match get("tls") {
        Some("offered") => ClientTls::Offered,
        Some("up") => ClientTls::Up,
        _ => ClientTls::Never,
    };
    let setup = ClientSetup {
        name: "mail.example.org".into(),
        greeting: "Gatepost ready.".into(),
        tls,
        offers: Offers::of(protocol, &get("backends").unwrap_or_default().replace(',', " ")),
        max_errors: number("max_errors", 10),
        carry: Carry::default(),
        trace: false,
    };
    let rules = LogInRules {
        takes_secrets: get("takes_secrets") != Some("no"),
        has_password_command: get("has_password_command") != Some("no"),
        mechanisms: mechanisms(get("mechanisms").unwrap_or("PLAIN,LOGIN")),
        oauth: OAuthHints { scope: get("scope").map(text), configuration: get("configuration").map(text) },
        id: get("id") != Some("no"),
        max_auth_errors: number("max_auth_errors", 3),
    };
    match protocol.course {
        Course::LogIn(machines) | Course::Submission(machines) if get("after") != Some("log-in") => {
            Box::new(Front { protocol, machine: (machines.front)(setup.clone(), rules.clone()), setup, rules })
        }
        Course::LogIn(_) | Course::Submission(_) => {
            let helo = get("helo").map(text);
            let offers = Receiver::carries(protocol, setup.offers);
            let machine = Receiver::after_log_in(protocol, helo, ClientSetup { offers, ..setup.clone() });
            Box::new(Mail { protocol, dialect: Dialect::Smtp, is_strict: false, machine, setup })
        }
        Course::Mail(dialect) => {
            let is_strict = get("strict") == Some("yes");
            let offers = Receiver::carries(protocol, setup.offers);
            let setup = ClientSetup { offers, ..setup };
            let machine = Receiver::new(protocol, dialect, is_strict, setup.clone());
            Box::new(Mail { protocol, dialect, is_strict, machine, setup })
        }
    }
}

fn mechanisms(list: &str) -> Vec<Mechanism> {
    let known = |name: &str| Mechanism::named(name.as_bytes()).expect("a mechanism");
    list.split(',').map(known).collect()
}

fn text(escaped: &str) -> String {
    String::from_utf8(unescape(escaped)).expect("UTF-8")
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let (value, used) = match (byte, rest) {
            (b'\\', [b'r', ..]) => (b'\r', 1),
            (b'\\', [b'n', ..]) => (b'\n', 1),
            (b'\\', [b'0', ..]) => (0, 1),
            (b'\\', [b's', ..]) => (b' ', 1),
            (b'\\', [b'\\', ..]) => (b'\\', 1),
            (b'\\', [b'x', digits @ ..]) => {
                let digits = std::str::from_utf8(&digits[..2]).expect("two digits");
                (u8::from_str_radix(digits, 16).expect("two digits"), 3)
            }
            _ => (byte, 0),
        };
        bytes.push(value);
        rest = &rest[used..];
    }
    bytes
}

/// Replays one transcript; gives the number of input bytes.
fn replay(protocol: &'static Protocol, script: &str, cut: Cut) -> usize {
    let mut lines = script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
    let head = lines.next().expect("a first line");
    let (hears, says) = if head.starts_with("back") { ('S', 'C') } else { ('C', 'S') };
    let mut machine = machine(protocol, head);
    let mut step = String::from("read");
    let mut out = Vec::new();
    let mut offset = 0;
    let mut unread = VecDeque::new();
    if says == 'S' && !head.contains(" after=log-in") {
        step = machine.outside("start", &mut out);
    }
    while let Some(line) = lines.next() {
        let (mark, rest) = line.split_at(1);
        let payload = |rest: &str| {
            let mut bytes = unescape(rest[1..].strip_prefix(' ').unwrap_or(&rest[1..]));
            if rest.starts_with(':') {
                bytes.extend_from_slice(b"\r\n");
            }
            bytes
        };
        match mark.chars().next().expect("a mark") {
            mark if mark == hears => {
                let mut input = payload(rest);
                while lines.peek().is_some_and(|next| next.starts_with(hears)) {
                    input.extend(payload(&lines.next().expect("a peeked line")[1..]));
                }
                let pieces: Vec<&[u8]> = match cut {
                    Cut::Whole => vec![&input],
                    Cut::Bytes => input.chunks(1).collect(),
                    Cut::At(at) if at > offset && at < offset + input.len() => {
                        let (a, b) = input.split_at(at - offset);
                        vec![a, b]
                    }
                    Cut::At(_) => vec![&input],
                };
                offset += input.len();
                unread.extend(pieces.into_iter().map(<[u8]>::to_vec));
                listen(&mut *machine, &mut unread, &mut step, &mut out);
            }
            mark if mark == says => {
                let expected = payload(rest);
                let heard = out.drain(..expected.len().min(out.len())).collect::<Vec<_>>();
                assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(&expected), "{cut:?}, at {line:?}");
            }
            '=' => {
                assert_eq!(step, rest.trim_start(), "{cut:?}, at {line:?}");
                assert!(out.is_empty(), "{cut:?}, at {line:?}: also said {:?}", String::from_utf8_lossy(&out));
            }
            '!' => {
                if rest.trim_start() == "tls" {
                    // What came in clear and was not read is TLS' to choke on.
                    unread.clear();
                }
                step = machine.outside(rest.trim_start(), &mut out);
                listen(&mut *machine, &mut unread, &mut step, &mut out);
            }
            '~' => {
                let size = step.strip_prefix("chunk ").and_then(|step| step.split(' ').next()?.parse().ok());
                let mut left = machine.rest(size);
                while size.is_none_or(|size| left.len() < size)
                    && let Some(piece) = unread.pop_front()
                {
                    left.extend(piece);
                }
                if let Some(size) = size.filter(|size| *size < left.len()) {
                    unread.push_front(left.split_off(size));
                }
                assert_eq!(
                    String::from_utf8_lossy(&left),
                    String::from_utf8_lossy(&payload(rest)),
                    "{cut:?}, at {line:?}"
                );
            }
            _ => panic!("{line:?} is no line of a transcript"),
        }
    }
    assert!(out.is_empty(), "{cut:?}: also said {:?}", String::from_utf8_lossy(&out));
    offset
}

/// Feeds what was received. While the machine waits for something else, the rest stays in the socket.
fn listen(machine: &mut dyn Machine, unread: &mut VecDeque<Vec<u8>>, step: &mut String, out: &mut Vec<u8>) {
    while step == "read"
        && let Some(piece) = unread.pop_front()
    {
        *step = machine.input(&piece, out);
    }
}

fn transcripts() -> Vec<(&'static Protocol, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for protocol in PROTOCOLS {
        let own = folder.join(protocol.name).join("transcripts");
        let in_family = folder.join("smtp/transcripts").join(protocol.name);
        let entries = std::fs::read_dir(&in_family).or_else(|_| std::fs::read_dir(own)).expect("transcripts");
        let mut found: Vec<_> = entries.map(|entry| (protocol, entry.expect("an entry").path())).collect();
        assert!(!found.is_empty(), "{} has no transcript", protocol.name);
        found.sort_by(|(_, a), (_, b)| a.cmp(b));
        files.append(&mut found);
    }
    files
}

fn replay_all(cuts: impl Fn(usize) -> Vec<Cut>) {
    let mut replayed = 0;
    for (protocol, path) in transcripts() {
        let script = std::fs::read_to_string(&path).expect("a transcript");
        for part in script.split("\n---\n") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let length = std::panic::catch_unwind(|| replay(protocol, part, Cut::Whole))
                .unwrap_or_else(|_| panic!("in {name}:\n{part}"));
            for cut in cuts(length) {
                std::panic::catch_unwind(|| replay(protocol, part, cut))
                    .unwrap_or_else(|_| panic!("in {name}, {cut:?}:\n{part}"));
            }
            replayed += 1;
        }
    }
    assert!(replayed > 30, "only {replayed} conversations");
}

#[test]
fn conversations_whole() {
    replay_all(|_| Vec::new());
}

#[test]
fn conversations_a_byte_at_a_time() {
    replay_all(|_| vec![Cut::Bytes]);
}

#[test]
fn conversations_cut_at_every_point() {
    replay_all(|length| (1..length).map(Cut::At).collect());
}
