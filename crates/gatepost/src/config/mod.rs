//! The configuration: the file as written becomes the settings as meant, once, with every error found.
//!
//! `settings` holds one definition of each setting, from which the reader, `config reference` and
//! `config effective` follow. Here belong the settings' types and what they mean together; opening the
//! files they name is the business of those who use them.

// Macros are known from where they are defined on.
#[macro_use]
mod values;
#[macro_use]
mod settings;

mod backend;
mod build;
mod directory;
pub(crate) mod edit;
mod log;
mod map;
mod networks;
mod query;
mod reader;
mod service;
mod template;
mod trust;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatepost_wire::{Mechanism, Protocol};

pub(crate) use backend::is_host;
pub(crate) use directory::{
    Abilities, Directory, DirectoryKind, Http, HttpForm, Ldap, LdapFields, LdapScope, LdapUrl, LdapVerify, OAuth2, Sql,
};
pub(crate) use edit::{Change, Field, Form, Lists, TablePath, apply, settings_of};
pub(crate) use log::SyslogServer;
pub(crate) use map::{Cache, Map, MapRule, Names};
pub(crate) use networks::Network;
pub(crate) use query::{Dialect, Parameter, Query};
pub(crate) use reader::Shape;
pub(crate) use reader::{Effective, NamedFile, Place, Problem, Problems, Warning};
pub(crate) use settings::{reference, reference_json};
pub(crate) use template::{Template, split as split_name};
pub(crate) use trust::Trust;
use trust::{is_exposed, is_this_machine};

/// The command line's way in, in the state folder.
pub(crate) const SOCKET_NAME: &str = "admin.sock";

/// All settings of one Gatepost, as meant.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    /// The folder for what Gatepost keeps.
    pub(crate) state: PathBuf,
    pub(crate) drain: Duration,
    pub(crate) threads: Threads,
    pub(crate) log: Log,
    pub(crate) tls: Tls,
    pub(crate) access: Vec<AccessRule>,
    pub(crate) services: Vec<Service>,
    pub(crate) map: Map,
    pub(crate) backends: Vec<Backend>,
    pub(crate) dns: Dns,
    pub(crate) directories: Vec<Directory>,
    /// `None`: guessing is not looked for.
    pub(crate) defence: Option<Defence>,
    pub(crate) admin: Admin,
    /// `None`: no traces are made.
    pub(crate) traces: Option<Traces>,
}

/// Where traces of log-ins go.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "traces"), expect(dead_code, reason = "nobody makes any then"))]
pub(crate) struct Traces {
    pub(crate) url: hyper::Uri,
    /// Of so many log-ins, one is told of.
    pub(crate) one_in: u32,
    pub(crate) token_file: Option<NamedFile>,
    pub(crate) trust: Trust,
}

/// The ways in for administrators.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    /// Where the command line finds the running Gatepost.
    pub(crate) socket: PathBuf,
    /// It is written in the file: one that can't be had is an error, not a warning.
    pub(crate) is_set: bool,
    /// Where console and API are.
    pub(crate) listen: Vec<SocketAddr>,
    /// Their own certificate.
    pub(crate) certificate: Option<CertificateFiles>,
    /// Names by which browsers may call them, beside those that are known anyway.
    pub(crate) hosts: Vec<String>,
    pub(crate) metrics_token_file: Option<NamedFile>,
}

impl Config {
    /// The listeners of all services.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.services.iter().flat_map(|service| &service.listeners)
    }
}

/// How host names are looked up.
#[derive(Debug, Clone)]
pub(crate) struct Dns {
    /// Empty: the system's.
    pub(crate) servers: Vec<std::net::SocketAddr>,
    /// For each try.
    pub(crate) timeout: Duration,
    /// How long an answer serves while nobody gives a newer one.
    pub(crate) stale: Duration,
}

/// What is done about guessing.
#[derive(Debug, Clone)]
pub(crate) struct Defence {
    pub(crate) failures_per_ip: u32,
    pub(crate) failures_per_user: u32,
    pub(crate) window: Duration,
    /// The longest delay.
    pub(crate) delay: Duration,
    pub(crate) ban: Duration,
    pub(crate) exempt: Vec<Network>,
}

/// Bounds on connection-handling threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threads {
    pub(crate) min: usize,
    /// Already resolved: never 0.
    pub(crate) max: usize,
}

/// How much is logged where.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) level: Level,
    pub(crate) rules: Vec<LogRule>,
}

/// A record's weight, lightest last.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Critical,
    Error,
    Warning,
    Info,
    Protocol,
}

impl Level {
    /// Every level, the gravest first.
    pub(crate) const ALL: [Self; 5] = [Self::Critical, Self::Error, Self::Warning, Self::Info, Self::Protocol];

    /// As it is written in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Protocol => "protocol",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|level| level.name() == text);
        known.ok_or("expected critical, error, warning, info or protocol")
    }
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
    /// The facility is a number of RFC 5424's; the trust is for TLS.
    Syslog {
        server: SyslogServer,
        facility: u8,
        trust: Trust,
    },
    Journald,
    /// Another Gatepost, by its REST API and with the token in the file.
    Remote {
        url: hyper::Uri,
        token_file: NamedFile,
        trust: Trust,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// When a log file is put aside, and how many are kept.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rotate {
    pub(crate) size: Option<u64>,
    pub(crate) every: Option<Period>,
    /// `None`: all are kept.
    pub(crate) keep: Option<NonZeroU32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    Hour,
    Day,
    Week,
}

/// TLS towards clients.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) min_version: TlsVersion,
    pub(crate) certificates: Vec<CertificateFiles>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    Tls12,
    Tls13,
}

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CertificateFiles {
    pub(crate) chain: NamedFile,
    pub(crate) key: NamedFile,
}

/// Lets a set of addresses in, or keeps them out.
#[derive(Debug, Clone)]
pub(crate) struct AccessRule {
    /// Where it stands in the file, for logs.
    pub(crate) name: String,
    /// What its limits are counted under: the rule itself, wherever a reload finds it in the file.
    pub(crate) key: String,
    pub(crate) networks: Vec<Network>,
    pub(crate) allow: bool,
    /// The lowest number wins.
    pub(crate) priority: i64,
    pub(crate) limits: Limits,
}

/// Flow control. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connections: Option<u32>,
    pub(crate) connections_per_ip: Option<u32>,
    pub(crate) new_connections: Option<u32>,
    pub(crate) new_connections_per_ip: Option<u32>,
    pub(crate) interval: Duration,
}

impl Limits {
    /// Nothing is limited.
    pub(crate) const NONE: Self = Self {
        connections: None,
        connections_per_ip: None,
        new_connections: None,
        new_connections_per_ip: None,
        interval: Duration::from_mins(1),
    };
}

/// One service: a protocol and how it is served.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) protocol: &'static Protocol,
    pub(crate) authenticate: Authenticate,
    pub(crate) mechanisms: Vec<Mechanism>,
    /// `None`: clients are not asked for certificates.
    pub(crate) client_certificates: Option<ClientCertificates>,
    pub(crate) plaintext: Plaintext,
    pub(crate) greeting: String,
    pub(crate) id: bool,
    pub(crate) max_errors: Option<NonZeroU32>,
    pub(crate) max_auth_errors: Option<NonZeroU32>,
    pub(crate) login_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) access: Vec<AccessRule>,
    pub(crate) listeners: Vec<Listener>,
    /// How to talk to hosts that only a directory names.
    pub(crate) link: Link,
    /// Whom users may name as the sender of mail.
    pub(crate) senders: Senders,
    /// What mail is taken, where nobody logs in.
    pub(crate) mail: MailRules,
}

/// Whom a user who submits mail may name as its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Senders {
    /// As far as the back end lets them.
    Any,
    /// Names of their own.
    Own,
}

/// What mail is taken from strangers.
#[derive(Debug, Clone)]
pub(crate) struct MailRules {
    /// Domains all of whose addresses are taken.
    pub(crate) domains: Vec<String>,
    /// Clients must call themselves by a name that could be theirs.
    pub(crate) is_strict: bool,
    pub(crate) reverse_dns: ReverseDns,
    pub(crate) greet_delay: Duration,
    pub(crate) rates: Rates,
}

/// Whether a client's name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReverseDns {
    Off,
    /// For the log and the back end.
    Note,
    /// Without one that leads back to its address, a client's mail is refused.
    Require,
}

/// How much mail is taken within an interval. `None`: no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) messages_per_ip: Option<u32>,
    pub(crate) recipients_per_ip: Option<u32>,
    pub(crate) messages_per_sender: Option<u32>,
    pub(crate) interval: Duration,
}

/// Who checks passwords first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authenticate {
    /// The back end alone.
    Backend,
    /// Gatepost, against these directories in turn, and then the back end.
    Proxy { directories: Vec<String> },
}

/// Where passwords may cross the wire in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plaintext {
    Tls,
    Loopback,
    Always,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsMode {
    None,
    StartTls,
    Implicit,
}

/// An address that is listened on.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) place: Place,
    pub(crate) tls: TlsMode,
    pub(crate) idle_timeout: Duration,
    pub(crate) names: Names,
    pub(crate) limits: Limits,
    pub(crate) access: Vec<AccessRule>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) certificate: Option<CertificateFiles>,
    /// `None`: as the service.
    pub(crate) client_certificates: Option<ClientCertificates>,
}

/// Which certificates of clients are taken, and whose they are.
#[derive(Debug, Clone)]
pub(crate) struct ClientCertificates {
    /// The authorities that issue them.
    pub(crate) ca: NamedFile,
    /// What they have revoked.
    pub(crate) crl: Option<NamedFile>,
    /// Where the user's name stands: the first of these that a certificate has.
    pub(crate) names: Vec<CertificateName>,
    /// A client without one is turned away.
    pub(crate) required: bool,
}

/// A field of a certificate that may hold a user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateName {
    /// An e-mail address among the subject's alternative names.
    Email,
    /// Microsoft's user principal name, among the alternative names.
    Upn,
    /// The subject's common name.
    CommonName,
    /// The subject's user id.
    UserId,
}

/// From whom the PROXY protocol is taken.
#[derive(Debug, Clone)]
pub(crate) struct ProxyProtocol {
    pub(crate) from: Vec<Network>,
    /// A listed sender without a header is turned away.
    pub(crate) required: bool,
}

/// A mail server, or several that hold the same mail.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) order: HostOrder,
    pub(crate) login: Option<MasterLogin>,
    /// One for each configured service, by the protocol's name.
    pub(crate) links: Vec<(&'static str, Link)>,
}

/// Which of several hosts a user comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostOrder {
    /// The first that is in order.
    Listed,
    /// By the user's name: each has its share, and a user stays at the same one.
    Spread,
}

/// A log-in that may act for every user.
#[derive(Debug, Clone)]
pub(crate) struct MasterLogin {
    pub(crate) master: String,
    /// Put between the user's name and the master's; `None`: the user is the authorisation identity.
    pub(crate) separator: Option<char>,
    pub(crate) password_file: NamedFile,
}

/// How one service talks to one back end.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// What is spoken: the service's own protocol, but that mail may come by SMTP and go on by LMTP.
    pub(crate) protocol: &'static Protocol,
    pub(crate) port: u16,
    pub(crate) tls: TlsMode,
    pub(crate) trust: Trust,
    pub(crate) connect_timeout: Duration,
    pub(crate) login_timeout: Duration,
    pub(crate) max_connections: Option<u32>,
    pub(crate) source_addresses: Vec<IpAddr>,
    /// The only way to log in; `None`: the best that is offered.
    pub(crate) mechanism: Option<Mechanism>,
    pub(crate) announce: Announce,
    /// How often its hosts are looked at; `None`: never.
    pub(crate) check_interval: Option<Duration>,
}

/// How a back end learns the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announce {
    Nothing,
    /// In the protocol's own words.
    Inband,
    ProxyV2,
}

/// A sound configuration with what was noticed while reading it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Warning>,
    /// Every setting in force.
    pub(crate) effective: Effective,
}

/// What could be made out of a file, sound or not: the files that it names can be looked at before its
/// own mistakes are mended, and all that is wrong be said at once.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) problems: Vec<Problem>,
    effective: Effective,
}

impl Draft {
    /// One of a configuration that is sound already.
    pub(crate) fn of(config: Config) -> Self {
        let effective = Effective::default();
        Self { config, warnings: Vec::new(), problems: Vec::new(), effective }
    }

    /// The configuration, if nothing is wrong with the file.
    pub(crate) fn sound(self) -> Result<Loaded, Problems> {
        let Self { config, warnings, problems, effective } = self;
        Problems::check(problems, Loaded { config, warnings, effective })
    }
}

/// Reads and checks the file at `path`.
pub(crate) fn load(path: &Path) -> Result<Loaded, Problems> {
    draft(path)?.sound()
}

/// Reads the file at `path` as far as that goes.
pub(crate) fn draft(path: &Path) -> Result<Draft, Problems> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "; name one with --config, or try `gatepost serve --to HOST`",
            _ => "",
        };
        Problems::one(Problem::file(path, format!("can't be read: {error}{hint}")))
    })?;
    parse(path, &text)
}

/// As [`draft`], for a text that stands in the file at `path`.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Draft, Problems> {
    build::build(path, text)
}

/// A number without a fraction, however it is written.
pub(crate) fn whole(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0).then(|| format!("{number:.0}").parse().ok())?
    })
}

/// The configuration of `gatepost serve --to`, as a file would say it. A server on this machine is spoken
/// to in clear; any other must offer STARTTLS, or on port 993 TLS.
pub(crate) fn single_backend(to: &Host) -> String {
    let Host { host, port } = to;
    let tls = match (is_this_machine(host), port) {
        (_, 993) => "implicit",
        (true, _) => "none",
        (false, _) => "starttls",
    };
    format!(
        "[imap]\nplaintext = \"loopback\"\n[[imap.listener]]\naddress = \"127.0.0.1:1143\"\ntls = \"none\"\n\
         [imap.backend]\ntls = \"{tls}\"\n[map]\ndefault = \"server\"\n[backend.server]\nhost = {host:?}\nimap = {{ port = {port} }}\n"
    )
}

/// A server to be fronted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::str::FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().unwrap_or(0)),
            _ => (text, 143),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if port == 0 || !is_host(host) {
            return Err("expected a host name or address, perhaps with a port, such as imap.example.org:993");
        }
        Ok(Self { host: host.to_owned(), port })
    }
}
