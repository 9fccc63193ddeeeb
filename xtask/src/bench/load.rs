//! The load generator, run on a proxy, and what it says.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use gatepost_lab::Result;
use serde_json::Value;

/// Has the generator do what `words` say to whatever listens on this port in this process. What it said.
pub(super) fn ask(
    load: &Path,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    (port, pid): (u16, u32),
    what: &str,
) -> Result<Value> {
    let mut command = Command::new(load);
    command.args(words).args(["--to", &format!("127.0.0.1:{port}"), "--pid", &pid.to_string()]);
    let output = command.output().map_err(|error| format!("{}: {error}", load.display()))?;
    serde_json::from_slice(&output.stdout).map_err(|_| format!("{what}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// What it says of work that is done again and again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) per_second: f64,
    pub(super) per_cpu_second: f64,
    /// Milliseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Figures {
    /// Those in its answer; what is not there is no number.
    pub(super) fn of(said: &Value) -> Self {
        Self {
            per_second: number(&said["per_second"]),
            per_cpu_second: number(&said["per_cpu_second"]),
            p50: number(&said["ms"]["p50"]),
            p99: number(&said["ms"]["p99"]),
        }
    }
}

pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
