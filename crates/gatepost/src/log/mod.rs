//! Records of what happens, to where the rules send them.
//!
//! Who logs hands a record over and goes on: a thread of its own formats and writes. The queue between
//! is bounded; what doesn't fit is counted and said, never waited for. What a record says belongs to whoever writes it.

mod complaints;
mod following;
mod format;
mod lines;
mod outlet;
mod progress;
mod recent;
mod record;
mod remote;
mod sink;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{self, Level};
use complaints::Complaints;
use following::Following;
use recent::{Followed, Recent};
pub(crate) use record::{Field, Record};
pub(crate) use remote::Carried;
use sink::Sink;

/// Records that may wait to be written.
const QUEUE_RECORDS_MAX: usize = 16 * 1024;
/// How often the writer looks after its files when nothing comes.
const TICK: Duration = Duration::from_secs(5);
/// How long a stop waits for the last records to be sent elsewhere.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

enum Message {
    Record(Record),
    /// From now on every place takes records of this level.
    Level(Level),
    /// All before it is written when the answer comes.
    Finish(SyncSender<()>),
}

/// Takes records; cheap to clone.
#[derive(Clone)]
pub(crate) struct Logger {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

struct Shared {
    /// The lightest level that any sink wants, as a number.
    level: AtomicU8,
    lost: AtomicU64,
    complaints: Complaints,
    following: Following,
    recent: Recent,
    /// Places to be used from the next record on.
    next: Mutex<Option<Vec<Sink>>>,
}

impl Logger {
    /// Opens the places that `settings` name and starts the writer.
    pub(crate) fn start(settings: &config::Log) -> Result<Self, config::Problems> {
        let sinks = sink::open(settings)?;
        let (queue, incoming) = sync_channel(QUEUE_RECORDS_MAX);
        let shared = Arc::new(Shared {
            level: AtomicU8::new(lightest(&sinks)),
            lost: AtomicU64::new(0),
            complaints: Complaints::default(),
            following: Following::default(),
            recent: Recent::default(),
            next: Mutex::default(),
        });
        let logger = Self { queue, shared: Arc::clone(&shared) };
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(&incoming, sinks, &shared)).map_err(
            |error| config::Problems::one(config::Problem::of("log", format!("can't start its thread: {error}"))),
        )?;
        Ok(logger)
    }

    /// Whether the places that settings name could be opened. Makes nothing: a log file made by whoever
    /// checks a configuration might not be the server's to write to.
    pub(crate) fn check(settings: &config::Log) -> Result<(), config::Problems> {
        sink::check(settings)
    }

    /// Opens the places that new settings name, without taking them into use yet.
    pub(crate) fn prepare(settings: &config::Log) -> Result<Prepared, config::Problems> {
        sink::open(settings).map(Prepared)
    }

    /// Takes prepared places into use.
    pub(crate) fn switch(&self, prepared: Prepared) {
        self.shared.level.store(lightest(&prepared.0), Ordering::Relaxed);
        *self.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(prepared.0);
    }

    /// Whether anyone wants records of this level.
    pub(crate) fn wants(&self, level: Level) -> bool {
        level as u8 <= self.shared.level.load(Ordering::Relaxed)
    }

    /// Has every place take records of this level, until the settings change; false: too much is waiting to be written.
    pub(crate) fn set_level(&self, level: Level) -> bool {
        let is_taken = self.queue.try_send(Message::Level(level)).is_ok();
        if is_taken {
            self.shared.level.store(level as u8, Ordering::Relaxed);
        }
        is_taken
    }

    /// Those whose conversations are logged whatever the level.
    pub(crate) fn following(&self) -> &Following {
        &self.shared.following
    }

    /// Begins a record.
    pub(crate) fn record(&self, level: Level, service: &'static str, message: impl Into<String>) -> Draft<'_> {
        let record = self.wants(level).then(|| Record::new(level, service, message));
        Draft { logger: self, record }
    }

    /// Begins a record of a conversation that is followed.
    pub(crate) fn followed_record(&self, service: &'static str, message: impl Into<String>) -> Draft<'_> {
        let record = Record { is_followed: true, ..Record::new(Level::Protocol, service, message) };
        Draft { logger: self, record: Some(record) }
    }

    /// Whether a complaint that may come with every log-in should be said now, and how often it came since it
    /// was last said.
    pub(crate) fn seldom(&self, complaint: &str) -> Option<u64> {
        self.shared.complaints.note(complaint, Instant::now())
    }

    /// Keeps the latest records from now on, for those who look on.
    pub(crate) fn keep_recent(&self) {
        self.shared.recent.begin();
    }

    /// Takes records of another node; how many found room.
    pub(crate) fn take(&self, node: &str, records: Vec<Carried>) -> usize {
        let mut taken = 0;
        for record in records {
            let record = record.into_record(node);
            let is_wanted = record.is_followed || self.wants(record.level);
            if is_wanted && self.queue.try_send(Message::Record(record)).is_err() {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            taken += 1;
        }
        taken
    }

    /// The latest records that were kept, and those that will come; whoever is too slow misses some.
    pub(crate) fn recent(&self) -> Option<(Vec<Arc<Record>>, Followed)> {
        self.shared.recent.look()
    }

    /// Waits until everything handed over so far is written, or for two seconds, before the program ends; what is not is said.
    pub(crate) fn finish(&self) {
        let (done, wait) = sync_channel(1);
        let deadline = Instant::now() + 2 * FLUSH_PATIENCE;
        let mut message = Message::Finish(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if Instant::now() > deadline {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Opened places, not yet in use.
pub(crate) struct Prepared(Vec<Sink>);

/// A record being filled in.
pub(crate) struct Draft<'a> {
    logger: &'a Logger,
    /// `None` where nobody wants it.
    record: Option<Record>,
}

impl Draft<'_> {
    /// Adds a field.
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Field>) -> Self {
        if let Some(record) = &mut self.record {
            record.fields.push((key.into(), value.into()));
        }
        self
    }

    /// Keeps it from other Gateposts: it has what nobody there should see.
    pub(crate) fn for_this_node(mut self) -> Self {
        if let Some(record) = &mut self.record {
            record.stays_here = true;
        }
        self
    }

    /// Adds a field, if there is a value.
    pub(crate) fn with_some(self, key: &'static str, value: Option<impl Into<Field>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Hands it over.
    pub(crate) fn write(self) {
        let Some(record) = self.record else { return };
        if self.logger.queue.try_send(Message::Record(record)).is_err() {
            self.logger.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn lightest(sinks: &[Sink]) -> u8 {
    sinks.iter().map(|sink| sink.level() as u8).max().unwrap_or(0)
}

/// The writer's whole life.
fn write_all(incoming: &Receiver<Message>, mut sinks: Vec<Sink>, shared: &Shared) {
    loop {
        let message = incoming.recv_timeout(TICK);
        if let Some(new) = shared.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            sinks = new;
        }
        match message {
            Ok(Message::Record(record)) => {
                sink::write_to(&mut sinks, &record);
                shared.recent.keep(record);
            }
            Ok(Message::Level(level)) => sinks.iter_mut().for_each(|sink| sink.set_level(level)),
            Ok(Message::Finish(done)) => {
                let until = Instant::now() + FLUSH_PATIENCE;
                sinks.iter().for_each(|sink| sink.finish(until));
                let _ = done.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => sinks.iter_mut().for_each(Sink::tick),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let lost = shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let what = "records were lost: the log can't be written fast enough";
            let fields = vec![("lost".into(), Field::Number(lost))];
            let record = Record { fields, ..Record::new(Level::Error, "server", what) };
            sink::write_to(&mut sinks, &record);
            shared.recent.keep(record);
        }
    }
}
