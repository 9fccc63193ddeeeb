//! Bytes that must not be printed and are wiped when they go.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

/// A password, token or key. It can't be printed, compared or cloned by accident, and is wiped on drop.
#[derive(Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the caller keeps no copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// What base64 stands for, strictly: padding where it belongs, no white space. Nothing of what proves to be malformed is
    /// left in memory.
    pub(crate) fn from_base64(text: &[u8]) -> Option<Self> {
        let mut plain = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
        let length = STANDARD.decode_slice(text, &mut plain).ok()?;
        plain.truncate(length);
        Some(Self(plain))
    }

    /// The bytes themselves. Every use of this name is a place to look at in a review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is nothing in it: an empty password never reaches a directory.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A second copy, wiped as this one; by a name of its own, so that a review finds each.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A growing buffer for bytes that may hold a password: what it leaves behind when it grows, shrinks
/// or goes is wiped, where a plain `Vec` would leave copies in freed memory.
#[derive(Default)]
pub(crate) struct WipedBuffer {
    stored: Zeroizing<Vec<u8>>,
    /// Where the content begins; what lay before it is discarded and wiped.
    start: usize,
}

impl WipedBuffer {
    /// Appends `bytes`.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 || self.stored.len() + bytes.len() > self.stored.capacity() {
            let needed = self.len() + bytes.len();
            let mut compact = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
            compact.extend_from_slice(self.bytes());
            self.stored = compact;
            self.start = 0;
        }
        self.stored.extend_from_slice(bytes);
    }

    /// Throws away the first `count` bytes. An emptied buffer also gives its memory back.
    pub(crate) fn discard(&mut self, count: usize) {
        if count >= self.len() {
            *self = Self::default();
            return;
        }
        let end = self.start + count;
        self.stored[self.start..end].zeroize();
        self.start = end;
    }

    /// The content.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.stored[self.start..]
    }

    /// How many bytes it holds.
    pub(crate) fn len(&self) -> usize {
        self.stored.len() - self.start
    }

    /// Gives the content away, unwiped: the next owner forwards it.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let content = if self.start == 0 { std::mem::take(&mut *self.stored) } else { self.bytes().to_vec() };
        *self = Self::default();
        content
    }
}

impl fmt::Debug for WipedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "[secret]");
    }

    #[test]
    fn a_wiped_buffer_keeps_order_over_growth_and_discards() {
        let mut buffer = WipedBuffer::default();
        assert_eq!(buffer.len(), 0);
        for n in 0..=255_u8 {
            buffer.extend(&[n; 3]);
        }
        buffer.discard(3 * 200 + 1);
        assert_eq!(&buffer.bytes()[..5], [200, 200, 201, 201, 201]);
        assert_eq!(buffer.len(), 3 * 56 - 1);
        assert_eq!(format!("{buffer:?}"), "[167 bytes]");
        buffer.discard(usize::MAX);
        assert_eq!(buffer.len(), 0);
    }
}
