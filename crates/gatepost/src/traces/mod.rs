//! Traces of log-ins, for collectors that take OpenTelemetry's protocol.
//!
//! Here belongs how a session tells of its log-ins; how that is said to a collector, `otlp` knows. Built without the feature
//! `traces`, `off` stands in its place. No span names a user or a client, and whoever logs in waits for nothing of this.

#[cfg_attr(feature = "traces", path = "otlp.rs")]
#[cfg_attr(not(feature = "traces"), path = "off.rs")]
mod sender;

use std::sync::Arc;

use gatepost_wire::Mechanism;

use crate::metrics::LogIn;
pub(crate) use sender::{Tracer, Trail};

/// A log-in that has come to its end.
#[cfg_attr(not(feature = "traces"), expect(dead_code, reason = "nobody is told of it"))]
pub(crate) struct Trace {
    /// The session's name in the log.
    pub(crate) session: [u8; 16],
    pub(crate) service: &'static str,
    pub(crate) listener: Arc<str>,
    pub(crate) mechanism: Mechanism,
    pub(crate) backend: Option<Arc<str>>,
    pub(crate) result: LogIn,
}
