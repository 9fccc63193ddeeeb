//! Cuts a byte stream into commands: lines, and in IMAP the literals that continue them.
//!
//! Framing comes before parsing, so that a command that makes no sense is still taken whole, literals
//! included, and what follows it is read as what it is. Nothing is allocated for a literal before its
//! owner has agreed to its size.

use crate::limits::DRAIN_BYTES_MAX;
use crate::secret::WipedBuffer;

/// What [`Framer::next_frame`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole command; read it with [`Framer::command`], then call [`Framer::finish`].
    Command,
    /// The line so far ends in a literal's announcement. Answer with [`Framer::accept`] or
    /// [`Framer::reject`] before asking for more.
    Literal(Announced),
    /// A line is longer than allowed, a command larger, or a refused literal too large to read past.
    /// The stream can't be followed any further.
    Lost,
}

/// A literal's announcement, `{size}` or `{size+}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Its size in bytes; `u64::MAX` where the number is larger than that.
    pub size: u64,
    /// Whether the client waits for our `+` before it sends the body (RFC 9051, section 4.3).
    pub waits: bool,
}

/// The state between two reads.
#[derive(Debug)]
enum State {
    /// Reading a line of the current command.
    Line,
    /// A literal was announced and not yet answered.
    Announced(Announced),
    /// Reading the body of an accepted literal.
    Body { left: usize },
    /// Throwing away a refused literal's body; the rest of the command follows and goes too.
    Drain { left: u64 },
    /// [`Frame::Command`] was given and not yet finished.
    Whole,
}

/// Cuts what it is fed into frames. See the module's documentation.
#[derive(Debug)]
pub struct Framer {
    buffer: WipedBuffer,
    state: State,
    /// Where the current line of the command begins in `buffer`.
    line_start: usize,
    /// How far the current line was already searched for its end. Once the command is whole, it ends there, its last line
    /// end included.
    searched: usize,
    /// The command has a refused literal or a line end other than CRLF.
    broken: bool,
    line_bytes_max: usize,
    command_bytes_max: usize,
    /// A brace at a line's end means something.
    has_literals: bool,
}

impl Framer {
    /// A framer of lines alone; it ends with [`Frame::Lost`] on one of more than `line_bytes_max` bytes.
    pub fn of_lines(line_bytes_max: usize) -> Self {
        Self { has_literals: false, ..Self::new(line_bytes_max, line_bytes_max) }
    }

    /// A framer of lines and literals, as [`Framer::of_lines`]; nor may all of a command have more than `command_bytes_max`.
    pub fn new(line_bytes_max: usize, command_bytes_max: usize) -> Self {
        Self {
            buffer: WipedBuffer::default(),
            state: State::Line,
            line_start: 0,
            searched: 0,
            broken: false,
            line_bytes_max,
            command_bytes_max,
            has_literals: true,
        }
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// Whether all that was fed has been finished.
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == 0
    }

    /// The next frame, or `None` when more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            match self.state {
                State::Whole => return Some(Frame::Command),
                State::Announced(announced) => return Some(Frame::Literal(announced)),
                State::Body { left } => {
                    if self.buffer.len() < self.line_start + left {
                        return None;
                    }
                    self.begin_line(self.line_start + left);
                }
                State::Drain { left } => {
                    let have = (self.buffer.len() - self.line_start) as u64;
                    let now = have.min(left);
                    // What is thrown away lies behind the command's first lines, which are kept for the tag.
                    self.cut(self.line_start, now as usize);
                    if now < left {
                        self.state = State::Drain { left: left - now };
                        return None;
                    }
                    self.begin_line(self.line_start);
                }
                State::Line => {
                    let unsearched = &self.buffer.bytes()[self.searched..];
                    let Some(at) = unsearched.iter().position(|&b| b == b'\n') else {
                        self.searched = self.buffer.len();
                        return self.is_too_long(self.buffer.len()).then_some(Frame::Lost);
                    };
                    let end = self.searched + at + 1;
                    if self.is_too_long(end) {
                        return Some(Frame::Lost);
                    }
                    self.end_line(end);
                }
            }
        }
    }

    /// Takes the announced literal into the command.
    pub fn accept(&mut self) {
        if let State::Announced(announced) = self.state {
            self.state = State::Body { left: usize::try_from(announced.size).unwrap_or(usize::MAX) };
            self.line_start = self.searched;
        }
    }

    /// Refuses the announced literal, and with it the command. A literal that waits was never sent: the
    /// command ends here. One that does not wait is read past. False: it is too large for that.
    #[must_use]
    pub fn reject(&mut self) -> bool {
        let State::Announced(announced) = self.state else { return true };
        self.broken = true;
        if announced.waits {
            self.state = State::Whole;
        } else if announced.size <= DRAIN_BYTES_MAX {
            self.line_start = self.searched;
            self.state = State::Drain { left: announced.size };
        } else {
            return false;
        }
        true
    }

    /// The current command up to what is known of it, without its last line end. Literals stand in it
    /// as they came: announcement, line end, body.
    pub fn command(&self) -> &[u8] {
        let bytes = &self.buffer.bytes()[..self.searched];
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        bytes.strip_suffix(b"\r").unwrap_or(bytes)
    }

    /// Whether the whole command must be refused whatever it says: a line of it ended in a bare LF, or
    /// it held a literal that was refused.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Forgets the command that [`Frame::Command`] gave and begins the next.
    pub fn finish(&mut self) {
        self.buffer.discard(self.searched);
        self.broken = false;
        self.begin_line(0);
    }

    /// Throws away the next bytes, which are no commands: up to so many of those there are. Gives how many that was.
    pub fn skip(&mut self, count: u64) -> u64 {
        let now = count.min(self.buffer.len() as u64);
        self.buffer.discard(now as usize);
        self.begin_line(0);
        now
    }

    /// As [`Framer::skip`], and gives the bytes.
    pub fn take(&mut self, count: u64) -> Vec<u8> {
        let now = count.min(self.buffer.len() as u64) as usize;
        let taken = self.buffer.bytes()[..now].to_vec();
        self.skip(count);
        taken
    }

    /// All that was fed and not yet finished: what a client sent behind its log-in.
    pub fn take_rest(&mut self) -> Vec<u8> {
        self.begin_line(0);
        self.buffer.take()
    }

    /// Whether a line that goes as far as that, or the command with it, is more than is allowed.
    fn is_too_long(&self, end: usize) -> bool {
        end - self.line_start > self.line_bytes_max || end > self.command_bytes_max
    }

    fn begin_line(&mut self, at: usize) {
        self.state = State::Line;
        self.line_start = at;
        self.searched = at;
    }

    /// A line of the command ends before `end`: is the command whole, or does a literal follow?
    fn end_line(&mut self, end: usize) {
        let line = &self.buffer.bytes()[self.line_start..end - 1];
        let (line, crlf) = match line.strip_suffix(b"\r") {
            Some(line) => (line, true),
            None => (line, false),
        };
        self.broken |= !crlf;
        self.searched = end;
        let announced = if self.has_literals { announcement(line) } else { None };
        self.state = announced.map_or(State::Whole, State::Announced);
    }

    /// Removes `count` bytes at `at`.
    fn cut(&mut self, at: usize, count: usize) {
        let mut shorter = WipedBuffer::default();
        shorter.extend(&self.buffer.bytes()[..at]);
        shorter.extend(&self.buffer.bytes()[at + count..]);
        self.buffer = shorter;
    }
}

/// Whether a line is one of an HTTP request: a browser made to talk to a mail port must learn nothing from it.
pub(crate) fn is_http(line: &[u8]) -> bool {
    [&b" HTTP/1.1"[..], b" HTTP/1.0", b" HTTP/2.0"].iter().any(|end| line.ends_with(end))
}

/// The literal that `line` announces at its end. `{}`, `{-1}` and the like announce none: the parser
/// finds a brace where none may stand.
fn announcement(line: &[u8]) -> Option<Announced> {
    let inner = line.strip_suffix(b"}")?;
    let (inner, waits) = match inner.strip_suffix(b"+") {
        Some(inner) => (inner, false),
        None => (inner, true),
    };
    let digits = inner.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, digits) = inner.split_at(inner.len() - digits);
    if digits.is_empty() || before.last() != Some(&b'{') {
        return None;
    }
    let size = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    Some(Announced { size, waits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COMMAND_BYTES_MAX;

    /// Runs `input` in pieces of `step` bytes, accepting literals up to 10 bytes; gives the commands,
    /// broken ones marked.
    fn run(input: &[u8], step: usize) -> Vec<String> {
        let mut framer = Framer::new(64, COMMAND_BYTES_MAX);
        let mut seen = Vec::new();
        for piece in input.chunks(step) {
            framer.push(piece);
            while let Some(frame) = framer.next_frame() {
                match frame {
                    Frame::Command => {
                        let mark = if framer.is_broken() { "!" } else { "" };
                        seen.push(format!("{mark}{}", String::from_utf8_lossy(framer.command())));
                        framer.finish();
                    }
                    Frame::Literal(a) if a.size <= 10 => framer.accept(),
                    Frame::Literal(_) => {
                        if !framer.reject() {
                            seen.push("lost".into());
                            return seen;
                        }
                    }
                    Frame::Lost => {
                        seen.push("lost".into());
                        return seen;
                    }
                }
            }
        }
        seen
    }

    fn check(input: &str, expected: &[&str]) {
        for step in 1..=input.len() {
            assert_eq!(run(input.as_bytes(), step), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn lines_and_literals() {
        check(
            "a NOOP\r\nb LOGIN {1+}\r\nu {3}\r\np\r\n\r\nc X\r\n",
            &["a NOOP", "b LOGIN {1+}\r\nu {3}\r\np\r\n", "c X"],
        );
    }

    #[test]
    fn a_refused_literal_is_read_past() {
        check("a X {12+}\r\nb NOOP\r\nxxxx y\r\nc NOOP\r\n", &["!a X {12+}\r\n y", "c NOOP"]);
        check("a X {12}\r\nb NOOP\r\n", &["!a X {12}", "b NOOP"]);
    }

    #[test]
    fn absurd_sizes_neither_wrap_nor_allocate() {
        check("a X {99999999999999999999999}\r\nb N\r\n", &["!a X {99999999999999999999999}", "b N"]);
        check("a X {99999999999999999999999+}\r\nb N\r\n", &["lost"]);
        check("a X {}\r\nb X {-1}\r\n", &["a X {}", "b X {-1}"]);
    }

    #[test]
    fn a_bare_line_feed_ends_a_line_and_breaks_the_command() {
        check("a NOOP\nb NOOP\r\n", &["!a NOOP", "b NOOP"]);
    }

    #[test]
    fn an_endless_line_is_lost() {
        check(&"x".repeat(70), &["lost"]);
        check(&"x".repeat(64), &[]);
        check(&"x".repeat(65), &["lost"]);
        let longest = "x".repeat(62);
        check(&format!("{longest}\r\nx{longest}\r\n"), &[&longest, "lost"]);
    }

    #[test]
    fn each_line_has_its_bound_and_all_of_them_together() {
        let lines = format!("a {}y", "xxxx {4+}\r\nyyyy".repeat(20));
        check(&format!("{lines}\r\n"), &[&lines]);
        check(&format!("a {{4+}}\r\nyyyy{}", "x".repeat(64)), &[]);
        let whole = |literal: usize| {
            let input = format!("a {{{literal}+}}\r\n{}\r\n", "x".repeat(literal));
            let mut framer = Framer::new(64, COMMAND_BYTES_MAX);
            framer.push(input.as_bytes());
            assert!(matches!(framer.next_frame(), Some(Frame::Literal(_))));
            framer.accept();
            (input.len(), framer.next_frame())
        };
        assert_eq!(whole(COMMAND_BYTES_MAX - 14), (COMMAND_BYTES_MAX, Some(Frame::Command)));
        assert_eq!(whole(COMMAND_BYTES_MAX - 13), (COMMAND_BYTES_MAX + 1, Some(Frame::Lost)));
    }
}
