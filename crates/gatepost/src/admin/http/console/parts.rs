//! What several pages have in common: what their address may say, and rows of answers.

use serde::Deserialize;
use serde_json::Value;

use crate::admin::http::logs::Wanted;
use crate::admin::human::{self};
use crate::config::Level;
use crate::log::Record;

/// What the address of a page may say.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    pub(super) user: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) service: Option<String>,
    pub(super) level: Option<Level>,
    pub(super) text: Option<String>,
    pub(super) by: Option<String>,
    pub(super) days: Option<u64>,
    pub(super) token: Option<String>,
    pub(super) done: Option<String>,
}

impl Filter {
    /// The records that are wanted.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { level: self.level, service: self.service.clone(), text: self.text.clone() }
    }
}

/// What is said, if that is anything.
pub(super) fn said(text: Option<&String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

pub(super) fn list<'v>(answer: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    answer[name].as_array().into_iter().flatten()
}

/// How long ago a moment was, in few words.
pub(super) fn age(value: &Value) -> String {
    human::age(value).unwrap_or_default()
}

pub(super) struct LogLine {
    pub(super) level: &'static str,
    pub(super) text: String,
}

impl LogLine {
    pub(super) fn of(record: &Record) -> Self {
        Self { level: record.level().name(), text: record.text() }
    }
}

pub(super) struct BackendRow {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) connections: String,
    pub(super) is_out: bool,
    pub(super) hosts: Vec<HostRow>,
}

pub(super) struct HostRow {
    pub(super) service: String,
    pub(super) host: String,
    pub(super) state: String,
    pub(super) fault: String,
}

pub(super) fn backend_rows(answer: &Value) -> Vec<BackendRow> {
    let host = |host: &Value| HostRow {
        service: text(&host["service"]),
        host: text(&host["host"]),
        state: text(&host["state"]),
        fault: text(&host["fault"]),
    };
    let row = |backend: &Value| BackendRow {
        name: text(&backend["name"]),
        state: text(&backend["state"]),
        connections: text(&backend["connections"]),
        is_out: matches!(backend["state"].as_str(), Some("draining" | "maint")),
        hosts: list(backend, "hosts").map(host).collect(),
    };
    list(answer, "backends").map(row).collect()
}

/// The names of all back ends.
pub(super) fn backend_names(answer: &Value) -> Vec<String> {
    list(answer, "backends").map(|backend| text(&backend["name"])).collect()
}
