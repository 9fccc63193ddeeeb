//! Traces of log-ins, for collectors that take OpenTelemetry's protocol (OTLP 1 over HTTP, as JSON).
//!
//! A log-in is a span, and each part of it that takes time one beneath. All log-ins of a session are one trace, whose name is
//! the session's in the log; no span names a user or a client. Whoever logs in waits for nothing of this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::Uri;
use hyper::header::HeaderValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;

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

/// Sends traces. See the module's documentation.
pub(crate) struct Tracer {
    queue: mpsc::Sender<Trace>,
    /// Log-ins that found no room.
    lost: Arc<AtomicU64>,
    one_in: u32,
    seen: AtomicU32,
}

/// A log-in that has come to its end.
pub(crate) struct Trace {
    /// The session's name in the log.
    pub(crate) session: [u8; 16],
    pub(crate) service: &'static str,
    pub(crate) listener: Arc<str>,
    pub(crate) mechanism: Option<&'static str>,
    pub(crate) backend: Option<Arc<str>>,
    pub(crate) result: LogIn,
    pub(crate) ended: SystemTime,
    pub(crate) laps: Vec<Lap>,
}

/// What took time within a log-in that is under way.
#[derive(Default)]
pub(crate) struct Trail(Vec<Lap>);

/// The protocol's `SpanKind`: something within, an answer to somebody, a question to somebody.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;

/// A part of a log-in.
pub(crate) struct Lap {
    stage: Stage,
    ended: SystemTime,
    took: Duration,
}

impl Trail {
    /// A part ended so long ago that took so long.
    pub(crate) fn note(&mut self, stage: Stage, took: Duration, ago: Duration) {
        if self.0.len() < LAPS_MAX {
            let now = SystemTime::now();
            self.0.push(Lap { stage, ended: now.checked_sub(ago).unwrap_or(now), took });
        }
    }

    /// What there was since this was last asked.
    pub(crate) fn take(&mut self) -> Vec<Lap> {
        std::mem::take(&mut self.0)
    }
}

impl Tracer {
    /// Begins to send, on the runtime that this is called on, for as long as the tracer is kept.
    pub(crate) fn open(settings: &config::Traces, node: &str, log: &Logger) -> Result<Self, Problem> {
        let pass = settings.token_file.as_ref().map(http::read_bearer).transpose()?;
        let tls = tls::client_config(&settings.trust, TlsVersion::Tls12)?;
        let (queue, traces) = mpsc::channel(QUEUE_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let collector = Collector {
            url: settings.url.clone(),
            pass,
            client: HttpClient::new(&tls, 1, SEND_TIME),
            resource: resource(node),
            lost: Arc::clone(&lost),
            log: log.clone(),
        };
        tokio::spawn(collector.send_all(traces));
        Ok(Self { queue, lost, one_in: settings.one_in.max(1), seen: AtomicU32::new(0) })
    }

    /// Waits until all is sent, or until then; how many log-ins are not.
    pub(crate) async fn finish(&self, until: Instant) -> usize {
        let unsent = || self.queue.max_capacity() - self.queue.capacity();
        while unsent() > 0 && Instant::now() < until {
            tokio::time::sleep(FINISH_STEP).await;
        }
        unsent()
    }

    /// Tells of a log-in, if it is one of those that are told of.
    pub(crate) fn tell(&self, trace: Trace) {
        let is_chosen = self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.one_in);
        if is_chosen && self.queue.try_send(trace).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
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
    lost: Arc<AtomicU64>,
    log: Logger,
}

impl Collector {
    async fn send_all(self, mut traces: mpsc::Receiver<Trace>) {
        let mut batch = Vec::new();
        while traces.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let count = batch.len() as u64;
            let body = Bytes::from(self.body(batch.drain(..)).to_string());
            let mut sent = Err(String::new());
            for attempt in 0..TRIES {
                if attempt > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                sent = self.send(&body).await;
                if sent.is_ok() {
                    break;
                }
            }
            let unsent = if sent.is_err() { count } else { 0 };
            let lost = self.lost.swap(0, Ordering::Relaxed) + unsent;
            if lost > 0 {
                self.complain(&sent.err().unwrap_or_else(|| "it is too slow".to_owned()), lost);
            }
        }
    }

    /// Says once a minute how many log-ins are lost.
    fn complain(&self, fault: &str, lost: u64) {
        if self.log.seldom("traces are lost").is_none() {
            // They are told of the next time.
            self.lost.fetch_add(lost, Ordering::Relaxed);
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
    fn body(&self, traces: impl Iterator<Item = Trace>) -> Value {
        let spans: Vec<_> = traces.flat_map(|trace| spans(&trace)).collect();
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
fn spans(trace: &Trace) -> Vec<Value> {
    let (name, own) = (hex(&trace.session), span_name());
    let began = trace.laps.iter().filter_map(|lap| lap.ended.checked_sub(lap.took)).min().unwrap_or(trace.ended);
    let mut attributes = vec![
        text("gatepost.session", &String::from_utf8_lossy(&trace.session)),
        text("gatepost.service", trace.service),
        text("gatepost.listener", &trace.listener),
        text("gatepost.result", trace.result.name()),
    ];
    attributes.extend(trace.mechanism.map(|mechanism| text("gatepost.mechanism", mechanism)));
    attributes.extend(trace.backend.as_ref().map(|backend| text("gatepost.backend", backend)));
    // A wrong password is the user's fault, and a log-in that works as it should.
    let is_fault = matches!(trace.result, LogIn::Limit | LogIn::Unavailable);
    let status = if is_fault { json!({ "code": 2, "message": trace.result.name() }) } else { json!({}) };
    let root = json!({
        "traceId": name, "spanId": own, "name": format!("{} log-in", trace.service), "kind": SERVER,
        "startTimeUnixNano": nanoseconds(began), "endTimeUnixNano": nanoseconds(trace.ended),
        "attributes": attributes, "status": status,
    });
    let parts = trace.laps.iter().map(|lap| {
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
            mechanism: Some("PLAIN"),
            backend: None,
            result: LogIn::Unavailable,
            ended,
            laps: vec![lap(Stage::Map, 95, 5), lap(Stage::Connect, 99, 2)],
        };
        let spans = spans(&trace);
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
