//! After the log-in: bytes both ways, unchanged, until both sides are done.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::idle::{Heart, Verdict};
use crate::net::stream::{Received, Scratch, Stream};

/// Once one side has said its last word, the other may be silent for this long.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_mins(1);

/// A logged-in session: everything that stays in memory for it. Small, since there are many.
pub(crate) struct Relay {
    client: Stream,
    server: Stream,
    heart: Heart,
    up: Lane,
    down: Lane,
    /// What the client is told when Gatepost stops and it is between two lines.
    farewell: &'static [u8],
}

/// One direction.
struct Lane {
    bytes: u64,
    open: bool,
    /// The last byte was a line's end: a line of our own may follow it.
    at_line_end: bool,
    /// Why it ended, if not by a clean end of the stream.
    error: Option<io::ErrorKind>,
}

impl Lane {
    const fn new(bytes: u64) -> Self {
        Self { bytes, open: true, at_line_end: true, error: None }
    }

    fn end(&mut self, error: Option<&io::Error>) {
        self.open = false;
        self.error = error.map(io::Error::kind);
    }
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed; the client first, or the back end.
    Closed { by_client: bool },
    /// A connection broke.
    Broken { by_client: bool, kind: io::ErrorKind },
    /// Told to end.
    Told(Verdict),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = |by_client| if by_client { "the client" } else { "the back end" };
        match self {
            Self::Closed { by_client } => write!(f, "closed by {}", who(*by_client)),
            Self::Broken { by_client, kind } => write!(f, "the connection to {} broke: {kind}", who(*by_client)),
            Self::Told(Verdict::Idle) => f.write_str("idle for too long"),
            Self::Told(Verdict::Drained) => f.write_str("Gatepost stopped"),
        }
    }
}

/// What a relay did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// From the client to the back end.
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
}

impl Relay {
    /// A relay between two connections on which what was read too early is already passed on.
    pub(crate) fn new(client: Stream, server: Stream, heart: Heart, sent: (u64, u64), farewell: &'static [u8]) -> Self {
        Self { client, server, heart, up: Lane::new(sent.0), down: Lane::new(sent.1), farewell }
    }

    /// Moves what can be moved. Whether the relay is over, and how.
    fn advance(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Option<End> {
        let before = (self.up.bytes, self.down.bytes, self.up.open, self.down.open);
        let first_closed = match (self.up.open, self.down.open) {
            (true, false) => Some(false),
            (false, true) => Some(true),
            _ => None,
        };
        while pump(cx, &mut self.client, &mut self.server, &mut self.up, scratch)
            | pump(cx, &mut self.server, &mut self.client, &mut self.down, scratch)
        {}
        if (self.up.bytes, self.down.bytes) != (before.0, before.1) {
            self.heart.beat();
        }
        let by_client = first_closed.unwrap_or(!self.up.open);
        if !self.up.open && !self.down.open && self.client.is_flushed() && self.server.is_flushed() {
            let error = if by_client { self.up.error } else { self.down.error };
            return Some(match error {
                Some(kind) => End::Broken { by_client, kind },
                None => End::Closed { by_client },
            });
        }
        if (before.2 && before.3) && (!self.up.open || !self.down.open) {
            self.heart.set_timeout(HALF_CLOSED_TIMEOUT);
        }
        let verdict = self.heart.verdict(cx.waker())?;
        self.say_farewell(verdict, scratch);
        Some(End::Told(verdict))
    }

    /// The client is told, where that can't land in the middle of something else.
    fn say_farewell(&mut self, verdict: Verdict, scratch: &mut Scratch) {
        if verdict == Verdict::Drained && self.down.open && self.down.at_line_end && self.client.is_flushed() {
            let _ = self.client.send(self.farewell, &mut scratch.outgoing);
        }
        let _ = self.client.close_write(&mut scratch.outgoing);
        let _ = self.server.close_write(&mut scratch.outgoing);
    }
}

impl Future for Relay {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let relay = self.get_mut();
        match Scratch::with(|scratch| relay.advance(cx, scratch)) {
            Some(end) => Poll::Ready(Outcome { end, bytes_up: relay.up.bytes, bytes_down: relay.down.bytes }),
            None => Poll::Pending,
        }
    }
}

/// Moves one piece from one side to the other; false: nothing can be moved now. The rest of a piece
/// that the receiver doesn't take waits there, and until it is gone nothing more is read: that is the
/// back-pressure.
fn pump(cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream, lane: &mut Lane, scratch: &mut Scratch) -> bool {
    match to.poll_flush(cx) {
        Poll::Pending => return false,
        Poll::Ready(Err(error)) if lane.open => {
            lane.end(Some(&error));
            return true;
        }
        Poll::Ready(_) => {}
    }
    if !lane.open {
        return false;
    }
    let Scratch { incoming, outgoing } = scratch;
    let result = match from.poll_receive(cx, incoming, outgoing) {
        Poll::Pending => return false,
        Poll::Ready(Ok(Received::Bytes(bytes))) => {
            lane.bytes += bytes.len() as u64;
            lane.at_line_end = bytes.last() == Some(&b'\n');
            to.send(bytes, outgoing)
        }
        Poll::Ready(Ok(Received::End)) => {
            lane.end(None);
            to.close_write(outgoing)
        }
        Poll::Ready(Err(error)) => {
            lane.end(Some(&error));
            to.close_write(outgoing)
        }
    };
    if let Err(error) = result {
        lane.end(Some(&error));
    }
    true
}
