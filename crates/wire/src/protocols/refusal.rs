//! Why a client can't have what it wants.

/// Why a client can't have what it wants. The enum is closed: a new reason doesn't compile until every
/// protocol has words for it.
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
    /// Whether it counts as a failed log-in.
    pub const fn counts(self) -> bool {
        matches!(self, Self::BadCredentials | Self::Disabled | Self::Expired | Self::Guessing)
    }
}
