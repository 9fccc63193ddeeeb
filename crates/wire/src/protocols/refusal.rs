//! Why a client can't have what it wants.

/// Why a client can't have what it wants. The enum is closed: a new reason doesn't compile until it has a text, and a code
/// in every protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong password or unknown user, which no client may tell apart.
    BadCredentials,
    /// The account is disabled; only said after the right password.
    Disabled,
    /// The account or its password has expired; only said after the right password.
    Expired,
    /// Passwords are only taken under TLS.
    TlsRequired,
    /// A limit on connections is reached.
    TooMany,
    /// Too many log-ins failed, from this address or of this user.
    Guessing,
    /// An access rule forbids this address.
    Forbidden,
    /// A directory or back end is out of reach: never the user's fault.
    Unavailable,
    /// Gatepost is stopping.
    ShuttingDown,
    /// The log-in took longer than allowed.
    TimedOut,
    /// The client broke the protocol, or the limits on errors.
    Misbehaved,
}

impl Refusal {
    /// What it is to a person, whatever the protocol.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::BadCredentials => "Authentication failed.",
            Self::Disabled => "This account is disabled.",
            Self::Expired => "This account or its password has expired.",
            Self::TlsRequired => "Passwords are only taken under TLS.",
            Self::TooMany => "Too many connections, try again later.",
            Self::Guessing => "Too many failed log-ins, try again later.",
            Self::Forbidden => "Access from your address is not allowed.",
            Self::Unavailable => "Temporarily unavailable, try again later.",
            Self::ShuttingDown => "The server ends this session.",
            Self::TimedOut => "Log-in took too long.",
            Self::Misbehaved => "Too many errors.",
        }
    }

    /// Whether it counts as a failed log-in.
    pub(crate) const fn counts(self) -> bool {
        matches!(self, Self::BadCredentials | Self::Disabled | Self::Expired | Self::Guessing)
    }
}

/// A protocol's last words to a client outside its log-in, whole lines. They are made once: sessions keep theirs.
pub(crate) struct LastWords {
    too_many: Vec<u8>,
    guessing: Vec<u8>,
    forbidden: Vec<u8>,
    shutting_down: Vec<u8>,
    timed_out: Vec<u8>,
    unavailable: Vec<u8>,
}

impl LastWords {
    pub(crate) fn new(write: impl Fn(Refusal) -> String) -> Self {
        let write = |refusal| write(refusal).into_bytes();
        Self {
            too_many: write(Refusal::TooMany),
            guessing: write(Refusal::Guessing),
            forbidden: write(Refusal::Forbidden),
            shutting_down: write(Refusal::ShuttingDown),
            timed_out: write(Refusal::TimedOut),
            unavailable: write(Refusal::Unavailable),
        }
    }

    /// What only a log-in can be refused for is an outage here.
    pub(crate) fn of(&self, refusal: Refusal) -> &[u8] {
        match refusal {
            Refusal::TooMany => &self.too_many,
            Refusal::Guessing => &self.guessing,
            Refusal::Forbidden => &self.forbidden,
            Refusal::ShuttingDown => &self.shutting_down,
            Refusal::TimedOut => &self.timed_out,
            Refusal::Unavailable
            | Refusal::BadCredentials
            | Refusal::Disabled
            | Refusal::Expired
            | Refusal::TlsRequired
            | Refusal::Misbehaved => &self.unavailable,
        }
    }
}
