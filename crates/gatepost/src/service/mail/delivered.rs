//! What one back end has taken of a message that another did not take: the sender tries again, and must not have it
//! delivered twice.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_wire::smtp::Path;
use sha2::{Digest as _, Sha256};

/// So many are remembered; beyond that, those not asked for go first.
const MARKS_MAX: usize = 50_000;
/// Senders give up after so long (RFC 5321, section 4.5.4.1).
const KEPT_TIME: Duration = Duration::from_hours(24 * 5);

/// A message at a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Mark([u8; 32]);

impl Mark {
    /// What a message of this sender with this content is known by.
    pub(super) fn new(sender: Option<&Path>, recipient: &str, backend: &str, content: &[u8]) -> Self {
        let sender = sender.map(Path::argument).unwrap_or_default();
        let mut digest = Sha256::new();
        for part in [sender.as_bytes(), recipient.as_bytes(), backend.as_bytes(), content] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

/// See the module's documentation. Known to this node, for as long as it runs.
#[derive(Default)]
pub(crate) struct Delivered {
    /// Made when it is first needed.
    marks: Mutex<Option<quick_cache::unsync::Cache<Mark, Instant>>>,
}

impl Delivered {
    /// Whether it was taken.
    pub(super) fn has(&self, mark: &Mark) -> bool {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.as_ref().and_then(|marks| marks.get(mark)).is_some_and(|at| at.elapsed() < KEPT_TIME)
    }

    /// It was taken.
    pub(super) fn keep(&self, mark: Mark) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get_or_insert_with(|| quick_cache::unsync::Cache::new(MARKS_MAX)).insert(mark, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_message_at_the_same_place_is_known() {
        let delivered = Delivered::default();
        let mark = |recipient, backend, content| Mark::new(None, recipient, backend, content);
        delivered.keep(mark("kim@example.org", "a", b"1"));
        assert!(delivered.has(&mark("kim@example.org", "a", b"1")));
        for other in
            [mark("lee@example.org", "a", b"1"), mark("kim@example.org", "b", b"1"), mark("kim@example.org", "a", b"2")]
        {
            assert!(!delivered.has(&other));
        }
    }
}
