//! Reads the grammar that IMAP and `ManageSieve` share: words, quoted strings, and literals as the framer left them.

use zeroize::Zeroizing;

/// A cursor over a framed command or response, whose literals stand in it as they came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }

    /// Exactly these bytes.
    pub(crate) fn expect(&mut self, bytes: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(bytes)?;
        Some(())
    }

    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        taken
    }

    pub(crate) fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let count = self.rest.iter().position(|&b| !wanted(b)).unwrap_or(self.rest.len());
        self.take(count)
    }

    /// A command's or mechanism's name: letters, digits, `-` and `_`.
    pub(crate) fn word(&mut self) -> Option<String> {
        let word = self.take_while(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        std::str::from_utf8(word).ok().filter(|w| !w.is_empty()).map(str::to_ascii_uppercase)
    }

    /// `string = quoted / literal`.
    pub(crate) fn string(&mut self) -> Option<Vec<u8>> {
        match self.rest.first()? {
            b'"' => self.quoted(),
            b'{' => self.literal(),
            _ => None,
        }
    }

    /// Only `"` and `\` may be escaped. Bytes beyond ASCII are taken as they are (UTF-8 in RFC 9051).
    fn quoted(&mut self) -> Option<Vec<u8>> {
        self.expect(b"\"")?;
        // Never grown, and wiped where it proves to be malformed: it may be a password.
        let mut text = Zeroizing::new(Vec::with_capacity(self.rest.len()));
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => return Some(std::mem::take(&mut *text)),
                b'\\' => {
                    let (&escaped, rest) = self.rest.split_first()?;
                    self.rest = rest;
                    matches!(escaped, b'"' | b'\\').then(|| text.push(escaped))?;
                }
                0 | b'\r' | b'\n' => return None,
                _ => text.push(byte),
            }
        }
    }

    /// The framer saw to it that the body is there; a command in which it isn't, or holds NUL, is malformed.
    fn literal(&mut self) -> Option<Vec<u8>> {
        self.expect(b"{")?;
        let digits = self.take_while(|b| b.is_ascii_digit());
        let size: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        if self.rest.first() == Some(&b'+') {
            self.take(1);
        }
        self.expect(b"}\r\n")?;
        (size <= self.rest.len()).then_some(())?;
        let body = self.take(size);
        (!body.contains(&0)).then(|| body.to_vec())
    }
}
