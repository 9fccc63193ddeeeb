//! The program's parsers, open to the fuzz targets and to nobody else.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::config::{self, CertificateFiles, Completion, NamedFile, Names, TlsVersion};
use crate::directory::passwd_file;
use crate::net::records::{Outgoing, Progress, Sending, Side};
use crate::net::tls::{self, Certificate};

/// Reads a configuration; whether it is sound.
pub fn configuration(text: &str) -> bool {
    config::parse(Path::new("gatepost.toml"), text).is_ok_and(|draft| draft.sound().is_ok())
}

/// Reads a passwd-file; how many users it has.
pub fn passwd_file(text: &str) -> Option<usize> {
    let names = Names {
        by: Completion { fold_case: true, domain: Some("example.org".into()), ..Completion::default() },
        aliases: Vec::new(),
    };
    passwd_file::parse(text, &names).map(|users| users.len()).ok()
}

/// TLS as a client finds it at a listener with this certificate.
///
/// # Panics
/// Where the files hold no certificate with its key.
pub fn tls_config(chain: &Path, key: &Path) -> Arc<ServerConfig> {
    let files = CertificateFiles { chain: NamedFile::given(chain), key: NamedFile::given(key) };
    let certificate = Certificate::load(&files).unwrap_or_else(|problem| panic!("{problem}"));
    let config = tls::server_config(&[certificate], TlsVersion::Tls12, b"imap", None);
    config.ok().flatten().expect("a certificate was given")
}

/// The server's side of TLS on a stream that comes in pieces.
pub struct TlsServer {
    side: Side,
    partial: Vec<u8>,
    outgoing: Outgoing,
}

impl TlsServer {
    /// Before the client's first byte.
    ///
    /// # Panics
    /// Never, with a configuration of [`tls_config`].
    pub fn new(config: Arc<ServerConfig>) -> Self {
        let side = Side::server(config).expect("a sound configuration");
        Self { side, partial: Vec::new(), outgoing: Outgoing::default() }
    }

    /// Takes a piece; gives what it says and what it sends. `None`: TLS has failed.
    pub fn take(&mut self, piece: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        self.partial.extend_from_slice(piece);
        let mut plain = Vec::new();
        self.outgoing.clear();
        let processed = self.side.process(&mut self.partial, &mut plain, &mut self.outgoing).ok()?;
        self.partial.drain(..processed.used);
        if processed.progress == Progress::Open && !plain.is_empty() {
            self.side.encrypt(&mut self.partial, &Sending::Data(&plain), &mut self.outgoing).ok()?;
        }
        Some((plain, self.outgoing.filled().to_vec()))
    }
}
