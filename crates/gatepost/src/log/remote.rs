//! Records on their way from one Gatepost to another that keeps them: in batches, over its REST API.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use gatepost_wire::PROTOCOLS;
use hyper::header::HeaderValue;
use hyper::{StatusCode, Uri};
use rustls::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outlet::{PAUSE, SEND_TIME};
use super::progress::{Complaint, Progress};
use super::{Field, Record};
use crate::config::{self, Level};
use crate::net::http::{self, HttpClient};

/// What a batch holds at most, a record more or less. The other side reads 64 KiB.
const BATCH_BYTES_MAX: usize = 40 * 1024;
/// How long what waits is still tried once other settings are in force.
const AFTERLIFE: Duration = Duration::from_mins(1);
/// Longest record that is sent, or taken.
const RECORD_BYTES_MAX: usize = 20 * 1024;
/// Longest name of a field, and how many of them are taken.
const KEY_BYTES_MAX: usize = 32;
const FIELDS_MAX: usize = 64;
/// Names that a record has anyway.
const OWN_KEYS: [&str; 5] = ["time", "level", "service", "message", "node"];

/// A record as it is sent from one Gatepost to another.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Carried {
    /// When it happened (RFC 3339).
    time: String,
    level: Level,
    /// The service that it is about.
    service: String,
    message: String,
    /// Names and values, in their order.
    fields: Vec<(String, Field)>,
    /// Written whatever the level: of a conversation that somebody traces.
    #[serde(default)]
    is_followed: bool,
}

impl Carried {
    /// A record as JSON; `None`: it is too long to be sent.
    pub(super) fn bytes(record: &Record) -> Option<Vec<u8>> {
        let carried = Self {
            time: humantime::format_rfc3339_millis(record.time).to_string(),
            level: record.level,
            service: record.service.to_owned(),
            message: record.message.clone(),
            fields: record.fields.iter().map(|(key, field)| (key.to_string(), field.clone())).collect(),
            is_followed: record.is_followed,
        };
        serde_json::to_vec(&carried).ok().filter(|bytes| bytes.len() <= RECORD_BYTES_MAX)
    }

    /// The record, as it came from that node, as far as a record may be long.
    pub(super) fn into_record(self, node: &str) -> Record {
        let is_key = |key: &str| {
            let is_sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            !key.is_empty() && key.len() <= KEY_BYTES_MAX && !OWN_KEYS.contains(&key) && key.bytes().all(is_sound)
        };
        let mut message = self.message;
        message.truncate(message.floor_char_boundary(RECORD_BYTES_MAX));
        let mut room = RECORD_BYTES_MAX - message.len();
        let mut fits = |field: &Field| {
            let length = match field {
                Field::Text(text) | Field::Name(text) => text.len(),
                Field::Number(_) | Field::Address(_) => 0,
            };
            room.checked_sub(length).is_some_and(|left| {
                room = left;
                true
            })
        };
        let fields = self.fields.into_iter().filter(|(key, field)| is_key(key) && fits(field)).take(FIELDS_MAX);
        Record {
            time: humantime::parse_rfc3339(&self.time).unwrap_or_else(|_| SystemTime::now()),
            level: self.level,
            service: known_service(&self.service),
            message,
            fields: fields.map(|(key, field)| (key.into(), field)).collect(),
            is_followed: self.is_followed,
            node: Some(node.to_owned()),
            stays_here: false,
        }
    }
}

/// What this version calls a service; one that it does not know is the server's.
fn known_service(name: &str) -> &'static str {
    static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let protocols = PROTOCOLS.iter().flat_map(|protocol| [protocol.name, protocol.login_name]);
        protocols.chain(config::OTHER_SERVICES).collect()
    });
    NAMES.iter().find(|known| **known == name).copied().unwrap_or("server")
}

/// The Gatepost that keeps records, as it is reached.
pub(super) struct Keeper {
    pub(super) url: Uri,
    /// The token, as it is shown there.
    pub(super) pass: HeaderValue,
    pub(super) tls: Arc<ClientConfig>,
}

impl std::fmt::Display for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.url)
    }
}

impl Keeper {
    /// Sends a batch once. An error says why it was not taken, and whether it may be later.
    async fn send(&self, client: &HttpClient, batch: &Bytes) -> Result<(), (String, bool)> {
        let request = http::post_json(&self.url, "/api/v1/logs", Some(&self.pass), batch);
        let request = request.map_err(|error| (error, false))?;
        let answer = client.send(request).await.map_err(|error| (error, true))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let may_pass = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let text = serde_json::from_slice::<serde_json::Value>(answer.body()).unwrap_or_default();
        let why = text["error"].as_str().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200);
        Err((format!("it answers {status} {}", why.collect::<String>()).trim_end().to_owned(), may_pass))
    }
}

/// The thread's whole life: until nobody hands anything over any more, and what waits is sent or given up. While the other
/// side is away, what comes waits as far as there is room.
pub(super) fn send_all(keeper: &Keeper, records: &Receiver<Vec<u8>>, progress: &Progress) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        eprintln!("gatepost: log: {keeper} gets no records: its runtime can't be started");
        return;
    };
    let client = HttpClient::new(&keeper.tls, 1, SEND_TIME);
    let mut complaint = Complaint::default();
    let mut over: Option<Instant> = None;
    'batches: while let Ok(first) = records.recv() {
        let (batch, count) = gather(&first, records);
        loop {
            match runtime.block_on(keeper.send(&client, &batch)) {
                Ok(()) => {
                    progress.sent(count);
                    break;
                }
                Err((why, may_pass)) => {
                    complaint.because(why);
                    if progress.is_over() {
                        over.get_or_insert_with(Instant::now);
                    }
                    if over.is_some_and(|over| over.elapsed() > AFTERLIFE) {
                        progress.lose(count + records.try_iter().count() as u64);
                        break 'batches;
                    }
                    if !may_pass {
                        progress.lose(count);
                        break;
                    }
                    complaint.check(keeper, progress);
                    std::thread::sleep(PAUSE);
                }
            }
        }
        complaint.check(keeper, progress);
    }
    complaint.finish(keeper, progress);
}

/// What waits, as one request's body, and how many records that is.
fn gather(first: &[u8], records: &Receiver<Vec<u8>>) -> (Bytes, u64) {
    let mut batch = [b"{\"records\":[", first].concat();
    let mut count = 1;
    while batch.len() < BATCH_BYTES_MAX
        && let Ok(next) = records.try_recv()
    {
        batch.push(b',');
        batch.extend_from_slice(&next);
        count += 1;
    }
    batch.extend_from_slice(b"]}");
    (batch.into(), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_arrives_as_it_was_sent_with_its_node() {
        let mut record = Record::new(Level::Warning, "imap-login", "it happened");
        record.fields.push(("user".into(), Field::Name("kim\r\n".into())));
        record.fields.push(("rip".into(), Field::Address([192, 0, 2, 1].into())));
        let bytes = Carried::bytes(&record).expect("a short record");
        let there = serde_json::from_slice::<Carried>(&bytes).expect("JSON").into_record("mx1");
        assert_eq!((there.level, there.service, &*there.message), (Level::Warning, "imap-login", "it happened"));
        let text = super::super::format::text(&there);
        let expected =
            " gatepost imap-login: Warning: node=<mx1>: it happened: user=<kim\\u{d}\\u{a}>, rip=192.0.2.1\n";
        assert!(text.ends_with(expected), "{text}");
        record.message = "x".repeat(RECORD_BYTES_MAX);
        assert!(Carried::bytes(&record).is_none());
    }

    #[test]
    fn what_another_says_can_be_no_field_of_ours() {
        let text = r#"{"time":"then","level":"info","service":"x","message":"m","fields":[
            ["node",{"name":"forged"}],["level",{"text":"x"}],["a=b",{"text":"x"}],["A",{"text":"x"}],["",{"text":"x"}],["ok",{"number":7}]]}"#;
        let record = serde_json::from_str::<Carried>(text).expect("JSON").into_record("mx1");
        assert_eq!(record.service, "server");
        let keys: Vec<_> = record.fields.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, ["ok"]);
        assert_eq!(record.node.as_deref(), Some("mx1"));
        // Nor can it be longer than ours.
        let long = "ä".repeat(RECORD_BYTES_MAX);
        let fields: Vec<_> = (0..100).map(|n| (format!("k{n}"), Field::Number(n))).collect();
        let carried = Carried {
            time: String::new(),
            level: Level::Info,
            service: "imap".into(),
            message: long.clone(),
            fields: [vec![("text".to_owned(), Field::Text(long))], fields].concat(),
            is_followed: false,
        };
        let record = carried.into_record("mx1");
        assert_eq!((record.message.len(), record.fields.len()), (RECORD_BYTES_MAX, FIELDS_MAX));
    }
}
