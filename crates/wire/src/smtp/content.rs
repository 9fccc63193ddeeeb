//! The content of a message. As it follows DATA, it is found to be whole, and passed on as it came.
//!
//! Only `CRLF . CRLF` ends it (RFC 5321, section 4.1.1.4). A line feed or carriage return by itself is refused wherever it
//! stands: who takes it for the end of a line could take what follows for commands (SMTP smuggling).

/// A piece of a message that comes by BDAT (RFC 3030, section 2), where sizes take the place of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// So many bytes follow the command.
    pub size: u64,
    /// With them the message is whole.
    pub is_last: bool,
}

impl Chunk {
    /// The command's argument; `None`: it makes no sense.
    pub(super) fn parse(argument: &[u8]) -> Option<Self> {
        let (size, rest) = argument.split_at(argument.iter().position(|&b| b == b' ').unwrap_or(argument.len()));
        let rest = rest.trim_ascii();
        let is_last = rest.eq_ignore_ascii_case(b"LAST");
        (is_last || rest.is_empty()).then_some(())?;
        Some(Self { size: number(size)?, is_last })
    }
}

/// A number in digits alone.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

/// Follows the content of one message.
#[derive(Debug, Default)]
pub struct Content {
    at: At,
    is_broken: bool,
}

/// What was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    LineStart,
    Text,
    Cr,
    /// A dot at the start of a line: the end, or not.
    Dot,
    DotCr,
    End,
}

/// What a piece of content holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned<'a> {
    /// The dot that the piece before ended with belongs to the message, if that is sound.
    pub dot: bool,
    /// What belongs to the message for certain. The line that ends it never does.
    pub part: &'a [u8],
    /// How much of the piece was read: less than all of it only where the content ends within.
    pub taken: usize,
    /// The content is over.
    pub is_end: bool,
}

impl Content {
    /// Reads on in `piece`. After the end nothing more may be read.
    pub fn scan<'a>(&mut self, piece: &'a [u8]) -> Scanned<'a> {
        let began = self.at;
        let mut taken = 0;
        while taken < piece.len() && self.at != At::End {
            if self.at == At::Text {
                taken += memchr::memchr2(b'\r', b'\n', &piece[taken..]).unwrap_or(piece.len() - taken);
                if taken == piece.len() {
                    break;
                }
            }
            self.step(piece[taken]);
            taken += 1;
        }
        // Of a line that may be the last, nothing is passed on yet.
        let held = match self.at {
            At::Dot => 1,
            At::DotCr => 2,
            At::End => 3,
            At::LineStart | At::Text | At::Cr => 0,
        };
        Scanned {
            dot: began == At::Dot && piece.first().is_some_and(|&byte| byte != b'\r'),
            part: &piece[..taken.saturating_sub(held)],
            taken,
            is_end: self.at == At::End,
        }
    }

    /// Whether every line so far ended in CRLF. What does not must be refused.
    pub const fn is_sound(&self) -> bool {
        !self.is_broken
    }

    fn step(&mut self, byte: u8) {
        self.at = match (self.at, byte) {
            (At::Cr, b'\n') => At::LineStart,
            (At::DotCr, b'\n') => At::End,
            (At::Dot, b'\r') => At::DotCr,
            (at, byte) => {
                self.is_broken |= byte == b'\n' || matches!(at, At::Cr | At::DotCr);
                match byte {
                    b'\r' => At::Cr,
                    b'.' if at == At::LineStart => At::Dot,
                    _ => At::Text,
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `input` in pieces of `step` bytes: what is passed on, whether it is sound, and what follows the end.
    fn read(input: &str, step: usize) -> (String, bool, Option<String>) {
        let (mut content, mut passed) = (Content::default(), Vec::new());
        let bytes = input.as_bytes();
        let mut offset = 0;
        while offset < bytes.len() {
            let piece = &bytes[offset..bytes.len().min(offset + step)];
            let Scanned { dot, part, taken, is_end } = content.scan(piece);
            if dot {
                passed.push(b'.');
            }
            passed.extend_from_slice(part);
            offset += taken;
            if is_end {
                let rest = String::from_utf8_lossy(&bytes[offset..]).into_owned();
                return (String::from_utf8_lossy(&passed).into_owned(), content.is_sound(), Some(rest));
            }
        }
        (String::from_utf8_lossy(&passed).into_owned(), content.is_sound(), None)
    }

    fn check(input: &str, expected: &str, rest: Option<&str>) {
        for step in 1..=input.len() {
            let (passed, is_sound, behind) = read(input, step);
            assert!(is_sound, "{input:?} in pieces of {step}");
            assert_eq!((passed.as_str(), behind.as_deref()), (expected, rest), "{input:?} in pieces of {step}");
        }
    }

    #[test]
    fn chunks_say_how_large_they_are() {
        let parse = |text: &str| Chunk::parse(text.as_bytes()).map(|chunk| (chunk.size, chunk.is_last));
        assert_eq!(parse("10"), Some((10, false)));
        assert_eq!(parse("0 last"), Some((0, true)));
        assert_eq!(parse("18446744073709551615  LAST"), Some((u64::MAX, true)));
        for bad in ["", "LAST", "-1", "+1", "1x", "0x1", "1 LAS", "1 LAST x", "18446744073709551616", "1\tLAST"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_end_is_found_and_never_passed_on() {
        check("a\r\n.\r\nQUIT\r\n", "a\r\n", Some("QUIT\r\n"));
        check(".\r\n", "", Some(""));
        check("..\r\n.a\r\n...\r\n.\r\nx", "..\r\n.a\r\n...\r\n", Some("x"));
        check("a.\r\nb\r\n.\r\n", "a.\r\nb\r\n", Some(""));
        check("a\r\n.", "a\r\n", None);
        check("a\r\n.\r", "a\r\n", None);
    }

    #[test]
    fn no_other_end_is_one() {
        for smuggled in [
            "a\n.\n",
            "a\n.\r\n",
            "a\r\n.\n",
            "a\r.\r",
            "a\r.\r\n",
            "a\r\n.\r\r\n",
            "a\r\r\n.\r\n",
            "a\r\n\r.\r\n",
            "a\n\r\n.\r\n",
            "a\0\n.\n",
        ] {
            let input = format!("{smuggled}MAIL FROM:<x>\r\n.\r\nNOOP\r\n");
            for step in 1..=input.len() {
                let (_, is_sound, rest) = read(&input, step);
                assert!(!is_sound, "{input:?} in pieces of {step}");
                let ends = [Some("NOOP\r\n".to_owned()), Some("MAIL FROM:<x>\r\n.\r\nNOOP\r\n".to_owned())];
                assert!(ends.contains(&rest), "{input:?} in pieces of {step}: {rest:?}");
            }
        }
    }
}
