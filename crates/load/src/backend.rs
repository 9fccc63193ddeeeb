//! A back end that takes every log-in and answers at once, so that what is measured is the proxy.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const CAPABILITIES: &str = "IMAP4rev1 SASL-IR ID LITERAL+ IDLE AUTH=PLAIN AUTH=LOGIN";

/// Serves until it is ended from outside.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(converse(stream));
        }
    })
}

/// Reads the literals that a line announces, and what follows them.
async fn read_literals(stream: &mut BufReader<TcpStream>, line: &mut String) -> io::Result<()> {
    while let Some(size) =
        line.trim_end().strip_suffix('}').and_then(|rest| rest.rsplit_once('{')).map(|(_, size)| size.to_owned())
    {
        if !size.ends_with('+') {
            stream.write_all(b"+ OK\r\n").await?;
        }
        let size: usize = size.trim_end_matches('+').parse().map_err(io::Error::other)?;
        let mut body = vec![0; size.min(1 << 20)];
        stream.read_exact(&mut body).await?;
        line.truncate(line.trim_end().len());
        line.push_str(&String::from_utf8_lossy(&body));
        stream.read_line(line).await?;
    }
    Ok(())
}

async fn converse(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(1024, stream);
    stream.write_all(format!("* OK [CAPABILITY {CAPABILITIES}] ready\r\n").as_bytes()).await?;
    let mut line = String::new();
    let body = vec![b'x'; 1 << 20];
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        read_literals(&mut stream, &mut line).await?;
        let mut words = line.split_whitespace();
        let (tag, command) =
            (words.next().unwrap_or("*").to_owned(), words.next().unwrap_or_default().to_ascii_uppercase());
        let answer = match command.as_str() {
            "LOGIN" => format!("{tag} OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"),
            "AUTHENTICATE" => {
                if words.nth(1).is_none() {
                    stream.write_all(b"+ \r\n").await?;
                    line.clear();
                    stream.read_line(&mut line).await?;
                }
                format!("{tag} OK [CAPABILITY IMAP4rev1 IDLE] in\r\n")
            }
            "CAPABILITY" => format!("* CAPABILITY {CAPABILITIES}\r\n{tag} OK done\r\n"),
            "ID" => format!("* ID NIL\r\n{tag} OK done\r\n"),
            "IDLE" => "+ idling\r\n".to_owned(),
            "FETCH" => {
                let size: usize = words.next().and_then(|size| size.parse().ok()).unwrap_or(0);
                stream.write_all(format!("* 1 FETCH (BODY[] {{{size}}}\r\n").as_bytes()).await?;
                let mut left = size;
                while left > 0 {
                    let now = left.min(body.len());
                    stream.write_all(&body[..now]).await?;
                    left -= now;
                }
                format!(")\r\n{tag} OK done\r\n")
            }
            "LOGOUT" => {
                stream.write_all(format!("* BYE\r\n{tag} OK done\r\n").as_bytes()).await?;
                return Ok(());
            }
            _ => format!("{tag} OK done\r\n"),
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}
