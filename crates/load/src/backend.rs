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
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
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

/// Serves IMAP until it is ended from outside, and perhaps POP3 and SMTP.
pub(crate) async fn serve(
    address: SocketAddr,
    tls: Option<TlsListener>,
    pop3: Option<SocketAddr>,
    smtp: Option<SocketAddr>,
) -> io::Result<()> {
    let mut serving = JoinSet::new();
    serving.spawn(accept(address, None));
    if let Some(tls) = tls {
        let acceptor = TlsAcceptor::from(server_config(&tls)?);
        serving.spawn(accept(tls.address, Some(acceptor)));
    }
    serving.extend(pop3.map(|address| accept_lines(address, pop3_answer)));
    serving.extend(smtp.map(|address| accept_lines(address, smtp_answer)));
    serving.join_next().await.unwrap_or(Ok(Ok(())))?
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

/// What is said to a line, `None` to the connection itself, where lines are all there is.
type Answer = fn(Option<&str>) -> &'static str;

fn pop3_answer(line: Option<&str>) -> &'static str {
    match line.map(str::to_ascii_uppercase).as_deref() {
        None => "+OK ready\r\n",
        Some("CAPA") => "+OK\r\nTOP\r\nUIDL\r\nUSER\r\nSASL PLAIN LOGIN\r\n.\r\n",
        Some(_) => "+OK\r\n",
    }
}

fn smtp_answer(line: Option<&str>) -> &'static str {
    let Some(line) = line else { return "220 stand-in ESMTP\r\n" };
    match line.split(' ').next().unwrap_or_default().to_ascii_uppercase().as_str() {
        "EHLO" => "250-stand-in\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 100000000\r\n250 AUTH PLAIN LOGIN\r\n",
        "AUTH" => "235 2.7.0 in\r\n",
        "DATA" => "354 go on\r\n",
        "QUIT" => "221 2.0.0 bye\r\n",
        _ => "250 2.0.0 Ok\r\n",
    }
}

async fn accept_lines(address: SocketAddr, answer: Answer) -> io::Result<()> {
    let listener = listen(address)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(converse_in_lines(stream, answer));
    }
}

async fn converse_in_lines(stream: TcpStream, answer: Answer) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, BufWriter::with_capacity(4096, stream));
    stream.write_all(answer(None).as_bytes()).await?;
    stream.flush().await?;
    let (mut line, mut is_content) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let said = line.trim_end();
        if is_content && said != "." {
            continue;
        }
        let words = answer(Some(said));
        is_content = words.starts_with("354");
        stream.write_all(words.as_bytes()).await?;
        if !stream.buffer().contains(&b'\n') {
            stream.flush().await?;
        }
        if said.eq_ignore_ascii_case("QUIT") {
            return stream.shutdown().await;
        }
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
