//! What commands are answered with: the items of their lists, written by the control plane, and read by console and
//! command line. A field that is added later is one that an older process does not send: unless it is an `Option`, it
//! needs `#[serde(default)]`. What is passed on from processes before this one is passed on unread.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A word that is fixed where it is written, and whatever came where it is read.
pub(crate) type Word = Cow<'static, str>;

/// How a Gatepost is doing.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Status {
    /// The node's name.
    pub(crate) name: String,
    pub(crate) version: Word,
    pub(crate) pid: u32,
    pub(crate) up_seconds: u64,
    /// Open at this moment.
    pub(crate) sessions: usize,
    /// Threads that serve them.
    pub(crate) workers: usize,
    pub(crate) listeners: Vec<String>,
    /// The services that run.
    pub(crate) services: Vec<Word>,
    /// Sessions of each service.
    pub(crate) by_service: Vec<Held>,
    /// Each listener with its service.
    pub(crate) listening: Vec<Listening>,
}

/// How many sessions a service has.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Held {
    pub(crate) service: Word,
    pub(crate) sessions: u32,
}

/// An address that is listened on.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Listening {
    pub(crate) service: Word,
    pub(crate) address: String,
}

/// A session, open at this moment.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) service: Word,
    pub(crate) user: Option<String>,
    /// Where mail goes to several, each of them, divided by commas.
    pub(crate) backend: Option<String>,
    /// The client's address and port.
    pub(crate) client: String,
    /// When it connected (RFC 3339, UTC).
    pub(crate) since: String,
    /// log-in, open, or mail (where mail is taken).
    pub(crate) state: Word,
    pub(crate) listener: String,
    /// The address at the back end; where mail goes to several, at the latest.
    pub(crate) host: Option<String>,
    pub(crate) mechanism: Option<Word>,
    pub(crate) tls: Option<String>,
    pub(crate) backend_tls: Option<String>,
    /// The number of the process that serves it: an upgrade begins another.
    pub(crate) generation: u32,
    /// Since the last byte.
    pub(crate) idle_seconds: u32,
    /// From the client to the back end, since the log-in.
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
}

/// A back end.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Backend {
    pub(crate) name: String,
    /// up, draining, maint or down.
    pub(crate) state: Word,
    pub(crate) connections: u32,
    pub(crate) hosts: Vec<Host>,
}

impl Backend {
    /// Whether it takes no new log-ins because an administrator said so.
    pub(crate) fn is_out(&self) -> bool {
        matches!(&*self.state, "draining" | "maint")
    }
}

/// One host of a back end, for one service.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the contract's names")]
pub(crate) struct Host {
    pub(crate) service: Word,
    pub(crate) host: String,
    /// up or down.
    pub(crate) state: Word,
    /// What is wrong.
    pub(crate) fault: Option<String>,
}

/// A back end that was taken out of service, or into it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BackendState {
    pub(crate) name: String,
    /// up, draining, maint or down; or gone, where the configuration has it no more.
    pub(crate) state: Word,
    /// Sessions that are to go.
    pub(crate) sessions: usize,
    /// Within this time.
    pub(crate) over_seconds: u64,
}

/// A user who was moved.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Moved {
    pub(crate) user: String,
    /// The back end before; none where the directory had named one that can't be used.
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    /// Where that is kept: `directory NAME` or `state`.
    pub(crate) kept: String,
    /// Sessions that were ended.
    pub(crate) ended: usize,
}

/// A network that may not connect.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Ban {
    pub(crate) network: String,
    /// When it ends (RFC 3339, UTC); none: when it is lifted.
    pub(crate) until: Option<String>,
    /// administrator, or guessing.
    pub(crate) by: Word,
    /// Sessions from there that were ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<usize>,
}

/// A user whose conversations are logged.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Traced {
    pub(crate) user: String,
    /// How long yet.
    pub(crate) seconds: u64,
}

/// A certificate in use.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Certificate {
    /// The DNS names that it is for.
    pub(crate) names: Vec<String>,
    /// Its files.
    pub(crate) chain: String,
    pub(crate) key: String,
    /// The end of its time (RFC 3339, UTC).
    pub(crate) until: String,
    pub(crate) days_left: i64,
    /// good, expiring or expired.
    pub(crate) state: Word,
}

/// A network that is let in again.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Unbanned {
    pub(crate) network: String,
    /// Bans that were lifted.
    pub(crate) lifted: usize,
}

/// How much is logged.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LogLevel {
    /// critical, error, warning, info or protocol.
    pub(crate) level: Word,
}

/// What is forgotten.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Flushed {
    pub(crate) user: Option<String>,
    /// Answers that were remembered.
    pub(crate) forgotten: usize,
}

/// A configuration that was taken into use.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Reloaded {
    pub(crate) warnings: Vec<String>,
}

/// A server that stops.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Stopping {
    /// What sessions have to end.
    pub(crate) drain_seconds: u64,
}

/// The configuration file.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Settings {
    /// Where it is.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Changes whenever the file does.
    pub(crate) digest: String,
    /// Changes that can be taken back.
    pub(crate) undo: usize,
    /// Every setting as the file has it, or by default.
    pub(crate) effective: Vec<Effective>,
}

/// A setting as the file has it, or by default.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Effective {
    /// The table, as it is opened in the file.
    pub(crate) table: String,
    pub(crate) key: String,
    /// As it would be written; none: it is not set and has no default.
    pub(crate) value: Option<String>,
    pub(crate) default: bool,
}

/// What changes of the configuration file do.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Checked {
    /// Why they can't be made.
    pub(crate) problems: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// What they do to sessions and services, in plain words.
    pub(crate) effects: Vec<String>,
    /// The file's lines that change: with `-` those before, with `+` those after, with a space those around them.
    pub(crate) diff: Vec<String>,
    /// Of the file that they were compared with.
    pub(crate) digest: String,
}

/// A step of a log-in.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Step {
    pub(crate) step: Word,
    pub(crate) text: String,
}

/// The last minutes in numbers.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Live {
    pub(crate) sessions: usize,
    pub(crate) workers: usize,
    /// Log-ins in each second, lately.
    pub(crate) logins_per_second: f64,
    /// Those that failed.
    pub(crate) failures_per_second: f64,
    pub(crate) bytes_up_per_second: f64,
    pub(crate) bytes_down_per_second: f64,
    /// The part of their time that workers are at work, on average.
    pub(crate) busy: f64,
    /// The same for the last minutes, the latest last.
    pub(crate) history: Vec<Sample>,
    /// How far its samples lie apart.
    pub(crate) interval_seconds: u64,
}

/// One moment of the last minutes.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Sample {
    pub(crate) sessions: f64,
    pub(crate) logins: f64,
    pub(crate) failures: f64,
    pub(crate) bytes_up: f64,
    pub(crate) bytes_down: f64,
}

/// What a service did in an hour or a day.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Report {
    /// When it began (RFC 3339, UTC).
    pub(crate) from: String,
    pub(crate) service: String,
    pub(crate) connections: u64,
    pub(crate) logins: u64,
    /// Log-ins that failed.
    pub(crate) failures: u64,
    /// Most sessions at once.
    pub(crate) peak_sessions: u64,
    /// From clients to back ends.
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    /// Connections that were turned away, the most frequent reason first.
    pub(crate) rejected: Vec<Rejected>,
}

/// Connections that were turned away.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Rejected {
    pub(crate) reason: String,
    pub(crate) count: u64,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.count, self.reason)
    }
}

/// A process that has taken over.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Upgraded {
    pub(crate) pid: u32,
    pub(crate) generation: u32,
}

/// A user of the embedded directory.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct User {
    pub(crate) directory: String,
    pub(crate) name: String,
    /// None: as the map says.
    pub(crate) backend: Option<String>,
    pub(crate) disabled: bool,
    /// Log-ins wait.
    pub(crate) held: bool,
    /// The only services, divided by commas; none: all.
    pub(crate) services: Option<String>,
    /// Whether there is one.
    pub(crate) password: bool,
}

/// A user who was changed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Changed {
    pub(crate) name: String,
    /// added, changed or removed.
    pub(crate) result: Word,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;

    /// Whether an answer of a process of version 0.1.0 can be read: what is added later must not be asked of it.
    fn reads<T: DeserializeOwned>(sample: &serde_json::Value) {
        let read = serde_json::from_value::<T>(sample.clone());
        assert!(read.is_ok(), "{sample}: {}", read.err().map(|error| error.to_string()).unwrap_or_default());
    }

    #[test]
    fn answers_of_a_process_before_this_one_can_be_read() {
        reads::<Status>(&json!({
            "name": "mail.example.org", "version": "0.1.0", "pid": 7, "up_seconds": 90, "sessions": 1, "workers": 1,
            "listeners": ["127.0.0.1:143"], "services": ["imap"], "by_service": [{ "service": "imap", "sessions": 1 }],
            "listening": [{ "service": "imap", "address": "127.0.0.1:143" }],
        }));
        reads::<Session>(&json!({
            "id": "bwl6rpvj3x2k3tga", "service": "imap", "user": "kim", "backend": null, "client": "192.0.2.7:5000",
            "since": "2026-01-01T00:00:00Z", "state": "log-in", "listener": "127.0.0.1:143", "host": null,
            "mechanism": null, "tls": null, "backend_tls": null, "generation": 1, "idle_seconds": 0, "bytes_up": 0,
            "bytes_down": 0,
        }));
        reads::<Backend>(&json!({
            "name": "a", "state": "up", "connections": 0,
            "hosts": [{ "service": "imap", "host": "127.0.0.1", "state": "up", "fault": null }],
        }));
        reads::<Live>(&json!({
            "sessions": 0, "workers": 1, "logins_per_second": 0.0, "failures_per_second": 0.0, "bytes_up_per_second": 0.0,
            "bytes_down_per_second": 0.0, "busy": 0.0, "interval_seconds": 2,
            "history": [{ "sessions": 0.0, "logins": 0.0, "failures": 0.0, "bytes_up": 0.0, "bytes_down": 0.0 }],
        }));
        reads::<BackendState>(&json!({ "name": "a", "state": "draining", "sessions": 2, "over_seconds": 300 }));
        reads::<Ban>(&json!({ "network": "192.0.2.0/24", "until": null, "by": "administrator" }));
        reads::<Upgraded>(&json!({ "pid": 8, "generation": 2 }));
        reads::<Stopping>(&json!({ "drain_seconds": 30 }));
    }
}
