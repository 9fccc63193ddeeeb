//! One client: log in, fetch, say NOOP, log out; or send mail.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a client waits for any one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Sessions of TLS that may be resumed, for all clients of a run together.
const RESUMABLE_SESSIONS_MAX: usize = 1024;
const READ_BYTES: usize = 256 * 1024;

/// What is spoken to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    Imap,
    Pop3,
    Submission,
}

/// A proxy to be measured.
pub(crate) struct Target {
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<TlsConnector>,
    /// Clients are so many users in turn; 0: all are the same.
    users: u32,
    /// Clients come from so many addresses of loopback in turn, since each has only some 28,000 ports.
    sources: u8,
    turn: AtomicU32,
}

impl Target {
    /// With an authority, implicit TLS is used; `resume`: sessions of it are resumed where they can be.
    pub(crate) fn new(
        address: SocketAddr,
        authority: Option<&Path>,
        resume: bool,
        sources: u8,
        users: u32,
        protocol: Protocol,
    ) -> io::Result<Self> {
        let tls = authority.map(|authority| client_config(authority, resume)).transpose()?.map(TlsConnector::from);
        Ok(Self { address, protocol, tls, users, sources, turn: AtomicU32::new(0) })
    }

    /// The next user, far from the one before, so that no page of a database serves many in a row.
    fn user(&self) -> String {
        if self.users == 0 {
            return "user".to_owned();
        }
        // A prime that divides no number of users in use: each comes once before any comes again.
        let turn = u64::from(self.turn.fetch_add(1, Ordering::Relaxed)) * 7_368_787;
        format!("user{}", turn % u64::from(self.users))
    }
}

fn client_config(authority: &Path, resume: bool) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    let sessions = Resumption::in_memory_sessions(RESUMABLE_SESSIONS_MAX);
    config.resumption = if resume { sessions } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

trait Channel: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Channel for T {}

/// A logged-in session.
pub(crate) struct Session {
    channel: BufReader<Box<dyn Channel>>,
    protocol: Protocol,
    /// TLS took up an earlier session.
    pub(crate) is_resumed: bool,
}

impl Session {
    /// Connects and logs in.
    pub(crate) async fn open(target: &Target) -> io::Result<Self> {
        timeout(PATIENCE, Self::connect(target)).await?
    }

    async fn connect(target: &Target) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if target.sources > 1 {
            let turn = target.turn.fetch_add(1, Ordering::Relaxed) % u32::from(target.sources);
            let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + turn);
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from((source, 0)))?;
        }
        let tcp = socket.connect(target.address).await?;
        tcp.set_nodelay(true)?;
        let mut is_resumed = false;
        let channel: Box<dyn Channel> = match &target.tls {
            None => Box::new(tcp),
            Some(connector) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let stream = connector.connect(name, tcp).await?;
                is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                Box::new(stream)
            }
        };
        let protocol = target.protocol;
        let mut session = Self { channel: BufReader::with_capacity(2048, channel), protocol, is_resumed };
        let user = target.user();
        match protocol {
            Protocol::Imap => {
                session.expect("* OK").await?;
                session.say(&format!("a LOGIN {user} secret\r\n")).await?;
                session.expect("a OK").await?;
            }
            Protocol::Pop3 => {
                session.expect("+OK").await?;
                session.say(&format!("USER {user}\r\n")).await?;
                session.expect("+OK").await?;
                session.say("PASS secret\r\n").await?;
                session.expect("+OK").await?;
            }
            Protocol::Submission => {
                session.expect("220 ").await?;
                session.say("EHLO client\r\n").await?;
                session.expect("250 ").await?;
                let message = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0secret"));
                session.say(&format!("AUTH PLAIN {message}\r\n")).await?;
                session.expect("235 ").await?;
            }
        }
        Ok(session)
    }

    /// Says goodbye, and waits for the connection's end.
    pub(crate) async fn log_out(mut self) -> io::Result<()> {
        match self.protocol {
            Protocol::Imap => {
                self.say("z LOGOUT\r\n").await?;
                self.expect("z OK").await
            }
            Protocol::Pop3 => {
                self.say("QUIT\r\n").await?;
                self.expect("+OK").await
            }
            Protocol::Submission => {
                self.say("QUIT\r\n").await?;
                self.expect("221 ").await
            }
        }
    }

    /// Says nothing that matters, and waits for the answer.
    pub(crate) async fn noop(&mut self) -> io::Result<()> {
        self.say("n NOOP\r\n").await?;
        self.expect("n OK").await
    }

    /// Fetches a message of so many bytes.
    pub(crate) async fn fetch(&mut self, size: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.say(&format!("f FETCH {size} BODY[]\r\n")).await?;
        self.expect("* 1 FETCH").await?;
        buffer.resize(READ_BYTES, 0);
        let mut left = usize::try_from(size).map_err(io::Error::other)?;
        while left > 0 {
            let room = left.min(READ_BYTES);
            match timeout(PATIENCE, self.channel.read(&mut buffer[..room])).await?? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => left -= count,
            }
        }
        self.expect("f OK").await
    }

    async fn say(&mut self, words: &str) -> io::Result<()> {
        self.channel.get_mut().write_all(words.as_bytes()).await?;
        self.channel.get_mut().flush().await
    }

    /// Reads lines until one begins so.
    async fn expect(&mut self, start: &str) -> io::Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            if timeout(PATIENCE, self.channel.read_line(&mut line)).await?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.starts_with(start) {
                return Ok(());
            }
            let verdict = line.split(' ').nth(1).unwrap_or_default();
            let is_refused = match self.protocol {
                Protocol::Imap => ["NO", "BAD", "BYE"].contains(&verdict) && !start.starts_with('z'),
                Protocol::Pop3 => line.starts_with("-ERR"),
                Protocol::Submission => line.starts_with(['4', '5']),
            };
            if is_refused {
                return Err(io::Error::other(line.trim().to_owned()));
            }
        }
    }
}

/// A client that sends mail.
pub(crate) struct Sender(Session);

impl Sender {
    /// Connects and says hello.
    pub(crate) async fn open(target: &Target) -> io::Result<Self> {
        let tcp = timeout(PATIENCE, tokio::net::TcpStream::connect(target.address)).await??;
        tcp.set_nodelay(true)?;
        let channel: Box<dyn Channel> = Box::new(tcp);
        let channel = BufReader::with_capacity(2048, channel);
        let mut session = Session { channel, protocol: Protocol::Submission, is_resumed: false };
        session.expect("220 ").await?;
        session.say("EHLO client.example.net\r\n").await?;
        session.expect("250 ").await?;
        Ok(Self(session))
    }

    /// Sends a message, and waits until it is taken.
    pub(crate) async fn send(&mut self, content: &str) -> io::Result<()> {
        let Self(session) = self;
        session.say("MAIL FROM:<a@example.net>\r\n").await?;
        session.expect("250 ").await?;
        session.say("RCPT TO:<user@example.org>\r\n").await?;
        session.expect("250 ").await?;
        session.say("DATA\r\n").await?;
        session.expect("354").await?;
        session.say(content).await?;
        session.expect("250 ").await
    }

    /// Says goodbye.
    pub(crate) async fn leave(self) -> io::Result<()> {
        self.0.log_out().await
    }
}
