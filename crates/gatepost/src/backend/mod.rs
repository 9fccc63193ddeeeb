//! Back ends: which there are, and how one is reached.
//!
//! Here belongs reaching a server and knowing how it is; which one a user's mail is on is the map's to say.

mod connect;
mod conversation;
mod credentials;
mod host;
mod look;
mod reach;
mod request;
mod state;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use gatepost_wire::{Offers, Protocol};
use rustls::ClientConfig;

use crate::config::{self, HostOrder, Link, Problem, TlsVersion};
use crate::net::health::Standing;
use crate::net::resolve::Resolver;
use crate::net::tls::{self, Spoken};
use crate::overrides::{Duty, Overrides};
use crate::rendezvous::score;
use credentials::Master;
use host::HostState;
use state::State;

pub(crate) use credentials::{Credentials, Shown};
pub(crate) use look::{Looker, Looking};
pub(crate) use reach::{Aim, Connected, Failure, Purpose};
pub(crate) use request::{Client, Own};
pub(crate) use state::{Lease, States};

/// Hosts that only directories name, remembered at once.
const NAMED_HOSTS_MAX: usize = 10_000;

/// All back ends of the configuration, and the hosts that directories name beside them.
#[derive(Clone)]
pub(crate) struct Backends {
    named: HashMap<String, Arc<Backend>>,
    links: Vec<(&'static str, ServiceLink)>,
    hosts: Arc<Mutex<NamedHosts>>,
    states: Arc<States>,
    resolver: Arc<Resolver>,
    overrides: Arc<Overrides>,
}

/// Hosts and ports, as directories name them.
type NamedHosts = HashMap<(String, Option<u16>), Arc<Backend>>;

/// A mail server, or several that hold the same mail.
pub(crate) struct Backend {
    pub(crate) name: Arc<str>,
    hosts: Vec<String>,
    order: HostOrder,
    master: Option<Arc<Master>>,
    links: Vec<(&'static str, ServiceLink)>,
    state: Arc<State>,
    /// For hosts that are names.
    resolver: Arc<Resolver>,
    overrides: Arc<Overrides>,
}

/// One host of a back end, for one service.
struct Host<'a> {
    name: &'a str,
    state: Arc<HostState>,
}

/// How one service talks to a back end, with what that needs.
#[derive(Debug, Clone)]
pub(crate) struct ServiceLink {
    pub(crate) settings: Link,
    tls: Spoken<Arc<ClientConfig>>,
}

impl Backends {
    /// Prepares all back ends of `settings`: reads secrets and authorities. Where there are problems, something is left out, and
    /// this is not to be used.
    pub(crate) fn open(
        settings: &config::Config,
        states: &Arc<States>,
        overrides: &Arc<Overrides>,
        warnings: &mut Vec<Problem>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let resolver = Arc::new(Resolver::new(&settings.dns, &states.names));
        let mut named = HashMap::new();
        let min = settings.tls.min_version;
        let mut open_all = |links: &[(&'static str, Link)]| {
            let open = |(service, link): &(&'static str, Link)| match ServiceLink::open(link, min) {
                Ok(link) => Some((*service, link)),
                Err(problem) => {
                    problems.push(problem);
                    None
                }
            };
            links.iter().filter_map(open).collect::<Vec<_>>()
        };
        let defaults: Vec<_> =
            settings.services.iter().map(|service| (service.protocol.name, service.link.clone())).collect();
        let links = open_all(&defaults);
        let opened: Vec<_> = settings.backends.iter().map(|backend| open_all(&backend.links)).collect();
        for (backend, links) in settings.backends.iter().zip(opened) {
            let master = match backend.written.login.as_ref().map(|login| read_master(login, warnings)).transpose() {
                Ok(master) => master,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let opened = Backend {
                name: backend.name.as_str().into(),
                hosts: backend.written.hosts.clone(),
                order: backend.written.order,
                master: master.map(Arc::new),
                links,
                state: states.of(&backend.name),
                resolver: Arc::clone(&resolver),
                overrides: Arc::clone(overrides),
            };
            named.insert(backend.name.clone(), Arc::new(opened));
        }
        let (states, overrides) = (Arc::clone(states), Arc::clone(overrides));
        Self { named, links, hosts: Arc::default(), states, resolver, overrides }
    }

    /// The back end of the configuration with this name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Backend>> {
        self.named.get(name).map(Arc::clone)
    }

    /// What administrators have decided.
    pub(crate) fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// How every back end of the configuration is doing, by name.
    pub(crate) fn report(&self) -> Vec<Report> {
        let mut reports: Vec<_> = self.named.values().map(|backend| backend.report()).collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    /// Who looks up names.
    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Has the addresses of all host names asked for anew; how many there are.
    pub(crate) fn expire_names(&self) -> usize {
        self.states.names.expire()
    }

    /// What all back ends of the configuration are known to offer.
    pub(crate) fn offers(&self, protocol: &Protocol) -> Offers {
        let known = self.named.values().map(|backend| backend.offers(protocol));
        known.reduce(Offers::and).unwrap_or(Offers::NONE)
    }

    /// A host that a directory names; `map.hosts` allows it.
    pub(crate) fn host(&self, host: &str, port: Option<u16>) -> Arc<Backend> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= NAMED_HOSTS_MAX {
            hosts.clear();
            self.states.forget_unused();
        }
        let make = || {
            let mut links = self.links.clone();
            if let Some(port) = port {
                links.iter_mut().for_each(|(_, link)| link.settings.port = port);
            }
            let name = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            let state = self.states.of(&name);
            let (hosts, resolver) = (vec![host.to_owned()], Arc::clone(&self.resolver));
            let order = HostOrder::Listed;
            let overrides = Arc::clone(&self.overrides);
            Arc::new(Backend { name: name.into(), hosts, order, master: None, links, state, resolver, overrides })
        };
        Arc::clone(hosts.entry((host.to_owned(), port)).or_insert_with(make))
    }
}

/// How a back end is doing.
pub(crate) struct Report {
    pub(crate) name: Arc<str>,
    /// Why it takes no log-ins though nothing is wrong with it.
    pub(crate) duty: Option<Duty>,
    /// Held at this moment.
    pub(crate) connections: u32,
    /// The same by service.
    pub(crate) by_service: Vec<(&'static str, u32)>,
    pub(crate) hosts: Vec<HostReport>,
}

/// How one host of it is doing, for one service.
pub(crate) struct HostReport {
    pub(crate) service: &'static str,
    pub(crate) host: String,
    pub(crate) standing: Standing,
    /// What was wrong last, where something is.
    pub(crate) fault: Option<String>,
}

impl Backend {
    fn report(&self) -> Report {
        let each = self.links.iter().flat_map(|(service, _)| self.hosts.iter().map(move |host| (*service, host)));
        let hosts = each.map(|(service, host)| {
            let state = self.state.host(service, host);
            let standing = state.appears();
            let fault = state.fault().filter(|_| standing != Standing::Up);
            HostReport { service, host: host.clone(), standing, fault }
        });
        let connections = self.state.connections();
        let by_service = self.links.iter().map(|(service, _)| (*service, self.state.connections_of(service))).collect();
        Report { name: Arc::clone(&self.name), duty: self.duty(), connections, by_service, hosts: hosts.collect() }
    }

    /// Why it takes no log-ins though nothing is wrong with it.
    pub(crate) fn duty(&self) -> Option<Duty> {
        self.overrides.duty(&self.name)
    }

    /// What all of its hosts offered lately, as far as they were met; nothing before the first was.
    pub(crate) fn offers(&self, protocol: &Protocol) -> Offers {
        let known = self.state.offers();
        let of_hosts = self.hosts.iter().filter_map(|host| known.get(&(protocol.name, host.clone())).copied());
        of_hosts.reduce(Offers::and).unwrap_or(Offers::NONE)
    }

    /// Remembers what a host offers.
    pub(crate) fn learn(&self, protocol: &Protocol, host: &str, list: &str) {
        self.state.offers().insert((protocol.name, host.to_owned()), Offers::of(protocol, list));
    }

    /// Its hosts in the order in which a user comes to them while all are in order.
    pub(crate) fn hosts_of(&self, user: &str) -> Vec<&str> {
        let mut hosts: Vec<_> = self.hosts.iter().map(String::as_str).collect();
        if self.order == HostOrder::Spread {
            hosts.sort_by(|a, b| score(user, b, 1).total_cmp(&score(user, a, 1)));
        }
        hosts
    }

    /// How a service talks to it.
    pub(crate) fn link(&self, service: &str) -> Option<&ServiceLink> {
        self.links.iter().find(|(name, _)| *name == service).map(|(_, link)| link)
    }

    /// The hosts in the order in which they should be tried: those that seem down last.
    fn in_order(&self, service: &'static str, user: &str) -> Vec<Host<'_>> {
        let host = |name| Host { name, state: self.state.host(service, name) };
        let mut hosts: Vec<_> = self.hosts_of(user).into_iter().map(host).collect();
        hosts.sort_by_cached_key(|host| host.state.appears());
        hosts
    }

    /// The local address for the next connection to an address of this family.
    fn source(&self, link: &Link, target: SocketAddr) -> Option<IpAddr> {
        let fitting: Vec<_> =
            link.written.source_addresses.iter().filter(|source| source.is_ipv4() == target.is_ipv4()).collect();
        let turn = self.state.next_turn();
        fitting.get(turn.checked_rem(fitting.len())?).map(|&&source| source)
    }
}

impl ServiceLink {
    fn open(link: &Link, min: TlsVersion) -> Result<Self, Problem> {
        let tls = Spoken::new(link.written.tls, || tls::client_config(&link.written.trust(), min))?;
        Ok(Self { settings: link.clone(), tls })
    }
}

fn read_master(login: &config::MasterLogin, warnings: &mut Vec<Problem>) -> Result<Master, Problem> {
    let password = crate::secret_file::read(&login.password_file, warnings)?;
    Ok(Master { name: login.master.clone(), separator: login.separator.map(|delimiter| delimiter.0), password })
}
