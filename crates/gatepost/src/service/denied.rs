//! Why a user is not in, and what that is to each who hears of it: the client, the defence, the metrics.

use std::sync::Arc;

use gatepost_wire::{Answer, Protocol, Refusal};

use super::Session;
use crate::auth::Unanswered;
use crate::config::Level;
use crate::defence::{Attempt, Consequence};
use crate::metrics::LogIn;
use crate::traces::Trace;

/// Why a user who was let in must come again.
pub(super) const MOVED: &str = "the user was moved during this log-in";

/// The user is not in.
pub(super) enum Denied {
    /// Wrong credentials, or nobody's: the client can't tell them apart.
    Wrong,
    /// As [`Denied::Wrong`] to the client, but the configuration is why; the text is for the log.
    Unfit(String),
    /// As [`Denied::Wrong`] to the client, which has shown something of another's or not said whose it is; the text is for the
    /// log.
    Suspect(String),
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
    /// Nothing is out of order: an administrator or other log-ins keep the user waiting; the text is for the log.
    Held(&'static str),
    /// The session must end: Gatepost stops, or an administrator said so.
    Stopping,
    /// The client is gone.
    Left,
}

/// A log-in that came to nothing, of which all who count, log and defend have heard: now the client may.
pub(super) struct Told(Denied);

impl Told {
    /// What the client is told; `None`: it is gone.
    pub(super) fn answer(self) -> Option<Answer> {
        self.0.answer()
    }
}

impl Denied {
    /// Whether this log-in is one that failed by the client's fault, of which only so many are allowed.
    fn is_failure(&self, protocol: &Protocol) -> bool {
        match self {
            Self::Wrong | Self::Unfit(_) | Self::Suspect(_) => true,
            Self::Passed(text) => (protocol.passed_counts)(text),
            Self::Disabled
            | Self::Expired
            | Self::Guessing
            | Self::Misplaced(_)
            | Self::Full(_)
            | Self::Unavailable(_)
            | Self::Held(_)
            | Self::Stopping
            | Self::Left => false,
        }
    }

    /// Whether the client is told that its credentials are wrong, by Gatepost alone.
    pub(super) fn looks_wrong(&self) -> bool {
        matches!(self, Self::Wrong | Self::Unfit(_) | Self::Suspect(_))
    }

    /// What it is counted as; `None`: it was no log-in that came to an end.
    fn counted_as(&self) -> Option<LogIn> {
        match self {
            Self::Wrong | Self::Unfit(_) | Self::Suspect(_) | Self::Disabled | Self::Expired | Self::Passed(_) => {
                Some(LogIn::Denied)
            }
            Self::Guessing => Some(LogIn::Guessing),
            Self::Full(_) => Some(LogIn::Limit),
            Self::Misplaced(_) | Self::Unavailable(_) | Self::Held(_) => Some(LogIn::Unavailable),
            Self::Stopping | Self::Left => None,
        }
    }

    fn answer(self) -> Option<Answer> {
        Some(Answer::Refused(match self {
            Self::Wrong | Self::Unfit(_) | Self::Suspect(_) => Refusal::BadCredentials,
            Self::Disabled => Refusal::Disabled,
            Self::Expired => Refusal::Expired,
            Self::Guessing => Refusal::Guessing,
            Self::Full(_) => Refusal::TooMany,
            Self::Misplaced(_) | Self::Unavailable(_) | Self::Held(_) => Refusal::Unavailable,
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

impl Session {
    /// A log-in came to nothing: counted, unless it was not wrong as far as anybody knows, and told of. `tag` tells one wrong
    /// password from the next.
    pub(super) fn refuse(&self, attempt: Attempt, tag: u64, denied: Denied) -> Told {
        if denied.is_failure(self.service().settings.protocol) {
            self.count_failure(attempt, tag);
        }
        self.tell(denied)
    }

    /// Counts a log-in that failed; `tag` tells one wrong password from the next.
    pub(super) fn count_failure(&self, attempt: Attempt, tag: u64) {
        if attempt.failed(tag, std::time::Instant::now()) == Consequence::Ban {
            self.story().tell_guessing(&self.shared.log, "an address is banned: too many log-ins failed", 1);
        }
    }

    /// Counts a log-in that came to nothing, and logs it at once, in the words that filters against guessing know.
    pub(super) fn tell(&self, denied: Denied) -> Told {
        if let Some(result) = denied.counted_as() {
            self.note_log_in(result);
        }
        let (log, story) = (&self.shared.log, self.story());
        match &denied {
            Denied::Wrong | Denied::Disabled | Denied::Expired | Denied::Guessing | Denied::Passed(_) => {
                story.tell_failure(log, self.local.ip());
            }
            Denied::Unfit(text) => {
                story.tell_failure(log, self.local.ip());
                story.tell_fault(log, Level::Error, text);
            }
            Denied::Suspect(text) => {
                story.tell_failure(log, self.local.ip());
                story.tell_fault(log, Level::Warning, text);
            }
            Denied::Misplaced(text) => match log.seldom(&format!("{:?} {text}", story.protocol.name)) {
                None => {}
                Some(1) => story.tell_fault(log, Level::Error, text),
                Some(times) => {
                    let text = format!("{text} ({times} log-ins since this was last said)");
                    story.tell_fault(log, Level::Error, &text);
                }
            },
            Denied::Full(text) => story.tell_fault(log, Level::Warning, text),
            Denied::Held(text) => story.tell_fault(log, Level::Warning, text),
            Denied::Unavailable(text) => story.tell_fault(log, Level::Error, text),
            // Whose doing it is, is logged already.
            Denied::Stopping | Denied::Left => {}
        }
        Told(denied)
    }

    /// Counts a log-in.
    pub(super) fn note_log_in(&self, result: LogIn) {
        let story = self.story();
        // Nothing comes of a log-in that has not begun.
        let Some(mechanism) = story.mechanism else { return };
        self.service().metrics.log_in(mechanism, result);
        self.trail.tell(|| Trace {
            session: story.session.bytes(),
            service: story.protocol.name,
            listener: Arc::clone(&story.listener),
            mechanism,
            backend: story.at.backend().cloned(),
            result,
        });
    }
}
