//! TLS on rustls' unbuffered interface, for both sides alike: records in, plaintext out, and back.
//!
//! rustls keeps two rules that its callers must know: it wants to see the part of its input that it has
//! not used again at every call, also at those that only encrypt; and it takes no call after an alert.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{CipherSuite, ClientConfig, ProtocolVersion, ServerConfig};

/// Bytes on their way to a socket. Grown once, and never cleared between uses.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    filled: usize,
}

impl Outgoing {
    /// Forgets what was written.
    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Room for `count` more bytes.
    fn room(&mut self, count: usize) -> &mut [u8] {
        if self.bytes.len() < self.filled + count {
            self.bytes.resize(self.filled + count, 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// What was written since the last [`Outgoing::clear`].
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// The TLS in use on a connection, for the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlsFacts {
    version: ProtocolVersion,
    suite: CipherSuite,
}

impl TlsFacts {
    pub(crate) fn version(self) -> &'static str {
        match self.version {
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            _ => "TLS",
        }
    }

    pub(crate) fn cipher(self) -> &'static str {
        self.suite.as_str().unwrap_or("unknown")
    }
}

/// Either side of TLS.
pub(crate) enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Side {
    /// The side of a server.
    pub(crate) fn server(config: Arc<ServerConfig>) -> io::Result<Self> {
        UnbufferedServerConnection::new(config).map(Self::Server).map_err(tls_error)
    }

    /// The side of a client that wants to speak to `name`.
    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        UnbufferedClientConnection::new(config, name).map(Self::Client).map_err(tls_error)
    }

    /// Works off `incoming`: plaintext goes to `plain`, what TLS itself must send to `outgoing`.
    pub(crate) fn process(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        outgoing: &mut Outgoing,
    ) -> io::Result<Processed> {
        match self {
            Self::Server(side) => process(side, incoming, plain, outgoing),
            Self::Client(side) => process(side, incoming, plain, outgoing),
        }
    }

    /// Encrypts into `outgoing`. `partial` is what TLS was given before and could not use yet: it wants to
    /// see that again whenever it is asked anything.
    pub(crate) fn encrypt(
        &mut self,
        partial: &mut Vec<u8>,
        sending: &Sending<'_>,
        outgoing: &mut Outgoing,
    ) -> io::Result<()> {
        match self {
            Self::Server(side) => encrypt(side, partial, sending, outgoing),
            Self::Client(side) => encrypt(side, partial, sending, outgoing),
        }
    }

    /// The peer's certificate, if it showed one.
    pub(crate) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        let chain = match self {
            Self::Server(tls) => tls.peer_certificates(),
            Self::Client(tls) => tls.peer_certificates(),
        };
        chain?.first()
    }

    /// Version and cipher, once TLS is up.
    pub(crate) fn facts(&self) -> Option<TlsFacts> {
        let (version, suite) = match self {
            Self::Server(tls) => (tls.protocol_version(), tls.negotiated_cipher_suite()),
            Self::Client(tls) => (tls.protocol_version(), tls.negotiated_cipher_suite()),
        };
        Some(TlsFacts { version: version?, suite: suite?.suite() })
    }
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
pub(crate) enum Progress {
    Handshaking,
    Open,
    Ended,
}

/// TLS is done with this many of the bytes it was given, and stands there.
pub(crate) struct Processed {
    pub(crate) used: usize,
    pub(crate) progress: Progress,
}

/// See [`Side::process`].
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
pub(crate) enum Sending<'a> {
    Data(&'a [u8]),
    Close,
}

/// See [`Side::encrypt`].
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
