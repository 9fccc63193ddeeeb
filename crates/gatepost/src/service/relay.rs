//! After the log-in: bytes both ways, unchanged, until both sides are done.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::wheel::{SessionHandle, Signal};
use crate::net::stream::{READ_BYTES_MAX, READ_BYTES_MIN, Received, Scratch, Stream};
use crate::story::{End, EndReason, Outcome, Side};

/// Pieces moved at a time before the thread's other sessions have their turn; see [`READ_BYTES_MAX`].
const PIECES_MAX: u32 = 16;
/// Once one side has said its last word, the other may be silent for this long.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_mins(1);

/// A logged-in session: everything that stays in memory for it. Small, since there are many.
pub(super) struct Relay {
    client: Stream,
    server: Stream,
    handle: SessionHandle,
    up: Lane,
    down: Lane,
    /// The back end spoke last.
    is_clients_turn: bool,
    /// What the client is told when Gatepost stops and it is between two lines.
    farewell: &'static [u8],
}

/// One direction.
struct Lane {
    /// Whence it comes.
    from: Side,
    /// Moved since the handle was last told.
    fresh_bytes: u32,
    /// How much is moved at a time.
    piece_bytes: u32,
    course: Course,
    /// What was moved last ended a line: a line of our own may follow it.
    at_line_end: bool,
}

/// How far a direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Open,
    /// By a clean end of the stream.
    Ended,
    Broken(Broken),
}

/// A connection that broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Broken {
    side: Side,
    kind: io::ErrorKind,
}

impl Lane {
    const fn new(from: Side) -> Self {
        Self { from, fresh_bytes: 0, piece_bytes: READ_BYTES_MIN as u32, course: Course::Open, at_line_end: true }
    }

    /// A piece was moved; `taken`: the receiver took all of it.
    fn moved(&mut self, bytes: &[u8], taken: bool) {
        self.fresh_bytes = self.fresh_bytes.saturating_add(bytes.len() as u32);
        self.at_line_end = bytes.ends_with(b"\r\n");
        // TLS takes a little of each piece for itself.
        let was_full = bytes.len() + bytes.len() / 64 >= self.piece_bytes as usize;
        if !taken {
            self.piece_bytes = (self.piece_bytes / 2).max(READ_BYTES_MIN as u32);
        } else if was_full {
            self.piece_bytes = (self.piece_bytes * 2).min(READ_BYTES_MAX as u32);
        }
    }

    fn is_open(&self) -> bool {
        self.course == Course::Open
    }

    fn broken(&self) -> Option<Broken> {
        match self.course {
            Course::Open | Course::Ended => None,
            Course::Broken(broken) => Some(broken),
        }
    }

    fn end(&mut self) {
        self.course = Course::Ended;
    }

    /// The connection that is read from broke.
    fn end_unreadable(&mut self, error: &io::Error) {
        self.end_broken(self.from, error);
    }

    /// The connection that is written to broke.
    fn end_unwritable(&mut self, error: &io::Error) {
        self.end_broken(self.from.other(), error);
    }

    /// What breaks behind the first break is only its consequence.
    fn end_broken(&mut self, side: Side, error: &io::Error) {
        if self.broken().is_none() {
            self.course = Course::Broken(Broken { side, kind: error.kind() });
        }
    }
}

impl Relay {
    /// A relay between two connections on which what was read too early is already passed on.
    pub(super) fn new(client: Stream, server: Stream, handle: SessionHandle, farewell: &'static [u8]) -> Self {
        let (up, down) = (Lane::new(Side::Client), Lane::new(Side::Backend));
        Self { client, server, handle, up, down, is_clients_turn: false, farewell }
    }

    /// Moves what can be moved. Whether the relay is over, and how.
    fn advance(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Option<End> {
        let closed_before = self.first_closed();
        self.move_pieces(cx, scratch);
        let first_closed = closed_before.or(self.first_closed());
        if let Some(by) = first_closed {
            if !self.up.is_open() && !self.down.is_open() && self.unsent() == (0, 0) {
                let broken = self.up.broken().or(self.down.broken());
                return Some(broken.map_or(End::Closed { by }, |Broken { side, kind }| End::Broken { side, kind }));
            }
            if closed_before.is_none() {
                self.handle.moved(0, 0);
                self.handle.set_timeout(HALF_CLOSED_TIMEOUT);
            }
        }
        match self.handle.signal(cx.waker())? {
            // Costs a few system calls, which the many sessions that last no longer are spared.
            Signal::Settled => {
                // A peer that can't be looked after is only found dead later.
                let _ = self.server.connection().keep_alive();
                None
            }
            Signal::End(EndReason::Drained) if !self.is_between_commands() => {
                self.handle.decline();
                None
            }
            Signal::End(reason) => {
                self.end(reason, scratch);
                Some(End::Told(reason))
            }
        }
    }

    /// Moves pieces for as long as there are some, or until other sessions must have their turn.
    fn move_pieces(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) {
        let unsent = self.unsent();
        let mut pieces = 0;
        while pump(cx, &mut self.client, &mut self.server, &mut self.up, !self.down.is_open(), scratch)
            | pump(cx, &mut self.server, &mut self.client, &mut self.down, !self.up.is_open(), scratch)
        {
            pieces += 1;
            if pieces == PIECES_MAX {
                cx.waker().wake_by_ref();
                break;
            }
        }
        let (up, down) = (std::mem::take(&mut self.up.fresh_bytes), std::mem::take(&mut self.down.fresh_bytes));
        if (up, down) != (0, 0) || self.unsent() != unsent {
            self.handle.moved(up.into(), down.into());
        }
        if (up, down) != (0, 0) {
            self.is_clients_turn = down > 0;
        }
    }

    /// The side that has ended its stream; of both, the client.
    fn first_closed(&self) -> Option<Side> {
        [&self.up, &self.down].into_iter().find(|lane| !lane.is_open()).map(|lane| lane.from)
    }

    /// Ends both streams. The farewell says that Gatepost does; whoever is idle or expired just sees the end.
    fn end(&mut self, reason: EndReason, scratch: &mut Scratch) {
        let is_ours = matches!(reason, EndReason::Drained | EndReason::Stopped | EndReason::Kicked);
        if is_ours && self.is_between_commands() {
            let _ = self.client.send(self.farewell, true, &mut scratch.outgoing);
        }
        let _ = self.client.close_write(&mut scratch.outgoing);
        let _ = self.server.close_write(&mut scratch.outgoing);
    }

    /// As far as can be told from outside: everything is sent, the back end spoke last, and its last
    /// word was the end of a line. A line of ours can then not land in the middle of something else.
    fn is_between_commands(&self) -> bool {
        let is_flushed = self.client.unsent() == 0 && self.server.unsent() == 0;
        is_flushed && self.down.is_open() && self.down.at_line_end && self.is_clients_turn
    }

    /// What each side has not taken yet.
    fn unsent(&self) -> (usize, usize) {
        (self.client.unsent(), self.server.unsent())
    }

    /// The session's handle.
    pub(super) fn handle(&self) -> &SessionHandle {
        &self.handle
    }
}

impl Future for Relay {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let relay = self.get_mut();
        match Scratch::with(|scratch| relay.advance(cx, scratch)) {
            Some(end) => {
                let (bytes_up, bytes_down) = relay.handle.bytes();
                Poll::Ready(Outcome { end, bytes_up, bytes_down })
            }
            None => Poll::Pending,
        }
    }
}

/// Moves one piece from one side to the other; false: nothing can be moved now. The rest of a piece
/// that the receiver doesn't take waits there, and until it is gone nothing more is read: that is the
/// back-pressure.
fn pump(
    cx: &mut Context<'_>,
    from: &mut Stream,
    to: &mut Stream,
    lane: &mut Lane,
    is_last_lane: bool,
    scratch: &mut Scratch,
) -> bool {
    match to.poll_flush(cx) {
        Poll::Pending => return false,
        Poll::Ready(Err(error)) if lane.is_open() => {
            lane.end_unwritable(&error);
            return true;
        }
        Poll::Ready(_) => {}
    }
    if !lane.is_open() {
        return false;
    }
    let Scratch { incoming, outgoing } = scratch;
    let result = match from.poll_receive(cx, lane.piece_bytes as usize, incoming, outgoing) {
        Poll::Pending => return false,
        Poll::Ready(Ok(Received::Bytes(bytes))) => {
            // The end of the stream goes out together with its last bytes.
            let result = to.send(bytes, from.is_over(), outgoing);
            lane.moved(bytes, to.unsent() == 0);
            result
        }
        Poll::Ready(Ok(Received::End)) => {
            lane.end();
            if is_last_lane && to.unsent() == 0 && from.unsent() == 0 {
                to.close_last(outgoing)
            } else {
                to.close_write(outgoing)
            }
        }
        Poll::Ready(Err(error)) => {
            lane.end_unreadable(&error);
            to.close_write(outgoing)
        }
    };
    if let Err(error) = result {
        lane.end_unwritable(&error);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::wheel::Wheel;
    use crate::story::Story;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use crate::net::ends::{sockets, stream};

    /// A running relay with the client's and the back end's ends.
    async fn running(timeout: Duration) -> (tokio::task::JoinHandle<Outcome>, TcpStream, TcpStream) {
        let ((client, client_far), (server, server_far)) = (sockets().await, sockets().await);
        let handle = Wheel::enter(Story::new(&gatepost_wire::PROTOCOLS[0], &"imap".into(), ([127, 0, 0, 1], 1).into()));
        handle.relays(timeout);
        let relay = Relay::new(stream(client_far), stream(server), handle, b"* BYE\r\n");
        (tokio::spawn(relay), client, server_far)
    }

    async fn say(from: &mut TcpStream, to: &mut TcpStream, words: &[u8]) {
        from.write_all(words).await.expect("a connection");
        let mut heard = vec![0; words.len()];
        to.read_exact(&mut heard).await.expect("what was said");
        assert_eq!(heard, words);
    }

    /// Lets so many seconds of the wheel pass, and the relay see each.
    async fn pass(seconds: u32) {
        for _ in 0..seconds {
            Wheel::tick();
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn silence_ends_a_session_and_every_byte_puts_that_off() {
        let (relay, mut client, mut server) = running(Duration::from_secs(100)).await;
        for _ in 0..3 {
            pass(99).await;
            say(&mut client, &mut server, b"a NOOP\r\n").await;
            pass(99).await;
            say(&mut server, &mut client, b"a OK\r\n").await;
        }
        pass(99).await;
        assert!(!relay.is_finished());
        pass(1).await;
        let outcome = relay.await.expect("an outcome");
        assert_eq!(outcome.end, End::Told(EndReason::Idle));
        assert_eq!((outcome.bytes_up, outcome.bytes_down), (24, 18));
    }

    #[tokio::test]
    async fn a_half_closed_session_is_reaped() {
        let (relay, client, mut server) = running(Duration::from_mins(35)).await;
        pass(500).await;
        drop(server.write_all(b"* BYE\r\n").await);
        drop(server);
        let mut client = client;
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("the last words");
        assert_eq!(heard, b"* BYE\r\n");
        pass(59).await;
        assert!(!relay.is_finished(), "the client may still be reading");
        pass(2).await;
        assert_eq!(relay.await.expect("an outcome").end, End::Told(EndReason::Idle));
    }

    #[tokio::test]
    async fn a_drain_waits_for_the_end_of_a_command() {
        let (relay, mut client, mut server) = running(Duration::from_mins(35)).await;
        say(&mut server, &mut client, b"* OK\r\n").await;
        say(&mut client, &mut server, b"a SEARCH TEXT x\r\n").await;
        pass(5).await;
        Wheel::ask_quiet_to_go(usize::MAX);
        tokio::task::yield_now().await;
        assert!(!relay.is_finished(), "a command is under way");
        say(&mut server, &mut client, b"* SEARCH\r\na OK\r\n").await;
        pass(5).await;
        Wheel::ask_quiet_to_go(usize::MAX);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("the last words");
        assert_eq!(heard, b"* BYE\r\n");
        assert_eq!(relay.await.expect("an outcome").end, End::Told(EndReason::Drained));
    }

    #[tokio::test]
    async fn the_side_that_broke_is_named() {
        let (relay, client, mut server) = running(Duration::from_mins(35)).await;
        client.set_zero_linger().expect("an option");
        drop(client);
        let mut heard = Vec::new();
        let _ = server.read_to_end(&mut heard).await;
        drop(server);
        let end = relay.await.expect("an outcome").end;
        assert_eq!(end, End::Broken { side: Side::Client, kind: io::ErrorKind::ConnectionReset });
    }
}
