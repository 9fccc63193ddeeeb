//! The log as the configuration describes it: which records go where.

use std::path::PathBuf;

use gatepost_wire::PROTOCOLS;
use hyper::Uri;
use toml::de::DeValue;

use super::problem::NamedFile;
use super::reader::Table;
use super::section::{Child, Written};
use super::split_port;
use super::trust::{Trust, is_exposed};
use super::values::{Max, Size, Value, quoted, text};

/// How much is logged where.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) level: Level,
    pub(crate) rules: Vec<LogRule>,
}

impl Log {
    /// Of a command, which says itself what is to be said: nothing but what nobody else would hear of.
    pub(crate) const QUIET: Self = Self { level: Level::Critical, rules: Vec::new() };
}

/// Sends records of one service, or of all, to one place.
#[derive(Debug, Clone)]
pub(crate) struct LogRule {
    /// `None`: every service.
    pub(crate) service: Option<String>,
    pub(crate) level: Level,
    pub(crate) target: LogTarget,
    pub(crate) format: LogFormat,
}

#[derive(Debug, Clone)]
pub(crate) enum LogTarget {
    Stderr,
    File {
        path: NamedFile,
        rotate: Rotate,
    },
    /// The trust is for TLS.
    Syslog {
        server: SyslogServer,
        facility: Facility,
        trust: Trust,
    },
    Journald,
    /// Another Gatepost, by its REST API and with the token in the file.
    Remote {
        url: Uri,
        token_file: NamedFile,
        trust: Trust,
    },
}

section! {
    pub(super) struct LogSettings: "log", "[log]", "Logging.", {
        read_apart: &[Child::List(RuleSettings::SECTION)],
    };
    level: Level = "info", "The least severe records that are written, where a rule doesn't say otherwise.";
}

section! {
    pub(super) struct RuleSettings: "rule", "[[log.rule]]", "Sends records to a place. Without any rule, everything goes to standard error.";
    service: String = "*", "A service; directory, admin or server, for what is about none; or * for all.";
    level: Option<Level>, "The least severe records that go there. Default: log.level.";
    to: LogTo = "stderr", "Where: stderr, file, syslog, journald, or remote, which is another Gatepost.";
    path: Option<NamedFile>, "The file, where `to` is file.";
    server: SyslogServer = "unix:/dev/log", "The syslog server, where `to` is syslog (RFC 5424; over TCP and TLS each message with its length).";
    facility: Facility = "mail", "What syslog takes the records for.";
    url: Option<Uri>, "The console of the Gatepost that keeps the records, where `to` is remote, such as \"https://logs.example.org:9443\".";
    token_file: Option<NamedFile>, "The file whose first line is a token of the role sender there, where `to` is remote.";
    ca: Option<NamedFile>, "Authorities for the certificate of a syslog server or a Gatepost, PEM. Default: the system's.";
    format: LogFormat = "text", "One line of text, or one JSON object, for each record.";
    [rotate]: Option<Rotate>;
}

section! {
    #[derive(Copy, Default)]
    pub(crate) struct Rotate: "rotate", "[log.rule.rotate]", "When the file is put aside under a name with the time, and a new one begun.";
    size: Option<Size>, "Before it grows beyond this.";
    every: Option<Period>, "When an hour, day or week (UTC) ends.";
    keep: Max = 0, "How many old files are kept; 0: all.";
}

words! {
    /// A record's weight, lightest last.
    #[derive(PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(rename_all = "lowercase")]
    pub(crate) enum Level {
        Critical = "critical",
        Error = "error",
        Warning = "warning",
        Info = "info",
        Protocol = "protocol",
    }
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|level| level.name() == text);
        known.ok_or_else(|| format!("expected {}", Self::EXPECTED))
    }
}

words! {
    pub(crate) enum LogFormat {
        Text = "text",
        Json = "json",
    }
}

words! {
    /// Where records go, as written.
    pub(crate) enum LogTo {
        Stderr = "stderr",
        File = "file",
        Syslog = "syslog",
        Journald = "journald",
        Remote = "remote",
    }
}

words! {
    pub(crate) enum Period {
        Hour = "hour",
        Day = "day",
        Week = "week",
    }
}

/// What kind of program a record is from, as syslog has it: a number of RFC 5424's (section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facility(pub(crate) u8);

words! {
    for Facility, "mail, daemon, auth, authpriv or local0 to local7";
    "mail" => Facility(2),
    "daemon" => Facility(3),
    "auth" => Facility(4),
    "authpriv" => Facility(10),
    "local0" => Facility(16),
    "local1" => Facility(17),
    "local2" => Facility(18),
    "local3" => Facility(19),
    "local4" => Facility(20),
    "local5" => Facility(21),
    "local6" => Facility(22),
    "local7" => Facility(23),
}

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
        let (host, port) = split_port(rest)?;
        Some(make(host.to_owned(), port.unwrap_or(usual)))
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

/// What records are about that are about no protocol.
pub(crate) const OTHER_SERVICES: [&str; 3] = ["directory", "admin", "server"];

pub(super) fn read_log(table: &Table<'_>) -> Option<Log> {
    let level = LogSettings::read(table)?.level;
    let rules = table.each(RuleSettings::SECTION, |_, rule| read_rule(rule, level));
    let rules: Vec<_> = rules.into_iter().flatten().collect();
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

/// `usual`: the level of rules that name none.
fn read_rule(table: &Table<'_>, usual: Level) -> Option<LogRule> {
    let rule = RuleSettings::read(table)?;
    let level = table.or(&RuleSettings::level, rule.level, usual);
    let (service, format) = (rule.service.clone(), rule.format);
    let known: Vec<_> = PROTOCOLS.iter().map(|protocol| protocol.name).chain(OTHER_SERVICES).collect();
    if service == "webmail" {
        table.problem_with(&RuleSettings::service, format_args!("{service:?}: not in this version of Gatepost"));
    } else if service != "*" && !known.contains(&service.as_str()) {
        table.problem_with(
            &RuleSettings::service,
            format_args!("expected {} or *, found {service:?}", known.join(", ")),
        );
    }
    Some(LogRule { service: (service != "*").then_some(service), level, target: target_of(rule, table)?, format })
}

/// Says so where a setting means nothing with this target.
fn check_fit(to: LogTo, table: &Table<'_>) {
    let file: &[LogTo] = &[LogTo::File];
    for (name, fitting) in [
        ("path", file),
        ("rotate", file),
        ("server", &[LogTo::Syslog]),
        ("facility", &[LogTo::Syslog]),
        ("url", &[LogTo::Remote]),
        ("token_file", &[LogTo::Remote]),
        ("ca", &[LogTo::Syslog, LogTo::Remote]),
    ] {
        if table.has(name) && !fitting.contains(&to) {
            let words: Vec<_> = fitting.iter().map(Value::show).collect();
            table.problem(format!("`{name}` goes with to = {}", words.join(" or ")));
        }
    }
}

fn target_of(rule: RuleSettings, table: &Table<'_>) -> Option<LogTarget> {
    check_fit(rule.to, table);
    let trust = Trust::By(rule.ca);
    Some(match rule.to {
        LogTo::Stderr => LogTarget::Stderr,
        LogTo::Journald => LogTarget::Journald,
        LogTo::Syslog => LogTarget::Syslog { server: rule.server, facility: rule.facility, trust },
        LogTo::File => {
            let Some(path) = rule.path else {
                table.problem("needs `path`, where the records go");
                return None;
            };
            LogTarget::File { path, rotate: rule.rotate.unwrap_or_default() }
        }
        // Another Gatepost, which keeps the records.
        LogTo::Remote => {
            let url = table.needed(&RuleSettings::url, rule.url);
            let token_file = table.needed(&RuleSettings::token_file, rule.token_file);
            let url = url?;
            if is_exposed(&url) {
                let what = "http: whoever is on the path could read the token and the records; use https";
                table.problem_with(&RuleSettings::url, what);
            }
            LogTarget::Remote { url, token_file: token_file?, trust }
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::config::parse_small;

    #[test]
    fn a_setting_that_means_nothing_with_its_target_is_refused() {
        let said = |rule: &str| {
            let draft = parse_small(&format!("[[log.rule]]\n{rule}"));
            draft.problems.iter().map(ToString::to_string).filter(|problem| problem.contains("goes with")).collect()
        };
        for (rule, words) in [
            ("to = \"stderr\"\nserver = \"tls://logs.example\"", "`server` goes with to = \"syslog\""),
            ("to = \"journald\"\nca = \"ca.pem\"", "`ca` goes with to = \"syslog\" or \"remote\""),
            ("to = \"syslog\"\ntoken_file = \"x\"", "`token_file` goes with to = \"remote\""),
            ("path = \"x\"", "`path` goes with to = \"file\""),
            ("to = \"remote\"\nrotate = { keep = 2 }", "`rotate` goes with to = \"file\""),
        ] {
            let problems: Vec<String> = said(rule);
            assert!(matches!(&problems[..], [problem] if problem.contains(words)), "{rule}: {problems:?}");
        }
        for rule in ["to = \"syslog\"\nserver = \"tls://logs.example\"\nca = \"ca.pem\"", "to = \"file\"\npath = \"x\""]
        {
            assert_eq!(said(rule), [""; 0], "{rule}");
        }
    }
}
