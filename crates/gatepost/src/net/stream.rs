//! A connection in clear or under TLS, made to cost little while nothing is said on it.
//!
//! TLS runs on rustls' unbuffered interface: between two reads a session keeps no buffer at all, but
//! for the rest of a record that came in part and bytes that the peer's socket did not take yet. All
//! other bytes pass through [`Scratch`], of which each thread has one.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig};
use socket2::SockRef;
use tokio::net::TcpStream;
use zeroize::Zeroize as _;

/// How much is read from a socket at a time.
const READ_BYTES: usize = 64 * 1024;
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
    /// As they were read.
    received: Box<[u8]>,
    /// As they were meant.
    plain: Vec<u8>,
}

impl Scratch {
    fn new() -> Self {
        let received = vec![0; PARTIAL_BYTES_MAX + READ_BYTES].into();
        Self { incoming: Incoming { received, plain: Vec::new() }, outgoing: Outgoing::default() }
    }

    /// Lends the thread's buffers to `work`, which must not wait.
    pub(crate) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
        }
        SCRATCH.with_borrow_mut(work)
    }
}

/// Bytes on their way to a socket. Grown once, and never cleared between uses.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    filled: usize,
}

impl Outgoing {
    /// Room for `count` more bytes.
    fn room(&mut self, count: usize) -> &mut [u8] {
        if self.bytes.len() < self.filled + count {
            self.bytes.resize(self.filled + count, 0);
        }
        &mut self.bytes[self.filled..]
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
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
    tcp: TcpStream,
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
    /// Data that came along with the end of the handshake.
    early: Vec<u8>,
    ended: bool,
    /// What went wrong behind data that was still sound.
    failed: Option<io::Error>,
    /// TLS has failed: nothing more goes in or out.
    is_dead: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What lets one function serve both sides of TLS.
trait Records {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Records for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Records for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// How far TLS has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Handshaking,
    Open,
    Ended,
}

/// TLS is done with this many of the bytes it was given, and stands there.
struct Processed {
    used: usize,
    progress: Progress,
}

/// Lets TLS work off `incoming`: plaintext goes to `plain`, what TLS itself must send to `outgoing`.
fn process<C: Records>(
    tls: &mut C,
    incoming: &mut [u8],
    plain: &mut Vec<u8>,
    outgoing: &mut Outgoing,
) -> io::Result<Processed> {
    let mut used = 0;
    let mut ended = false;
    loop {
        let UnbufferedStatus { mut discard, state } = tls.process(&mut incoming[used..]);
        let progress = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(tls_error)?;
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                None
            }
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                encode(outgoing, |room| message.encode(room))?;
                None
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                None
            }
            Ok(ConnectionState::PeerClosed) => {
                ended = true;
                None
            }
            Ok(ConnectionState::BlockedHandshake) => Some(Progress::Handshaking),
            Ok(ConnectionState::WriteTraffic(_)) => Some(if ended { Progress::Ended } else { Progress::Open }),
            Ok(ConnectionState::Closed) => Some(Progress::Ended),
            Ok(_) => return Err(io::Error::other("TLS took a turn that was never allowed")),
            Err(error) => {
                used += discard;
                // The peer is told why, by an alert that is the last of what waits to be encoded. Not a
                // step further: rustls takes no input after an alert.
                while let Ok(ConnectionState::EncodeTlsData(mut message)) = tls.process(&mut incoming[used..]).state {
                    let before = outgoing.filled;
                    encode(outgoing, |room| message.encode(room))?;
                    if is_alert(&outgoing.filled()[before..]) {
                        break;
                    }
                }
                return Err(tls_error(error));
            }
        };
        used += discard;
        if let Some(progress) = progress {
            return Ok(Processed { used, progress });
        }
    }
}

/// Whether a record is an alert: by its type, or under TLS 1.3, which hides the type, by its length
/// (RFC 8446, section 5.2: header, two bytes, the type, and a tag of 16 bytes).
fn is_alert(record: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const APPLICATION_DATA: u8 = 23;
    match record.first() {
        Some(&ALERT) => true,
        Some(&APPLICATION_DATA) => record.len() == 5 + 2 + 1 + 16,
        _ => false,
    }
}

/// Has rustls encode into `outgoing`, with as much room as it says it needs.
fn encode(outgoing: &mut Outgoing, mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> io::Result<()> {
    let mut needed = 1024;
    loop {
        match write(outgoing.room(needed)) {
            Ok(written) => {
                outgoing.filled += written;
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => needed = size.required_size,
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

/// What to do once TLS may send application data.
enum Sending<'a> {
    Data(&'a [u8]),
    Close,
}

/// Encrypts into `outgoing`. `partial` is what TLS was given before and could not use yet: it wants to
/// see that again whenever it is asked anything.
fn encrypt<C: Records>(
    tls: &mut C,
    partial: &mut Vec<u8>,
    sending: &Sending<'_>,
    outgoing: &mut Outgoing,
) -> io::Result<()> {
    loop {
        let UnbufferedStatus { discard, state } = tls.process(partial);
        let is_done = match state.map_err(tls_error)? {
            ConnectionState::EncodeTlsData(mut message) => {
                encode(outgoing, |room| message.encode(room))?;
                false
            }
            ConnectionState::TransmitTlsData(transmit) => {
                transmit.done();
                false
            }
            ConnectionState::WriteTraffic(mut traffic) => {
                write_traffic(&mut traffic, sending, outgoing)?;
                true
            }
            // Both sides have closed: there is nobody to send to.
            ConnectionState::Closed => true,
            ConnectionState::PeerClosed => false,
            _ => return Err(io::Error::other("TLS is not ready to send")),
        };
        partial.drain(..discard);
        if is_done {
            return Ok(());
        }
    }
}

fn write_traffic<D>(
    traffic: &mut WriteTraffic<'_, D>,
    sending: &Sending<'_>,
    outgoing: &mut Outgoing,
) -> io::Result<()> {
    // A record holds 16 KiB and adds at most 22 bytes and 5 of a header, with some to spare.
    let mut needed = match sending {
        Sending::Data(plain) => plain.len() + (plain.len() / (16 * 1024) + 1) * 64,
        Sending::Close => 64,
    };
    loop {
        let room = outgoing.room(needed);
        let result = match sending {
            Sending::Data(plain) => traffic.encrypt(plain, room),
            Sending::Close => traffic.queue_close_notify(room),
        };
        match result {
            Ok(written) => {
                outgoing.filled += written;
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) => needed = size.required_size,
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn tls_error(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The TLS in use on a connection, for the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlsFacts {
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
}

impl Stream {
    /// A connection in clear.
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, tls: None, unsent: Vec::new(), unsent_gone: 0, write: WriteSide::Open }
    }

    /// The socket, for its addresses and options.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Ends TLS for a client that connected to us.
    /// `early` is what it already sent, should somebody have had to read it.
    pub(crate) async fn accept_tls(&mut self, config: Arc<ServerConfig>, early: Vec<u8>) -> io::Result<()> {
        let side = Side::Server(UnbufferedServerConnection::new(config).map_err(tls_error)?);
        self.handshake(side, early).await
    }

    /// Begins TLS with a server that we connected to.
    pub(crate) async fn connect_tls(&mut self, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<()> {
        let side = Side::Client(UnbufferedClientConnection::new(config, name).map_err(tls_error)?);
        self.handshake(side, Vec::new()).await
    }

    async fn handshake(&mut self, side: Side, partial: Vec<u8>) -> io::Result<()> {
        let mut total = partial.len();
        self.tls = Some(Box::new(Tls { side, partial, early: Vec::new(), ended: false, failed: None, is_dead: false }));
        // A client speaks first: let it write before anything is read.
        let mut progress = Scratch::with(|Scratch { incoming, outgoing }| {
            let progress = self.decrypt(0, incoming, outgoing)?;
            self.keep_early(incoming);
            Ok::<_, io::Error>(progress)
        })?;
        loop {
            self.flush().await?;
            if progress != Progress::Handshaking {
                return Ok(());
            }
            self.tcp.readable().await?;
            let count = Scratch::with(|Scratch { incoming, outgoing }| {
                let count = match self.read_raw(incoming) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                    Err(error) => return Err(error),
                };
                progress = self.decrypt(count, incoming, outgoing)?;
                self.keep_early(incoming);
                Ok(count)
            });
            let count = match count {
                Ok(count) => count,
                Err(error) => {
                    // The alert, as far as the socket takes it at once.
                    let _ = self.try_flush();
                    return Err(error);
                }
            };
            total += count;
            if total > HANDSHAKE_BYTES_MAX && progress == Progress::Handshaking {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the TLS handshake is too large"));
            }
        }
    }

    /// Data that comes before the handshake is known to be over waits for the first read.
    fn keep_early(&mut self, incoming: &mut Incoming) {
        if let Some(tls) = &mut self.tls {
            tls.early.append(&mut incoming.plain);
        }
    }

    /// Version and cipher, once TLS is up.
    pub(crate) fn tls_facts(&self) -> Option<TlsFacts> {
        let (version, suite) = match &self.tls.as_ref()?.side {
            Side::Server(tls) => (tls.protocol_version(), tls.negotiated_cipher_suite()),
            Side::Client(tls) => (tls.protocol_version(), tls.negotiated_cipher_suite()),
        };
        let version = match version? {
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            _ => "TLS",
        };
        Some(TlsFacts { version, cipher: suite?.suite().as_str().unwrap_or("unknown") })
    }

    /// Appends what the peer sent next to `into`; 0: it says no more. For the time before the log-in:
    /// what may be a password is wiped from the thread's buffers.
    pub(crate) async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            Scratch::with(|Scratch { incoming, outgoing }| {
                let count = match ready!(self.poll_receive(cx, incoming, outgoing))? {
                    Received::Bytes(bytes) => {
                        into.extend_from_slice(bytes);
                        bytes.len()
                    }
                    Received::End => 0,
                };
                incoming.received[..count].zeroize();
                incoming.plain.zeroize();
                Poll::Ready(Ok(count))
            })
        })
        .await
    }

    /// Sends all of `bytes`.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            Scratch::with(|scratch| self.send(bytes, &mut scratch.outgoing))?;
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

    /// Reads once, without waiting longer than the context allows. The bytes lie in `incoming`.
    pub(crate) fn poll_receive<'s>(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &'s mut Incoming,
        outgoing: &mut Outgoing,
    ) -> Poll<io::Result<Received<'s>>> {
        if let Some(tls) = &mut self.tls
            && !tls.early.is_empty()
        {
            incoming.plain.clear();
            incoming.plain.append(&mut tls.early);
            tls.early = Vec::new();
            return Poll::Ready(Ok(Received::Bytes(&incoming.plain)));
        }
        loop {
            if let Some(tls) = &mut self.tls {
                if let Some(error) = tls.failed.take() {
                    tls.ended = true;
                    return Poll::Ready(Err(error));
                }
                if tls.ended {
                    return Poll::Ready(Ok(Received::End));
                }
            }
            ready!(self.tcp.poll_read_ready(cx))?;
            let count = match self.read_raw(incoming) {
                Ok(0) => return Poll::Ready(Ok(Received::End)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if self.tls.is_none() {
                return Poll::Ready(Ok(Received::Bytes(&incoming.received[..count])));
            }
            // What was sound before an error still counts.
            let failed = self.decrypt(count, incoming, outgoing).err();
            let _ = self.try_flush();
            if let Some(tls) = &mut self.tls {
                tls.failed = failed;
            }
            // A record may hold no data: a ticket, a key update.
            if !incoming.plain.is_empty() {
                return Poll::Ready(Ok(Received::Bytes(&incoming.plain)));
            }
        }
    }

    /// Sends `bytes`; what the socket does not take is kept. Ask [`Stream::poll_flush`] before the next.
    pub(crate) fn send(&mut self, bytes: &[u8], outgoing: &mut Outgoing) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.push(bytes) };
        if tls.is_dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        outgoing.filled = 0;
        match &mut tls.side {
            Side::Server(side) => encrypt(side, &mut tls.partial, &Sending::Data(bytes), outgoing)?,
            Side::Client(side) => encrypt(side, &mut tls.partial, &Sending::Data(bytes), outgoing)?,
        }
        self.push(outgoing.filled())
    }

    /// Ends our side of the conversation once everything is sent.
    pub(crate) fn close_write(&mut self, outgoing: &mut Outgoing) -> io::Result<()> {
        if self.write != WriteSide::Open {
            return Ok(());
        }
        self.write = WriteSide::Closing;
        if let Some(tls) = self.tls.as_mut().filter(|tls| !tls.is_dead) {
            outgoing.filled = 0;
            match &mut tls.side {
                Side::Server(side) => encrypt(side, &mut tls.partial, &Sending::Close, outgoing)?,
                Side::Client(side) => encrypt(side, &mut tls.partial, &Sending::Close, outgoing)?,
            }
            self.push(outgoing.filled())?;
        }
        self.try_flush()
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
            ready!(self.tcp.poll_write_ready(cx))?;
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while self.unsent_gone < self.unsent.len() {
            match self.tcp.try_write(&self.unsent[self.unsent_gone..]) {
                Ok(count) => self.unsent_gone += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(self.give_up_writing(error)),
            }
        }
        self.unsent.zeroize();
        self.unsent = Vec::new();
        self.unsent_gone = 0;
        if self.write == WriteSide::Closing {
            self.write = WriteSide::Closed;
            SockRef::from(&self.tcp).shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// The peer takes no more: what waits for it never goes.
    fn give_up_writing(&mut self, error: io::Error) -> io::Error {
        self.unsent = Vec::new();
        self.unsent_gone = 0;
        self.write = WriteSide::Closed;
        error
    }

    /// Writes to the socket, behind what waits already, and keeps the rest.
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while self.unsent.is_empty() && sent < bytes.len() {
            match self.tcp.try_write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.give_up_writing(error)),
            }
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Reads from the socket into `incoming`, leaving room for a partial record before it.
    fn read_raw(&self, incoming: &mut Incoming) -> io::Result<usize> {
        let start = self.tls.as_ref().map_or(0, |tls| tls.partial.len());
        let room = incoming.received.get_mut(start..start + READ_BYTES).ok_or(io::ErrorKind::InvalidData)?;
        self.tcp.try_read(room)
    }

    /// Decrypts the partial record and the `count` bytes read behind it; plaintext lies in `incoming.plain`.
    fn decrypt(&mut self, count: usize, incoming: &mut Incoming, outgoing: &mut Outgoing) -> io::Result<Progress> {
        let Some(tls) = &mut self.tls else { return Ok(Progress::Open) };
        let before = tls.partial.len();
        incoming.received[..before].copy_from_slice(&tls.partial);
        incoming.plain.clear();
        outgoing.filled = 0;
        let Incoming { received, plain } = incoming;
        let bytes = &mut received[..before + count];
        let result = match &mut tls.side {
            Side::Server(side) => process(side, bytes, plain, outgoing),
            Side::Client(side) => process(side, bytes, plain, outgoing),
        };
        tls.is_dead |= result.is_err();
        let outcome = result.map(|Processed { used, progress }| {
            tls.partial = bytes[used..].to_vec();
            tls.ended |= progress == Progress::Ended;
            progress
        });
        // That the peer takes nothing more is for whoever writes to find out.
        let _ = self.push(outgoing.filled());
        outcome
    }
}
