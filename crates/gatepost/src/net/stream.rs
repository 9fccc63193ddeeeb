//! A connection in clear or under TLS, made to cost little while nothing is said on it.
//!
//! TLS runs on rustls' unbuffered interface: between two reads a session keeps no buffer at all, but
//! for the rest of a record that came in part and bytes that the peer's socket did not take yet. All
//! other bytes pass through [`Scratch`], of which each thread has one.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use zeroize::{Zeroize as _, Zeroizing};

use super::records::{Outgoing, Processed, Progress, Sending, Side};
use super::socket::{Connection, Read};

pub(crate) use super::records::TlsFacts;

/// How much is read from a socket at a time: so much at first, and more where whole pieces keep coming and
/// are taken at once. Large pieces make long transfers cheap; but what a slow receiver leaves of one is kept.
pub(crate) const READ_BYTES_MIN: usize = 64 * 1024;
pub(crate) const READ_BYTES_MAX: usize = 256 * 1024;
/// A peer's handshake messages may come to this much before it has proved anything.
const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;
/// What may lie before the bytes just read: a handshake message that is not whole yet, or a record, of
/// at most 18 KiB (RFC 8446, section 5.2).
const PARTIAL_BYTES_MAX: usize = HANDSHAKE_BYTES_MAX;

/// A thread's buffers, through which the bytes of all its sessions pass.
pub(crate) struct Scratch {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

/// Bytes on their way from a socket.
pub(crate) struct Incoming {
    /// As they were read; rustls decrypts them in place.
    received: Box<[u8]>,
    /// How much of `received` the last read filled.
    filled: usize,
    /// As they were meant.
    plain: Vec<u8>,
}

impl Incoming {
    /// Forgets what was read last, which may be a password. What lies behind it is mail that was relayed: wiping
    /// that too would cost more than the log-in.
    fn wipe(&mut self) {
        self.received[..self.filled].zeroize();
        self.plain.as_mut_slice().zeroize();
        self.plain.clear();
        self.filled = 0;
    }
}

impl Scratch {
    fn new() -> Self {
        let received = vec![0; PARTIAL_BYTES_MAX + READ_BYTES_MAX].into();
        Self { incoming: Incoming { received, filled: 0, plain: Vec::new() }, outgoing: Outgoing::default() }
    }

    /// Lends the thread's buffers to `work`, which must not wait.
    pub(crate) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
        }
        SCRATCH.with_borrow_mut(work)
    }
}

/// What reading gave.
pub(crate) enum Received<'a> {
    Bytes(&'a [u8]),
    /// The peer says no more, cleanly or not.
    End,
}

/// A TCP connection, in clear or under TLS.
pub(crate) struct Stream {
    connection: Connection,
    /// The peer says no more, and all that it said is read.
    is_read_out: bool,
    tls: Option<Box<Tls>>,
    /// Bytes that the peer's socket did not take yet.
    unsent: Vec<u8>,
    /// How many of them went since.
    unsent_gone: usize,
    write: WriteSide,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteSide {
    Open,
    /// Closes when everything is sent.
    Closing,
    Closed,
}

struct Tls {
    side: Side,
    /// The beginning of a record whose rest hasn't come.
    partial: Vec<u8>,
    /// Data that came along with the end of the handshake: a log-in, perhaps.
    early: Zeroizing<Vec<u8>>,
    state: TlsState,
}

/// What TLS can still be asked for.
enum TlsState {
    Live,
    /// The peer says no more; we still may.
    PeerClosed,
    /// It failed behind data that was still sound: whoever has read that is told.
    Failing(io::Error),
    /// It failed: nothing more goes in or out, since rustls takes no call after an alert.
    Dead,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A password may be on its way.
        self.drop_unsent();
    }
}

impl Tls {
    /// Whether there is still somebody to encrypt for.
    fn can_send(&self) -> bool {
        matches!(self.state, TlsState::Live | TlsState::PeerClosed)
    }
}

impl Stream {
    /// A connection in clear.
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, is_read_out: false, tls: None, unsent: Vec::new(), unsent_gone: 0, write: WriteSide::Open }
    }

    /// The socket beneath.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Begins TLS with a client that connected to us.
    /// `early` is what it already sent, should somebody have had to read it; `we_speak`: the first word
    /// under TLS is ours and follows at once.
    pub(crate) async fn accept_tls(
        &mut self,
        config: Arc<ServerConfig>,
        early: Vec<u8>,
        we_speak: bool,
    ) -> io::Result<()> {
        let side = Side::server(config)?;
        self.handshake(side, early, we_speak).await
    }

    /// Begins TLS with a server that we connected to.
    pub(crate) async fn connect_tls(&mut self, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<()> {
        let side = Side::client(config, name)?;
        self.handshake(side, Vec::new(), false).await
    }

    async fn handshake(&mut self, side: Side, partial: Vec<u8>, we_speak: bool) -> io::Result<()> {
        let mut total = partial.len();
        self.tls = Some(Box::new(Tls { side, partial, early: Zeroizing::default(), state: TlsState::Live }));
        // A client speaks first: let it write before anything is read.
        let mut progress = Scratch::with(|Scratch { incoming, outgoing }| {
            let progress = self.decrypt(0, incoming, outgoing);
            self.push(outgoing.filled(), false)?;
            self.keep_early(incoming);
            progress
        })?;
        loop {
            self.flush().await?;
            if progress != Progress::Handshaking {
                return Ok(());
            }
            let count = std::future::poll_fn(|cx| {
                Scratch::with(|Scratch { incoming, outgoing }| {
                    let count = ready!(self.poll_read_raw(cx, READ_BYTES_MIN, incoming))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
                    }
                    let decrypted = self.decrypt(count, incoming, outgoing);
                    // The last flight of a handshake, a ticket mostly, may go out with what is said next.
                    let more = we_speak && matches!(decrypted, Ok(Progress::Open));
                    let pushed = self.push(outgoing.filled(), more);
                    progress = decrypted?;
                    pushed?;
                    self.keep_early(incoming);
                    Poll::Ready(Ok(count))
                })
            });
            total += count.await?;
            if total > HANDSHAKE_BYTES_MAX && progress == Progress::Handshaking {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the TLS handshake is too large"));
            }
        }
    }

    /// Data that comes before the handshake is known to be over waits for the first read.
    fn keep_early(&mut self, incoming: &mut Incoming) {
        if let Some(tls) = &mut self.tls {
            tls.early.extend_from_slice(&incoming.plain);
        }
        incoming.wipe();
    }

    /// Version and cipher, once TLS is up.
    pub(crate) fn tls_facts(&self) -> Option<TlsFacts> {
        self.tls.as_ref()?.side.facts()
    }

    /// The peer's certificate, if it showed one.
    pub(crate) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.as_ref()?.side.peer_certificate()
    }

    /// Appends what the peer sent next to `into`; 0: it says no more. For the time before the log-in:
    /// nothing of it stays in the thread's buffers.
    pub(crate) async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            Scratch::with(|Scratch { incoming, outgoing }| {
                let count = ready!(self.poll_read(cx, READ_BYTES_MIN, into, incoming, outgoing))?;
                incoming.wipe();
                Poll::Ready(Ok(count))
            })
        })
        .await
    }

    /// As [`Stream::read`], for mail, which is no secret of that kind and comes in large pieces.
    pub(crate) async fn read_mail(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            Scratch::with(|Scratch { incoming, outgoing }| self.poll_read(cx, READ_BYTES_MAX, into, incoming, outgoing))
        })
        .await
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        into: &mut Vec<u8>,
        incoming: &mut Incoming,
        outgoing: &mut Outgoing,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(match ready!(self.poll_receive(cx, most, incoming, outgoing))? {
            Received::Bytes(bytes) => {
                into.extend_from_slice(bytes);
                bytes.len()
            }
            Received::End => 0,
        }))
    }

    /// Sends all of `bytes`.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            Scratch::with(|scratch| self.send(bytes, false, &mut scratch.outgoing))?;
        }
        self.flush().await
    }

    /// Sends what waits to be sent.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Says goodbye as far as the socket takes it at once: TLS' closing alert and the end of the stream.
    pub(crate) fn close(&mut self) {
        let _ = Scratch::with(|scratch| self.close_write(&mut scratch.outgoing));
    }

    /// Reads once, at most `most` bytes, without waiting longer than the context allows. They lie in `incoming`.
    pub(crate) fn poll_receive<'s>(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        incoming: &'s mut Incoming,
        outgoing: &mut Outgoing,
    ) -> Poll<io::Result<Received<'s>>> {
        if let Some(tls) = &mut self.tls
            && !tls.early.is_empty()
        {
            incoming.plain.clear();
            incoming.plain.extend_from_slice(&tls.early);
            tls.early = Zeroizing::default();
            return Poll::Ready(Ok(Received::Bytes(&incoming.plain)));
        }
        loop {
            if let Some(tls) = &mut self.tls {
                match std::mem::replace(&mut tls.state, TlsState::Dead) {
                    TlsState::Live => tls.state = TlsState::Live,
                    TlsState::Failing(error) => return Poll::Ready(Err(error)),
                    TlsState::Dead => return Poll::Ready(Ok(Received::End)),
                    TlsState::PeerClosed => {
                        tls.state = TlsState::PeerClosed;
                        return Poll::Ready(Ok(Received::End));
                    }
                }
            }
            let count = ready!(self.poll_read_raw(cx, most, incoming))?;
            if count == 0 {
                return Poll::Ready(Ok(Received::End));
            }
            if self.tls.is_none() {
                return Poll::Ready(Ok(Received::Bytes(&incoming.received[..count])));
            }
            let failed = self.decrypt(count, incoming, outgoing).err();
            // That the peer takes nothing more is for whoever writes to find out.
            let _ = self.push(outgoing.filled(), false);
            if let (Some(tls), Some(error)) = (&mut self.tls, failed) {
                tls.state = TlsState::Failing(error);
            }
            // A record may hold no data: a ticket, a key update.
            if !incoming.plain.is_empty() {
                return Poll::Ready(Ok(Received::Bytes(&incoming.plain)));
            }
        }
    }

    /// Whether nothing comes behind what was received.
    pub(crate) fn is_over(&self) -> bool {
        match &self.tls {
            Some(tls) => matches!(tls.state, TlsState::PeerClosed | TlsState::Dead) && tls.early.is_empty(),
            None => self.is_read_out,
        }
    }

    /// Sends `bytes`; what the socket does not take is kept. Ask [`Stream::poll_flush`] before the next.
    /// With `more`, something follows at once and may go out together with them.
    pub(crate) fn send(&mut self, bytes: &[u8], more: bool, outgoing: &mut Outgoing) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.push(bytes, more) };
        if !tls.can_send() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        outgoing.clear();
        tls.side.encrypt(&mut tls.partial, &Sending::Data(bytes), outgoing)?;
        self.push(outgoing.filled(), more)
    }

    /// Ends our side of the conversation once everything is sent.
    pub(crate) fn close_write(&mut self, outgoing: &mut Outgoing) -> io::Result<()> {
        if self.write != WriteSide::Open {
            return Ok(());
        }
        self.write = WriteSide::Closing;
        self.say_goodbye(outgoing)?;
        self.try_flush()
    }

    /// As [`Stream::close_write`], for a stream that is dropped next: that ends our side as well.
    pub(crate) fn close_last(&mut self, outgoing: &mut Outgoing) -> io::Result<()> {
        if self.write != WriteSide::Open {
            return Ok(());
        }
        self.write = WriteSide::Closed;
        self.say_goodbye(outgoing)
    }

    /// TLS' closing alert, which the end of the stream follows.
    fn say_goodbye(&mut self, outgoing: &mut Outgoing) -> io::Result<()> {
        let Some(tls) = self.tls.as_mut().filter(|tls| tls.can_send()) else { return Ok(()) };
        outgoing.clear();
        tls.side.encrypt(&mut tls.partial, &Sending::Close, outgoing)?;
        self.push(outgoing.filled(), true)
    }

    /// How many bytes wait to be sent.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len() - self.unsent_gone
    }

    /// Sends what waits to be sent, then closes the write side if that was asked for.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.try_flush()?;
            if self.unsent.is_empty() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.connection.poll_write_again(cx))?;
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while self.unsent_gone < self.unsent.len() {
            match self.connection.write(&self.unsent[self.unsent_gone..], false) {
                Ok(Some(count)) => self.unsent_gone += count,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.give_up_writing(error)),
            }
        }
        if !self.unsent.is_empty() {
            self.drop_unsent();
        }
        if self.write == WriteSide::Closing {
            self.write = WriteSide::Closed;
            self.connection.shut_down_write()?;
        }
        Ok(())
    }

    fn drop_unsent(&mut self) {
        self.unsent.zeroize();
        self.unsent = Vec::new();
        self.unsent_gone = 0;
    }

    /// The peer takes no more: what waits for it never goes.
    fn give_up_writing(&mut self, error: io::Error) -> io::Error {
        self.drop_unsent();
        self.write = WriteSide::Closed;
        error
    }

    /// Writes to the socket, behind what waits already, and keeps the rest.
    fn push(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        let mut sent = 0;
        while self.unsent.is_empty() && sent < bytes.len() {
            match self.connection.write(&bytes[sent..], more) {
                Ok(Some(count)) => sent += count,
                Ok(None) => break,
                Err(error) => return Err(self.give_up_writing(error)),
            }
        }
        if sent < bytes.len() {
            self.unsent.extend_from_slice(&bytes[sent..]);
            self.connection.watch_writes()?;
        }
        Ok(())
    }

    /// Reads from the socket into `incoming`, leaving room for a partial record before it. 0: it has ended.
    fn poll_read_raw(&mut self, cx: &mut Context<'_>, most: usize, incoming: &mut Incoming) -> Poll<io::Result<usize>> {
        if self.is_read_out {
            return Poll::Ready(Ok(0));
        }
        let start = self.tls.as_ref().map_or(0, |tls| tls.partial.len());
        let room = incoming.received.get_mut(start..start + most).ok_or(io::ErrorKind::InvalidData)?;
        let Read { count, is_last } = ready!(self.connection.poll_read(cx, room))?;
        incoming.filled = start + count;
        self.is_read_out = is_last;
        Poll::Ready(Ok(count))
    }

    /// Decrypts the partial record and the `count` bytes read behind it. Plaintext then lies in
    /// `incoming.plain`, and in `outgoing` what TLS itself has to send, also after an error.
    fn decrypt(&mut self, count: usize, incoming: &mut Incoming, outgoing: &mut Outgoing) -> io::Result<Progress> {
        let Some(tls) = &mut self.tls else { return Ok(Progress::Open) };
        let before = tls.partial.len();
        incoming.received[..before].copy_from_slice(&tls.partial);
        incoming.filled = before + count;
        incoming.plain.clear();
        outgoing.clear();
        let Incoming { received, plain, .. } = incoming;
        let bytes = &mut received[..before + count];
        let result = tls.side.process(bytes, plain, outgoing);
        match result {
            Ok(Processed { used, progress }) => {
                tls.partial = bytes[used..].to_vec();
                if progress == Progress::Ended {
                    tls.state = TlsState::PeerClosed;
                }
                Ok(progress)
            }
            Err(error) => {
                tls.state = TlsState::Dead;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ends::{configurations, sockets, stream};

    /// A server's and a client's end of one connection under TLS.
    async fn under_tls() -> (Stream, Stream) {
        let (server, client, _) = configurations();
        let (mut near, mut far) = in_clear().await;
        let name = ServerName::try_from("localhost").expect("a name");
        let (accepted, connected) =
            tokio::join!(far.accept_tls(server, Vec::new(), false), near.connect_tls(client, name));
        accepted.and(connected).expect("a handshake");
        (far, near)
    }

    async fn in_clear() -> (Stream, Stream) {
        let (near, far) = sockets().await;
        (stream(near), stream(far))
    }

    #[tokio::test]
    async fn nothing_that_was_read_before_the_log_in_stays_in_the_threads_buffers() {
        let (mut server, mut client) = under_tls().await;
        // As many records as words, in one segment.
        let words: [&[u8]; 3] = [b"a CAPABILITY\r\n", b"b LOGIN kim {6+}\r\n", b"hushed\r\n"];
        let mut records = Vec::new();
        for word in words {
            let Some(tls) = &mut client.tls else { unreachable!("TLS is up") };
            let mut outgoing = Outgoing::default();
            tls.side.encrypt(&mut tls.partial, &Sending::Data(word), &mut outgoing).expect("a record");
            records.extend_from_slice(outgoing.filled());
        }
        client.push(&records, false).expect("sent");
        let mut heard = Vec::new();
        while heard.len() < words.concat().len() {
            server.read(&mut heard).await.expect("what was said");
        }
        assert_eq!(heard, words.concat());
        Scratch::with(|Scratch { incoming, .. }| {
            let is_kept = incoming.received.windows(6).any(|window| window == b"hushed");
            assert!(!is_kept, "a password stays where it was decrypted");
        });
    }

    #[tokio::test]
    async fn after_a_failed_handshake_tls_is_asked_nothing_more() {
        let (mut client, mut server) = in_clear().await;
        client.write_all(b"a LOGIN kim secret\r\n").await.expect("sent");
        let failed = server.accept_tls(configurations().0, Vec::new(), false).await;
        assert_eq!(failed.expect_err("no handshake").kind(), io::ErrorKind::InvalidData);
        client.write_all(b"a LOGIN kim secret\r\n").await.expect("sent");
        let mut heard = Vec::new();
        assert_eq!(server.read(&mut heard).await.expect("an end"), 0, "{heard:?}");
        assert!(server.is_over());
    }
}
