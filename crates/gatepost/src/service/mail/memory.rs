//! What is remembered of messages that some recipients have and others have not.
//!
//! In SMTP one answer is for all recipients, so that a back end's yes may be lost to the sender because of another's no.
//! The sender comes again, and must not have the message taken twice: so a yes is remembered until the sender has heard one.
//! And how each recipient fared is remembered, so that the next time only those are taken together who fared alike: then one
//! answer is true for all of them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatepost_wire::smtp::{Reply, Sender};
use sha2::{Digest as _, Sha256};

/// So much is remembered; beyond that, what was not asked for goes first.
const MARKS_MAX: usize = 50_000;
/// Senders give up after so long (RFC 5321, section 4.5.4.1).
const MARKS_KEPT_TIME: Duration = Duration::from_hours(24 * 5);
/// So much of a message is looked through for its name.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// How a recipient fared when others of the same message fared otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There was no such message.
    Fresh,
    HasIt,
    /// It was put off.
    LacksIt,
    /// It was refused for good.
    Refused,
}

impl Fate {
    const REMEMBERED: [Self; 3] = [Self::HasIt, Self::LacksIt, Self::Refused];

    /// As this reply says.
    pub(super) const fn of(reply: &Reply) -> Self {
        match reply.code / 100 {
            2 => Self::HasIt,
            5 => Self::Refused,
            _ => Self::LacksIt,
        }
    }
}

/// Something that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Mark([u8; 32]);

impl Mark {
    /// That a back end has taken a message for a recipient.
    pub(super) fn taken(sender: &Sender, recipient: &str, backend: &str, content: &[u8]) -> Self {
        Self::of(&[b"taken", name(sender), recipient.as_bytes(), backend.as_bytes(), content])
    }

    fn fate(sender: &Sender, recipient: &str, fate: Fate) -> Self {
        Self::of(&[b"fate", &[fate as u8], name(sender), recipient.as_bytes()])
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
fn name(sender: &Sender) -> &[u8] {
    sender.address().as_bytes()
}

/// What a message is known by: its content, if that has a name of its own. Messages without one may be the same letter for
/// letter and yet be others, such as alarms.
#[derive(Default)]
pub(super) struct Fingerprint {
    digest: Sha256,
    /// The beginning, as far as it was needed.
    head: Vec<u8>,
}

impl Fingerprint {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        let wanted = HEAD_BYTES_MAX - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(wanted)]);
    }

    /// `None`: the message has no Message-ID.
    pub(super) fn finish(self) -> Option<[u8; 32]> {
        let end = self.head.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(self.head.len());
        let is_id = |line: &[u8]| line.get(..11).is_some_and(|name| name.eq_ignore_ascii_case(b"Message-ID:"));
        self.head[..end].split(|&b| b == b'\n').any(is_id).then(|| self.digest.finalize().into())
    }
}

/// See the module's documentation. Known to this node, for as long as it runs.
#[derive(Default)]
pub(crate) struct Memory {
    /// Made when it is first needed.
    marks: Mutex<Option<Marks>>,
}

struct Marks {
    at: quick_cache::unsync::Cache<Mark, Instant>,
    newest: Instant,
}

impl Memory {
    /// Whether nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_none()
    }

    /// What a sender and a recipient of theirs were left with.
    pub(super) fn fate(&self, sender: &Sender, recipient: &str) -> Fate {
        if self.is_empty() {
            return Fate::Fresh;
        }
        let is_so = |fate: &Fate| self.has(&Mark::fate(sender, recipient, *fate));
        Fate::REMEMBERED.into_iter().find(is_so).unwrap_or(Fate::Fresh)
    }

    /// Remembers that, in the stead of what was before.
    pub(super) fn set_fate(&self, sender: &Sender, recipient: &str, fate: Fate) {
        for other in Fate::REMEMBERED {
            self.forget(&Mark::fate(sender, recipient, other));
        }
        if fate != Fate::Fresh {
            self.keep(Mark::fate(sender, recipient, fate));
        }
    }

    pub(super) fn has(&self, mark: &Mark) -> bool {
        self.lock().as_ref().and_then(|marks| marks.at.get(mark)).is_some_and(|at| at.elapsed() < MARKS_KEPT_TIME)
    }

    pub(super) fn keep(&self, mark: Mark) {
        let now = Instant::now();
        let mut marks = self.lock();
        let marks = marks.get_or_insert_with(|| Marks { at: quick_cache::unsync::Cache::new(MARKS_MAX), newest: now });
        marks.newest = now;
        marks.at.insert(mark, now);
    }

    /// The sender has heard of it: should the same come once more, it is meant.
    pub(super) fn forget(&self, mark: &Mark) {
        if let Some(marks) = self.lock().as_mut() {
            marks.at.remove(mark);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Marks>> {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.as_ref().is_some_and(|marks| marks.at.is_empty() || marks.newest.elapsed() > MARKS_KEPT_TIME) {
            *marks = None;
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender() -> Sender {
        Sender { mailbox: Some(gatepost_wire::smtp::Mailbox::of("a@example.net")), parameters: Vec::new() }
    }

    #[test]
    fn only_the_same_message_at_the_same_place_is_known() {
        let memory = Memory::default();
        let mark = |recipient, backend, content| Mark::taken(&sender(), recipient, backend, content);
        let kims = mark("kim@example.org", "a", b"1");
        memory.keep(kims.clone());
        assert!(memory.has(&kims));
        for other in
            [mark("lee@example.org", "a", b"1"), mark("kim@example.org", "b", b"1"), mark("kim@example.org", "a", b"2")]
        {
            assert!(!memory.has(&other));
        }
        memory.forget(&kims);
        assert!(!memory.has(&kims) && memory.is_empty());
    }

    #[test]
    fn a_recipient_has_one_fate() {
        let memory = Memory::default();
        assert_eq!(memory.fate(&sender(), "kim"), Fate::Fresh);
        for fate in [Fate::LacksIt, Fate::HasIt, Fate::Refused] {
            memory.set_fate(&sender(), "kim", fate);
            assert_eq!((memory.fate(&sender(), "kim"), memory.fate(&sender(), "lee")), (fate, Fate::Fresh));
        }
        memory.set_fate(&sender(), "kim", Fate::Fresh);
        assert!(memory.is_empty());
    }

    #[test]
    fn a_message_is_known_by_its_own_name_alone() {
        let finish = |pieces: &[&str]| {
            let mut fingerprint = Fingerprint::default();
            pieces.iter().for_each(|piece| fingerprint.update(piece.as_bytes()));
            fingerprint.finish()
        };
        let known = finish(&["Subject: x\r\nMessage-ID: <1@a>\r\n\r\nText\r\n"]);
        assert!(known.is_some());
        assert_eq!(finish(&["Subject: x\r\nMess", "age-ID: <1@a>\r\n\r", "\nText\r\n"]), known);
        assert_ne!(finish(&["message-id: <1@a>\r\n\r\n"]), known);
        assert_eq!(finish(&["Subject: x\r\n\r\nMessage-ID: <1@a>\r\n"]), None);
    }
}
