//! Places that take a record at a time, as a line: syslog servers (RFC 5424, over UDP, TCP, TLS or a local socket), and the
//! journal of systemd.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::outlet::{PAUSE, SEND_TIME};
use super::progress::{Complaint, Progress};
use super::{Field, Record, format};
use crate::config::{Level, Problem, SyslogServer, TlsVersion, Trust};
use crate::net::tls;

/// Longest message of one datagram: what any receiver must take is less, what all take is more.
const DATAGRAM_BYTES_MAX: usize = 8 * 1024;
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// Such a place, as it is reached.
pub(super) enum Lines {
    Syslog { name: String, server: Server },
    Journal,
}

/// A syslog server, with what it takes to reach it.
pub(super) enum Server {
    Local(PathBuf),
    Udp(String, u16),
    Tcp(String, u16),
    Tls(String, u16, Arc<ClientConfig>),
}

/// How records look there.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// Of RFC 5424, from this machine.
    Syslog {
        facility: u8,
        node: String,
    },
    Journal,
}

impl Shape {
    /// For a syslog server that takes records for those of this facility, by its number.
    pub(super) fn syslog(facility: u8) -> Self {
        Self::Syslog { facility, node: rustix::system::uname().nodename().to_string_lossy().into_owned() }
    }

    /// A record as it goes there; `words` is what it says.
    pub(super) fn bytes(&self, record: &Record, words: &str) -> Vec<u8> {
        match self {
            Self::Syslog { facility, node } => syslog(*facility, node, record, words),
            Self::Journal => journal(record, words),
        }
    }
}

impl Lines {
    pub(super) fn syslog(server: &SyslogServer, trust: &Trust) -> Result<Self, Problem> {
        let name = server.to_string();
        let server = match server.clone() {
            SyslogServer::Local(path) => Server::Local(path),
            SyslogServer::Udp(host, port) => Server::Udp(host, port),
            SyslogServer::Tcp(host, port) => Server::Tcp(host, port),
            SyslogServer::Tls(host, port) => Server::Tls(host, port, tls::client_config(trust, TlsVersion::Tls12)?),
        };
        Ok(Self::Syslog { name, server })
    }
}

impl std::fmt::Display for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syslog { name, .. } => f.write_str(name),
            Self::Journal => f.write_str("the journal"),
        }
    }
}

/// A message of RFC 5424.
fn syslog(facility: u8, node: &str, record: &Record, words: &str) -> Vec<u8> {
    let priority = u32::from(facility) * 8 + severity(record.level);
    let time = humantime::format_rfc3339_millis(record.time);
    let (process, service) = (std::process::id(), record.service);
    format!("<{priority}>1 {time} {node} gatepost {process} {service} - {}", words.trim_end()).into_bytes()
}

/// A record in the journal's own words: each field can be asked for.
fn journal(record: &Record, words: &str) -> Vec<u8> {
    let mut text = format!(
        "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER=gatepost\nGATEPOST_SERVICE={}\n",
        one_line(words.trim_end()),
        severity(record.level),
        record.service
    );
    if let Some(node) = &record.node {
        text.push_str(&format::journal_field("node", &one_line(node)));
    }
    for (key, field) in &record.fields {
        let value = match field {
            Field::Text(text) | Field::Name(text) => one_line(text),
            Field::Number(number) => number.to_string(),
            Field::Address(address) => address.to_string(),
        };
        text.push_str(&format::journal_field(key, &value));
    }
    text.into_bytes()
}

/// A field's value ends with its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Syslog's numbers.
const fn severity(level: Level) -> u32 {
    match level {
        Level::Critical => 2,
        Level::Error => 3,
        Level::Warning => 4,
        Level::Info => 6,
        Level::Protocol => 7,
    }
}

/// A connection to a place.
enum Line {
    Udp(UdpSocket),
    Unix(UnixDatagram, PathBuf),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Line {
    fn open(place: &Lines) -> io::Result<Self> {
        match place {
            Lines::Journal => Self::unix(Path::new(JOURNAL_SOCKET)),
            Lines::Syslog { server, .. } => match server {
                Server::Local(path) => Self::unix(path),
                Server::Udp(host, port) => {
                    let target = address(host, *port)?;
                    let own = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    let socket = UdpSocket::bind(own)?;
                    socket.connect(target)?;
                    Ok(Self::Udp(socket))
                }
                Server::Tcp(host, port) => Ok(Self::Tcp(connect(host, *port)?)),
                Server::Tls(host, port, config) => {
                    let name = tls::server_name(host).ok_or_else(|| io::Error::other("no name for TLS"))?;
                    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                    Ok(Self::Tls(Box::new(StreamOwned::new(connection, connect(host, *port)?))))
                }
            },
        }
    }

    fn unix(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIME))?;
        Ok(Self::Unix(socket, path.to_owned()))
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let short = &message[..message.len().min(DATAGRAM_BYTES_MAX)];
        match self {
            Self::Udp(socket) => socket.send(short).map(drop),
            Self::Unix(socket, path) => socket.send_to(message, path).map(drop),
            Self::Tcp(stream) => send_counted(stream, message),
            Self::Tls(stream) => send_counted(stream, message),
        }
    }
}

/// A message behind its length (RFC 6587, section 3.4.1; RFC 5425), in one piece.
fn send_counted(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let mut framed = format!("{} ", message.len()).into_bytes();
    framed.extend_from_slice(message);
    stream.write_all(&framed)?;
    stream.flush()
}

fn address(host: &str, port: u16) -> io::Result<std::net::SocketAddr> {
    (host, port).to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the name has no address"))
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address(host, port)?, SEND_TIME)?;
    stream.set_write_timeout(Some(SEND_TIME))?;
    stream.set_read_timeout(Some(SEND_TIME))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The thread's whole life: until nobody hands anything over any more.
pub(super) fn send_all(place: &Lines, records: &Receiver<Vec<u8>>, progress: &Progress) {
    let mut line: Option<Line> = None;
    let mut failed: Option<Instant> = None;
    let mut complaint = Complaint::default();
    for message in records {
        let rests = failed.is_some_and(|at| at.elapsed() < PAUSE);
        let mut sent = Err(());
        if !rests {
            sent = send(place, &mut line, &message).map_err(|error| complaint.because(error.to_string()));
            failed = sent.is_err().then(Instant::now);
        }
        if sent.is_ok() {
            progress.sent(1);
        } else {
            line = None;
            progress.lose(1);
        }
        complaint.check(place, progress);
    }
    complaint.finish(place, progress);
}

/// Sends over the line that is there, or over a new one: the other side may have hung up long ago.
fn send(place: &Lines, line: &mut Option<Line>, message: &[u8]) -> io::Result<()> {
    if let Some(known) = line
        && known.send(message).is_ok()
    {
        return Ok(());
    }
    let mut fresh = Line::open(place)?;
    fresh.send(message)?;
    *line = Some(fresh);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_adds_a_field_to_the_journal() {
        let mut record = Record::new(Level::Warning, "imap", "it\nhappened");
        record.fields.push(("user".into(), Field::Name("kim\nPRIORITY=0".into())));
        let text = String::from_utf8(journal(&record, "it happened\n")).expect("a text");
        assert_eq!(text.lines().filter(|line| line.starts_with("PRIORITY=")).count(), 1, "{text}");
        assert!(text.contains("GATEPOST_USER=kim?PRIORITY=0\n") && text.starts_with("MESSAGE=it happened\n"), "{text}");
    }
}
