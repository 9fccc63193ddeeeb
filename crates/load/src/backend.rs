//! A back end that takes every log-in and answers at once, so that what is measured is the proxy.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Socket, Type};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const CAPABILITIES: &str = "IMAP4rev1 SASL-IR ID LITERAL+ IDLE AUTH=PLAIN AUTH=LOGIN";
/// A storm of clients must not wait for this side.
const BACKLOG_CONNECTIONS: i32 = 16 * 1024;
const LITERAL_BYTES_MAX: usize = 1 << 20;
/// What messages consist of.
static BODY: [u8; 1 << 18] = [b'x'; 1 << 18];

/// TLS for a second listener.
pub(crate) struct TlsListener {
    pub(crate) address: SocketAddr,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

/// Serves until it is ended from outside.
pub(crate) async fn serve(address: SocketAddr, tls: Option<TlsListener>) -> io::Result<()> {
    let Some(tls) = tls else { return accept(address, None).await };
    let acceptor = TlsAcceptor::from(server_config(&tls)?);
    tokio::try_join!(accept(address, None), accept(tls.address, Some(acceptor))).map(drop)
}

async fn accept(address: SocketAddr, tls: Option<TlsAcceptor>) -> io::Result<()> {
    let listener = listen(address)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match tls.clone() {
            Some(acceptor) => tokio::spawn(async move { converse(acceptor.accept(stream).await?).await }),
            None => tokio::spawn(converse(stream)),
        };
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG_CONNECTIONS)?;
    TcpListener::from_std(socket.into())
}

fn server_config(tls: &TlsListener) -> io::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(&tls.chain).and_then(Iterator::collect).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(io::Error::other)?.with_no_client_auth().with_single_cert(chain, key);
    config.map(Arc::new).map_err(io::Error::other)
}

/// Reads the literals that a line announces, and what follows them.
async fn read_literals<S>(stream: &mut BufReader<BufWriter<S>>, line: &mut String) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(size) =
        line.trim_end().strip_suffix('}').and_then(|rest| rest.rsplit_once('{')).map(|(_, size)| size.to_owned())
    {
        if !size.ends_with('+') {
            stream.write_all(b"+ OK\r\n").await?;
            stream.flush().await?;
        }
        let size: usize = size.trim_end_matches('+').parse().map_err(io::Error::other)?;
        let mut body = vec![0; size.min(LITERAL_BYTES_MAX)];
        stream.read_exact(&mut body).await?;
        line.truncate(line.trim_end().len());
        line.push_str(&String::from_utf8_lossy(&body));
        stream.read_line(line).await?;
    }
    Ok(())
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> io::Result<()> {
    // What can go out together does, as a mail server's answers do.
    let mut stream = BufReader::with_capacity(1024, BufWriter::with_capacity(64 * 1024, stream));
    stream.write_all(format!("* OK [CAPABILITY {CAPABILITIES}] ready\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        read_literals(&mut stream, &mut line).await?;
        let mut words = line.split_whitespace();
        let tag = words.next().unwrap_or("*").to_owned();
        let command = words.next().unwrap_or_default().to_ascii_uppercase();
        let mut is_over = false;
        let answer = match command.as_str() {
            "LOGIN" => format!("{tag} OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"),
            "AUTHENTICATE" => {
                if words.nth(1).is_none() {
                    stream.write_all(b"+ \r\n").await?;
                    stream.flush().await?;
                    line.clear();
                    stream.read_line(&mut line).await?;
                }
                format!("{tag} OK [CAPABILITY IMAP4rev1 IDLE] in\r\n")
            }
            "CAPABILITY" => format!("* CAPABILITY {CAPABILITIES}\r\n{tag} OK done\r\n"),
            "ID" => format!("* ID NIL\r\n{tag} OK done\r\n"),
            "SELECT" => format!("* 1 EXISTS\r\n{tag} OK [READ-WRITE] done\r\n"),
            "IDLE" => "+ idling\r\n".to_owned(),
            "FETCH" => {
                let size = words.next().and_then(|size| size.parse().ok()).unwrap_or(0);
                stream.write_all(format!("* 1 FETCH (BODY[] {{{size}}}\r\n").as_bytes()).await?;
                let mut left: usize = size;
                while left > 0 {
                    let now = left.min(BODY.len());
                    stream.write_all(&BODY[..now]).await?;
                    left -= now;
                }
                format!(")\r\n{tag} OK done\r\n")
            }
            "LOGOUT" => {
                is_over = true;
                format!("* BYE\r\n{tag} OK done\r\n")
            }
            _ => format!("{tag} OK done\r\n"),
        };
        stream.write_all(answer.as_bytes()).await?;
        if !stream.buffer().contains(&b'\n') {
            stream.flush().await?;
        }
        if is_over {
            return stream.shutdown().await;
        }
    }
}
