//! Places for records outside: syslog servers (RFC 5424, over UDP, TCP, TLS or a local socket), the journal of systemd, and
//! another Gatepost.
//!
//! Each has a thread and a bounded queue of its own, so that a server that is slow or gone holds up nothing else. What
//! it doesn't take is lost, and that is said on standard error.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::remote::{self, Carried, Keeper, Progress};
use super::{Field, Record, format};
use crate::config::{Level, SyslogServer};
use crate::net::tls;

/// Records that may wait for one place.
const QUEUE_RECORDS_MAX: usize = 4096;
/// How long connecting, or one record, may take.
pub(super) const SEND_TIME: Duration = Duration::from_secs(5);
/// A place that failed is left alone for so long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// How often a stop looks whether all is sent.
const FLUSH_STEP: Duration = Duration::from_millis(5);
/// How often it is said that records are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);
/// Longest message of one datagram: what any receiver must take is less, what all take is more.
const DATAGRAM_BYTES_MAX: usize = 8 * 1024;
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// A place, as it is reached.
pub(super) enum Way {
    /// With the facility's number.
    Syslog {
        server: SyslogServer,
        facility: u8,
        tls: Option<Arc<ClientConfig>>,
    },
    Journald,
    Keeper(Keeper),
}

/// How records look there.
#[derive(Debug, Clone)]
enum Shape {
    /// With the facility's number, and the name of this machine.
    Syslog(u8, String),
    Journal,
    Carried,
}

/// Takes records for a place.
pub(super) struct Outlet {
    queue: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
    /// Records that were handed over and neither sent nor lost yet.
    waiting: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    shape: Shape,
    /// What the place is called.
    name: String,
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Outlet {
    /// Starts the place's thread. It connects when there is something to say.
    pub(super) fn open(way: Way) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE_RECORDS_MAX);
        let shape = match &way {
            Way::Syslog { facility, .. } => {
                Shape::Syslog(*facility, rustix::system::uname().nodename().to_string_lossy().into_owned())
            }
            Way::Journald => Shape::Journal,
            Way::Keeper(_) => Shape::Carried,
        };
        let name = way.to_string();
        let [lost, waiting] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let is_over = Arc::new(AtomicBool::new(false));
        let progress =
            Progress { lost: Arc::clone(&lost), waiting: Arc::clone(&waiting), is_over: Arc::clone(&is_over) };
        let work = move || match &way {
            Way::Keeper(keeper) => remote::send_all(keeper, &records, &progress),
            way => send_all(way, &records, &progress),
        };
        std::thread::Builder::new().name("log-outlet".into()).spawn(work)?;
        Ok(Self { queue, lost, waiting, is_over, shape, name })
    }

    /// Hands a record over; `line` is the record as its format has it.
    pub(super) fn write(&self, record: &Record, line: &str) {
        // When it was, and by which program, is said in the place's own way.
        let line = line.split_once(" gatepost ").filter(|_| !line.starts_with('{')).map_or(line, |(_, rest)| rest);
        let bytes = match &self.shape {
            Shape::Syslog(facility, node) => Some(syslog(*facility, node, record, line)),
            Shape::Journal => Some(journal(record, line)),
            // Two that send each other their records would never come to an end.
            Shape::Carried if record.node.is_some() || record.stays_here => return,
            Shape::Carried => Carried::bytes(record),
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if bytes.is_none_or(|bytes| self.queue.try_send(bytes).is_err()) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all that was handed over is sent, or given up, but no longer than until then; what is not is said.
    pub(super) fn finish(&self, until: Instant) {
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(FLUSH_STEP);
        }
        let unsent = self.waiting.load(Ordering::Acquire) + self.lost.swap(0, Ordering::Relaxed);
        if unsent > 0 {
            eprintln!("gatepost: log: at the end {unsent} records were not sent to {}", self.name);
        }
    }
}

/// A message of RFC 5424.
fn syslog(facility: u8, node: &str, record: &Record, line: &str) -> Vec<u8> {
    let priority = u32::from(facility) * 8 + severity(record.level);
    let time = humantime::format_rfc3339_millis(record.time);
    let (process, service) = (std::process::id(), record.service);
    format!("<{priority}>1 {time} {node} gatepost {process} {service} - {}", line.trim_end()).into_bytes()
}

/// A record in the journal's own words: each field can be asked for.
fn journal(record: &Record, line: &str) -> Vec<u8> {
    let mut text = format!(
        "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER=gatepost\nGATEPOST_SERVICE={}\n",
        one_line(line.trim_end()),
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
    fn open(way: &Way) -> io::Result<Self> {
        let Way::Syslog { server, tls, .. } = way else { return Self::unix(Path::new(JOURNAL_SOCKET)) };
        match server {
            SyslogServer::Local(path) => Self::unix(path),
            SyslogServer::Udp(host, port) => {
                let target = address(host, *port)?;
                let own = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(own)?;
                socket.connect(target)?;
                Ok(Self::Udp(socket))
            }
            SyslogServer::Tcp(host, port) => Ok(Self::Tcp(connect(host, *port)?)),
            SyslogServer::Tls(host, port) => {
                let name = tls::server_name(host).ok_or_else(|| io::Error::other("no name for TLS"))?;
                let config = tls.clone().ok_or_else(|| io::Error::other("TLS is not set up"))?;
                let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
                Ok(Self::Tls(Box::new(StreamOwned::new(connection, connect(host, *port)?))))
            }
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

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syslog { server, .. } => write!(f, "{server}"),
            Self::Journald => f.write_str("the journal"),
            Self::Keeper(keeper) => write!(f, "{keeper}"),
        }
    }
}

/// What is said on standard error of a place that takes no records, once a minute.
#[derive(Default)]
pub(super) struct Complaint {
    said: Option<Instant>,
    /// Why the last that failed did.
    why: Option<String>,
}

impl Complaint {
    pub(super) fn because(&mut self, why: String) {
        self.why = Some(why);
    }

    /// Says how many records are lost and how many wait, if something is wrong, and if it is time.
    pub(super) fn check(&mut self, place: &impl std::fmt::Display, Progress { lost, waiting, .. }: &Progress) {
        let is_wrong = self.why.is_some() || lost.load(Ordering::Relaxed) > 0;
        if is_wrong && self.said.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
            self.said = Some(Instant::now());
            let (lost, waiting) = (lost.swap(0, Ordering::Relaxed), waiting.load(Ordering::Relaxed));
            let why = self.why.take().unwrap_or_else(|| "it is too slow".to_owned());
            eprintln!("gatepost: log: {place} takes no records: {why}; {lost} are lost, {waiting} wait");
        }
    }

    /// Says how many are lost at the end of it.
    pub(super) fn finish(&mut self, place: &impl std::fmt::Display, progress: &Progress) {
        if progress.lost.load(Ordering::Relaxed) > 0 {
            self.said = None;
            self.check(place, progress);
        }
    }
}

/// The thread's whole life: until nobody hands anything over any more.
fn send_all(way: &Way, records: &Receiver<Vec<u8>>, progress: &Progress) {
    let mut line: Option<Line> = None;
    let mut failed: Option<Instant> = None;
    let mut complaint = Complaint::default();
    for message in records {
        let rests = failed.is_some_and(|at| at.elapsed() < PAUSE);
        let mut sent = Err(());
        if !rests {
            sent = send(way, &mut line, &message).map_err(|error| complaint.because(error.to_string()));
            failed = sent.is_err().then(Instant::now);
        }
        if sent.is_err() {
            line = None;
            progress.lost.fetch_add(1, Ordering::Relaxed);
        }
        progress.waiting.fetch_sub(1, Ordering::Release);
        complaint.check(way, progress);
    }
    complaint.finish(way, progress);
}

/// Sends over the line that is there, or over a new one: the other side may have hung up long ago.
fn send(way: &Way, line: &mut Option<Line>, message: &[u8]) -> io::Result<()> {
    if let Some(known) = line
        && known.send(message).is_ok()
    {
        return Ok(());
    }
    let mut fresh = Line::open(way)?;
    fresh.send(message)?;
    *line = Some(fresh);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn record() -> Record {
        let mut record = Record::new(Level::Warning, "imap", "it\nhappened");
        record.fields.push(("user".into(), Field::Name("kim\nPRIORITY=0".into())));
        record
    }

    #[test]
    fn a_stream_counts_its_messages_and_is_found_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let server = SyslogServer::Tcp("127.0.0.1".into(), port);
        let outlet = Outlet::open(Way::Syslog { server, facility: 2, tls: None }).expect("an outlet");
        listener.set_nonblocking(true).expect("an option");
        for _ in 0..2 {
            // The first records after a hang-up may still be taken by the kernel, and rests follow failures.
            let deadline = Instant::now() + Duration::from_mins(1);
            let mut stream = loop {
                outlet.write(&record(), "imap: Warning: it happened\n");
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(error) => assert!(Instant::now() < deadline, "no connection: {error}"),
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            stream.set_nonblocking(false).expect("an option");
            stream.set_read_timeout(Some(Duration::from_mins(1))).expect("an option");
            let mut bytes = [0; 512];
            let count = stream.read(&mut bytes).expect("a message");
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            let (length, messages) = text.split_once(' ').expect("a length");
            let message = messages.get(..length.parse().expect("a number")).expect("a whole message");
            assert!(
                message.starts_with("<20>1 ") && message.ends_with(" imap - imap: Warning: it happened"),
                "{message}"
            );
        }
    }

    #[test]
    fn nobody_adds_a_field_to_the_journal() {
        let text = String::from_utf8(journal(&record(), "it happened\n")).expect("a text");
        assert_eq!(text.lines().filter(|line| line.starts_with("PRIORITY=")).count(), 1, "{text}");
        assert!(text.contains("GATEPOST_USER=kim?PRIORITY=0\n") && text.starts_with("MESSAGE=it happened\n"), "{text}");
    }
}
