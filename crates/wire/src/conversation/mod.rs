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

use crate::frame::{Frame, Framer};
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

    /// The next line, where lines are all there is; `None` when more bytes are needed.
    pub(crate) fn next_line(&mut self) -> Option<Line> {
        match self.framer.next_frame()? {
            Frame::Lost | Frame::Literal(_) => Some(Line::Lost),
            Frame::Command => {
                let line = Secret::new(self.framer.command().to_vec());
                let is_broken = self.framer.is_broken();
                self.framer.finish();
                Some(Line::Whole { line, is_broken })
            }
        }
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

/// A line of a protocol that has nothing else.
pub(crate) enum Line {
    Whole {
        /// Without its end.
        line: Secret,
        /// It must be refused whatever it says.
        is_broken: bool,
    },
    /// It is too long to be followed any further.
    Lost,
}
