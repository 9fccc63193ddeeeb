//! Back ends as the configuration describes them, and how services talk to them.

use std::path::PathBuf;
use std::time::Duration;

use gatepost_wire::smtp::Dialect;
use gatepost_wire::{Course, Inband, PROTOCOLS, Protocol};

use super::reader::{Key, Table};
use super::settings as at;
use super::values::{AnnounceBy, Delimiter, LoginBy, MailProtocol, Pin, Port};
use super::{Announce, Backend, Link, MasterLogin, TlsMode, Trust, is_this_machine};

/// One back end, with its link for each service: the service's own settings, overridden by the back end's.
pub(super) fn read_backend(
    name: &str,
    table: &Table<'_>,
    services: &[(&'static Protocol, Table<'_>)],
) -> Option<Backend> {
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
    let login = table.optional_table(&at::login::SECTION).and_then(|login| read_login(&login));
    let links = services.iter().filter_map(|(protocol, service)| {
        let own = table.of_service(protocol, &at::backend_service::SECTION);
        let port = own.get(&at::backend_service::PORT);
        let link = read_link(service, &own, port, protocol)?;
        if link.tls == TlsMode::None && !hosts.iter().flatten().all(|host| is_this_machine(host)) {
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
    let order = table.get(&at::backend::ORDER)?;
    Some(Backend { name: name.to_owned(), hosts: hosts?, order, login, links })
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

pub(super) fn read_link(
    service: &Table<'_>,
    own: &Table<'_>,
    port: Option<Port>,
    protocol: &'static Protocol,
) -> Option<Link> {
    use at::link as key;

    let protocol = match own.inherit(service, &key::SPEAKS) {
        None => protocol,
        Some(speaks) if matches!(protocol.course, Course::Mail(_)) => {
            let dialect = match speaks {
                MailProtocol::Smtp => Dialect::Smtp,
                MailProtocol::Lmtp => Dialect::Lmtp,
            };
            let is_it = |known: &&Protocol| matches!(known.course, Course::Mail(its) if its == dialect);
            PROTOCOLS.iter().find(is_it).unwrap_or(protocol)
        }
        Some(_) => {
            own.problem_with(&key::SPEAKS, "goes with [smtp.backend] and [lmtp.backend]");
            return None;
        }
    };
    let tls = own.inherit(service, &key::TLS)?;
    let port = port.map(|port| port.0);
    for timeout in [&key::CONNECT_TIMEOUT, &key::LOGIN_TIMEOUT] {
        // A mistake is said where it stands, not again where it is inherited.
        if own.has(timeout.name) && own.inherit_quietly(service, timeout).is_some_and(|time| time.is_zero()) {
            own.problem_with(timeout, "is more than nothing");
        }
    }
    if own.has(key::CHECK_INTERVAL.name)
        && own
            .inherit_quietly(service, &key::CHECK_INTERVAL)
            .is_some_and(|interval| !interval.is_zero() && interval < Duration::from_secs(1))
    {
        own.problem_with(&key::CHECK_INTERVAL, "is at least 1s, or 0s for never");
    }
    let announce = match own.inherit(service, &key::ANNOUNCE)? {
        AnnounceBy::Auto => Announce::Inband,
        AnnounceBy::None => Announce::Nothing,
        AnnounceBy::ProxyV2 => Announce::ProxyV2,
        AnnounceBy::Id if protocol.inband == Inband::Id => Announce::Inband,
        AnnounceBy::Xclient if protocol.inband == Inband::Xclient => Announce::Inband,
        AnnounceBy::Id | AnnounceBy::Xclient => {
            let (has, other) = match protocol.inband {
                Inband::Id => ("id", "XCLIENT"),
                Inband::Xclient => ("xclient", "ID"),
            };
            own.problem_with(&key::ANNOUNCE, format_args!("{} has no {other}; use {has}", protocol.title));
            return None;
        }
    };
    let trust = Trust {
        verify: own.inherit(service, &key::VERIFY)?,
        ca: own.inherit_file(service, &key::CA),
        pins: own.inherit(service, &key::PINS).unwrap_or_default().into_iter().map(|pin| pin.0).collect(),
    };
    Some(Link {
        protocol,
        port: port.or(protocol.tls_port.filter(|_| tls == TlsMode::Implicit)).unwrap_or(protocol.port),
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
        check_interval: Some(own.inherit(service, &key::CHECK_INTERVAL)?).filter(|interval| !interval.is_zero()),
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
