//! Ways for records to places outside: syslog servers, the journal of systemd, and another Gatepost.
//!
//! Each has a thread and a bounded queue of its own, so that a server that is slow or gone holds up nothing else. What
//! it doesn't take is lost, and that is said on standard error.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::lines::{self, Lines};
use super::progress::Progress;
use super::remote::{self, Carried, Keeper};
use super::{Record, format};
use crate::config::LogFormat;

/// Records that may wait for one place.
const QUEUE_RECORDS_MAX: usize = 4096;
/// How long connecting, or one record, may take.
pub(super) const SEND_TIME: Duration = Duration::from_secs(5);
/// A place that failed is left alone for so long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// How often a stop looks whether all is sent.
const FLUSH_STEP: Duration = Duration::from_millis(5);

/// A place, as it is reached.
pub(super) enum Way {
    /// With how records look there.
    Lines(Lines, lines::Shape),
    Keeper(Keeper),
}

/// How records look at a place.
enum Shape {
    Line(lines::Shape),
    Carried,
}

/// Takes records for a place.
pub(super) struct Outlet {
    queue: SyncSender<Vec<u8>>,
    progress: Progress,
    shape: Shape,
    /// What the place is called.
    name: String,
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.progress.end();
    }
}

impl Outlet {
    /// Starts the place's thread. It connects when there is something to say.
    pub(super) fn open(way: Way) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE_RECORDS_MAX);
        let progress = Progress::default();
        let sent = progress.clone();
        let thread = std::thread::Builder::new().name("log-outlet".into());
        let (name, shape) = match way {
            Way::Lines(place, shape) => {
                let name = place.to_string();
                thread.spawn(move || lines::send_all(&place, &records, &sent))?;
                (name, Shape::Line(shape))
            }
            Way::Keeper(keeper) => {
                let name = keeper.to_string();
                thread.spawn(move || remote::send_all(&keeper, &records, &sent))?;
                (name, Shape::Carried)
            }
        };
        Ok(Self { queue, progress, shape, name })
    }

    /// Hands a record over.
    pub(super) fn write(&self, record: &Record, how: LogFormat) {
        let bytes = match &self.shape {
            // When it was, and by which program, is said in the place's own way.
            Shape::Line(shape) => Some(match how {
                LogFormat::Text => shape.bytes(record, &format::body(record)),
                LogFormat::Json => shape.bytes(record, &format::json(record)),
            }),
            // Two that send each other their records would never come to an end.
            Shape::Carried if record.node.is_some() || record.stays_here => return,
            Shape::Carried => Carried::bytes(record),
        };
        self.progress.expect_one();
        if bytes.is_none_or(|bytes| self.queue.try_send(bytes).is_err()) {
            self.progress.lose(1);
        }
    }

    /// Waits until all that was handed over is sent, or given up, but no longer than until then; what is not is said.
    pub(super) fn finish(&self, until: Instant) {
        while self.progress.waiting() > 0 && Instant::now() < until {
            std::thread::sleep(FLUSH_STEP);
        }
        let unsent = self.progress.waiting() + self.progress.take_lost();
        if unsent > 0 {
            eprintln!("gatepost: log: at the end {unsent} records were not sent to {}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::config::{Level, SyslogServer, Trust};

    #[test]
    fn a_stream_counts_its_messages_and_is_found_again() {
        let record = Record::new(Level::Warning, "imap", "it happened");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let server = SyslogServer::Tcp("127.0.0.1".into(), port);
        let place = Lines::syslog(&server, &Trust::By(None)).expect("a place");
        let outlet = Outlet::open(Way::Lines(place, lines::Shape::syslog(2))).expect("an outlet");
        listener.set_nonblocking(true).expect("an option");
        for _ in 0..2 {
            // The first records after a hang-up may still be taken by the kernel, and rests follow failures.
            let deadline = Instant::now() + Duration::from_mins(1);
            let mut stream = loop {
                outlet.write(&record, LogFormat::Text);
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
}
