//! Replies (RFC 5321, section 4.2): one line or several with the same code.

use crate::frame::{Frame, Framer};
use crate::limits::{BACK_LINE_BYTES_MAX, PASSED_TEXT_BYTES_MAX, REPLY_LINES_MAX};
use crate::text::printable;

/// A reply, as it may be passed on: its lines are printable and of bounded length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits, the first of them 2 to 5.
    pub code: u16,
    /// At least one, each without the code.
    pub lines: Vec<String>,
}

impl Reply {
    /// The lines in one.
    pub fn text(&self) -> String {
        self.lines.join(" ").trim_end().to_owned()
    }

    /// Code and text in one line.
    pub fn joined(&self) -> String {
        format!("{} {}", self.code, self.text()).trim_end().to_owned()
    }

    /// As it is said in one line.
    pub fn line(&self) -> String {
        format!("{}\r\n", self.joined())
    }

    /// A reply of our own in one line: a code, and a text that begins with an enhanced status code.
    pub fn ours(code: u16, text: impl Into<String>) -> Self {
        Self { code, lines: vec![text.into()] }
    }

    /// Whether it says yes.
    pub const fn is_good(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether it says no for now alone.
    pub const fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }
}

/// Puts replies together line by line.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    begun: Option<Reply>,
}

impl Gatherer {
    /// Takes a line; gives the reply that it ends, if it ends one. An error says what is wrong with it.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, &'static str> {
        let (code, rest) = line.split_at_checked(3).ok_or("a line is no reply")?;
        let is_code = matches!(code[0], b'2'..=b'5') && code.iter().all(u8::is_ascii_digit);
        let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit.wrapping_sub(b'0')));
        let (is_last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err("a line is no reply"),
        };
        if !is_code {
            return Err("a line is no reply");
        }
        let reply = self.begun.get_or_insert_with(|| Reply { code, lines: Vec::new() });
        if reply.code != code {
            return Err("the lines of a reply have different codes");
        }
        if reply.lines.len() == REPLY_LINES_MAX {
            return Err("a reply has too many lines");
        }
        reply.lines.push(printable(text, PASSED_TEXT_BYTES_MAX));
        Ok(if is_last { self.begun.take() } else { None })
    }
}

/// A server's replies as they come in, once it has been greeted.
#[derive(Debug)]
pub struct Replies {
    framer: Framer,
    gatherer: Gatherer,
}

impl Replies {
    /// Those that follow what was read so far, and this.
    pub fn after(rest: &[u8]) -> Self {
        let mut framer = Framer::of_lines(BACK_LINE_BYTES_MAX);
        framer.push(rest);
        Self { framer, gatherer: Gatherer::default() }
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// Whether nothing has come that no answer was made of.
    pub fn is_empty(&self) -> bool {
        self.gatherer.begun.is_none() && self.framer.is_empty()
    }

    /// The next reply, or `None` when more bytes are needed. An error says what is wrong with what came.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, &'static str> {
        while let Some(frame) = self.framer.next_frame() {
            if frame != Frame::Command {
                return Err("a line is too long");
            }
            let reply = self.gatherer.line(self.framer.command());
            self.framer.finish();
            if let Some(reply) = reply? {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }
}
