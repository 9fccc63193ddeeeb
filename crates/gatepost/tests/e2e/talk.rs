//! A client that says exactly what a test wants, and reads line by line.

use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost_lab::Mailbox;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long a client waits for an answer before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

trait Channel: Read + Write + Send {}
impl<T: Read + Write + Send> Channel for T {}

pub(crate) struct Talk {
    channel: BufReader<Box<dyn Channel>>,
    tcp: TcpStream,
    tag: u32,
}

impl Talk {
    fn new(tcp: TcpStream, channel: Box<dyn Channel>) -> Self {
        Self { channel: BufReader::new(channel), tcp, tag: 0 }
    }

    fn connect(port: u16) -> TcpStream {
        let tcp = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        tcp.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        tcp.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        tcp.set_nodelay(true).expect("an option");
        tcp
    }

    /// A connection in clear.
    pub(crate) fn clear(port: u16) -> Self {
        let tcp = Self::connect(port);
        Self::new(tcp.try_clone().expect("a socket"), Box::new(tcp))
    }

    /// A connection in clear from this address of loopback.
    pub(crate) fn clear_from(source: IpAddr, port: u16) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(source, 0).into()).expect("a source address");
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let tcp: TcpStream = socket.into();
        Self::new(tcp.try_clone().expect("a socket"), Box::new(tcp))
    }

    /// A connection under implicit TLS.
    pub(crate) fn secure(port: u16, authority: &Path) -> Self {
        Self::secure_with(port, "localhost", client_config(authority)).expect("TLS")
    }

    /// As [`Talk::secure`], for this name and these settings; an error where TLS fails.
    pub(crate) fn secure_with(port: u16, name: &str, config: ClientConfig) -> std::io::Result<Self> {
        Self::under_tls(port, b"", name, config)
    }

    /// As [`Talk::secure`], with `first` and the client's hello in one segment.
    pub(crate) fn secure_behind(port: u16, first: &[u8], authority: &Path) -> std::io::Result<Self> {
        Self::under_tls(port, first, "localhost", client_config(authority))
    }

    fn under_tls(port: u16, first: &[u8], name: &str, config: ClientConfig) -> std::io::Result<Self> {
        let tcp = Self::connect(port);
        Ok(Self::new(tcp.try_clone()?, Box::new(tls(tcp, first, name, config)?)))
    }

    /// After STARTTLS was agreed: goes on under TLS.
    pub(crate) fn upgrade(self, authority: &Path) -> Self {
        assert!(self.channel.buffer().is_empty(), "the server said more after its OK");
        let tcp = self.tcp.try_clone().expect("a socket");
        Self {
            channel: BufReader::new(Box::new(tls(tcp, b"", "localhost", client_config(authority)).expect("TLS"))),
            ..self
        }
    }

    /// Reads the greeting.
    pub(crate) fn greeted(mut self) -> Self {
        let greeting = self.line();
        assert!(greeting.starts_with("* OK "), "greeted by {greeting:?}");
        self
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("a connection that takes bytes");
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let channel = self.channel.get_mut();
        channel.write_all(bytes.as_ref())?;
        channel.flush()
    }

    /// The next line, without its end; empty at the end of the stream.
    pub(crate) fn line(&mut self) -> String {
        self.try_line().expect("an answer")
    }

    pub(crate) fn try_line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        self.channel.read_until(b'\n', &mut line)?;
        Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The last line of a reply in SMTP.
    pub(crate) fn reply(&mut self) -> String {
        loop {
            let line = self.line();
            if line.get(3..4) != Some("-") {
                return line;
            }
        }
    }

    /// Says a command of SMTP, and gives the last line of its reply.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n"));
        self.reply()
    }

    /// Everything up to the end of the stream, which must come; a broken connection is an end too.
    pub(crate) fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.channel.read(&mut buffer) {
                Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("no end of the stream, but {:?}", String::from_utf8_lossy(&bytes))
                }
                Ok(0) | Err(_) => return String::from_utf8_lossy(&bytes).into_owned(),
            }
        }
    }

    /// Exactly so many bytes, handed to `take` as they come.
    pub(crate) fn bytes(&mut self, count: u64, mut take: impl FnMut(&[u8])) {
        let mut left = count;
        while left > 0 {
            let buffer = self.channel.fill_buf().expect("bytes");
            assert!(!buffer.is_empty(), "the stream ended with {left} bytes to come");
            let now = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            take(&buffer[..now]);
            self.channel.consume(now);
            left -= now as u64;
        }
    }

    /// Sends a command under a new tag and gives all lines of its answer, the tagged one last.
    pub(crate) fn command(&mut self, command: &str) -> Vec<String> {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        self.send(format!("{tag} {command}\r\n"));
        self.answer(&tag)
    }

    /// Its session is there, and nobody has asked it to go.
    #[track_caller]
    pub(crate) fn goes_on(&mut self) {
        let lines = self.command("NOOP");
        let is_well =
            lines.last().is_some_and(|line| line.contains(" OK")) && !lines.iter().any(|line| line.contains("BYE"));
        assert!(is_well, "{lines:?}");
    }

    /// All lines up to the one with this tag.
    pub(crate) fn answer(&mut self, tag: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            let is_last = line.starts_with(&format!("{tag} ")) || line.is_empty();
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    /// The tagged answer's text behind the tag.
    pub(crate) fn verdict(&mut self, command: &str) -> String {
        let last = self.command(command).pop().unwrap_or_default();
        last.split_once(' ').map_or_else(String::new, |(_, text)| text.to_owned())
    }

    pub(crate) fn log_in(&mut self, user: Mailbox<'_>) {
        let verdict = self.try_log_in(user);
        assert!(verdict.starts_with("OK "), "log-in of {}: {verdict:?}", user.user);
    }

    pub(crate) fn try_log_in(&mut self, user: Mailbox<'_>) -> String {
        self.verdict(&format!("LOGIN {} \"{}\"", user.user, user.password))
    }
}

/// Begins TLS, with the client's hello right behind `first`.
fn tls(
    mut tcp: TcpStream,
    first: &[u8],
    name: &str,
    config: ClientConfig,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("settings");
    let mut segment = first.to_vec();
    connection.write_tls(&mut segment)?;
    tcp.write_all(&segment)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    Ok(StreamOwned::new(connection, tcp))
}

/// A client that trusts this authority.
pub(crate) fn client_config(authority: &Path) -> ClientConfig {
    client_config_for(authority, rustls::ALL_VERSIONS)
}

/// As [`client_config`], speaking only these versions.
pub(crate) fn client_config_for(
    authority: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
    builder.with_root_certificates(roots(authority)).with_no_client_auth()
}

/// This authority alone.
pub(crate) fn roots(authority: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("an authority")).expect("an authority");
    roots
}
