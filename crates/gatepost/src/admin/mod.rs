//! Asking a running Gatepost, and telling it what to do: one [`Command`] for whoever asks, and the ways in.
//!
//! Here belongs what turns a question into a command and its answer into bytes; what a command does is the control
//! plane's business.

pub(crate) mod accounts;
pub(crate) mod answers;
pub(crate) mod http;
pub(crate) mod human;
pub(crate) mod socket;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::config::{Change, Level};
use accounts::Role;
use answers::Report;

/// Bans, traces and the like last no longer than this: ten years.
pub(crate) const LASTING_SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;

/// What the answer says to who would end a session that is not there.
pub(crate) const NO_SESSION: &str = "there is no session";

/// What is meant where a question doesn't say: by every way in alike.
pub(crate) mod defaults {
    use std::time::Duration;

    use crate::reports::KEPT_HOURS;

    /// The time that sessions of a drained back end have.
    pub(crate) const DRAIN: Duration = Duration::from_mins(5);
    /// For how long a user's conversations are logged.
    pub(crate) const TRACE: Duration = Duration::from_mins(10);
    /// How many days a report goes back, and how many it can.
    pub(crate) const REPORT_DAYS: u64 = 30;
    pub(crate) const REPORT_DAYS_MAX: u64 = KEPT_HOURS / 24;
}

/// What can be asked of a running Gatepost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub(crate) enum Command {
    /// How it is doing, in a few figures.
    Status,
    /// The last minutes in numbers, for charts.
    Live,
    /// What happened in the last days, by the hour or by the day.
    Report {
        days: u64,
        by_day: bool,
    },
    /// Every step that a user's log-in would take.
    Explain {
        user: String,
    },
    /// Its numbers, as Prometheus reads them, or as `OpenMetrics`.
    Metrics {
        is_open: bool,
    },
    /// Who is there.
    Sessions(Whose),
    /// To end sessions.
    Kick(Whose),
    /// How each host of each back end is doing.
    Backends,
    /// To send new log-ins elsewhere and have those there go, within so many seconds.
    Drain {
        backend: String,
        over_seconds: u64,
    },
    /// To take a back end out of service.
    Maint {
        backend: String,
    },
    /// To take it into service again.
    Ready {
        backend: String,
    },
    /// To have a user come to another back end from now on.
    Move {
        user: String,
        backend: String,
    },
    /// Who is in the embedded directory: the only one, or the one of this name.
    Users {
        directory: Option<String>,
    },
    /// To add a user there, or change one.
    SetUser {
        name: String,
        change: UserChange,
        directory: Option<String>,
    },
    RemoveUser {
        name: String,
        directory: Option<String>,
    },
    /// Who may not connect.
    Bans,
    /// To keep a network out, for so many seconds or until it is lifted.
    Ban {
        network: String,
        for_seconds: Option<u64>,
    },
    /// To let it in again.
    Unban {
        network: String,
    },
    /// To log a user's conversations for so many seconds, whatever the level; 0: no more.
    Trace {
        user: String,
        for_seconds: u64,
    },
    /// Which certificates are in use, and until when they are good.
    Certificates,
    /// To log records of this level and heavier ones everywhere, until the next reload.
    LogLevel {
        level: Level,
    },
    /// To forget what directories and name servers have said, of one user or of all.
    #[serde(rename = "cache")]
    FlushCaches {
        user: Option<String>,
    },
    /// The configuration file, and every setting as it has it.
    Settings,
    /// What changes of the file would do, without making them.
    CheckSettings(Changes),
    /// To make them, and take them into use.
    ApplySettings(Changes),
    /// To take back the latest change that was made so.
    UndoSettings {
        /// Of the file that is to be changed, so that nobody takes back what they have not seen.
        digest: Option<String>,
    },
    /// To take a changed configuration into use.
    Reload,
    /// To have a new binary take over, and stay for the sessions that are there.
    Upgrade,
    /// To stop in good order.
    Stop,
}

/// What is to be changed of a user; none: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UserChange {
    pub(crate) backend: Option<String>,
    pub(crate) disabled: Option<bool>,
    /// Log-ins wait.
    pub(crate) held: Option<bool>,
    /// The only services, divided by commas; `all`: all.
    pub(crate) services: Option<String>,
    /// The hash of a new password. Not written down with the command.
    #[serde(skip_serializing)]
    pub(crate) password: Option<String>,
}

/// Changes of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changes {
    pub(crate) changes: Vec<Change>,
    /// The digest of the file that they are about; none: whichever it is.
    #[serde(default)]
    pub(crate) digest: Option<String>,
}

/// Which sessions are meant: those to which all of it applies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Whose {
    pub(crate) id: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) service: Option<String>,
    /// That clients come from.
    pub(crate) network: Option<String>,
}

/// What a command gives: an object in which the list of its results goes by its name. An error is for the one who asked.
pub(crate) type Answer = Result<Value, String>;

/// A command on its way to the control plane.
pub(crate) struct Asked {
    pub(crate) command: Command,
    /// Who asks, for the log.
    pub(crate) by: String,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// Where commands go.
pub(crate) type Asking = mpsc::Sender<Asked>;

/// Has the control plane answer.
async fn ask_control(command: Command, by: String, asking: &Asking) -> Answer {
    let (reply, replied) = oneshot::channel();
    let gone = || "Gatepost is stopping".to_owned();
    asking.send(Asked { command, by, reply }).await.map_err(|_| gone())?;
    replied.await.map_err(|_| gone())?
}

impl Command {
    /// The name of the list in its answer.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Live => "live",
            Self::Report { .. } => "report",
            Self::Explain { .. } => "explain",
            Self::Metrics { .. } => "metrics",
            Self::Sessions(_) => "sessions",
            Self::Kick(_) => "kick",
            Self::Backends => "backends",
            Self::Drain { .. } => "drain",
            Self::Maint { .. } => "maint",
            Self::Ready { .. } => "ready",
            Self::Move { .. } => "move",
            Self::Users { .. } | Self::SetUser { .. } | Self::RemoveUser { .. } => "users",
            Self::Bans | Self::Ban { .. } | Self::Unban { .. } => "bans",
            Self::Trace { .. } => "trace",
            Self::Certificates => "certificates",
            Self::LogLevel { .. } => "log-level",
            Self::FlushCaches { .. } => "cache",
            Self::Settings => "settings",
            Self::CheckSettings(_) => "check",
            Self::ApplySettings(_) => "apply",
            Self::UndoSettings { .. } => "undo",
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
            Self::Stop => "stop",
        }
    }

    /// Whether it changes something, which is worth a record: what a viewer may ask for changes nothing, nor does a look
    /// at what changes would do.
    pub(crate) const fn changes(&self) -> bool {
        !matches!((self.needs(), self), (Role::Viewer, _) | (_, Self::CheckSettings(_)))
    }

    /// Who may ask for it.
    pub(crate) const fn needs(&self) -> Role {
        match self {
            Self::Status
            | Self::Live
            | Self::Report { .. }
            | Self::Explain { .. }
            | Self::Metrics { .. }
            | Self::Sessions(_)
            | Self::Backends
            | Self::Bans
            | Self::Users { .. }
            | Self::Certificates
            | Self::Settings => Role::Viewer,
            Self::Kick(_)
            | Self::Drain { .. }
            | Self::Maint { .. }
            | Self::Ready { .. }
            | Self::Move { .. }
            | Self::Ban { .. }
            | Self::Unban { .. }
            | Self::Trace { .. }
            | Self::LogLevel { .. }
            | Self::FlushCaches { .. }
            | Self::Reload => Role::Operator,
            Self::SetUser { .. }
            | Self::RemoveUser { .. }
            | Self::CheckSettings(_)
            | Self::ApplySettings(_)
            | Self::UndoSettings { .. }
            | Self::Upgrade
            | Self::Stop => Role::Admin,
        }
    }

    /// As it is sent.
    fn to_json(&self) -> Value {
        // Nothing in it can fail to be written as JSON.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// For the log: what was asked, without what was not said.
    pub(crate) fn words(&self) -> String {
        if let Self::ApplySettings(Changes { changes, .. }) = self {
            // Of which settings, but no values: one may be a password.
            let places: Vec<_> = changes.iter().map(ToString::to_string).collect();
            return format!("{} {}", self.name(), places.join(", "));
        }
        let Value::Object(mut fields) = self.to_json() else { return self.name().into() };
        let name = fields.remove("command").and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
        drop_nothing(&mut fields);
        if fields.is_empty() { name } else { format!("{name} {}", Value::Object(fields)) }
    }

    /// Reads what was sent.
    fn from_json(request: Value) -> Result<Self, String> {
        if !request["command"].is_string() {
            return Err("a request is a line of JSON with a \"command\"".into());
        }
        serde_json::from_value(request).map_err(|error| format!("no command of this version of Gatepost: {error}"))
    }
}

/// Takes out what says nothing, here and deeper.
fn drop_nothing(fields: &mut serde_json::Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    fields.values_mut().filter_map(Value::as_object_mut).for_each(drop_nothing);
}

impl Whose {
    /// Whether nothing is said of them: all are meant.
    pub(crate) fn is_everybody(&self) -> bool {
        *self == Self::default()
    }
}

/// An answer: the list under the command's name.
pub(crate) fn answer(command: &Command, list: impl Serialize) -> Answer {
    let list = serde_json::to_value(list).map_err(|error| format!("the answer can't be written: {error}"))?;
    Ok(json!({ command.name(): list }))
}

/// The items of an answer to a command of this name.
pub(crate) fn items<T: DeserializeOwned>(name: &str, mut answer: Value) -> Result<Vec<T>, String> {
    let list = answer.get_mut(name).map(Value::take).unwrap_or_default();
    serde_json::from_value(list)
        .map_err(|error| format!("an answer came back that this version does not understand: {error}"))
}

/// The rows of a report as CSV (RFC 4180), with what was turned away in a column of its own.
pub(crate) fn csv(rows: &[Report]) -> String {
    let mut text = "from,service,connections,logins,failures,peak_sessions,bytes_up,bytes_down,rejected\r\n".to_owned();
    for row in rows {
        let Report { from, service, connections, logins, failures, peak_sessions, bytes_up, bytes_down, rejected } =
            row;
        let rejected: Vec<_> = rejected.iter().map(|one| format!("{} {}", one.reason, one.count)).collect();
        let counts = [connections, logins, failures, peak_sessions, bytes_up, bytes_down].map(u64::to_string).join(",");
        // Nothing in it but our own words and numbers: no cell needs quotes.
        text.extend([from, ",", service, ",", &counts, ",", &rejected.join("; "), "\r\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_arrive_as_they_were_sent() {
        let text = || "kim@example.org".to_owned();
        let whose = Whose { user: Some(text()), ..Whose::default() };
        for command in [
            Command::Status,
            Command::Sessions(Whose::default()),
            Command::Kick(whose),
            Command::Backends,
            Command::Drain { backend: text(), over_seconds: 300 },
            Command::Move { user: text(), backend: text() },
            Command::Ban { network: text(), for_seconds: None },
            Command::LogLevel { level: Level::Protocol },
            Command::FlushCaches { user: Some(text()) },
            Command::FlushCaches { user: None },
            Command::Reload,
            Command::Stop,
        ] {
            assert_eq!(Command::from_json(command.to_json()), Ok(command));
        }
        let change = UserChange { disabled: Some(true), password: Some("{ARGON2ID}x".into()), ..UserChange::default() };
        let command = Command::SetUser { name: text(), change, directory: None };
        assert_eq!(command.words(), r#"set-user {"change":{"disabled":true},"name":"kim@example.org"}"#);
        assert_eq!(Command::Reload.words(), "reload");
        for bad in [
            json!({ "command": "dance" }),
            json!([]),
            json!({ "command": "cache", "user": 5 }),
            json!({ "command": "drain" }),
            json!({ "command": "log-level", "level": "loud" }),
        ] {
            assert!(Command::from_json(bad.clone()).is_err(), "{bad}");
        }
    }
}
