//! Every setting, defined once: its name, type, default and meaning.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use gatepost_wire::{Course, Mechanism, PROTOCOLS, Protocol};

use super::directory;
use super::networks::{HostPattern, Network};
use super::reader::Shape;
use super::values::{
    AnnounceBy, AuthenticateAt, Delimiter, Facility, HeloCheck, HttpUrl, LogTo, LoginBy, MailProtocol, Pairs, Pattern,
    Pin, Port, Size, Weights,
};
use super::{
    CertificateName, HostOrder, Level, LogFormat, Period, Plaintext, ReverseDns, Senders, SyslogServer, TlsMode,
    TlsVersion,
};

/// A table of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// What it is called where it stands; of [`Child::Named`] and [`Child::Services`], the first of the names.
    pub(super) name: &'static str,
    /// How it is opened in the file; `NAME` is the administrator's choice, and behind `#` stands which of several it is.
    pub(super) head: &'static str,
    pub(super) help: &'static str,
    /// What a form of it is called in that of the table in which it stands; empty: it has no form there.
    pub(super) title: &'static str,
    pub(super) keys: &'static [Described],
    /// Tables that may stand in it.
    pub(super) tables: &'static [Child],
    /// Further sections whose settings may stand here too.
    pub(super) includes: &'static [&'static Section],
    /// Names of the contract that this version refuses.
    pub(super) reserved: &'static [&'static str],
}

/// How a table stands in another.
#[derive(Debug)]
pub(super) enum Child {
    /// At most once.
    Table(&'static Section),
    /// Any number of them, in order.
    List(&'static Section),
    /// Any number of them under names of the administrator's; which of the sections it is says the table's `type`.
    Named(&'static [Variant]),
    /// One for each service, under the service's name.
    Services(fn(&Protocol) -> &'static Section),
}

/// What a named table may be.
#[derive(Debug)]
pub(super) struct Variant {
    /// As it stands for `type`; `None`: of a table that has none.
    pub(super) word: Option<&'static str>,
    pub(super) section: &'static Section,
}

/// A table that may stand in another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nested {
    pub(crate) name: &'static str,
    /// What a form of it is called; empty: it has none.
    pub(crate) title: &'static str,
    pub(super) section: &'static Section,
}

/// A setting without its type, for the reference.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) name: &'static str,
    pub(super) expected: &'static str,
    pub(super) shape: Shape,
    pub(super) default: Option<&'static str>,
    pub(super) help: &'static str,
}

impl Child {
    /// The tables that may stand so.
    fn tables(&self) -> Vec<Nested> {
        let own = |section: &'static Section| Nested { name: section.name, title: section.title, section };
        match self {
            Self::Table(section) | Self::List(section) => vec![own(section)],
            Self::Named(variants) => variants.iter().map(|variant| own(variant.section)).collect(),
            Self::Services(section_of) => {
                let of = |protocol: &'static Protocol| Nested {
                    name: protocol.name,
                    title: protocol.title,
                    section: section_of(protocol),
                };
                PROTOCOLS.iter().map(of).collect()
            }
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.tables().iter().any(|table| table.name == name)
    }
}

impl Section {
    pub(super) const EMPTY: Self =
        Self { name: "", head: "", help: "", title: "", keys: &[], tables: &[], includes: &[], reserved: &[] };

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.settings().map(|key| key.name).chain(self.children().map(|table| table.name))
    }

    /// Every setting that may stand in it.
    pub(super) fn settings(&self) -> impl Iterator<Item = &'static Described> {
        self.keys.iter().chain(self.includes.iter().flat_map(|section| section.keys))
    }

    /// Every table that may stand in it.
    pub(super) fn children(&self) -> impl Iterator<Item = Nested> {
        self.tables.iter().flat_map(Child::tables)
    }

    /// The section of the table at a path below this one, in which numbers stand for the items of lists. `kind`: what the
    /// table has as its `type`.
    pub(super) fn at(&'static self, path: &[&str], kind: Option<&str>) -> Option<&'static Self> {
        let Some((name, rest)) = path.split_first() else { return Some(self) };
        match self.tables.iter().find(|child| child.is_called(name))? {
            Child::Table(section) => section.at(rest, kind),
            Child::List(section) => {
                let (number, rest) = rest.split_first()?;
                number.parse::<usize>().ok()?;
                section.at(rest, kind)
            }
            Child::Named(variants) => match rest.split_first()?.1 {
                [] => variants.iter().find(|variant| variant.word == kind).or(variants.first()).map(|v| v.section),
                // Whatever type it is: no two have tables of one name.
                rest => variants.iter().find_map(|variant| variant.section.at(rest, kind)),
            },
            Child::Services(section_of) => {
                let protocol = PROTOCOLS.iter().find(|protocol| protocol.name == *name)?;
                section_of(protocol).at(rest, kind)
            }
        }
    }

    pub(super) fn is_known(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    pub(super) fn is_reserved(&self, name: &str) -> bool {
        self.reserved.contains(&name)
    }

    /// The name that was probably meant.
    pub(super) fn nearest(&self, name: &str) -> Option<&'static str> {
        self.names().min_by_key(|known| edits(known, name)).filter(|known| edits(known, name) <= 2)
    }
}

/// What may stand in a service's table.
pub(super) fn service_section(protocol: &Protocol) -> &'static Section {
    match protocol.course {
        Course::LogIn(_) => &service::SECTION,
        Course::Submission(_) => &submission::SECTION,
        Course::Mail(_) => &mail::SECTION,
    }
}

/// How many letters must be changed, added or removed to make `b` of `a`.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

macro_rules! default {
    () => {
        None
    };
    ($default:literal) => {
        Some($default)
    };
}

/// Defines a section: its keys as typed constants, and its description, from which the reader's checks, the reference, the
/// effective configuration and the console's forms follow.
macro_rules! section {
    ($module:ident, $name:literal, $head:literal, $help:literal $(, { $($field:ident: $value:expr,)+ })?;
     $($key:ident: $type:ty = $setting:literal $(or $default:literal)?, $doc:literal;)*) => {
        pub(super) mod $module {
            #[allow(unused_imports, reason = "each section uses a few of the types")]
            use super::*;
            use $crate::config::reader::{Key, Value};
            use $crate::config::settings::{Described, Section};

            $(pub(in crate::config) const $key: Key<$type> = Key::new($setting, default!($($default)?));)*

            pub(in crate::config) static SECTION: Section = Section {
                name: $name,
                head: $head,
                help: $help,
                keys: &[$(Described {
                    name: $setting,
                    expected: <$type as Value>::EXPECTED,
                    shape: <$type as Value>::SHAPE,
                    default: default!($($default)?),
                    help: $doc,
                },)*],
                $($($field: $value,)+)?
                ..Section::EMPTY
            };
        }
    };
}

use Child::{List, Named, Services, Table};

section! { root, "", "", "Settings of the whole program.", {
        tables: &[Table(&threads::SECTION), Table(&log::SECTION), Table(&tls::SECTION), Services(service_section), List(&access::SECTION), Table(&map::SECTION), Named(&[Variant { word: None, section: &backend::SECTION }]), Named(directory::VARIANTS), Table(&dns::SECTION), Table(&defence::SECTION), Table(&admin::SECTION), Table(&traces::SECTION)],
        reserved: &["webmail", "cluster"],
    };
    NAME: String = "name", "This node's name, in the greeting and for the loop check. Default: the host's name. No two nodes should share it.";
    STATE: PathBuf = "state" or "\"gatepost-state\"", "The folder for what Gatepost keeps: admin.sock, administrators.json, overrides.json (what was decided on the command line or the console), reports.db, history, and unknown-users.key, which SCRAM needs and each node should have a copy of. Each Gatepost needs a folder of its own. A relative path, here and in every other setting, is relative to this file's folder.";
    DRAIN: Duration = "drain" or "\"30s\"", "How long a stop waits for sessions to end.";
}

section! { threads, "threads", "[threads]", "Connection-handling threads, adapted to the load.";
    MIN: u32 = "min" or "1", "Fewest threads.";
    MAX: u32 = "max" or "0", "Most threads; 0: one for each core.";
}

section! { log, "log", "[log]", "Logging.", {
        tables: &[List(&log_rule::SECTION)],
    };
    LEVEL: Level = "level" or "\"info\"", "The least severe records that are written, where a rule doesn't say otherwise.";
}

section! { log_rule, "rule", "[[log.rule]]", "Sends records to a place. Without any rule, everything goes to standard error.", {
        tables: &[Table(&rotate::SECTION)],
    };
    SERVICE: String = "service" or "\"*\"", "imap, pop3, sieve, submission, smtp, lmtp, directory, admin, server, or * for all.";
    LEVEL: Level = "level", "The least severe records that go there. Default: log.level.";
    TO: LogTo = "to" or "\"stderr\"", "Where: stderr, file, syslog, journald, or remote, which is another Gatepost.";
    PATH: PathBuf = "path", "The file, where `to` is file.";
    SERVER: SyslogServer = "server" or "\"unix:/dev/log\"", "The syslog server, where `to` is syslog (RFC 5424; over TCP and TLS each message with its length).";
    FACILITY: Facility = "facility" or "\"mail\"", "What syslog takes the records for.";
    URL: HttpUrl = "url", "The console of the Gatepost that keeps the records, where `to` is remote, such as \"https://logs.example.org:9443\".";
    TOKEN_FILE: PathBuf = "token_file", "The file whose first line is a token of the role sender there, where `to` is remote.";
    CA: PathBuf = "ca", "Authorities for the certificate of a syslog server or a Gatepost, PEM. Default: the system's.";
    FORMAT: LogFormat = "format" or "\"text\"", "One line of text, or one JSON object, for each record.";
}

section! { rotate, "rotate", "[log.rule.rotate]", "When the file is put aside under a name with the time, and a new one begun.";
    SIZE: Size = "size", "Before it grows beyond this.";
    EVERY: Period = "every", "When an hour, day or week (UTC) ends.";
    KEEP: u32 = "keep" or "0", "How many old files are kept; 0: all.";
}

section! { tls, "tls", "[tls]", "TLS towards clients.", {
        tables: &[List(&certificate::SECTION)],
    };
    MIN_VERSION: TlsVersion = "min_version" or "\"1.2\"", "The oldest version of TLS that is spoken, towards back ends too.";
}

section! { certificate, "certificate", "[[tls.certificate]]", "A certificate, chosen by the name that the client asks for; the first serves clients that ask for none. The same table may stand in a listener (`certificate = { chain = …, key = … }`), for that listener alone, and as [admin.certificate] for the console alone; without that, these serve there too.";
    CHAIN: PathBuf = "chain", "The certificate and its intermediates, PEM.";
    KEY: PathBuf = "key", "Its private key, PEM.";
}

section! { access, "access", "[[access]]", "Who may connect. The most specific level with a matching rule decides: listener, service, all. Without a match: allowed.", {
        tables: &[Table(&limits::SECTION)],
    };
    ALLOW: Vec<Network> = "allow", "Networks, ranges or addresses that are let in.";
    DENY: Vec<Network> = "deny", "Networks, ranges or addresses that are refused. A rule has `allow` or `deny`.";
    PRIORITY: i64 = "priority" or "100", "The lowest number wins; at equal priority deny, then the longest prefix.";
}

section! { limits, "limits", "[imap.limits]", "Flow control; a connection must fit all limits that apply to it. The same table may stand in a listener and in an access rule.";
    CONNECTIONS: u32 = "connections", "At once.";
    CONNECTIONS_PER_IP: u32 = "connections_per_ip", "At once from one address (IPv6: one /64).";
    NEW_CONNECTIONS: u32 = "new_connections", "New ones within `interval`.";
    NEW_CONNECTIONS_PER_IP: u32 = "new_connections_per_ip", "New ones within `interval` from one address.";
    INTERVAL: Duration = "interval" or "\"1m\"", "The interval of the two settings above.";
}

section! { service, "imap", "[imap]", "The IMAP service; [pop3], [sieve], [submission], [smtp] and [lmtp] are the same for POP3, ManageSieve, mail that users send, mail that comes in, and mail that comes from within the site; and so are the tables below. It runs if this section stands in the file.", {
        tables: &[Table(&limits::SECTION), List(&access::SECTION), List(&listener::SECTION), Table(&link::SECTION), Table(&client_certificate::SECTION)],
    };
    AUTHENTICATE: AuthenticateAt = "authenticate" or "\"backend\"", "Who checks passwords: the back end alone, or Gatepost (proxy, against `directory`) and then the back end.";
    DIRECTORY: Vec<String> = "directory", "The directory that checks passwords where `authenticate` is proxy, or several: the first that knows the user answers. One of type oauth2 checks tokens.";
    MECHANISMS: Vec<Mechanism> = "mechanisms" or "[\"PLAIN\", \"LOGIN\"]", "SASL mechanisms offered. With EXTERNAL and the SCRAM ones nothing comes that could be passed on: the back end needs a master log-in, or the directory holds a password for it.";
    PLAINTEXT: Plaintext = "plaintext" or "\"tls\"", "Where passwords are taken: under TLS only, loopback (also from 127.0.0.0/8 and ::1 in clear), or always.";
    GREETING: String = "greeting" or "\"Gatepost ready.\"", "The greeting's text, behind the name.";
    ID: bool = "id" or "true", "Answer IMAP's ID command.";
    MAX_ERRORS: u32 = "max_errors" or "10", "Wrong commands in one session, then it ends; 0: no limit.";
    MAX_AUTH_ERRORS: u32 = "max_auth_errors" or "3", "Failed log-ins in one session, then it ends; 0: no limit, which is warned of.";
    LOGIN_TIMEOUT: Duration = "login_timeout" or "\"1m\"", "From the connection to the log-in, or where nobody logs in to the first recipient that is taken, whatever arrives.";
    IDLE_TIMEOUT: Duration = "idle_timeout" or "\"35m\"", "After log-in, without a byte either way; at least 30m (RFC 9051), for POP3 10m (RFC 1939), where mail is taken 5m (RFC 5321).";
}

section! { submission, "submission", "[submission]", "What [submission] has beside the settings of [imap].", {
        tables: &[Table(&limits::SECTION), List(&access::SECTION), List(&listener::SECTION), Table(&link::SECTION), Table(&client_certificate::SECTION)],
        includes: &[&service::SECTION],
    };
    DOMAINS: Vec<String> = "domains" or "[]", "With senders = \"own\": domains that are ours, where users log in by names without them or directories do not name accounts in full. `map.domain` is one of them.";
    SENDERS: Senders = "senders" or "\"any\"", "Whom users may name as the sender of mail (MAIL FROM): any, as far as the back end lets them; or own, which is their own name with its details and aliases, other addresses of ours that a directory gives the same back end and log-in, and nobody (<>).";
}

section! { mail, "smtp", "[smtp]", "What [smtp] and [lmtp] have beside the settings of [imap]. Nobody logs in there: mail is taken for users that the map places, and handed over at once.", {
        tables: &[Table(&limits::SECTION), List(&access::SECTION), List(&listener::SECTION), Table(&link::SECTION), Table(&client_certificate::SECTION), Table(&rates::SECTION)],
        includes: &[&service::SECTION],
    };
    DOMAINS: Vec<String> = "domains" or "[]", "Domains all of whose addresses are taken, also those that no directory knows: the map's rules, spread or default say where they are. `map.domain` is one of them. Of other domains those are taken that a directory knows in full.";
    HELO: HeloCheck = "helo" or "\"any\"", "What a client must call itself: any name, or strict (a fully qualified name or an address literal, and not ours).";
    REVERSE_DNS: ReverseDns = "reverse_dns" or "\"off\"", "Look up the client's name in the DNS: off, note (for the log and the back end) or require (a name that leads back to its address).";
    GREET_DELAY: Duration = "greet_delay" or "\"0s\"", "Wait so long before the greeting; whoever talks before it is turned away.";
}

section! { rates, "rates", "[smtp.rates]", "How much mail is taken. What is beyond it is put off (450). `max_errors` also counts recipients who are refused for good, until a message is taken.";
    MESSAGES_PER_IP: u32 = "messages_per_ip", "Messages within `interval` from one address (IPv6: one /64).";
    RECIPIENTS_PER_IP: u32 = "recipients_per_ip", "Recipients within `interval` from one address.";
    MESSAGES_PER_SENDER: u32 = "messages_per_sender", "Messages within `interval` by one sender.";
    INTERVAL: Duration = "interval" or "\"1m\"", "The interval of the settings above.";
}

section! { listener, "listener", "[[imap.listener]]", "An address that is listened on. Without any: 127.0.0.1:143 (POP3: 110, ManageSieve: 4190, submission: 587, SMTP: 25, LMTP: 24) with STARTTLS, and 127.0.0.1:993 (995; none; 465; none; none) with implicit TLS; but without a [[tls.certificate]] only the former, in clear, where `plaintext` = tls lets nobody log in.", {
        tables: &[Table(&limits::SECTION), List(&access::SECTION), Table(&proxy_protocol::SECTION), Table(&certificate::SECTION), Table(&client_certificate::SECTION)],
        includes: &[&names::SECTION],
    };
    ADDRESS: SocketAddr = "address", "Address and port.";
    TLS: TlsMode = "tls" or "\"starttls\"", "none, starttls or implicit.";
    IDLE_TIMEOUT: Duration = "idle_timeout", "Default: the service's.";
}

section! { client_certificate, "client_certificate", "[imap.client_certificate]", "Asks clients under TLS for a certificate, by which the mechanism EXTERNAL lets them in. The same may stand in a listener, for that listener alone.";
    CA: PathBuf = "ca", "Authorities that issue them, PEM. A certificate of any other ends the handshake.";
    CRL: PathBuf = "crl", "What the authorities have revoked, PEM; for each of them one. Read again at a reload.";
    NAME: Vec<CertificateName> = "name" or "[\"email\"]", "Where the user's name stands: email, upn (both among the alternative names), cn or uid (of the subject); the first of the list that a certificate has.";
    REQUIRED: bool = "required" or "false", "Turn away clients without one. With one they must still log in.";
}

section! { proxy_protocol, "proxy_protocol", "[imap.listener.proxy_protocol]", "Load balancers that announce the client by the PROXY protocol, version 1 or 2.";
    FROM: Vec<Network> = "from", "The only senders whose header is believed.";
    REQUIRED: bool = "required" or "true", "Turn away a listed sender that sends no header.";
}

section! { link, "backend", "[imap.backend]", "How this service talks to back ends. Each back end may set the same in its own `imap`, `pop3`, `sieve`, `submission`, `smtp` or `lmtp` table.";
    TLS: TlsMode = "tls" or "\"starttls\"", "none, starttls (required, not tried) or implicit.";
    VERIFY: bool = "verify" or "true", "Check the back end's certificate: its chain, its name and its time.";
    CA: PathBuf = "ca", "Authorities to check it against, PEM. Default: the system's.";
    PINS: Vec<Pin> = "pin_sha256", "Certificates that are taken by their SHA-256 alone; any other is refused.";
    CONNECT_TIMEOUT: Duration = "connect_timeout" or "\"5s\"", "Name, connection, TLS and greeting of one host.";
    LOGIN_TIMEOUT: Duration = "login_timeout" or "\"30s\"", "The whole log-in, over all hosts.";
    MAX_CONNECTIONS: u32 = "max_connections", "Connections at once to each back end.";
    SOURCE_ADDRESS: Vec<IpAddr> = "source_address", "Local addresses to connect from, in turn.";
    MECHANISM: LoginBy = "mechanism" or "\"best\"", "How to log in: best (of PLAIN, the bare command and LOGIN, or of OAUTHBEARER and XOAUTH2 with a token) or only this one.";
    CHECK_INTERVAL: Duration = "check_interval" or "\"30s\"", "How often each host is looked at: connect, TLS, greeting, goodbye. At once when a log-in fails there, and twice a second until it is back. 0s: never.";
    SPEAKS: MailProtocol = "protocol", "How mail is handed over: smtp or lmtp. Default: as it came. For [smtp.backend] and [lmtp.backend] alone.";
    ANNOUNCE: AnnounceBy = "announce" or "\"auto\"", "Tell the back end the client's address: auto (IMAP: ID; all others: XCLIENT, where it is offered), none, id, xclient or proxy-v2.";
}

section! { map, "map", "[map]", "Which back end holds whose mail: what a directory says, then the first rule that fits, the spread, the default.", {
        tables: &[Table(&cache::SECTION), List(&map_rule::SECTION)],
        includes: &[&names::SECTION],
    };
    DIRECTORIES: Vec<String> = "directories" or "[]", "Directories asked in turn; the first that knows the user answers.";
    DEFAULT: String = "default", "The back end of users of whom nothing else is said. Left out: they are refused.";
    SPREAD: Weights = "spread", "Back ends that share the users of whom no directory and no rule says more, by weight, such as { store-a = 2, store-b = 1 }. A user stays at the same one.";
    HOSTS: Vec<HostPattern> = "hosts" or "[]", "Hosts that a directory may name beside the back ends of this file.";
    ALIASES: Pairs = "aliases", "Other names of users, such as { \"info@example.org\" = \"kim@example.org\" }, as they are once all else is done.";
    HOLD_TIME: Duration = "hold_time" or "\"30s\"", "How long a log-in waits for a user who is being moved (`gatepost user set NAME --hold`). Then: UNAVAILABLE.";
}

section! { names, "map", "[map]  # how names are completed", "How a user's name is completed. The same may stand in a listener, for that listener alone.";
    DOMAIN: String = "domain", "Completes a bare user name, for look-ups, logs and the back-end log-in alike.";
    FOLD_CASE: bool = "fold_case" or "true", "User names are taken in lower case throughout.";
    DETAIL: Delimiter = "detail", "What divides a name from a detail, such as \"+\": kim+lists@example.org is kim@example.org.";
    STRIP_DOMAINS: Vec<String> = "strip_domains" or "[]", "Domains or realms that are taken off a name; \"*\" takes off any.";
}

section! { map_rule, "rule", "[[map.rule]]", "Places users of whom no directory says where they are. The first rule that fits wins.";
    DOMAIN: String = "domain", "Fits users of this domain.";
    MATCH: Pattern = "match", "Fits users whose whole name this regular expression matches.";
    BACKEND: String = "backend", "Where they are.";
}

section! { cache, "cache", "[map.cache]", "How long answers of directories are remembered. A reload forgets them all.";
    FOUND: Duration = "found" or "\"0s\"", "A user's place.";
    MISSING: Duration = "missing" or "\"0s\"", "That a user is unknown.";
    STALE: Duration = "stale" or "\"0s\"", "A place, and that a password was right, while a directory that must be asked is down.";
    VERIFIED: Duration = "verified" or "\"0s\"", "That a password was right (as a keyed hash). A new password works at once; the old one may go on working for this long.";
    ENTRIES: u32 = "entries" or "100000", "How many answers are remembered at most, for the map and for each directory's passwords.";
}

section! { backend, "backend", "[backend.NAME]", "A mail server, or several that hold the same mail.", {
        tables: &[Services(|_| &backend_service::SECTION), Table(&login::SECTION)],
        reserved: &["webmail"],
    };
    HOST: Vec<String> = "host", "A name or address, or several, those that are down last. A name such as _imaps._tcp.example.org is looked up as a service (SRV), which says hosts and ports.";
    ORDER: HostOrder = "order" or "\"listed\"", "Which of several hosts a user comes to: listed (the first that is in order) or spread (shared by the users' names; a user stays at the same one, and moves to another while that is down).";
}

section! { backend_service, "imap", "[backend.NAME.imap]", "Settings of [imap.backend] for this back end alone, and:", {
        includes: &[&link::SECTION],
    };
    PORT: Port = "port", "Default: 143, with implicit TLS 993; for POP3 110 and 995, for ManageSieve 4190, for submission 587 and 465, for SMTP 25, for LMTP 24.";
}

section! { login, "login", "[backend.NAME.login]", "A master log-in (SASL PLAIN, with the user as authorisation identity) instead of the user's own.", {
        title: "Master log-in",
    };
    MASTER: String = "master", "Its name.";
    SEPARATOR: Delimiter = "separator", "Log in as user, separator, master (such as kim*gatepost) instead of an authorisation identity.";
    PASSWORD_FILE: PathBuf = "password_file", "The file whose first line is its password.";
}

section! { dns, "dns", "[dns]", "How the host names of back ends are looked up. Answers are remembered for their time to live (a second to an hour).";
    SERVERS: Vec<SocketAddr> = "servers" or "[]", "DNS servers, such as \"10.0.0.53:53\". Left out: those of /etc/resolv.conf. /etc/hosts is always read.";
    TIMEOUT: Duration = "timeout" or "\"2s\"", "For one try; there are two.";
    STALE: Duration = "stale" or "\"1h\"", "How long an answer goes on serving while no server gives a newer one.";
}

section! { defence, "defence", "[defence]", "Against guessing, if this section stands in the file: failed log-ins are slowed, then refused, for an address (IPv6: one /64), a user, and both together. Whoever logged in from an address within 30 days is only held to their own failures there.";
    FAILURES_PER_IP: u32 = "failures_per_ip" or "30", "Within `window` from one address; then it is banned.";
    FAILURES_PER_USER: u32 = "failures_per_user" or "30", "Within `window` for one user, from everywhere; then the user's log-ins from new places are refused.";
    WINDOW: Duration = "window" or "\"10m\"", "How far back failures count.";
    DELAY: Duration = "delay" or "\"15s\"", "What the delay of a log-in grows to, from one second after two failures.";
    BAN: Duration = "ban" or "\"1h\"", "How long an address is banned.";
    EXEMPT: Vec<Network> = "exempt" or "[]", "Addresses that are never counted, delayed or banned: webmail hosts, probes.";
}

section! { admin, "admin", "[admin]", "The ways in for administrators.", {
        tables: &[Table(&certificate::SECTION)],
    };
    LISTEN: Vec<SocketAddr> = "listen" or "[]", "Addresses of the console, the API under /api/v1, /metrics, /livez and /readyz, such as \"127.0.0.1:9000\". On other addresses than this machine's own (127.0.0.0/8, ::1), and with a `certificate`, HTTPS alone is spoken. None: off.";
    HOSTS: Vec<String> = "hosts" or "[]", "Names by which browsers may call it, beside localhost, its addresses, this node's name and those of its certificate.";
    METRICS_TOKEN_FILE: PathBuf = "metrics_token_file", "The file whose first line must come as a bearer token for /metrics. Left out: anybody may read them.";
    SOCKET: PathBuf = "socket", "Where `gatepost status` and its like find the running server. Only the user that it runs as, and root, may ask. Default: admin.sock in the state folder.";
}

section! { traces, "traces", "[traces]", "Sends traces of log-ins to a collector that takes OpenTelemetry's protocol (OTLP over HTTP, as JSON). They name neither users nor clients. Left out: none are made.";
    URL: HttpUrl = "url", "The collector, such as \"http://127.0.0.1:4318\"; traces go to /v1/traces there.";
    ONE_IN: u32 = "one_in" or "1", "Trace one log-in in this many.";
    TOKEN_FILE: PathBuf = "token_file", "The file whose first line the collector wants as a bearer token.";
    CA: PathBuf = "ca", "Authorities for the collector's certificate, PEM. Default: the system's.";
}

/// All sections, each before those of the tables in it.
fn sections() -> Vec<&'static Section> {
    fn add(section: &'static Section, known: &mut Vec<&'static Section>) {
        if known.iter().any(|other| std::ptr::eq(*other, section)) {
            return;
        }
        known.push(section);
        section
            .includes
            .iter()
            .copied()
            .chain(section.children().map(|table| table.section))
            .for_each(|next| add(next, known));
    }
    let mut known = Vec::new();
    add(&root::SECTION, &mut known);
    known
}

/// The reference of all settings, for programs.
pub(crate) fn reference_json() -> serde_json::Value {
    let describe = |section: &'static Section| {
        section.keys.iter().map(move |key| {
            let default = key.default;
            serde_json::json!({
                "table": section.head, "key": key.name, "takes": key.expected, "default": default, "meaning": key.help,
            })
        })
    };
    serde_json::json!({ "reference": sections().into_iter().flat_map(describe).collect::<Vec<_>>() })
}

/// The reference of all settings, for people: in the shape of a configuration file, all in comments.
pub(crate) fn reference() -> String {
    let mut text = String::from("# Every setting of gatepost.toml, with its type and default.\n");
    for section in sections() {
        let _ = writeln!(text, "\n# {}", section.help);
        if !section.head.is_empty() {
            let _ = writeln!(text, "# {}", section.head);
        }
        for included in section.includes {
            let _ = writeln!(text, "# Also what stands in {}.", included.head);
        }
        for key in section.keys {
            let default = key.default.map_or_else(|| "(no default)".to_owned(), str::to_owned);
            let _ = writeln!(text, "#{} = {default}\n#    {} Takes {}.", key.name, key.help, key.expected);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference as a page of the documents.
    fn page() -> String {
        let mut text = String::from(
            "# Every setting of gatepost.toml\n\nMade from the definitions that the parser follows; `gatepost config reference` prints the same settings.\n",
        );
        let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
        for section in sections() {
            let head = if section.head.is_empty() { "At the top of the file" } else { section.head };
            let _ = write!(text, "\n## `{head}`\n\n{}\n", cell(section.help));
            for included in section.includes {
                let keys: Vec<_> = included.keys.iter().map(|key| format!("`{}`", key.name)).collect();
                let _ = write!(text, "\nAlso, as in `{}`: {}.\n", included.head, keys.join(", "));
            }
            if !section.keys.is_empty() {
                text.push_str("\n| setting | takes | default | meaning |\n| --- | --- | --- | --- |\n");
            }
            for key in section.keys {
                let default = key.default.map_or_else(String::new, |default| format!("`{default}`"));
                let several = if matches!(key.shape, Shape::List(_)) { ", or a list of them" } else { "" };
                let expected = cell(key.expected);
                let _ = writeln!(text, "| `{}` | {expected}{several} | {default} | {} |", key.name, cell(key.help));
            }
        }
        text
    }

    #[test]
    fn the_reference_that_is_kept_is_todays() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
        let today = page();
        if std::env::var_os("GATEPOST_WRITE_DOCS").is_some() {
            std::fs::write(&path, &today).expect("a file");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == today,
            "docs/reference.md is not today's: GATEPOST_WRITE_DOCS=1 cargo test reference writes it"
        );
    }
}
