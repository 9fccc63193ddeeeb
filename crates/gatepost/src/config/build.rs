//! From the file as written to the settings as meant.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatepost_wire::{Mechanism, PROTOCOLS, Protocol};

use super::directory::{self, Directory};
use super::map;
use super::reader::{Context, Key, Problems, Table, parse_syntax};
use super::settings as at;
use super::values::{AnnounceBy, AuthenticateAt, Delimiter, LogTo, LoginBy, MechanismName, Pin, Port};
use super::{
    AccessRule, Announce, Authenticate, Backend, CertificateFiles, Config, Defence, Dns, Draft, Limits, Link, Listener,
    Log, LogRule, LogTarget, MasterLogin, Names, Plaintext, ProxyProtocol, Rotate, Service, Threads, Tls, TlsMode,
    Trust,
};

/// RFC 9051, section 5.4: an autologout timer is at least this long.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_mins(30);

pub(super) fn build(path: &Path, text: &str) -> Result<Draft, Problems> {
    let context = Context::new(path, text);
    let syntax = parse_syntax(&context, text);
    // What a broken line took away would only be missed again, and misleadingly.
    let config = if context.has_problems() {
        None
    } else {
        read_config(&Table::root(&context, syntax.get_ref(), &at::root::SECTION))
    };
    let (problems, warnings, effective) = context.finish();
    match config {
        Some(config) => Ok(Draft { config, warnings, problems, effective }),
        None => {
            Problems::check(problems, ())?;
            Err(Problems::one(super::Problem::file(path, "is incomplete")))
        }
    }
}

/// `None` only where a problem was recorded.
fn read_config(root: &Table<'_>) -> Option<Config> {
    let name = root.get_or(&at::root::NAME, host_name());
    // Checked and shown, but nothing is kept there in this version.
    root.get(&at::root::STATE);
    let drain = root.get(&at::root::DRAIN);
    let threads = read_threads(&root.table("threads", &at::threads::SECTION));
    let log = read_log(&root.table("log", &at::log::SECTION));
    let tls = read_tls(&root.table("tls", &at::tls::SECTION));
    let access = read_access(root, "all");
    let directories: Vec<_> = root
        .named_tables("directory", |table| directory::section_of(table.peek(&at::directory::TYPE)))
        .iter()
        .filter_map(|(name, table)| directory::read(name, table))
        .collect();

    let map_table = root.table("map", &at::map::SECTION);
    let mut services = Vec::new();
    let mut links = Vec::new();
    for protocol in PROTOCOLS {
        let table = root.table(protocol.name, &at::service::SECTION);
        if !table.is_written() {
            continue;
        }
        let link_table = table.table("backend", &at::link::SECTION);
        if let Some(link) = read_link(&link_table, &link_table, None, protocol) {
            services.extend(read_service(&table, protocol, tls.as_ref(), &directories, &map_table, link));
        }
        links.push((protocol, link_table));
    }
    if services.is_empty() && links.is_empty() {
        root.context.problem(&(0..0), "no service: add a section such as [imap]");
    }
    check_addresses(root, &services);

    let backends: Vec<_> = root
        .named_tables("backend", |_| &at::backend::SECTION)
        .iter()
        .filter_map(|(name, table)| read_backend(name, table, &links))
        .collect();
    let named: Vec<_> = root.names_of("backend");
    let map = map::read(&map_table, &named, &directories);
    let defence = root.optional_table("defence", &at::defence::SECTION).and_then(|table| read_defence(&table));
    let dns = root.table("dns", &at::dns::SECTION);
    let dns = Dns {
        servers: dns.get(&at::dns::SERVERS)?,
        timeout: dns.get(&at::dns::TIMEOUT)?,
        stale: dns.get(&at::dns::STALE)?,
    };
    Some(Config {
        name,
        drain: drain?,
        threads: threads?,
        log: log?,
        tls: tls?,
        access,
        services,
        map: map?,
        backends,
        directories,
        dns,
        defence,
    })
}

/// The host's name, as the kernel knows it.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn read_defence(table: &Table<'_>) -> Option<Defence> {
    use at::defence as key;

    let read = |key: &Key<u32>| {
        let max = table.get(key)?;
        if max == 0 {
            table.problem_with(key, "is at least 1: the first failure would lock everybody out");
        }
        Some(max)
    };
    let window = table.get(&key::WINDOW)?;
    if window.is_zero() {
        table.problem_with(&key::WINDOW, "is more than nothing");
    }
    Some(Defence {
        failures_per_ip: read(&key::FAILURES_PER_IP)?,
        failures_per_user: read(&key::FAILURES_PER_USER)?,
        window,
        delay: table.get(&key::DELAY)?,
        ban: table.get(&key::BAN)?,
        exempt: table.get(&key::EXEMPT)?,
    })
}

fn read_threads(table: &Table<'_>) -> Option<Threads> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let min = table.get(&at::threads::MIN)? as usize;
    let max = match table.get(&at::threads::MAX)? as usize {
        0 => cores.max(min),
        max => max,
    };
    if min == 0 {
        table.problem_with(&at::threads::MIN, "at least one thread is needed");
    }
    if max < min {
        table.problem_with(&at::threads::MAX, format_args!("is below threads.min, {min}"));
    }
    if max > 1024 {
        table.problem_with(&at::threads::MAX, "more than 1024 threads serve nobody");
    }
    Some(Threads { min, max })
}

fn read_log(table: &Table<'_>) -> Option<Log> {
    let level = table.get(&at::log::LEVEL)?;
    let rules = table.tables("rule", &at::log_rule::SECTION);
    let rules = rules.iter().filter_map(|rule| {
        rule.head("[[", "]]");
        let service = rule.get(&at::log_rule::SERVICE)?;
        let known = |name: &str| name == "server" || name == "directory" || PROTOCOLS.iter().any(|p| p.name == name);
        if ["pop3", "sieve", "submission", "smtp", "webmail", "admin"].contains(&service.as_str()) {
            rule.problem_with(&at::log_rule::SERVICE, format_args!("{service:?}: not in this version of Gatepost"));
        } else if service != "*" && !known(&service) {
            rule.problem_with(
                &at::log_rule::SERVICE,
                format_args!("expected imap, directory, server or *, found {service:?}"),
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
                LogTarget::File { path, rotate: read_rotate(&rule.table("rotate", &at::rotate::SECTION))? }
            }
            (LogTo::File, None) => {
                rule.problem("needs `path`, where the records go");
                return None;
            }
            (LogTo::Later, _) => {
                rule.problem_with(&at::log_rule::TO, "syslog, journald and remote are not in this version of Gatepost");
                return None;
            }
        };
        Some(LogRule { service: (service != "*").then_some(service), level, target, format })
    });
    let rules: Vec<LogRule> = rules.collect();
    let mut paths: Vec<_> = rules
        .iter()
        .filter_map(|rule| match &rule.target {
            LogTarget::File { path, .. } => Some(&**path),
            LogTarget::Stderr => None,
        })
        .collect();
    paths.sort();
    if let Some(twice) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
        table.problem(format!("two rules write to {}: each needs a file of its own", twice[0].display()));
    }
    Some(Log { level, rules })
}

fn read_rotate(table: &Table<'_>) -> Option<Rotate> {
    Some(Rotate {
        size: table.get(&at::rotate::SIZE).map(|size| size.0),
        every: table.get(&at::rotate::EVERY),
        keep: NonZeroU32::new(table.get(&at::rotate::KEEP)?),
    })
}

fn read_tls(table: &Table<'_>) -> Option<Tls> {
    let certificates = table.tables("certificate", &at::certificate::SECTION);
    Some(Tls {
        min_version: table.get(&at::tls::MIN_VERSION)?,
        certificates: certificates
            .iter()
            .filter_map(|certificate| {
                certificate.head("[[", "]]");
                read_certificate(certificate)
            })
            .collect(),
    })
}

fn read_certificate(table: &Table<'_>) -> Option<CertificateFiles> {
    let chain = table.require_file(&at::certificate::CHAIN);
    let key = table.require_file(&at::certificate::KEY);
    Some(CertificateFiles { chain: chain?, key: key? })
}

fn read_access(parent: &Table<'_>, level: &str) -> Vec<AccessRule> {
    let rules = parent.tables("access", &at::access::SECTION);
    let read = |(n, table): (usize, &Table<'_>)| {
        table.head("[[", "]]");
        let allow = table.get(&at::access::ALLOW);
        let deny = table.get(&at::access::DENY);
        let priority = table.get(&at::access::PRIORITY)?;
        let limits = read_limits(&table.table("limits", &at::limits::SECTION))?;
        if [&allow, &deny].into_iter().flatten().any(Vec::is_empty) {
            table.problem("names no network");
        }
        let (networks, allow) = match (allow, deny) {
            (Some(networks), None) => (networks, true),
            (None, Some(networks)) => (networks, false),
            _ => {
                table.problem("an access rule has either `allow` or `deny`");
                return None;
            }
        };
        if !allow && limits != Limits::NONE {
            table.problem("limits go with `allow`: what is denied can't be limited");
        }
        let list = networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let key = if limits == Limits::NONE { String::new() } else { format!("{level} {priority} {list}") };
        Some(AccessRule { name: format!("{level} rule {}", n + 1), key, networks, allow, priority, limits })
    };
    rules.iter().enumerate().filter_map(read).collect()
}

fn read_limits(table: &Table<'_>) -> Option<Limits> {
    let interval = table.get(&at::limits::INTERVAL)?;
    if interval.is_zero() || interval > Duration::from_hours(24) {
        table.problem_with(&at::limits::INTERVAL, "is more than nothing and at most one day");
    }
    Some(Limits {
        connections: table.get(&at::limits::CONNECTIONS),
        connections_per_ip: table.get(&at::limits::CONNECTIONS_PER_IP),
        new_connections: table.get(&at::limits::NEW_CONNECTIONS),
        new_connections_per_ip: table.get(&at::limits::NEW_CONNECTIONS_PER_IP),
        interval,
    })
}

fn read_service(
    table: &Table<'_>,
    protocol: &'static Protocol,
    tls: Option<&Tls>,
    directories: &[Directory],
    map: &Table<'_>,
    link: Link,
) -> Option<Service> {
    use at::service as key;

    let mechanisms = read_mechanisms(table);
    if mechanisms.as_ref().is_some_and(Vec::is_empty) {
        table.warn_of(&key::MECHANISMS, "[]: clients are left with the bare log-in command");
    }
    let authenticate = read_authenticate(table, mechanisms.as_deref().unwrap_or_default(), directories)?;
    let max_auth_errors = table.get(&key::MAX_AUTH_ERRORS)?;
    if max_auth_errors == 0 {
        table.warn_of(&key::MAX_AUTH_ERRORS, "0: one connection may guess passwords without end");
    }
    let plaintext = table.get(&key::PLAINTEXT)?;
    if plaintext == Plaintext::Always {
        table.warn_of(&key::PLAINTEXT, "always: passwords cross the network in clear");
    }
    let login_timeout = table.get(&key::LOGIN_TIMEOUT)?;
    if login_timeout.is_zero() {
        table.problem_with(&key::LOGIN_TIMEOUT, "is more than nothing");
    }
    let idle_timeout = table.get(&key::IDLE_TIMEOUT)?;
    if idle_timeout < IDLE_TIMEOUT_MIN {
        table.problem_with(&key::IDLE_TIMEOUT, "is at least 30m (RFC 9051, section 5.4)");
    }
    let has_certificate = tls.is_some_and(|tls| !tls.certificates.is_empty());
    let mut listeners: Vec<_> = table
        .tables("listener", &at::listener::SECTION)
        .iter()
        .filter_map(|listener| read_listener(listener, protocol, map, idle_timeout, has_certificate))
        .collect();
    let limits = read_limits(&table.table("limits", &at::limits::SECTION))?;
    if listeners.is_empty() {
        let names = map::names_of(map);
        listeners = default_listeners(table, protocol, idle_timeout, &names, has_certificate);
    }
    if plaintext == Plaintext::Tls && listeners.iter().all(|listener| listener.tls == TlsMode::None) {
        table.warn_of(&key::PLAINTEXT, "tls: no listener has TLS, so that nobody can log in");
    }
    Some(Service {
        protocol,
        authenticate,
        mechanisms: mechanisms?,
        plaintext,
        greeting: table.get(&key::GREETING)?,
        id: table.get(&key::ID)?,
        max_errors: NonZeroU32::new(table.get(&key::MAX_ERRORS)?),
        max_auth_errors: NonZeroU32::new(max_auth_errors),
        login_timeout,
        limits,
        access: read_access(table, protocol.name),
        listeners,
        link,
    })
}

fn read_authenticate(table: &Table<'_>, mechanisms: &[Mechanism], known: &[Directory]) -> Option<Authenticate> {
    use at::service as key;

    let names = table.get(&key::DIRECTORY).unwrap_or_default();
    let find = |name: &String| known.iter().find(|directory| directory.name == *name);
    for name in names.iter().filter(|name| find(name).is_none()) {
        table.problem_with(&key::DIRECTORY, format_args!("there is no [directory.{name}]"));
    }
    if table.get(&key::AUTHENTICATE)? == AuthenticateAt::Backend {
        return Some(Authenticate::Backend);
    }
    if names.is_empty() {
        table.problem_with(&key::AUTHENTICATE, "proxy needs `directory`, which checks the passwords");
        return None;
    }
    let can = |tokens: bool| names.iter().filter_map(find).any(|directory| directory.takes_tokens() == tokens);
    let all_known = names.iter().all(|name| find(name).is_some());
    for mechanism in mechanisms.iter().filter(|mechanism| all_known && !can(mechanism.takes_token())) {
        let what = if mechanism.takes_token() {
            "tokens: name one of type oauth2"
        } else {
            "passwords: all are of type oauth2"
        };
        let message = format!("{} is offered, but no directory of `directory` checks {what}", mechanism.name());
        table.problem_with(&key::MECHANISMS, message);
    }
    let passwords: Vec<_> = names.iter().filter_map(find).filter(|directory| !directory.takes_tokens()).collect();
    if let Some((_, before)) = passwords.split_last() {
        for directory in before.iter().filter(|directory| !directory.tells_unknown()) {
            let what = "can't tell an unknown user from a wrong password: those behind it are never asked";
            table.warn_of(&key::DIRECTORY, format_args!("{} {what}", directory.name));
        }
    }
    Some(Authenticate::Proxy { directories: names })
}

fn read_mechanisms(table: &Table<'_>) -> Option<Vec<Mechanism>> {
    let key = &at::service::MECHANISMS;
    let mut mechanisms = Vec::new();
    for name in table.get(key)? {
        match name {
            MechanismName::Known(mechanism) => mechanisms.push(mechanism),
            MechanismName::Later(name) => {
                table.problem_with(key, format_args!("{name}: not in this version of Gatepost"));
            }
        }
    }
    Some(mechanisms)
}

/// Without a certificate STARTTLS can't be offered: then only the clear listener stands.
fn default_listeners(
    table: &Table<'_>,
    protocol: &Protocol,
    idle_timeout: Duration,
    names: &Names,
    has_certificate: bool,
) -> Vec<Listener> {
    let listener = |port, tls| Listener {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        place: table.place(),
        tls,
        idle_timeout,
        names: names.clone(),
        limits: Limits::NONE,
        access: Vec::new(),
        proxy_protocol: None,
        certificate: None,
    };
    if has_certificate {
        return vec![listener(protocol.port, TlsMode::StartTls), listener(protocol.tls_port, TlsMode::Implicit)];
    }
    let message =
        format!("[{}] there is no [[tls.certificate]], so that {} is served without TLS", table.path(), protocol.title);
    table.context.warning(table.at(), message);
    vec![listener(protocol.port, TlsMode::None)]
}

fn read_listener(
    table: &Table<'_>,
    protocol: &Protocol,
    map: &Table<'_>,
    idle_timeout: Duration,
    has_certificate: bool,
) -> Option<Listener> {
    use at::listener as key;

    table.head("[[", "]]");
    let address = table.require(&key::ADDRESS);
    let tls = table.get(&key::TLS)?;
    let service_timeout = idle_timeout;
    let idle_timeout = table.get_or(&key::IDLE_TIMEOUT, service_timeout);
    if idle_timeout < IDLE_TIMEOUT_MIN && idle_timeout != service_timeout {
        table.problem_with(&key::IDLE_TIMEOUT, "is at least 30m (RFC 9051, section 5.4)");
    }
    let limits = read_limits(&table.table("limits", &at::limits::SECTION))?;
    let proxy = table.optional_table("proxy_protocol", &at::proxy_protocol::SECTION);
    let certificate = table.optional_table("certificate", &at::certificate::SECTION);
    let own_certificate = certificate.as_ref().map(read_certificate);
    if tls != TlsMode::None && !has_certificate && own_certificate.is_none() {
        table.problem_with(
            &key::TLS,
            "needs a certificate: add [[tls.certificate]], or `certificate` here, or set \"none\"",
        );
    }
    let address = address?;
    Some(Listener {
        address,
        place: table.place(),
        tls,
        idle_timeout,
        names: map::read_names(table, Some(map))?,
        limits,
        access: read_access(table, &format!("{} {address}", protocol.name)),
        proxy_protocol: proxy.as_ref().and_then(read_proxy_protocol),
        certificate: own_certificate.flatten(),
    })
}

fn read_proxy_protocol(table: &Table<'_>) -> Option<ProxyProtocol> {
    let from = table.require(&at::proxy_protocol::FROM);
    let required = table.get(&at::proxy_protocol::REQUIRED)?;
    Some(ProxyProtocol { from: from?, required })
}

fn check_addresses(root: &Table<'_>, services: &[Service]) {
    let mut seen: Vec<SocketAddr> = Vec::new();
    for Listener { address, place, .. } in services.iter().flat_map(|service| &service.listeners) {
        let collides = |other: &&SocketAddr| {
            let is_same = other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified();
            is_same && other.port() == address.port() && other.is_ipv4() == address.is_ipv4()
        };
        if let Some(other) = seen.iter().find(collides) {
            root.context.problem_at(place, format!("the listeners {other} and {address} want the same address"));
        }
        seen.push(*address);
    }
}

/// One back end, with its link for each service: the service's own settings, overridden by the back end's.
fn read_backend(name: &str, table: &Table<'_>, services: &[(&'static Protocol, Table<'_>)]) -> Option<Backend> {
    let hosts = table.require(&at::backend::HOST);
    for host in hosts.iter().flatten().filter(|host| !is_host(host)) {
        table.problem_with(
            &at::backend::HOST,
            format_args!("expected a host name or address without a port, found {host:?}"),
        );
    }
    if hosts.as_ref().is_some_and(Vec::is_empty) {
        table.problem_with(&at::backend::HOST, "names no host");
    }
    let login = table.optional_table("login", &at::login::SECTION).and_then(|login| read_login(&login));
    let links = services.iter().filter_map(|(protocol, service)| {
        let own = table.table(protocol.name, &at::backend_service::SECTION);
        let port = own.get(&at::backend_service::PORT);
        let link = read_link(service, &own, port, protocol)?;
        let is_here =
            |host: &String| host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if link.tls == TlsMode::None && !hosts.iter().flatten().all(is_here) {
            own.warn_of(&at::link::TLS, "none: passwords and mail cross the network to this back end in clear");
        }
        if !link.trust.verify && link.trust.pins.is_empty() && link.tls != TlsMode::None {
            own.warn_of(
                &at::link::VERIFY,
                "the back end's certificate is not checked: anyone on the path can read passwords",
            );
        }
        Some((protocol.name, link))
    });
    let links = links.collect();
    Some(Backend { name: name.to_owned(), hosts: hosts?, login, links })
}

/// A name or an address, as it may be looked up.
pub(crate) fn is_host(host: &str) -> bool {
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    is_name || host.parse::<std::net::IpAddr>().is_ok()
}

fn read_login(table: &Table<'_>) -> Option<MasterLogin> {
    let master = table.require(&at::login::MASTER);
    let password_file = table.require_file(&at::login::PASSWORD_FILE);
    let separator = table.get(&at::login::SEPARATOR).map(|Delimiter(separator)| separator);
    Some(MasterLogin { master: master?, separator, password_file: password_file? })
}

fn read_link(service: &Table<'_>, own: &Table<'_>, port: Option<Port>, protocol: &Protocol) -> Option<Link> {
    use at::link as key;

    let tls = own.inherit(service, &key::TLS)?;
    let port = port.map(|port| port.0);
    for timeout in [&key::CONNECT_TIMEOUT, &key::LOGIN_TIMEOUT] {
        if own.inherit_quietly(service, timeout).is_some_and(|time| time.is_zero()) {
            own.problem_with(timeout, "is more than nothing");
        }
    }
    let announce = match own.inherit(service, &key::ANNOUNCE)? {
        AnnounceBy::Auto | AnnounceBy::Id => Announce::Id,
        AnnounceBy::None => Announce::Nothing,
        AnnounceBy::ProxyV2 => Announce::ProxyV2,
        AnnounceBy::Xclient => {
            own.problem_with(&key::ANNOUNCE, format_args!("{} has no XCLIENT; use id", protocol.title));
            return None;
        }
    };
    let trust = Trust {
        verify: own.inherit(service, &key::VERIFY)?,
        ca: own.inherit_file(service, &key::CA),
        pins: own.inherit(service, &key::PINS).unwrap_or_default().into_iter().map(|pin| pin.0).collect(),
    };
    Some(Link {
        port: port.unwrap_or(if tls == TlsMode::Implicit { protocol.tls_port } else { protocol.port }),
        tls,
        trust,
        connect_timeout: own.inherit(service, &key::CONNECT_TIMEOUT)?,
        login_timeout: own.inherit(service, &key::LOGIN_TIMEOUT)?,
        max_connections: own.inherit(service, &key::MAX_CONNECTIONS),
        mechanism: match own.inherit(service, &key::MECHANISM)? {
            LoginBy::Best => None,
            LoginBy::One(mechanism) => Some(mechanism),
        },
        source_addresses: own.inherit(service, &key::SOURCE_ADDRESS).unwrap_or_default(),
        announce,
    })
}

/// Which certificates are taken of the servers that a table is about.
pub(super) fn read_trust(
    table: &Table<'_>,
    verify: &Key<bool>,
    ca: &Key<PathBuf>,
    pins: &Key<Vec<Pin>>,
) -> Option<Trust> {
    Some(Trust {
        verify: table.get(verify)?,
        ca: table.file(ca),
        pins: table.get(pins).unwrap_or_default().into_iter().map(|pin| pin.0).collect(),
    })
}
