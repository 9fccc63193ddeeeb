//! Host names: asked for within their time to live, and remembered for when nobody answers.
//!
//! Questions are asked on the control plane, so that one that takes long holds up nobody but who waits for it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::rr::{Name, RData};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::config;

/// How long a newer answer is waited for where an old one would serve.
const STALE_PATIENCE: Duration = Duration::from_millis(500);
/// A name that can't be looked up is not asked for again for this long while an old answer serves.
const RETRY_TIME: Duration = Duration::from_secs(2);
/// An answer serves at least this long, whatever its time to live: one log-in after another must not ask.
const LIFETIME_MIN: Duration = Duration::from_secs(1);
/// … and at most this long.
const LIFETIME_MAX: Duration = Duration::from_hours(1);
/// Names remembered at once.
const NAMES_MAX: usize = 10_000;
/// Hosts that are taken of one SRV answer.
const TARGETS_MAX: usize = 8;

/// Answers to questions for names; outlives reloads.
#[derive(Debug, Default)]
pub(crate) struct KnownNames(Mutex<HashMap<String, Known>>);

#[derive(Debug, Clone)]
struct Known {
    answer: Arc<[Found]>,
    asked: Instant,
    /// Until then it is as good as new.
    until: Instant,
}

/// One address of a name; the port, where the name says it (SRV).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    address: IpAddr,
    port: Option<u16>,
}

/// See the module's documentation.
pub(crate) struct Resolver {
    /// An error says why nobody can be asked.
    asker: Result<Asker, String>,
    stale: Duration,
    known: Arc<KnownNames>,
}

/// Who asks, on the control plane.
struct Asker {
    resolver: TokioResolver,
    control: Handle,
}

impl Resolver {
    /// Asks the servers that are set, else the system's. Must be made within the control plane's runtime.
    pub(crate) fn new(settings: &config::Dns, known: &Arc<KnownNames>) -> Self {
        let asker = Handle::try_current()
            .map_err(|error| format!("there is no control plane: {error}"))
            .and_then(|control| Ok(Asker { resolver: build(settings)?, control }));
        Self { asker, stale: settings.stale, known: Arc::clone(known) }
    }

    /// The addresses of a host name, or of a service's name (`_imaps._tcp.example.org`), in the order in which they
    /// should be tried. An error says why there is none.
    pub(crate) async fn addresses(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let now = Instant::now();
        let known = self.known.get(name);
        let answer = match known {
            Some(known) if known.until > now => known.answer,
            known => {
                match known.filter(|known| now.saturating_duration_since(known.asked) < self.stale) {
                    None => self.ask(name).await?,
                    Some(stale) => {
                        // Whoever comes while this one asks, or soon after it got no answer, need not wait as well.
                        self.known.put(name, Known { until: now + RETRY_TIME, ..stale.clone() });
                        match timeout(STALE_PATIENCE, self.ask(name)).await {
                            Ok(Ok(answer)) => answer,
                            Ok(Err(_)) | Err(_) => stale.answer,
                        }
                    }
                }
            }
        };
        Ok(answer.iter().map(|found| SocketAddr::new(found.address, found.port.unwrap_or(port))).collect())
    }

    /// A client's name: one that its address has in the DNS and that leads back to the address. `None`: it has none.
    pub(crate) async fn name_of(&self, address: IpAddr) -> Result<Option<String>, String> {
        let Asker { resolver, control } = self.asker.as_ref().map_err(String::clone)?;
        let resolver = resolver.clone();
        let answer = control.spawn(async move { look_up_name(&resolver, address.to_canonical()).await });
        answer.await.unwrap_or_else(|_| Err("the look-up was interrupted".into()))
    }

    async fn ask(&self, name: &str) -> Result<Arc<[Found]>, String> {
        let Asker { resolver, control } = self.asker.as_ref().map_err(String::clone)?;
        let (resolver, known, asked) = (resolver.clone(), Arc::clone(&self.known), name.to_owned());
        // Goes on, and is remembered, should the one who asks give up.
        let answer = control.spawn(async move { look_up(&resolver, &known, &asked).await });
        answer.await.unwrap_or_else(|_| Err("the look-up was interrupted".into()))
    }
}

impl KnownNames {
    /// Has all of them asked for anew; how many there are. Should nobody answer, they serve on.
    pub(crate) fn expire(&self) -> usize {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        names.values_mut().for_each(|known| known.until = known.until.min(now));
        names.len()
    }

    fn get(&self, name: &str) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn put(&self, name: &str, known: Known) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(name.to_owned(), known);
    }
}

fn build(settings: &config::Dns) -> Result<TokioResolver, String> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = if settings.servers.is_empty() {
        TokioResolver::builder(provider).map_err(|error| format!("the system's DNS settings can't be read: {error}"))?
    } else {
        let servers = settings.servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        TokioResolver::builder_with_config(ResolverConfig::from_parts(None, Vec::new(), servers.collect()), provider)
    };
    let options = builder.options_mut();
    options.timeout = settings.timeout;
    // Of further tries.
    options.attempts = 1;
    // What is known is remembered here, with what serves when nobody answers.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

async fn look_up_name(resolver: &TokioResolver, address: IpAddr) -> Result<Option<String>, String> {
    let answer = match resolver.reverse_lookup(Name::from(address)).await {
        Ok(answer) => answer,
        Err(error) if error.is_no_records_found() => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let names = answer.answers().iter().filter_map(|record| match &record.data {
        RData::PTR(name) => Some(name.to_utf8().trim_end_matches('.').to_owned()),
        _ => None,
    });
    let names: Vec<String> = names.filter(|name| config::is_host(name)).take(TARGETS_MAX).collect();
    for name in names {
        // Whoever has an address can give it any name; only the name's owner can lead it back. Not remembered: strangers
        // would drive out the names of back ends.
        let found = look_up_host(resolver, &name, None).await;
        if found.is_ok_and(|(found, _)| found.iter().any(|one| one.address == address)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

async fn look_up(resolver: &TokioResolver, known: &KnownNames, name: &str) -> Result<Arc<[Found]>, String> {
    let (answer, until) = if name.starts_with('_') {
        look_up_service(resolver, name).await?
    } else {
        look_up_host(resolver, name, None).await?
    };
    if answer.is_empty() {
        return Err("its name has no address".into());
    }
    let now = Instant::now();
    let answer: Arc<[Found]> = answer.into();
    let until = until.clamp(now + LIFETIME_MIN, now + LIFETIME_MAX);
    known.put(name, Known { answer: Arc::clone(&answer), asked: now, until });
    Ok(answer)
}

async fn look_up_host(
    resolver: &TokioResolver,
    name: &str,
    port: Option<u16>,
) -> Result<(Vec<Found>, Instant), String> {
    let answer = resolver.lookup_ip(name).await.map_err(|error| why_not("its name", &error))?;
    Ok((answer.iter().map(|address| Found { address, port }).collect(), answer.valid_until()))
}

/// By priority, and among equals by chance and weight (RFC 2782).
async fn look_up_service(resolver: &TokioResolver, name: &str) -> Result<(Vec<Found>, Instant), String> {
    let answer = resolver.srv_lookup(name).await.map_err(|error| why_not("its SRV", &error))?;
    let mut targets: Vec<_> = answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            // A single target `.` says that there is no such service.
            RData::SRV(srv) if !srv.target.is_root() => Some((srv.priority, drawn(srv.weight), srv)),
            _ => None,
        })
        .collect();
    targets.sort_by(|(a, x, _), (b, y, _)| a.cmp(b).then(y.total_cmp(x)));
    let (mut found, mut until, mut reason) = (Vec::new(), answer.valid_until(), None);
    for (_, _, srv) in targets.into_iter().take(TARGETS_MAX) {
        match look_up_host(resolver, &srv.target.to_utf8(), Some(srv.port)).await {
            Ok((addresses, valid)) => {
                found.extend(addresses);
                until = until.min(valid);
            }
            Err(error) => reason = Some(format!("{}: {error}", srv.target)),
        }
    }
    match reason {
        Some(reason) if found.is_empty() => Err(reason),
        _ => Ok((found, until)),
    }
}

/// Why a look-up gave nothing, in words. Of several questions (IPv6 and IPv4, a name with the domains of resolv.conf behind
/// it) it may be about one alone, which is why that is said too.
fn why_not(what: &str, error: &NetError) -> String {
    let reason = match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { query, .. })) if error.is_nx_domain() => {
            format!("{} does not exist", query.name)
        }
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { query, .. })) => {
            format!("{} has no {} record", query.name, query.query_type)
        }
        error => error.to_string(),
    };
    format!("{what} can't be looked up: {reason}")
}

/// A number that is the greater the likelier, the greater the weight.
fn drawn(weight: u16) -> f64 {
    let mut random = [0; 4];
    let _ = getrandom::fill(&mut random);
    let uniform = (f64::from(u32::from_be_bytes(random)) + 0.5) / (f64::from(u32::MAX) + 1.0);
    uniform.powf(1.0 / (f64::from(weight) + 0.01))
}
