//! One client: log in, fetch, log out.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A proxy to be measured.
pub(crate) struct Target {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// With an authority, TLS is used, in full handshakes.
    pub(crate) fn new(address: SocketAddr, authority: Option<&Path>) -> io::Result<Self> {
        let tls = authority.map(client_config).transpose()?;
        Ok(Self { address, tls })
    }
}

fn client_config(authority: &Path) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

trait Channel: Read + Write + Send {}
impl<T: Read + Write + Send> Channel for T {}

/// A logged-in session.
pub(crate) struct Session {
    channel: BufReader<Box<dyn Channel>>,
}

impl Session {
    /// Connects and logs in.
    pub(crate) fn open(target: &Target) -> io::Result<Self> {
        let tcp = TcpStream::connect(target.address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
        let channel: Box<dyn Channel> = match &target.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, tcp))
            }
        };
        let mut session = Self { channel: BufReader::with_capacity(64 * 1024, channel) };
        session.expect("* OK")?;
        session.say("a LOGIN user secret\r\n")?;
        session.expect("a OK")?;
        Ok(session)
    }

    /// Says goodbye.
    pub(crate) fn log_out(mut self) -> io::Result<()> {
        self.say("z LOGOUT\r\n")?;
        self.expect("z OK")
    }

    /// Fetches a message of so many bytes.
    pub(crate) fn fetch(&mut self, size: u64) -> io::Result<()> {
        self.say(&format!("f FETCH {size} BODY[]\r\n"))?;
        self.expect("* 1 FETCH")?;
        let mut left = size;
        while left > 0 {
            let here = self.channel.fill_buf()?.len() as u64;
            if here == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let now = here.min(left);
            self.channel.consume(usize::try_from(now).unwrap_or(usize::MAX));
            left -= now;
        }
        self.expect("f OK")
    }

    fn say(&mut self, words: &str) -> io::Result<()> {
        self.channel.get_mut().write_all(words.as_bytes())?;
        self.channel.get_mut().flush()
    }

    /// Reads lines until one begins so.
    fn expect(&mut self, start: &str) -> io::Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.channel.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.starts_with(start) {
                return Ok(());
            }
            let refused = line
                .split_once(' ')
                .is_some_and(|(_, rest)| rest.starts_with("NO") || rest.starts_with("BAD") || rest.starts_with("BYE"));
            if refused && !start.starts_with('z') {
                return Err(io::Error::other(line.trim().to_owned()));
            }
        }
    }
}
