//! Addresses that are listened on, as the configuration describes them.

use std::net::SocketAddr;
use std::time::Duration;

use gatepost_wire::Protocol;

use super::access::{AccessRule, AccessSettings, Limits, read_access};
use super::map::{Completion, Map, Names};
use super::networks::Network;
use super::problem::Place;
use super::reader::Table;
use super::section::{Child, Key, Written};
use super::service::Service;
use super::tls::{CertificateFiles, ClientCertificates, TlsMode};

/// An address that is listened on.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    /// As its table has it; what some of it means stands beside.
    pub(crate) written: ListenerSettings,
    pub(crate) place: Place,
    pub(crate) idle_timeout: Duration,
    pub(crate) names: Names,
    pub(crate) access: Vec<AccessRule>,
}

impl Listener {
    /// Which certificates of clients are taken here: its own setting, or its service's.
    pub(crate) fn client_certificates<'a>(&'a self, service: &'a Service) -> Option<&'a ClientCertificates> {
        self.written.client_certificates.as_ref().or(service.written.client_certificates.as_ref())
    }

    /// What it is called in the log, in limits and by administrators, of the service of this name.
    pub(crate) fn name_at(&self, service: &str) -> String {
        format!("{service} {}", self.written.address)
    }
}

section! {
    pub(crate) struct ListenerSettings: "listener", "[[imap.listener]]", "An address that is listened on. Without any: the two ports of the service (the end of the reference lists them) on 127.0.0.1, with STARTTLS and with implicit TLS; but without a [[tls.certificate]] only the former, in clear, where `plaintext` = tls lets nobody log in.", {
        read_apart: &[Child::List(AccessSettings::SECTION)],
    };
    address: SocketAddr, "Address and port.";
    tls: TlsMode = "starttls", "none, starttls or implicit.";
    idle_timeout: Option<Duration>, "Default: the service's.";
    ..completion: Completion;
    [limits]: Limits;
    [proxy_protocol]: Option<ProxyProtocol>;
    [certificate]: Option<CertificateFiles>;
    [client_certificates]: Option<ClientCertificates>;
}

section! {
    pub(crate) struct ProxyProtocol: "proxy_protocol", "[imap.listener.proxy_protocol]", "Load balancers that announce the client by the PROXY protocol, version 1 or 2.";
    from: Vec<Network>, "The only senders whose header is believed.";
    required: bool = true, "Turn away a listed sender that sends no header.";
}

pub(super) fn read_listeners(
    table: &Table<'_>,
    protocol: &Protocol,
    idle_timeout: Duration,
    map: (&Map, &Table<'_>),
    has_certificate: bool,
) -> Vec<Listener> {
    let written = table.each(ListenerSettings::SECTION, |_, listener| {
        read_listener(listener, protocol, map, idle_timeout, has_certificate)
    });
    if written.is_empty() {
        return default_listeners(table, protocol, idle_timeout, map.0, has_certificate);
    }
    written.into_iter().flatten().collect()
}

/// Without a certificate STARTTLS can't be offered: then only the clear listener stands.
fn default_listeners(
    table: &Table<'_>,
    protocol: &Protocol,
    idle_timeout: Duration,
    map: &Map,
    has_certificate: bool,
) -> Vec<Listener> {
    let listener = |port, tls| Listener {
        written: ListenerSettings {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            tls,
            idle_timeout: None,
            completion: map.completion.clone(),
            limits: Limits::NONE,
            proxy_protocol: None,
            certificate: None,
            client_certificates: None,
        },
        place: table.place(),
        idle_timeout,
        names: Names::of(map),
        access: Vec::new(),
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
    (map, map_table): (&Map, &Table<'_>),
    service_timeout: Duration,
    has_certificate: bool,
) -> Option<Listener> {
    use ListenerSettings as key;

    // How names are completed is the map's to say, where the listener doesn't; no other setting has the same name there.
    let written = ListenerSettings::read_over(table, map_table)?;
    let idle_timeout = table.or(&key::idle_timeout, written.idle_timeout, service_timeout);
    if idle_timeout != service_timeout {
        check_idle_timeout(table, &key::idle_timeout, idle_timeout, protocol);
    }
    if written.tls != TlsMode::None && !has_certificate && !table.has(CertificateFiles::SECTION.name) {
        let what = "needs a certificate: add [[tls.certificate]], or `certificate` here, or set \"none\"";
        table.problem_with(&key::tls, what);
    }
    if written.client_certificates.is_some() && written.tls == TlsMode::None {
        table.problem_with(&key::tls, "none: a client_certificate needs TLS");
    }
    let names = Names { by: written.completion.clone(), aliases: map.aliases.0.clone() };
    let access = read_access(table, &format!("{} {}", protocol.name, written.address));
    Some(Listener { written, place: table.place(), idle_timeout, names, access })
}

pub(super) fn check_idle_timeout<T>(table: &Table<'_>, key: &Key<T>, idle_timeout: Duration, protocol: &Protocol) {
    let (min, source) = protocol.idle_min;
    if idle_timeout < min {
        table.problem_with(key, format_args!("is at least {}m ({source})", min.as_secs() / 60));
    }
}

pub(super) fn check_addresses(root: &Table<'_>, services: &[Service]) {
    let mut seen: Vec<SocketAddr> = Vec::new();
    for listener in services.iter().flat_map(|service| &service.listeners) {
        let (address, place) = (&listener.written.address, &listener.place);
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
