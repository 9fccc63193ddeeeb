//! A log-in at a back end under way: the lines that it must ask for, one after another.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::protocols::{BackFault, BackStep, TokenMechanism};
use crate::sasl;
use crate::secret::Secret;

/// What is still to be said of a log-in. Each protocol knows which answer of the back end's asks for it.
pub(crate) struct LogInLines {
    lines: VecDeque<Secret>,
    dismissal: Dismissal,
}

/// What is said once, should the back end ask for more than all lines: it refuses a token.
enum Dismissal {
    /// There is no token.
    None,
    Ready(Cow<'static, [u8]>),
    /// Whatever comes now is about the token.
    Said,
}

impl LogInLines {
    /// Says the first of the lines; the others wait for the back end. `token`: by which mechanism they show one, if they do.
    pub(crate) fn begin(token: Option<TokenMechanism>, mut lines: VecDeque<Secret>, out: &mut Vec<u8>) -> Self {
        if let Some(first) = lines.pop_front() {
            out.extend_from_slice(first.expose());
        }
        let dismissal = match token {
            Some(by) => Dismissal::Ready(Cow::Borrowed(sasl::token_dismissal(by))),
            None => Dismissal::None,
        };
        Self { lines, dismissal }
    }

    /// The same, of a protocol that writes messages in another way.
    pub(crate) fn dismissing(mut self, write: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        if let Dismissal::Ready(words) = &mut self.dismissal {
            *words = Cow::Owned(write(words));
        }
        self
    }

    /// Whether all has been said.
    pub(crate) fn is_said(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether the token was refused, as far as can be told from the course of things.
    pub(crate) const fn is_dismissed(&self) -> bool {
        matches!(self.dismissal, Dismissal::Said)
    }

    /// Says what the back end has asked for.
    pub(crate) fn go_on(&mut self, out: &mut Vec<u8>) -> BackStep {
        if let Some(line) = self.lines.pop_front() {
            out.extend_from_slice(line.expose());
        } else if let Dismissal::Ready(words) = &self.dismissal {
            out.extend_from_slice(words);
            out.extend_from_slice(b"\r\n");
            self.dismissal = Dismissal::Said;
        } else {
            return BackStep::Fault(BackFault::Protocol("it asks for more than there is to send"));
        }
        BackStep::Read
    }
}
