//! What several pages have in common: what their address may say, lines of the log, names of back ends.

use serde::Deserialize;

use crate::admin::answers::Backend;
use crate::admin::http::logs::Wanted;
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

pub(super) struct LogLine {
    pub(super) level: &'static str,
    pub(super) text: String,
}

impl LogLine {
    pub(super) fn of(record: &Record) -> Self {
        Self { level: record.level().name(), text: record.text() }
    }
}

/// The names of all back ends.
pub(super) fn names(backends: Vec<Backend>) -> Vec<String> {
    backends.into_iter().map(|backend| backend.name).collect()
}
