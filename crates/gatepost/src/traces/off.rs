//! What stands in the place of `otlp` where Gatepost is built without traces: the same face, and nothing behind it.
#![expect(clippy::unused_self, clippy::unused_async, clippy::unnecessary_wraps, reason = "as `otlp` has them")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Trace;
use crate::config::{self, Problem};
use crate::log::Logger;
use crate::metrics::Stage;

/// Sends nothing: the configuration can't ask for it.
pub(crate) struct Tracer;

impl Tracer {
    pub(crate) fn open(_: &config::Traces, _: &str, _: &Logger) -> Result<Self, Problem> {
        Ok(Self)
    }

    pub(crate) async fn finish(&self, _: Instant) -> usize {
        0
    }
}

/// Remembers nothing.
pub(crate) struct Trail;

impl Trail {
    pub(crate) fn new(_: Option<&Arc<Tracer>>) -> Self {
        Self
    }

    pub(crate) fn note(&self, _: Stage, _: Duration, _: Duration) {}

    pub(crate) fn tell(&self, _: impl FnOnce() -> Trace) {}
}
