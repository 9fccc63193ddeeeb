//! A service as the configuration describes it: who may connect, how it is authenticated, its listeners.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use gatepost_wire::{Course, Mechanism, Protocol};

use super::backend::is_host;
use super::build::read_certificate;
use super::directory::Directories;
use super::map;
use super::reader::{Key, Table};
use super::settings as at;
use super::values::{AuthenticateAt, HeloCheck};
use super::{
    AccessRule, Authenticate, ClientCertificates, Limits, Link, Listener, MailRules, Names, Plaintext, ProxyProtocol,
    Rates, ReverseDns, Senders, Service, Tls, TlsMode,
};

pub(super) fn read_access(parent: &Table<'_>, level: &str) -> Vec<AccessRule> {
    let rules = parent.tables(&at::access::SECTION);
    let read = |(n, table): (usize, &Table<'_>)| {
        table.head("[[", "]]");
        let allow = table.get(&at::access::ALLOW);
        let deny = table.get(&at::access::DENY);
        let priority = table.get(&at::access::PRIORITY)?;
        let limits = read_limits(&table.table(&at::limits::SECTION))?;
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
    let interval = read_interval(table, &at::limits::INTERVAL)?;
    Some(Limits {
        connections: table.get(&at::limits::CONNECTIONS),
        connections_per_ip: table.get(&at::limits::CONNECTIONS_PER_IP),
        new_connections: table.get(&at::limits::NEW_CONNECTIONS),
        new_connections_per_ip: table.get(&at::limits::NEW_CONNECTIONS_PER_IP),
        interval,
    })
}

/// The time within which something is counted.
fn read_interval(table: &Table<'_>, key: &Key<Duration>) -> Option<Duration> {
    let interval = table.get(key)?;
    if interval.is_zero() || interval > Duration::from_hours(24) {
        table.problem_with(key, "is more than nothing and at most one day");
    }
    Some(interval)
}

pub(super) fn read_service(
    table: &Table<'_>,
    protocol: &'static Protocol,
    tls: Option<&Tls>,
    directories: &Directories,
    map: &Table<'_>,
    link: Option<Link>,
) -> Option<Service> {
    use at::service as key;

    let mechanisms = table.get(&key::MECHANISMS);
    if mechanisms.as_ref().is_some_and(Vec::is_empty) {
        table.warn_of(&key::MECHANISMS, "[]: clients are left with the bare log-in command");
    }
    let authenticate = read_authenticate(table, mechanisms.as_deref().unwrap_or_default(), directories);
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
    check_idle_timeout(table, &key::IDLE_TIMEOUT, idle_timeout, protocol);
    let has_certificate = tls.is_some_and(|tls| !tls.certificates.is_empty());
    let mut listeners: Vec<_> = table
        .tables(&at::listener::SECTION)
        .iter()
        .filter_map(|listener| read_listener(listener, protocol, map, idle_timeout, has_certificate))
        .collect();
    let limits = read_limits(&table.table(&at::limits::SECTION))?;
    if listeners.is_empty() {
        let names = map::names_of(map);
        listeners = default_listeners(table, protocol, idle_timeout, &names, has_certificate);
    }
    let takes_mail = matches!(protocol.course, Course::Mail(_));
    if !takes_mail && plaintext == Plaintext::Tls && listeners.iter().all(|listener| listener.tls == TlsMode::None) {
        table.warn_of(&key::PLAINTEXT, "tls: no listener has TLS, so that nobody can log in");
    }
    let client_certificates = read_client_certificates(table);
    let offers_external = mechanisms.iter().flatten().any(|mechanism| *mechanism == Mechanism::External);
    let asks = client_certificates.is_some() || listeners.iter().any(|listener| listener.client_certificates.is_some());
    if offers_external && !asks {
        let what = "EXTERNAL is offered, but no client is asked for a certificate";
        table.problem_with(&key::MECHANISMS, format_args!("{what}: add [{}.client_certificate]", protocol.name));
    }
    let strips_any = |listener: &Listener| listener.names.strip_domains.iter().any(|domain| domain == "*");
    if offers_external && listeners.iter().any(strips_any) {
        let what = "EXTERNAL with strip_domains = \"*\": a certificate for kim of any domain is taken for kim's";
        table.warn_of(&key::MECHANISMS, what);
    }
    let senders = match protocol.course {
        Course::Submission(_) => table.get(&at::submission::SENDERS)?,
        Course::LogIn(_) | Course::Mail(_) => Senders::Any,
    };
    Some(Service {
        protocol,
        senders,
        mail: read_mail(table, protocol, map, directories)?,
        authenticate: authenticate?,
        mechanisms: mechanisms?,
        client_certificates,
        plaintext,
        greeting: table.get(&key::GREETING)?,
        id: table.get(&key::ID)?,
        max_errors: NonZeroU32::new(table.get(&key::MAX_ERRORS)?),
        max_auth_errors: NonZeroU32::new(max_auth_errors),
        login_timeout,
        limits,
        access: read_access(table, protocol.name),
        listeners,
        link: link?,
    })
}

/// What mail is taken: by whom nobody logs in for, all of it; of those who submit, only which domains are ours.
fn read_mail(table: &Table<'_>, protocol: &Protocol, map: &Table<'_>, directories: &Directories) -> Option<MailRules> {
    use at::mail as key;

    let own = map.peek(&at::names::DOMAIN);
    let all_of = |key: &Key<Vec<String>>| {
        let domains = table.get(key)?;
        for domain in domains.iter().filter(|domain| !is_host(domain) || domain.ends_with('.')) {
            table.problem_with(key, format_args!("expected domains such as \"example.org\", found {domain:?}"));
        }
        Some(own.into_iter().chain(domains).map(|domain| domain.to_lowercase()).collect())
    };
    if !matches!(protocol.course, Course::Mail(_)) {
        let none = Rates {
            messages_per_ip: None,
            recipients_per_ip: None,
            messages_per_sender: None,
            interval: Duration::MAX,
        };
        let domains = match protocol.course {
            Course::Submission(_) => all_of(&at::submission::DOMAINS)?,
            Course::LogIn(_) | Course::Mail(_) => Vec::new(),
        };
        let (greet_delay, reverse_dns) = (Duration::ZERO, ReverseDns::Off);
        return Some(MailRules { domains, is_strict: false, reverse_dns, greet_delay, rates: none });
    }
    for name in [
        at::service::AUTHENTICATE.name,
        at::service::DIRECTORY.name,
        at::service::MECHANISMS.name,
        at::service::MAX_AUTH_ERRORS.name,
        at::service::PLAINTEXT.name,
        at::service::ID.name,
    ] {
        if table.has(name) {
            table.context.warning(table.at(), format!("[{}] {name} means nothing here: nobody logs in", table.path()));
        }
    }
    let asked = map.peek(&at::map::DIRECTORIES).unwrap_or_default();
    for directory in
        directories.sound.iter().filter(|directory| asked.contains(&directory.name) && !directory.abilities.finds)
    {
        let what = "only answers to who brings a password, and who sends mail brings none";
        table.problem(format!("[map] directories: {} {what}", directory.name));
    }
    let domains = all_of(&key::DOMAINS)?;
    let rates = table.table(&at::rates::SECTION);
    let interval = read_interval(&rates, &at::rates::INTERVAL)?;
    Some(MailRules {
        domains,
        is_strict: table.get(&key::HELO)? == HeloCheck::Strict,
        reverse_dns: table.get(&key::REVERSE_DNS)?,
        greet_delay: table.get(&key::GREET_DELAY)?,
        rates: Rates {
            messages_per_ip: rates.get(&at::rates::MESSAGES_PER_IP),
            recipients_per_ip: rates.get(&at::rates::RECIPIENTS_PER_IP),
            messages_per_sender: rates.get(&at::rates::MESSAGES_PER_SENDER),
            interval,
        },
    })
}

fn read_authenticate(table: &Table<'_>, mechanisms: &[Mechanism], known: &Directories) -> Option<Authenticate> {
    use at::service as key;

    let names = table.get(&key::DIRECTORY).unwrap_or_default();
    let find = |name: &String| known.get(name);
    known.check(table, &key::DIRECTORY, &names);
    if table.get(&key::AUTHENTICATE)? == AuthenticateAt::Backend {
        if let Some(scram) = mechanisms.iter().find(|mechanism| mechanism.is_scram()) {
            let what = "is checked against what a directory keeps: it needs authenticate = \"proxy\"";
            table.problem_with(&key::MECHANISMS, format_args!("{} {what}", scram.name()));
        }
        return Some(Authenticate::Backend);
    }
    if names.is_empty() {
        table.problem_with(&key::AUTHENTICATE, "proxy needs `directory`, which checks the passwords");
        return None;
    }
    let can = |tokens: bool| names.iter().filter_map(find).any(|directory| directory.takes_tokens() == tokens);
    let all_known = names.iter().all(|name| find(name).is_some());
    let keeps_hashes = names.iter().filter_map(find).any(|directory| directory.abilities.keeps_hashes);
    for mechanism in mechanisms.iter().filter(|mechanism| mechanism.is_scram() && all_known && !keeps_hashes) {
        let what = "no directory of `directory` keeps anything to check it against: all judge passwords themselves";
        table.problem_with(&key::MECHANISMS, format_args!("{} is offered, but {what}", mechanism.name()));
    }
    let passwords: Vec<_> = names.iter().filter_map(find).filter(|directory| !directory.takes_tokens()).collect();
    for mechanism in mechanisms.iter().filter(|mechanism| mechanism.is_carried() && all_known) {
        if let Some(mute) = passwords.iter().find(|directory| !directory.abilities.finds) {
            let what = "only answers to who brings a password, and would be left out";
            table.problem_with(
                &key::MECHANISMS,
                format_args!("{} is offered, but {} {what}", mechanism.name(), mute.name),
            );
        } else if passwords.is_empty() {
            let what = "no directory of `directory` can be asked about users";
            table.problem_with(&key::MECHANISMS, format_args!("{} is offered, but {what}", mechanism.name()));
        }
    }
    let has_proof = |mechanism: &&Mechanism| !mechanism.is_carried();
    for mechanism in mechanisms.iter().filter(has_proof).filter(|mechanism| all_known && !can(mechanism.takes_token()))
    {
        let what = if mechanism.takes_token() {
            "tokens: name one of type oauth2"
        } else {
            "passwords: all are of type oauth2"
        };
        let message = format!("{} is offered, but no directory of `directory` checks {what}", mechanism.name());
        table.problem_with(&key::MECHANISMS, message);
    }
    if let Some((_, before)) = passwords.split_last() {
        for directory in before.iter().filter(|directory| !directory.abilities.tells_unknown) {
            let what = "can't tell an unknown user from a wrong password: those behind it are never asked";
            table.warn_of(&key::DIRECTORY, format_args!("{} {what}", directory.name));
        }
    }
    Some(Authenticate::Proxy { directories: names })
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
        client_certificates: None,
    };
    if has_certificate {
        let implicit = protocol.tls_port.map(|port| listener(port, TlsMode::Implicit));
        return std::iter::once(listener(protocol.port, TlsMode::StartTls)).chain(implicit).collect();
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
    if idle_timeout != service_timeout {
        check_idle_timeout(table, &key::IDLE_TIMEOUT, idle_timeout, protocol);
    }
    let limits = read_limits(&table.table(&at::limits::SECTION))?;
    let proxy = table.optional_table(&at::proxy_protocol::SECTION);
    let certificate = table.optional_table(&at::certificate::SECTION);
    let own_certificate = certificate.as_ref().map(read_certificate);
    if tls != TlsMode::None && !has_certificate && own_certificate.is_none() {
        table.problem_with(
            &key::TLS,
            "needs a certificate: add [[tls.certificate]], or `certificate` here, or set \"none\"",
        );
    }
    let client_certificates = read_client_certificates(table);
    if client_certificates.is_some() && tls == TlsMode::None {
        table.problem_with(&key::TLS, "none: a client_certificate needs TLS");
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
        client_certificates,
    })
}

fn check_idle_timeout(table: &Table<'_>, key: &Key<Duration>, idle_timeout: Duration, protocol: &Protocol) {
    let (min, source) = protocol.idle_min;
    if idle_timeout < min {
        table.problem_with(key, format_args!("is at least {}m ({source})", min.as_secs() / 60));
    }
}

fn read_client_certificates(parent: &Table<'_>) -> Option<ClientCertificates> {
    use at::client_certificate as key;

    let table = parent.optional_table(&key::SECTION)?;
    let ca = table.require_file(&key::CA);
    let names = table.get(&key::NAME)?;
    if names.is_empty() {
        table.problem_with(&key::NAME, "names no field: nobody's name could be read");
    }
    Some(ClientCertificates { ca: ca?, crl: table.file(&key::CRL), names, required: table.get(&key::REQUIRED)? })
}

fn read_proxy_protocol(table: &Table<'_>) -> Option<ProxyProtocol> {
    let from = table.require(&at::proxy_protocol::FROM);
    let required = table.get(&at::proxy_protocol::REQUIRED)?;
    Some(ProxyProtocol { from: from?, required })
}

pub(super) fn check_addresses(root: &Table<'_>, services: &[Service]) {
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
