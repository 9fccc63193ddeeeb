//! Why a user is not in, and what that is to each who hears of it: the client, the defence, the metrics.

use gatepost_wire::{Answer, Protocol, Refusal};

use crate::auth::Unanswered;
use crate::metrics::LogIn;

/// The user is not in.
pub(super) enum Denied {
    /// Wrong credentials, or nobody's: the client can't tell them apart.
    Wrong,
    /// As [`Denied::Wrong`] to the client, but the configuration is why; the text is for the log.
    Unfit(String),
    /// The account is disabled, or not for this service.
    Disabled,
    /// The account, or its password, has expired.
    Expired,
    /// Too many log-ins have failed before this one.
    Guessing,
    /// The back end's own words.
    Passed(String),
    /// A directory names a place that can't be used, or nothing can be told the back end there; the text is for the log.
    Misplaced(String),
    /// The back end has as many connections as it may; the text is for the log.
    Full(String),
    /// Something that is needed is out of order; the text is for the log.
    Unavailable(String),
    /// The session must end: Gatepost stops, or an administrator said so.
    Stopping,
    /// The client is gone.
    Left,
}

impl Denied {
    /// Whether this log-in is one that failed by the client's fault, of which only so many are allowed.
    pub(super) fn is_failure(&self, protocol: &Protocol) -> bool {
        match self {
            Self::Wrong | Self::Unfit(_) => true,
            Self::Passed(text) => (protocol.passed_counts)(text),
            Self::Disabled
            | Self::Expired
            | Self::Guessing
            | Self::Misplaced(_)
            | Self::Full(_)
            | Self::Unavailable(_)
            | Self::Stopping
            | Self::Left => false,
        }
    }

    /// Whether the client is told that its credentials are wrong, by Gatepost alone.
    pub(super) fn looks_wrong(&self) -> bool {
        matches!(self, Self::Wrong | Self::Unfit(_))
    }

    /// What it is counted as; `None`: it was no log-in that came to an end.
    pub(super) fn counted_as(&self) -> Option<LogIn> {
        match self {
            Self::Wrong | Self::Unfit(_) | Self::Disabled | Self::Expired | Self::Passed(_) => Some(LogIn::Denied),
            Self::Guessing => Some(LogIn::Guessing),
            Self::Full(_) => Some(LogIn::Limit),
            Self::Misplaced(_) | Self::Unavailable(_) => Some(LogIn::Unavailable),
            Self::Stopping | Self::Left => None,
        }
    }

    /// What the client is told; `None`: it is gone.
    pub(super) fn answer(self) -> Option<Answer> {
        Some(Answer::Refused(match self {
            Self::Wrong | Self::Unfit(_) => Refusal::BadCredentials,
            Self::Disabled => Refusal::Disabled,
            Self::Expired => Refusal::Expired,
            Self::Guessing => Refusal::Guessing,
            Self::Full(_) => Refusal::TooMany,
            Self::Misplaced(_) | Self::Unavailable(_) => Refusal::Unavailable,
            Self::Stopping => Refusal::ShuttingDown,
            Self::Passed(text) => return Some(Answer::Passed(text)),
            Self::Left => return None,
        }))
    }
}

impl From<Unanswered> for Denied {
    fn from(unanswered: Unanswered) -> Self {
        Self::Unavailable(unanswered.to_string())
    }
}
