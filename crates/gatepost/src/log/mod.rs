//! Records of what happens, to where the rules send them.
//!
//! Who logs hands a record over and goes on: a thread of its own formats and writes. The queue between
//! is bounded; what doesn't fit is counted and said, never waited for. What a record says belongs to whoever writes it.

mod format;
mod outlet;
mod remote;
mod sink;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use gatepost_wire::PROTOCOLS;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::config::{self, Level};
pub(crate) use remote::Carried;
use sink::Sink;

/// Records that may wait to be written.
const QUEUE_RECORDS_MAX: usize = 16 * 1024;
/// How often the writer looks after its files when nothing comes.
const TICK: Duration = Duration::from_secs(5);
/// How long a stop waits for the last records to be sent elsewhere.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The latest records that are kept for those who look on.
const RECENT_MAX: usize = 1000;
/// How often the same complaint is said, and how many are told apart.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);
const COMPLAINTS_MAX: usize = 1000;

/// One thing that happened.
#[derive(Debug)]
pub(crate) struct Record {
    time: SystemTime,
    level: Level,
    /// The service's name, or `server`, `directory` or `admin`.
    service: &'static str,
    message: String,
    fields: Vec<(Cow<'static, str>, Field)>,
    /// Written whatever the level.
    is_followed: bool,
    /// The other Gatepost that it is from.
    node: Option<String>,
    /// It goes to no other Gatepost.
    stays_here: bool,
}

impl Record {
    fn new(level: Level, service: &'static str, message: impl Into<String>) -> Self {
        let (time, fields) = (SystemTime::now(), Vec::new());
        Self {
            time,
            level,
            service,
            message: message.into(),
            fields,
            is_followed: false,
            node: None,
            stays_here: false,
        }
    }

    pub(crate) const fn level(&self) -> Level {
        self.level
    }

    /// The service that it is about; failed log-ins are written under a name of Dovecot's.
    pub(crate) fn about(&self) -> &'static str {
        let named = PROTOCOLS.iter().find(|protocol| protocol.login_name == self.service);
        named.map_or(self.service, |protocol| protocol.name)
    }

    /// It as one line of text, without its end.
    pub(crate) fn text(&self) -> String {
        format::text(self).trim_end().to_owned()
    }

    /// It as a JSON object.
    pub(crate) fn json(&self) -> serde_json::Value {
        format::object(self).into()
    }
}

/// A field's value.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Field {
    Text(String),
    /// A name that a client gave: shown in `<>`, with what could break out of them escaped.
    Name(String),
    Number(
        #[serde(deserialize_with = "read_number")]
        #[schemars(range(max = 18_446_744_073_709_551_615_u64))]
        u64,
    ),
    Address(#[schemars(schema_with = "address_schema")] IpAddr),
}

fn read_number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    config::whole(&value).ok_or_else(|| serde::de::Error::custom(format_args!("{value} is no whole number from 0")))
}

fn address_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] })
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<IpAddr> for Field {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Field {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

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
    /// When each was last said, and how often it came since.
    complaints: Mutex<HashMap<String, (Option<Instant>, u64)>>,
    /// Users whose conversations are logged whatever the level, and until when.
    followed: Mutex<HashMap<String, Instant>>,
    is_following: AtomicBool,
    /// The latest records, and who follows them, once somebody wants to see them.
    recent: Mutex<Option<Recent>>,
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
            complaints: Mutex::default(),
            followed: Mutex::default(),
            is_following: AtomicBool::new(false),
            recent: Mutex::default(),
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

    /// Logs a user's conversations for this long, whatever the level.
    pub(crate) fn follow(&self, user: &str, time: Duration) {
        let mut followed = self.followed();
        followed.retain(|_, until| *until > Instant::now());
        if time.is_zero() {
            followed.remove(user);
        } else {
            followed.insert(user.to_owned(), Instant::now() + time);
        }
        self.shared.is_following.store(!followed.is_empty(), Ordering::Relaxed);
    }

    /// Ends what is to be followed no more.
    pub(crate) fn unfollow_expired(&self) {
        let mut followed = self.followed();
        followed.retain(|_, until| *until > Instant::now());
        self.shared.is_following.store(!followed.is_empty(), Ordering::Relaxed);
    }

    /// Whether anybody's conversations are logged whatever the level.
    pub(crate) fn is_following(&self) -> bool {
        self.shared.is_following.load(Ordering::Relaxed)
    }

    /// Whether this user's are.
    pub(crate) fn follows(&self, user: &str) -> bool {
        self.is_following() && self.followed().get(user).is_some_and(|until| *until > Instant::now())
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.shared.followed.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut complaints = self.shared.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() >= COMPLAINTS_MAX {
            complaints.clear();
        }
        let (said, times) = complaints.entry(complaint.to_owned()).or_insert((None, 0));
        *times += 1;
        if said.is_some_and(|at| at.elapsed() < COMPLAINT_INTERVAL) {
            return None;
        }
        *said = Some(Instant::now());
        Some(std::mem::take(times))
    }

    /// Keeps the latest records from now on, for those who look on.
    pub(crate) fn keep_recent(&self) {
        let mut recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent
            .get_or_insert_with(|| Recent { records: VecDeque::new(), followers: broadcast::Sender::new(RECENT_MAX) });
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
        let recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.as_ref().map(|recent| (recent.records.iter().map(Arc::clone).collect(), recent.followers.subscribe()))
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

/// The latest records.
struct Recent {
    records: VecDeque<Arc<Record>>,
    followers: broadcast::Sender<Arc<Record>>,
}

/// Records to come.
pub(crate) type Followed = broadcast::Receiver<Arc<Record>>;

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

/// Keeps a record for those who look on, if anybody may.
fn keep(record: Record, shared: &Shared) {
    let mut recent = shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(recent) = recent.as_mut() else { return };
    if recent.records.len() >= RECENT_MAX {
        recent.records.pop_front();
    }
    let record = Arc::new(record);
    recent.records.push_back(Arc::clone(&record));
    // Nobody may be looking.
    let _ = recent.followers.send(record);
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
                keep(record, shared);
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
            keep(record, shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_log_in_is_about_its_service() {
        for protocol in PROTOCOLS {
            assert_eq!(Record::new(Level::Info, protocol.login_name, "").about(), protocol.name);
        }
        assert_eq!(Record::new(Level::Info, "server", "").about(), "server");
    }
}
