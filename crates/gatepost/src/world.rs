//! The world as the configuration describes it: built whole, then put in the place of the old one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use gatepost_wire::{OAuthHints, Secret};
use rustls::ServerConfig;

use crate::auth::{Authenticator, Checker, TokenChecker};
use crate::backend::{Backends, Looker, Looking, States};
use crate::config::{self, Authenticate, CertificateFiles, Config, DirectoryKind, LogTarget, Problem, Problems};
use crate::directory;
use crate::directory::measured::Measured;
use crate::ledger::Scope;
use crate::log::Logger;
use crate::map::Map;
use crate::metrics::Metrics;
use crate::net::tls::{self, Certificate, Spoken};
use crate::overrides::Overrides;
use crate::secret_file;
use crate::service::Snapshot;
use crate::service::admit::AccessLevel;
use crate::service::listener::{Checks, Listener, Service};
use crate::traces::Tracer;

/// See the module's documentation. Sessions keep what they need of it; a new world doesn't touch them.
pub(crate) struct World {
    pub(crate) config: Config,
    listeners: Vec<Arc<Listener>>,
    access: Arc<AccessLevel>,
    pub(crate) map: Arc<Map>,
    own_listeners: Arc<[SocketAddr]>,
    certificates: Vec<(CertificateFiles, Certificate)>,
    directories: Directories,
    defence: Option<Arc<config::Defence>>,
    http: Arc<HttpService>,
    /// Log-ins are told of here, if anywhere.
    pub(crate) tracer: Option<Arc<Tracer>>,
}

/// The directories that are open.
#[derive(Default)]
struct Directories {
    authenticators: Vec<Arc<Authenticator>>,
    token_checkers: Vec<Arc<TokenChecker>>,
}

impl Directories {
    fn authenticator(&self, name: &str) -> Option<Arc<Authenticator>> {
        self.authenticators.iter().find(|authenticator| &*authenticator.name == name).map(Arc::clone)
    }

    fn token_checker(&self, name: &str) -> Option<Arc<TokenChecker>> {
        self.token_checkers.iter().find(|checker| &*checker.name == name).map(Arc::clone)
    }

    fn forget(&self, users: Option<&[String]>) -> usize {
        let passwords = self.authenticators.iter().map(|authenticator| authenticator.forget(users)).sum::<usize>();
        passwords + self.token_checkers.iter().map(|checker| checker.forget()).sum::<usize>()
    }
}

/// What the way in for browsers and scripts needs.
#[derive(Default)]
pub(crate) struct HttpService {
    pub(crate) addresses: Vec<SocketAddr>,
    tls: HttpTls,
    /// Names by which it is called, in lower case.
    names: Vec<String>,
    pub(crate) metrics_token: Option<Secret>,
}

/// Where TLS is spoken on the way in for browsers and scripts.
#[derive(Default)]
enum HttpTls {
    #[default]
    Nowhere,
    /// Where others than this machine can come.
    Outside(Arc<ServerConfig>),
    Everywhere(Arc<ServerConfig>),
}

impl HttpService {
    fn open(
        config: &Config,
        shared: &[(CertificateFiles, Certificate)],
        own: Option<&Certificate>,
        warnings: &mut Vec<Problem>,
    ) -> Result<Self, Problem> {
        let config::AdminSettings { listen, hosts, metrics_token_file, .. } = &config.admin.written;
        let listed: Vec<_> = config.tls.certificates.iter().collect();
        let shared = shared.iter().filter(|(files, _)| listed.contains(&files)).map(|(_, certificate)| certificate);
        let certificates: Vec<_> = own.map_or_else(|| shared.cloned().collect(), |own| vec![own.clone()]);
        let certified = certificates.iter().flat_map(Certificate::names);
        let names = ["localhost"].into_iter().chain([config.name.as_str()]).map(str::to_owned);
        let names = names.chain(hosts.iter().cloned()).chain(certified.cloned()).map(|name| name.to_ascii_lowercase());
        let token = metrics_token_file.as_ref().map(|file| secret_file::read(file, warnings)).transpose()?;
        let tls = match tls::server_config(&certificates, config.tls.min_version, b"http/1.1", None)? {
            None => HttpTls::Nowhere,
            Some(tls) if own.is_some() => HttpTls::Everywhere(tls),
            Some(tls) => HttpTls::Outside(tls),
        };
        Ok(Self { addresses: listen.clone(), tls, names: names.collect(), metrics_token: token })
    }

    /// The TLS that is spoken at this address, if any.
    pub(crate) fn tls_at(&self, address: &SocketAddr) -> Option<&Arc<ServerConfig>> {
        match &self.tls {
            HttpTls::Nowhere => None,
            HttpTls::Outside(tls) => (!address.ip().is_loopback()).then_some(tls),
            HttpTls::Everywhere(tls) => Some(tls),
        }
    }

    /// Whether `host`, as in an HTTP request, is a name of ours. An address is: no foreign page can have it.
    pub(crate) fn is_called(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = name.to_ascii_lowercase();
        let is_named = |known: &String| match known.strip_prefix("*.") {
            Some(domain) => name.split_once('.').is_some_and(|(_, rest)| rest == domain),
            None => *known == name,
        };
        address.parse::<std::net::IpAddr>().is_ok() || self.names.iter().any(is_named)
    }
}

/// What outlasts worlds.
#[derive(Clone, Default)]
pub(crate) struct Lasting {
    pub(crate) states: Arc<States>,
    pub(crate) overrides: Arc<Overrides>,
    pub(crate) metrics: Arc<Metrics>,
}

impl World {
    /// Opens and reads everything that `config` names; every problem is found. Must run within the
    /// control plane's runtime, which the directories use.
    pub(crate) fn build(
        config: Config,
        log: &Logger,
        checker: &Checker,
        lasting: &Lasting,
        warnings: &mut Vec<Problem>,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let directories = open_directories(&config, log, &lasting.metrics, warnings, &mut problems);
        let backends = Backends::open(&config, &lasting.states, &lasting.overrides, warnings, &mut problems);
        let mut certificates = Vec::new();
        let listeners = build_listeners(&config, &directories, &lasting.metrics, &mut certificates, &mut problems);
        let chosen = config.map.directories.iter().filter_map(|name| directories.authenticator(name));
        let map = Map::new(
            &config.map,
            &config.names,
            chosen.collect(),
            backends,
            checker.clone(),
            log.clone(),
            &lasting.metrics.places,
        );
        let own_listeners = listeners.iter().map(|listener| listener.settings.written.address).collect();
        let access = Arc::new(AccessLevel::new(&config.access));
        let own = config.admin.written.certificate.as_ref();
        let own = own.and_then(|files| load_certificate(files, &mut certificates, &mut problems));
        let http = HttpService::open(&config, &certificates, own.as_ref(), warnings).unwrap_or_else(|problem| {
            problems.push(problem);
            HttpService::default()
        });
        let tracer = config.traces.as_ref().and_then(|settings| {
            let opened = Tracer::open(settings, &config.name, log);
            opened.map(Arc::new).map_err(|problem| problems.push(problem)).ok()
        });
        problems.dedup();
        let defence = config.defence.clone().map(Arc::new);
        let (map, http) = (Arc::new(map), Arc::new(http));
        let world =
            Self { config, listeners, access, map, own_listeners, certificates, directories, defence, http, tracer };
        warnings.extend(world.expiry_warnings());
        warnings.extend(world.exposure_warnings());
        warnings.dedup();
        Problems::check(problems, world)
    }

    /// Certificates that end soon, or have ended.
    pub(crate) fn expiry_warnings(&self) -> Vec<Problem> {
        let now = SystemTime::now();
        self.certificates.iter().filter_map(|(files, certificate)| certificate.expiry_warning(files, now)).collect()
    }

    /// What the way in for browsers and scripts needs.
    pub(crate) fn http(&self) -> &Arc<HttpService> {
        &self.http
    }

    /// Certificates in use, with the files that they came from.
    pub(crate) fn certificates(&self) -> &[(CertificateFiles, Certificate)] {
        &self.certificates
    }

    /// The directory of accounts of that name.
    pub(crate) fn authenticator(&self, name: &str) -> Option<Arc<Authenticator>> {
        self.directories.authenticator(name)
    }

    /// Keys and tokens that everyone on this machine can read.
    fn exposure_warnings(&self) -> Vec<Problem> {
        let keys = self.certificates.iter().map(|(files, _)| &files.key);
        let traces = self.config.traces.iter().filter_map(|traces| traces.token_file.as_ref());
        let tokens = self.config.log.rules.iter().filter_map(|rule| match &rule.target {
            LogTarget::Remote { token_file, .. } => Some(token_file),
            _ => None,
        });
        keys.chain(tokens).chain(traces).filter_map(secret_file::exposure).collect()
    }

    /// Every address that is listened on.
    pub(crate) fn addresses(&self) -> &Arc<[SocketAddr]> {
        &self.own_listeners
    }

    /// Forgets what directories and name servers have said of a user, or of all; how many answers there were.
    pub(crate) fn forget(&self, user: Option<&str>) -> usize {
        // As it is given, and as each listener completes it.
        let names = self.config.listeners().map(|listener| &listener.names).chain([&self.config.names]);
        let users =
            user.map(|user| names.map(|names| names.canonical(user)).chain([user.to_owned()]).collect::<Vec<_>>());
        let users = users.as_deref();
        self.directories.forget(users) + self.map.forget(users)
    }

    /// Begins to look at the back ends, on the runtime that this is called on.
    pub(crate) fn look(&self, log: &Logger) -> Looking {
        let services = &self.config.services;
        let services =
            services.iter().map(|service| (service.protocol, service.own_greeting(&self.config.name))).collect();
        let own_listeners = Arc::clone(&self.own_listeners);
        self.map.look(&Looker { services, own_listeners, log: log.clone() })
    }

    /// What a connection to `address` needs; `None`: nobody listens there any more.
    pub(crate) fn snapshot(&self, address: SocketAddr) -> Option<Snapshot> {
        let listener = self.listeners.iter().find(|listener| listener.settings.written.address == address)?;
        Some(Snapshot {
            listener: Arc::clone(listener),
            access: Arc::clone(&self.access),
            map: Arc::clone(&self.map),
            own_listeners: Arc::clone(&self.own_listeners),
            defence: self.defence.clone(),
            tracer: self.tracer.clone(),
        })
    }
}

fn open_directories(
    config: &Config,
    log: &Logger,
    metrics: &Metrics,
    warnings: &mut Vec<Problem>,
    problems: &mut Vec<Problem>,
) -> Directories {
    let mut directories = Directories::default();
    for config::Directory { name, kind } in &config.directories {
        match kind {
            DirectoryKind::Accounts { source, abilities } => {
                match directory::open_accounts(source, &config.names, &config.tls, log, warnings) {
                    Ok(accounts) => {
                        let accounts = Arc::new(Measured::new(accounts, metrics.directory(name)));
                        let times = config.map.cache;
                        let authenticator = Authenticator::new(name, *abilities, accounts, times, &metrics.passwords);
                        directories.authenticators.push(Arc::new(authenticator));
                    }
                    Err(problem) => problems.push(problem),
                }
            }
            DirectoryKind::Tokens { settings, check } => {
                match directory::open_tokens(settings, check, &config.tls, warnings) {
                    Ok(tokens) => {
                        let tokens = Arc::new(Measured::new(tokens, metrics.directory(name)));
                        directories.token_checkers.push(Arc::new(TokenChecker::new(name, tokens)));
                    }
                    Err(problem) => problems.push(problem),
                }
            }
        }
    }
    directories
}

/// Where a client is told to get a token that this directory knows.
fn oauth_hints(config: &Config, directory: &str) -> OAuthHints {
    let found = config.directories.iter().find(|known| known.name == directory);
    let Some(DirectoryKind::Tokens { settings, .. }) = found.map(|found| &found.kind) else {
        return OAuthHints::default();
    };
    OAuthHints {
        scope: Some(settings.scope.join(" ")).filter(|scope| !scope.is_empty()),
        configuration: settings.discovery().map(|(_, url)| url.to_string()),
    }
}

/// Reads a certificate and adds it to those that are in use; what is wrong with it is a problem.
fn load_certificate(
    files: &CertificateFiles,
    certificates: &mut Vec<(CertificateFiles, Certificate)>,
    problems: &mut Vec<Problem>,
) -> Option<Certificate> {
    let certificate = Certificate::load(files).map_err(|problem| problems.push(problem)).ok()?;
    certificates.push((files.clone(), certificate.clone()));
    Some(certificate)
}

fn build_listeners(
    config: &Config,
    directories: &Directories,
    metrics: &Metrics,
    certificates: &mut Vec<(CertificateFiles, Certificate)>,
    problems: &mut Vec<Problem>,
) -> Vec<Arc<Listener>> {
    let mut load =
        |files: &CertificateFiles, problems: &mut Vec<Problem>| load_certificate(files, certificates, problems);
    let shared: Vec<_> = config.tls.certificates.iter().filter_map(|files| load(files, problems)).collect();
    let mut listeners = Vec::new();
    for settings in &config.services {
        let protocol = settings.protocol;
        let (checks, oauth) = match &settings.authenticate {
            Authenticate::Proxy { passwords, tokens } => {
                let checks = Checks {
                    passwords: passwords.iter().filter_map(|name| directories.authenticator(name)).collect(),
                    tokens: tokens.as_ref().and_then(|name| directories.token_checker(name)),
                };
                let oauth = tokens.as_ref().map(|name| oauth_hints(config, name)).unwrap_or_default();
                (Some(checks), oauth)
            }
            Authenticate::Backend => (None, OAuthHints::default()),
        };
        let service = Arc::new(Service {
            settings: settings.clone(),
            node: config.name.clone(),
            own_greeting: settings.own_greeting(&config.name),
            access: AccessLevel::new(&settings.access),
            scope: Scope { name: protocol.name.into(), limits: settings.written.limits },
            checks,
            oauth,
            metrics: metrics.service(protocol.name),
        });
        for settings in &settings.listeners {
            let own = settings.written.certificate.as_ref().and_then(|files| load(files, problems));
            let certificates = own.as_ref().map_or(&shared[..], std::slice::from_ref);
            let clients = settings.client_certificates(&service.settings);
            let tls = Spoken::new(settings.written.tls, || {
                let built = tls::server_config(certificates, config.tls.min_version, protocol.alpn, clients);
                // Why there is no certificate has been said.
                built.map_err(Some)?.ok_or(None)
            });
            let tls = match tls {
                Ok(tls) => tls,
                Err(problem) => {
                    problems.extend(problem);
                    continue;
                }
            };
            listeners.push(Arc::new(Listener {
                service: Arc::clone(&service),
                settings: settings.clone(),
                access: AccessLevel::new(&settings.access),
                scope: Scope { name: settings.name_at(protocol.name).into(), limits: settings.written.limits },
                tls,
                connections: metrics.listener(protocol.name, &settings.written.address.to_string()),
            }));
        }
    }
    listeners
}
