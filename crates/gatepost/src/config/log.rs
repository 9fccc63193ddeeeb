//! The log as the configuration describes it: which records go where.

use std::num::NonZeroU32;
use std::path::PathBuf;

use gatepost_wire::PROTOCOLS;
use toml::de::DeValue;

use super::reader::{Table, Value};
use super::settings as at;
use super::values::{LogTo, quoted, text};
use super::{Log, LogRule, LogTarget, Rotate, Trust, is_exposed, is_host};

/// Where a syslog server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SyslogServer {
    /// A socket of this machine.
    Local(PathBuf),
    Udp(String, u16),
    Tcp(String, u16),
    Tls(String, u16),
}

impl std::fmt::Display for SyslogServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, host, port) = match self {
            Self::Local(path) => return write!(f, "unix:{}", path.display()),
            Self::Udp(host, port) => ("udp", host, port),
            Self::Tcp(host, port) => ("tcp", host, port),
            Self::Tls(host, port) => ("tls", host, port),
        };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

impl Value for SyslogServer {
    const EXPECTED: &'static str =
        "\"unix:/dev/log\", \"udp://host\", \"tcp://host:601\" or \"tls://host\", perhaps with a port";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = text(value)?;
        if let Some(path) = text.strip_prefix("unix:") {
            return path.starts_with('/').then(|| Self::Local(path.into()));
        }
        let (scheme, rest) = text.split_once("://")?;
        let (make, usual): (fn(String, u16) -> Self, _) = match scheme {
            "udp" => (Self::Udp, 514),
            "tcp" => (Self::Tcp, 601),
            "tls" => (Self::Tls, 6514),
            _ => return None,
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
            _ => (rest, usual),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (is_host(host) && port != 0).then(|| make(host.to_owned(), port))
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

/// What records are about that are about no protocol.
const OTHER_SERVICES: [&str; 3] = ["directory", "admin", "server"];

pub(super) fn read_log(table: &Table<'_>) -> Option<Log> {
    let level = table.get(&at::log::LEVEL)?;
    let rules = table.tables(&at::log_rule::SECTION);
    let rules = rules.iter().filter_map(|rule| {
        rule.head("[[", "]]");
        let service = rule.get(&at::log_rule::SERVICE)?;
        let known: Vec<_> = PROTOCOLS.iter().map(|protocol| protocol.name).chain(OTHER_SERVICES).collect();
        if service == "webmail" {
            rule.problem_with(&at::log_rule::SERVICE, format_args!("{service:?}: not in this version of Gatepost"));
        } else if service != "*" && !known.contains(&service.as_str()) {
            rule.problem_with(
                &at::log_rule::SERVICE,
                format_args!("expected {} or *, found {service:?}", known.join(", ")),
            );
        }
        let level = rule.get_or(&at::log_rule::LEVEL, level);
        let format = rule.get(&at::log_rule::FORMAT)?;
        let path = rule.file(&at::log_rule::PATH);
        let target = match (rule.get(&at::log_rule::TO)?, path) {
            (LogTo::Stderr, None) => LogTarget::Stderr,
            (LogTo::Stderr, Some(_)) => {
                rule.problem_with(&at::log_rule::PATH, "goes with to = \"file\"");
                return None;
            }
            (LogTo::File, Some(path)) => {
                LogTarget::File { path, rotate: read_rotate(&rule.table(&at::rotate::SECTION))? }
            }
            (LogTo::File, None) => {
                rule.problem("needs `path`, where the records go");
                return None;
            }
            (LogTo::Syslog | LogTo::Journald | LogTo::Remote, Some(_)) => {
                rule.problem_with(&at::log_rule::PATH, "goes with to = \"file\"");
                return None;
            }
            (LogTo::Syslog, None) => LogTarget::Syslog {
                server: rule.get(&at::log_rule::SERVER)?,
                facility: rule.get(&at::log_rule::FACILITY)?.0,
                trust: Trust::by(rule.file(&at::log_rule::CA)),
            },
            (LogTo::Journald, None) => LogTarget::Journald,
            (LogTo::Remote, None) => read_remote(rule)?,
        };
        Some(LogRule { service: (service != "*").then_some(service), level, target, format })
    });
    let rules: Vec<LogRule> = rules.collect();
    let mut paths: Vec<_> = rules
        .iter()
        .filter_map(|rule| match &rule.target {
            LogTarget::File { path, .. } => Some(&**path),
            LogTarget::Stderr | LogTarget::Syslog { .. } | LogTarget::Journald | LogTarget::Remote { .. } => None,
        })
        .collect();
    paths.sort();
    if let Some(twice) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
        table.problem(format!("two rules write to {}: each needs a file of its own", twice[0].display()));
    }
    Some(Log { level, rules })
}

/// Another Gatepost that keeps the records.
fn read_remote(rule: &Table<'_>) -> Option<LogTarget> {
    let (url, token_file) = (rule.require(&at::log_rule::URL), rule.require_file(&at::log_rule::TOKEN_FILE));
    let url = url?.0;
    if is_exposed(&url) {
        rule.problem_with(
            &at::log_rule::URL,
            "http: whoever is on the path could read the token and the records; use https",
        );
        return None;
    }
    let trust = Trust::by(rule.file(&at::log_rule::CA));
    Some(LogTarget::Remote { url, token_file: token_file?, trust })
}

fn read_rotate(table: &Table<'_>) -> Option<Rotate> {
    Some(Rotate {
        size: table.get(&at::rotate::SIZE).map(|size| size.0),
        every: table.get(&at::rotate::EVERY),
        keep: NonZeroU32::new(table.get(&at::rotate::KEEP)?),
    })
}
