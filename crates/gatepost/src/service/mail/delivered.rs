//! What is remembered of messages that some recipients have and others have not: their senders try again, and what was
//! taken must not be taken twice.
//!
//! In SMTP one answer is for all recipients, so that a back end's yes may be lost to the sender because of another's no.
//! Therefore a yes is remembered until the sender has heard one itself; and recipients of a message that ended so are taken
//! one at a time from then on, which gives each an answer of its own.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_wire::smtp::Path;
use sha2::{Digest as _, Sha256};

/// So much is remembered; beyond that, what was not asked for goes first.
const MARKS_MAX: usize = 50_000;
/// Senders give up after so long (RFC 5321, section 4.5.4.1).
const KEPT_TIME: Duration = Duration::from_hours(24 * 5);

/// Something that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Mark([u8; 32]);

impl Mark {
    /// That a back end has taken a message with this content.
    pub(super) fn taken(sender: Option<&Path>, recipient: &str, backend: &str, content: &[u8]) -> Self {
        Self::of(&[b"taken", name(sender), recipient.as_bytes(), backend.as_bytes(), content])
    }

    /// That a sender's mail for this recipient is taken by itself.
    pub(super) fn alone(sender: Option<&Path>, recipient: &str) -> Self {
        Self::of(&[b"alone", name(sender), recipient.as_bytes()])
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

/// Without parameters: those may differ from one attempt to the next.
fn name(sender: Option<&Path>) -> &[u8] {
    sender.and_then(|path| path.mailbox.as_ref()).map(|mailbox| mailbox.text.as_bytes()).unwrap_or_default()
}

/// See the module's documentation. Known to this node, for as long as it runs.
#[derive(Default)]
pub(crate) struct Delivered {
    /// Made when it is first needed.
    marks: Mutex<Option<quick_cache::unsync::Cache<Mark, Instant>>>,
}

impl Delivered {
    /// Whether nothing is remembered, as nearly always.
    pub(super) fn is_empty(&self) -> bool {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.as_ref().is_none_or(quick_cache::unsync::Cache::is_empty)
    }

    pub(super) fn has(&self, mark: &Mark) -> bool {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.as_ref().and_then(|marks| marks.get(mark)).is_some_and(|at| at.elapsed() < KEPT_TIME)
    }

    pub(super) fn keep(&self, mark: Mark) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get_or_insert_with(|| quick_cache::unsync::Cache::new(MARKS_MAX)).insert(mark, Instant::now());
    }

    /// The sender has heard it: should the same come once more, it is meant.
    pub(super) fn forget(&self, mark: &Mark) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(marks) = marks.as_mut() {
            marks.remove(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_message_at_the_same_place_is_known() {
        let delivered = Delivered::default();
        let mark = |recipient, backend, content| Mark::taken(None, recipient, backend, content);
        let kims = mark("kim@example.org", "a", b"1");
        delivered.keep(kims.clone());
        assert!(delivered.has(&kims));
        for other in
            [mark("lee@example.org", "a", b"1"), mark("kim@example.org", "b", b"1"), mark("kim@example.org", "a", b"2")]
        {
            assert!(!delivered.has(&other));
        }
        delivered.forget(&kims);
        assert!(!delivered.has(&kims));
    }
}
