//! A session's story: everything worth knowing of it, gathered on its way and written as one record.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost_wire::{Mechanism, Protocol, Refusal};

use crate::config::Level;
use crate::log::{Draft, Field, Logger};
use crate::metrics::Stage;
use crate::net::stream::TlsFacts;

/// See the module's documentation.
pub(crate) struct Story {
    /// Names the session, here and in the back end's log.
    pub(crate) session: SessionId,
    pub(crate) protocol: &'static Protocol,
    pub(crate) listener: Arc<str>,
    pub(crate) client: SocketAddr,
    pub(crate) user: Option<String>,
    pub(crate) mechanism: Option<Mechanism>,
    pub(crate) attempts: u32,
    pub(crate) at: At,
    /// Where it has connections to hand over mail by, or is getting them, the latest last.
    pub(crate) visits: Vec<Arc<str>>,
    pub(crate) tls: Option<TlsFacts>,
    pub(crate) took: Took,
    pub(crate) started: Instant,
    pub(crate) is_logged_in: bool,
}

/// Which back end the latest log-in has led to, or where mail is taken, the latest that was needed.
pub(crate) enum At {
    Nowhere,
    /// It is talked to, or was in vain.
    Tried(Arc<str>),
    In {
        backend: Arc<str>,
        host: SocketAddr,
        tls: Option<TlsFacts>,
    },
}

impl At {
    pub(crate) fn backend(&self) -> Option<&Arc<str>> {
        match self {
            Self::Nowhere => None,
            Self::Tried(backend) | Self::In { backend, .. } => Some(backend),
        }
    }

    pub(crate) fn host(&self) -> Option<SocketAddr> {
        match self {
            Self::Nowhere | Self::Tried(_) => None,
            Self::In { host, .. } => Some(*host),
        }
    }

    pub(crate) fn tls(&self) -> Option<TlsFacts> {
        match self {
            Self::Nowhere | Self::Tried(_) => None,
            Self::In { tls, .. } => *tls,
        }
    }
}

/// How long each stage took; `None`: it was not reached.
#[derive(Debug, Default)]
pub(crate) struct Took([Option<Lap>; Stage::ALL.len()]);

impl Took {
    /// A stage took so long.
    pub(crate) fn note(&mut self, stage: Stage, time: Duration) {
        self.0[stage as usize] = Some(time.into());
    }

    /// Another log-in begins: of the one before nothing is left but the TLS under both.
    fn begin_anew(&mut self) {
        let tls = self.0[Stage::Tls as usize];
        *self = Self::default();
        self.0[Stage::Tls as usize] = tls;
    }
}

/// The field of a session's record that says how long a stage took.
const fn field(stage: Stage) -> &'static str {
    match stage {
        Stage::Tls => "ms_tls",
        Stage::Auth => "ms_auth",
        Stage::Map => "ms_map",
        Stage::Connect => "ms_connect",
        Stage::BackendLogin => "ms_backend_login",
    }
}

/// A time in whole milliseconds, in as few bytes as that takes: a story lives as long as its session.
#[derive(Debug, Clone, Copy)]
struct Lap(NonZeroU32);

impl From<Duration> for Lap {
    fn from(time: Duration) -> Self {
        let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(milliseconds))
    }
}

impl Lap {
    fn milliseconds(self) -> u64 {
        u64::from(self.0.get() - 1)
    }
}

/// A name that no two sessions share, on any node: 80 random bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionId([u8; 16]);

impl SessionId {
    fn new() -> Self {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        thread_local! {
            /// Randomness for the next sessions, got from the kernel for many at a time.
            static RANDOM: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
        }
        let random = RANDOM.with_borrow_mut(|random| {
            if random.is_empty() {
                random.resize(64, [0; 16]);
                // Without randomness sessions would share a name; nothing else depends on it.
                let _ = getrandom::fill(random.as_flattened_mut());
            }
            random.pop().unwrap_or_default()
        });
        Self(random.map(|byte| LETTERS[usize::from(byte % 32)]))
    }

    /// As it is written, in ASCII.
    pub(crate) const fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// As it is written.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// How a session ended.
pub(crate) enum Ended {
    /// It was not admitted.
    TurnedAway(String),
    /// TLS did not come up.
    TlsFailed(String),
    /// The client said goodbye before it was logged in.
    LoggedOut,
    /// It was told this, and that was the end.
    Refused(Refusal),
    /// It was to end, before it was logged in or while it brought mail.
    CalledOff(EndReason),
    /// The client left, or nothing more can be said to it. The text says how.
    Gone(String),
    /// Mail was taken, and this is why no more is.
    Served { why: String, tally: Tally },
    /// It was logged in, and this is how the relay ended.
    Relayed(Outcome),
}

/// What became of mail in a session.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) recipients: u64,
    pub(crate) bytes: u64,
}

/// What a relay did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// From the client to the back end.
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
}

/// One of the two that a session is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Backend,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "the client",
            Self::Backend => "the back end",
        })
    }
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed, this one first.
    Closed { by: Side },
    /// A connection broke.
    Broken { side: Side, kind: io::ErrorKind },
    /// Told to end.
    Told(EndReason),
}

/// Why a session must end though both peers would go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Nothing was said for too long.
    Idle,
    /// Asked to go; to be declined by a session that is in the middle of something.
    Drained,
    /// Gatepost stops now.
    Stopped,
    /// What the session was let in by is over.
    Expired,
    /// An administrator ended it.
    Kicked,
}

impl std::fmt::Display for EndReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle for too long",
            Self::Expired => "its token has expired",
            Self::Drained | Self::Stopped => "asked to go by Gatepost",
            Self::Kicked => "ended by an administrator",
        })
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed { by } => write!(f, "closed by {by}"),
            Self::Broken { side, kind } => write!(f, "the connection to {side} broke: {kind}"),
            Self::Told(reason) => reason.fmt(f),
        }
    }
}

impl Story {
    /// A story begins.
    pub(crate) fn new(protocol: &'static Protocol, listener: &Arc<str>, client: SocketAddr) -> Self {
        Self {
            session: SessionId::new(),
            protocol,
            listener: Arc::clone(listener),
            client,
            user: None,
            mechanism: None,
            attempts: 0,
            at: At::Nowhere,
            visits: Vec::new(),
            tls: None,
            took: Took::default(),
            started: Instant::now(),
            is_logged_in: false,
        }
    }

    /// A log-in begins, as this user if it names one.
    pub(crate) fn attempt(&mut self, mechanism: Mechanism, user: Option<String>) {
        self.attempts += 1;
        self.mechanism = Some(mechanism);
        self.user = user;
        self.at = At::Nowhere;
        self.took.begin_anew();
    }

    /// The log-in succeeded.
    pub(crate) fn logged_in(&mut self) {
        self.is_logged_in = true;
    }

    /// Whether somebody has yet to log in, before it is at any back end.
    pub(crate) fn awaits_log_in(&self) -> bool {
        !self.is_logged_in && self.protocol.course.log_in().is_some()
    }

    /// The back ends that it is at: where mail is handed over, the latest last, or where the user has logged in. One that is
    /// tried for a log-in is none yet.
    pub(crate) fn backends(&self) -> impl DoubleEndedIterator<Item = &str> {
        let place = self.at.backend().filter(|_| self.is_logged_in && self.visits.is_empty());
        self.visits.iter().chain(place).map(|backend| &**backend)
    }

    /// A log-in at this address of ours failed by the user's fault: said at once, for those who watch for guessing.
    pub(crate) fn tell_failure(&self, log: &Logger, local: IpAddr) {
        let seconds = self.started.elapsed().as_secs();
        let message = format!("Aborted login (auth failed, {} attempts in {seconds} secs)", self.attempts);
        let service = self.protocol.login_name;
        let record = log
            .record(Level::Info, service, message)
            .with_some("user", self.user.clone().map(Field::Name))
            .with_some("method", self.mechanism.map(Mechanism::name))
            .with("rip", self.client.ip().to_canonical())
            // CrowdSec's filter for Dovecot wants it there.
            .with("lip", local.to_canonical());
        let record = if self.tls.is_some() { record.with("tls", "yes") } else { record };
        record.with("session", Field::Name(self.session.as_str().to_owned())).write();
    }

    /// Why a log-in came to nothing, for the administrator.
    pub(crate) fn tell_fault(&self, log: &Logger, level: Level, text: &str) {
        log.record(level, self.protocol.name, "a log-in could not be served")
            .with_some("user", self.user.clone().map(Field::Name))
            .with_some("method", self.mechanism.map(Mechanism::name))
            .with("rip", self.client.ip().to_canonical())
            .with_some("backend", self.at.backend().map(|backend| &**backend))
            .with("fault", text)
            .with("session", Field::Name(self.session.as_str().to_owned()))
            .write();
    }

    /// A line of the conversation: at level `protocol`, or because the user is followed.
    pub(crate) fn tell_line(&self, log: &Logger, is_followed: bool, with: &'static str, line: String) {
        let record = if is_followed {
            log.followed_record(self.protocol.name, line)
        } else {
            log.record(Level::Protocol, self.protocol.name, line)
        };
        record.with("with", with).with("session", Field::Name(self.session.as_str().to_owned())).write();
    }

    /// Somebody guesses, or seems to.
    pub(crate) fn tell_guessing(&self, log: &Logger, what: &'static str, times: u64) {
        log.record(Level::Warning, self.protocol.name, what)
            .with_some("user", self.user.clone().map(Field::Name))
            .with("rip", self.client.ip().to_canonical())
            .with("times", times)
            .with("session", Field::Name(self.session.as_str().to_owned()))
            .write();
    }

    /// The session is over: its one record.
    pub(crate) fn finish(&self, log: &Logger, ended: &Ended) {
        if !log.wants(Level::Info) {
            // Nothing is put together that nobody reads.
            return;
        }
        let (result, reason) = self.result(ended);
        let record = log
            .record(Level::Info, self.protocol.name, "session ended")
            .with("session", Field::Name(self.session.as_str().to_owned()))
            .with("listener", &*self.listener)
            .with("rip", self.client.ip().to_canonical())
            .with("rport", u64::from(self.client.port()))
            .with_some("user", self.user.clone().map(Field::Name))
            .with_some("method", self.mechanism.map(Mechanism::name))
            .with_some("backend", self.at.backend().map(|backend| &**backend))
            .with_some("host", self.at.host().map(|host| host.to_string()))
            .with("result", result)
            .with("reason", reason);
        let record = with_tls(record, ["tls", "cipher"], self.tls);
        let mut record = with_tls(record, ["backend_tls", "backend_cipher"], self.at.tls());
        if let Ended::Relayed(outcome) = ended {
            record = record.with("bytes_up", outcome.bytes_up).with("bytes_down", outcome.bytes_down);
        }
        if let Ended::Served { tally: Tally { messages, recipients, bytes }, .. } = ended {
            record = record.with("messages", *messages).with("recipients", *recipients).with("bytes_up", *bytes);
        }
        for (stage, took) in Stage::ALL.into_iter().zip(self.took.0) {
            record = record.with_some(field(stage), took.map(Lap::milliseconds));
        }
        let record = record.with("ms_total", Lap::from(self.started.elapsed()).milliseconds());
        record.write();
    }

    fn result(&self, ended: &Ended) -> (&'static str, String) {
        let before = if self.attempts > 0 { "failed" } else { "no-login" };
        match ended {
            Ended::TurnedAway(why) => ("turned-away", why.clone()),
            Ended::TlsFailed(why) => ("tls-failed", why.clone()),
            Ended::LoggedOut => (before, "the client logged out".into()),
            Ended::Refused(refusal) => (before, format!("{refusal:?}")),
            Ended::CalledOff(reason) => (before, reason.to_string()),
            Ended::Served { why, tally } if tally.messages > 0 => ("mail-taken", why.clone()),
            Ended::Served { why, .. } => ("no-mail", why.clone()),
            Ended::Gone(why) => (if self.is_logged_in { "logged-in" } else { before }, why.clone()),
            Ended::Relayed(outcome) => ("logged-in", outcome.end.to_string()),
        }
    }
}

fn with_tls<'a>(record: Draft<'a>, keys: [&'static str; 2], facts: Option<TlsFacts>) -> Draft<'a> {
    match facts {
        Some(facts) => record.with(keys[0], facts.version()).with(keys[1], facts.cipher()),
        None => record,
    }
}
