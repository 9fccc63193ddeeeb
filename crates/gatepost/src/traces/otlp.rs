//! Telling a collector of log-ins, by OTLP 1 over HTTP, as JSON.
//!
//! A log-in is a span, and each part of it that takes time one beneath. All log-ins of a session are one trace, whose name is
//! the session's in the log.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::Uri;
use hyper::header::HeaderValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Trace;
use crate::config::{self, Level, Problem, TlsVersion};
use crate::log::Logger;
use crate::metrics::{LogIn, Stage};
use crate::net::http::{self, HttpClient};
use crate::net::tls;

/// Log-ins that may wait to be sent.
const QUEUE_MAX: usize = 4096;
/// Log-ins in one request.
const BATCH_MAX: usize = 256;
/// How long a request may take.
const SEND_TIME: Duration = Duration::from_secs(5);
/// A request that fails is made again after this, so often.
const PAUSE: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// How often the end looks whether all is sent.
const FINISH_STEP: Duration = Duration::from_millis(10);
/// Parts of one log-in that are told.
const LAPS_MAX: usize = 16;

/// Sends traces to the configured collector.
pub(crate) struct Tracer {
    queue: mpsc::Sender<Finished>,
    fate: Arc<Fate>,
    one_in: u32,
    seen: AtomicU32,
}

/// What becomes of log-ins that are told of.
#[derive(Default)]
struct Fate {
    /// Those that are neither sent nor given up yet.
    pending: AtomicUsize,
    /// Those that are given up, or found no room, of which the log doesn't know yet.
    lost: AtomicU64,
}

/// A log-in on its way to the collector.
struct Finished {
    trace: Trace,
    ended: SystemTime,
    laps: Vec<Lap>,
}

/// What took time within a session's log-in that is under way, if log-ins are traced.
pub(crate) struct Trail(Option<(Arc<Tracer>, Mutex<Vec<Lap>>)>);

/// The protocol's `SpanKind`: something within, an answer to somebody, a question to somebody.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;

/// A part of a log-in.
struct Lap {
    stage: Stage,
    ended: SystemTime,
    took: Duration,
}

impl Trail {
    /// For a session whose log-ins this tracer is told of.
    pub(crate) fn new(tracer: Option<&Arc<Tracer>>) -> Self {
        Self(tracer.map(|tracer| (Arc::clone(tracer), Mutex::default())))
    }

    /// A part ended so long ago that took so long.
    pub(crate) fn note(&self, stage: Stage, took: Duration, ago: Duration) {
        let Some((_, laps)) = &self.0 else { return };
        let mut laps = laps.lock().unwrap_or_else(PoisonError::into_inner);
        if laps.len() < LAPS_MAX {
            let now = SystemTime::now();
            laps.push(Lap { stage, ended: now.checked_sub(ago).unwrap_or(now), took });
        }
    }

    /// A log-in has come to its end, with all parts since the one before it.
    pub(crate) fn tell(&self, trace: impl FnOnce() -> Trace) {
        let Some((tracer, laps)) = &self.0 else { return };
        let laps = std::mem::take(&mut *laps.lock().unwrap_or_else(PoisonError::into_inner));
        if tracer.chooses() {
            tracer.send(Finished { trace: trace(), ended: SystemTime::now(), laps });
        }
    }
}

impl Tracer {
    /// Begins to send, on the runtime that this is called on, for as long as the tracer is kept.
    pub(crate) fn open(settings: &config::Traces, node: &str, log: &Logger) -> Result<Self, Problem> {
        let pass = settings.token_file.as_ref().map(http::read_bearer).transpose()?;
        let tls = tls::client_config(&settings.trust(), TlsVersion::Tls12)?;
        let (queue, traces) = mpsc::channel(QUEUE_MAX);
        let fate = Arc::new(Fate::default());
        let collector = Collector {
            url: settings.url.clone(),
            pass,
            client: HttpClient::new(&tls, 1, SEND_TIME),
            resource: resource(node),
            fate: Arc::clone(&fate),
            log: log.clone(),
        };
        tokio::spawn(collector.run(traces));
        Ok(Self { queue, fate, one_in: settings.one_in.max(1), seen: AtomicU32::new(0) })
    }

    /// Waits until all is sent, or until then; how many log-ins are not.
    pub(crate) async fn finish(&self, until: Instant) -> usize {
        let pending = || self.fate.pending.load(Ordering::Relaxed);
        while pending() > 0 && Instant::now() < until {
            tokio::time::sleep(FINISH_STEP).await;
        }
        pending()
    }

    /// Whether the next log-in is one of those that are told of.
    fn chooses(&self) -> bool {
        self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.one_in)
    }

    fn send(&self, finished: Finished) {
        self.fate.pending.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(finished).is_err() {
            self.fate.pending.fetch_sub(1, Ordering::Relaxed);
            self.fate.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where traces go.
struct Collector {
    url: Uri,
    /// The token, as it is shown there.
    pass: Option<HeaderValue>,
    client: HttpClient,
    resource: Value,
    fate: Arc<Fate>,
    log: Logger,
}

impl Collector {
    async fn run(self, mut traces: mpsc::Receiver<Finished>) {
        let mut batch = Vec::new();
        while traces.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let count = batch.len();
            let body = Bytes::from(self.body(batch.drain(..)).to_string());
            let sent = self.send_patiently(&body).await;
            self.fate.pending.fetch_sub(count, Ordering::Relaxed);
            let unsent = if sent.is_err() { count as u64 } else { 0 };
            let lost = self.fate.lost.swap(0, Ordering::Relaxed) + unsent;
            if lost > 0 {
                self.complain(&sent.err().unwrap_or_else(|| "it is too slow".to_owned()), lost);
            }
        }
    }

    /// Sends a batch, as often as that takes within reason; the fault of the last attempt.
    async fn send_patiently(&self, body: &Bytes) -> Result<(), String> {
        for _ in 1..TRIES {
            if self.send(body).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.send(body).await
    }

    /// Says once a minute how many log-ins are lost.
    fn complain(&self, fault: &str, lost: u64) {
        if self.log.seldom("traces are lost").is_none() {
            // They are told of the next time.
            self.fate.lost.fetch_add(lost, Ordering::Relaxed);
            return;
        }
        let record = self.log.record(Level::Warning, "server", "traces of log-ins are lost");
        record.with("collector", self.url.to_string()).with("fault", fault).with("lost", lost).write();
    }

    async fn send(&self, body: &Bytes) -> Result<(), String> {
        let answer = self.client.send(http::post_json(&self.url, "/v1/traces", self.pass.as_ref(), body)?).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        // It may have taken a part, and then wants none of it again.
        let said: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let why = &said["partialSuccess"]["errorMessage"];
        if why.as_str().is_some_and(|why| !why.is_empty()) && self.log.seldom("traces are refused").is_some() {
            let record = self.log.record(Level::Warning, "server", "a collector of traces does not take all of them");
            record.with("collector", self.url.to_string()).with("fault", why.to_string()).write();
        }
        Ok(())
    }

    /// An `ExportTraceServiceRequest`.
    fn body(&self, finished: impl Iterator<Item = Finished>) -> Value {
        let spans: Vec<_> = finished.flat_map(|finished| spans(&finished)).collect();
        json!({ "resourceSpans": [{
            "resource": self.resource,
            "scopeSpans": [{ "scope": { "name": "gatepost", "version": env!("CARGO_PKG_VERSION") }, "spans": spans }],
        }] })
    }
}

/// Who tells of it, in the words of OpenTelemetry's conventions.
fn resource(node: &str) -> Value {
    json!({ "attributes": [
        text("service.name", "gatepost"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", node),
    ] })
}

/// The spans of a log-in, itself first.
fn spans(Finished { trace, ended, laps }: &Finished) -> Vec<Value> {
    let (name, own) = (hex(&trace.session), span_name());
    let began = laps.iter().filter_map(|lap| lap.ended.checked_sub(lap.took)).min().unwrap_or(*ended);
    let mut attributes = vec![
        text("gatepost.session", &String::from_utf8_lossy(&trace.session)),
        text("gatepost.service", trace.service),
        text("gatepost.listener", &trace.listener),
        text("gatepost.result", trace.result.name()),
        text("gatepost.mechanism", trace.mechanism.name()),
    ];
    attributes.extend(trace.backend.as_ref().map(|backend| text("gatepost.backend", backend)));
    // A wrong password is the user's fault, and a log-in that works as it should.
    let is_fault = matches!(trace.result, LogIn::Limit | LogIn::Unavailable);
    let status = if is_fault { json!({ "code": 2, "message": trace.result.name() }) } else { json!({}) };
    let root = json!({
        "traceId": name, "spanId": own, "name": format!("{} log-in", trace.service), "kind": SERVER,
        "startTimeUnixNano": nanoseconds(began), "endTimeUnixNano": nanoseconds(*ended),
        "attributes": attributes, "status": status,
    });
    let parts = laps.iter().map(|lap| {
        let kind = if lap.stage == Stage::Tls { INTERNAL } else { CLIENT };
        let began = lap.ended.checked_sub(lap.took).unwrap_or(lap.ended);
        json!({
            "traceId": name, "spanId": span_name(), "parentSpanId": own, "name": lap.stage.name(), "kind": kind,
            "startTimeUnixNano": nanoseconds(began), "endTimeUnixNano": nanoseconds(lap.ended), "status": {},
        })
    });
    std::iter::once(root).chain(parts).collect()
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// A number of 64 bits, which JSON has as text there.
fn nanoseconds(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// A name for a span.
fn span_name() -> String {
    let mut random = [0; 8];
    // Without randomness spans would share a name; nothing else depends on it.
    let _ = getrandom::fill(&mut random);
    hex(&random)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use gatepost_wire::Mechanism;

    use super::*;

    #[test]
    fn a_log_in_is_a_span_with_its_parts_beneath() {
        let ended = UNIX_EPOCH + Duration::from_secs(100);
        let lap = |stage, end: u64, took| Lap {
            stage,
            ended: UNIX_EPOCH + Duration::from_secs(end),
            took: Duration::from_secs(took),
        };
        let trace = Trace {
            session: *b"abcdefghijklmnop",
            service: "imap",
            listener: "imap 127.0.0.1:143".into(),
            mechanism: Mechanism::PLAIN,
            backend: None,
            result: LogIn::Unavailable,
        };
        let laps = vec![lap(Stage::Map, 95, 5), lap(Stage::Connect, 99, 2)];
        let spans = spans(&Finished { trace, ended, laps });
        let (root, part) = (&spans[0], &spans[1]);
        assert_eq!(root["traceId"], "6162636465666768696a6b6c6d6e6f70");
        assert_eq!(
            (&root["startTimeUnixNano"], &root["endTimeUnixNano"]),
            (&json!("90000000000"), &json!("100000000000"))
        );
        assert_eq!((&root["status"]["code"], &root["kind"]), (&json!(2), &json!(2)));
        assert_eq!((&part["parentSpanId"], &part["name"]), (&root["spanId"], &json!("map")));
        assert_eq!(part["startTimeUnixNano"], "90000000000");
        assert_eq!(root["spanId"].as_str().map(str::len), Some(16));
    }
}
