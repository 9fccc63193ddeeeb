//! What all conversations have in common, whatever the protocol: bytes are cut into frames, and those are worked off one
//! after another until something must come from outside. A protocol adds its grammar and its words.
//!
//! Here belongs what holds for every protocol of a side, [`front`] or [`back`]; what only one needs is in its own folder.

mod back;
mod front;
mod log_in;
mod way;

pub(crate) use back::{BackGrammar, send};
pub(crate) use front::{Client, FrontGrammar, HasClient, LogIn, has_client};
pub(crate) use log_in::LogInLines;
pub(crate) use way::{Sasl, Way, line};

use crate::frame::{Announced, Frame, Framer};
use crate::protocols::{BackFault, BackStep};
use crate::secret::Secret;

/// A peer's words as they come in, and what the log may show of a conversation.
pub(crate) struct Talk {
    framer: Framer,
    /// All bytes received so far of a back end, which may not say much before it has answered.
    received_bytes: usize,
    /// `None`: nothing is kept.
    trace: Option<Vec<String>>,
}

impl Talk {
    pub(crate) fn new(framer: Framer, is_traced: bool) -> Self {
        Self { framer, received_bytes: 0, trace: is_traced.then(Vec::new) }
    }

    /// Keeps a line for the log, if anybody wants it.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// What has come of the present command.
    pub(crate) fn command(&self) -> &[u8] {
        self.framer.command()
    }

    /// Whether the present command must be refused whatever it says.
    pub(crate) fn is_broken(&self) -> bool {
        self.framer.is_broken()
    }

    /// Takes the announced literal into the command.
    pub(crate) fn accept_literal(&mut self) {
        self.framer.accept();
    }

    /// Adds received bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// What comes next; `None` when more bytes are needed.
    pub(crate) fn next_heard(&mut self) -> Option<Heard> {
        Some(match self.framer.next_frame()? {
            Frame::Lost => Heard::Lost,
            Frame::Literal(announced) => Heard::Literal(announced),
            Frame::Command => {
                let line = Secret::new(self.framer.command().to_vec());
                let is_broken = self.framer.is_broken();
                self.framer.finish();
                Heard::Line { line, is_broken }
            }
        })
    }

    /// The announced literal is refused, and with it its command; false: it is too large to be read past.
    pub(crate) fn reject_literal(&mut self) -> bool {
        self.framer.reject()
    }

    /// What came behind what was read last: it is somebody else's.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        self.framer.take_rest()
    }

    /// What was kept for the log since this was last asked.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// As [`Framer::skip`].
    pub(crate) fn skip(&mut self, count: u64) -> u64 {
        self.framer.skip(count)
    }

    /// As [`Framer::take`].
    pub(crate) fn take(&mut self, count: u64) -> Vec<u8> {
        self.framer.take(count)
    }

    /// Throws away what came behind what was read last, and tells whether anything did: an attacker could have placed
    /// it there.
    pub(crate) fn discard_rest(&mut self) -> bool {
        !self.framer.take_rest().is_empty()
    }

    /// The back end has agreed to TLS; nothing may have come behind that.
    pub(crate) fn begin_tls(&mut self) -> BackStep {
        if self.discard_rest() { BackStep::Fault(BackFault::TrailingBytes) } else { BackStep::StartTls }
    }
}

/// What a peer says at a time.
pub(crate) enum Heard {
    /// A command, with its literals; or where there are only lines, a line.
    Line {
        /// Without its end.
        line: Secret,
        /// It must be refused whatever it says.
        is_broken: bool,
    },
    /// A command has come as far as this; where there are only lines, never.
    Literal(Announced),
    /// It is too long to be followed any further.
    Lost,
}

/// What a client is told that takes this for a web server.
pub(crate) const NO_WEB_SERVER: &str = "This is not a web server.";
/// What a client is told that says more at once than it takes answers to.
pub(crate) const TOO_MANY_AT_ONCE: &str = "Too many commands at once.";
