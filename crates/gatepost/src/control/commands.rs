//! What each command does.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::metrics::seconds_left;
use super::{Entrance, Server};
use crate::admin::{Answer, Command, LASTING_SECONDS_MAX, answer, answers};
use crate::config::{Level, Network, Problem, Problems};
use crate::ledger::bucket_end;
use crate::net::health::Standing;
use crate::net::tls::EXPIRY_WARNING;
use crate::overrides::{Ban, Duty};

/// What the sessions of a back end that is taken out of service have to end politely.
const MAINT_TIME: Duration = Duration::from_secs(5);
/// A drain takes no longer than this.
const DRAIN_SECONDS_MAX: u64 = 7 * 24 * 3600;
const DAY_SECONDS: i64 = 24 * 3600;

impl Server {
    /// Does what a command says, but for those that only the control loop can do.
    pub(super) async fn obey(self: &Arc<Self>, command: Command) -> Answer {
        match &command {
            Command::Status => answer(&command, [self.status()]),
            Command::Report { days, by_day } => answer(&command, self.reported(*days, *by_day).await?),
            Command::Users { directory } => answer(&command, self.users(directory.as_deref()).await?),
            Command::SetUser { name, change, directory } => {
                answer(&command, [self.set_user(name, change, directory.as_deref()).await?])
            }
            Command::RemoveUser { name, directory } => {
                answer(&command, [self.remove_user(name, directory.as_deref()).await?])
            }
            Command::Live => answer(&command, [self.live()]),
            Command::Explain { user } => {
                let world = self.entrance.world.load_full();
                let explained = crate::explain::explain(&world, user).await;
                let steps = explained.steps.into_iter().map(|(step, text)| answers::Step { step: step.into(), text });
                answer(&command, steps.collect::<Vec<_>>())
            }
            Command::Metrics { is_open } => answer(&command, [self.metrics(*is_open).await?]),
            Command::Sessions(whose) => {
                let own = match self.sessions(whose).await {
                    // There may be hundreds of thousands.
                    Ok(sessions) => {
                        let command = command.clone();
                        let work = tokio::task::spawn_blocking(move || answer(&command, sessions));
                        work.await.unwrap_or_else(|error| Err(error.to_string()))
                    }
                    Err(error) => Err(error),
                };
                self.with_elders(&command, own).await
            }
            Command::Kick(whose) => {
                let own = self.kick(whose).await.and_then(|kicked| answer(&command, kicked));
                self.with_elders(&command, own).await
            }
            Command::Backends => answer(&command, self.backends()),
            Command::Drain { backend, over_seconds } => {
                let over = Duration::from_secs((*over_seconds).min(DRAIN_SECONDS_MAX));
                answer(&command, [self.relieve(backend, Duty::Draining, over).await?])
            }
            Command::Maint { backend } => answer(&command, [self.relieve(backend, Duty::Maint, MAINT_TIME).await?]),
            Command::Ready { backend } => answer(&command, [self.make_ready(backend).await?]),
            Command::Move { user, backend } => answer(&command, [self.move_user(user, backend).await?]),
            Command::Bans => answer(&command, self.bans()),
            Command::Ban { network, for_seconds } => answer(&command, [self.ban(network, *for_seconds).await?]),
            Command::Unban { network } => answer(&command, [self.unban(network).await?]),
            Command::Trace { user, for_seconds } => answer(&command, [self.trace(user, *for_seconds)]),
            Command::Certificates => answer(&command, self.certificates()),
            Command::LogLevel { level } => {
                if !self.shared.log.set_level(*level) {
                    return Err("the log can't be written fast enough to be told: try again".into());
                }
                answer(&command, [answers::LogLevel { level: level.name().into() }])
            }
            Command::FlushCaches { user } => {
                let forgotten = self.entrance.world.load().forget(user.as_deref());
                answer(&command, [answers::Flushed { user: user.clone(), forgotten }])
            }
            Command::Settings => answer(&command, [self.settings()?]),
            Command::CheckSettings(changes) => answer(&command, [self.check_settings(changes).await?]),
            // The control loop sees to these.
            Command::ApplySettings(_)
            | Command::UndoSettings { .. }
            | Command::Reload
            | Command::Upgrade
            | Command::Stop => Err("not to be done here".into()),
        }
    }

    /// Every change has its record, and who asked for it.
    pub(super) fn note(&self, command: &Command, by: &str) {
        if command.changes() {
            let record = self.shared.log.record(Level::Info, "admin", "a command is carried out");
            record.with("command", command.words()).with("by", by).write();
        }
    }

    /// The answer to whoever has it stop.
    pub(super) fn stopping(&self) -> Answer {
        let seconds = self.entrance.world.load().config.drain.as_secs();
        answer(&Command::Stop, [answers::Stopping { drain_seconds: seconds }])
    }

    fn status(&self) -> answers::Status {
        let Entrance { world, workers, .. } = &*self.entrance;
        let world = world.load();
        answers::Status {
            name: world.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            up_seconds: self.started.elapsed().as_secs(),
            sessions: workers.sessions(),
            workers: workers.count(),
            listeners: world.addresses().iter().map(ToString::to_string).collect(),
            services: world.config.services.iter().map(|service| service.protocol.name.into()).collect(),
            by_service: world.config.services.iter().map(|service| self.held(service.protocol.name)).collect(),
            listening: world.config.services.iter().flat_map(listening).collect(),
        }
    }

    fn held(&self, service: &'static str) -> answers::Held {
        answers::Held { service: service.into(), sessions: self.shared.ledger.held(service) }
    }

    pub(super) fn backends(&self) -> Vec<answers::Backend> {
        let word = |is_up: bool| if is_up { "up" } else { "down" };
        let world = self.entrance.world.load();
        let reports = world.map.backends().report().into_iter().map(|report| {
            let is_up = report.hosts.iter().any(|host| host.standing == Standing::Up);
            let hosts = report.hosts.into_iter().map(|host| answers::Host {
                service: host.service.into(),
                host: host.host,
                state: word(host.standing == Standing::Up).into(),
                fault: host.fault,
            });
            answers::Backend {
                name: report.name.to_string(),
                state: report.duty.map_or(word(is_up), Duty::name).into(),
                connections: report.connections,
                hosts: hosts.collect(),
            }
        });
        reports.collect()
    }

    /// Whether the configuration has this back end; what else it has, if not.
    pub(super) fn check_backend(&self, name: &str) -> Result<(), String> {
        let world = self.entrance.world.load();
        if world.map.backends().named(name).is_some() {
            return Ok(());
        }
        let names = world.map.backends().report().iter().map(|report| report.name.to_string()).collect::<Vec<_>>();
        Err(format!("there is no back end {name:?} in the configuration, which has {}", names.join(", ")))
    }

    fn bans(&self) -> Vec<answers::Ban> {
        let guessing = self.shared.defence.banned(Instant::now()).into_iter().map(|(address, left)| answers::Ban {
            network: Network { first: address, last: bucket_end(address) }.to_string(),
            until: Some(rfc3339(SystemTime::now() + left)),
            by: "guessing".into(),
            ended: None,
        });
        let decided = self.lasting.overrides.bans().into_iter().map(|Ban { network, until }| answers::Ban {
            network: network.to_string(),
            until: until.map(rfc3339),
            by: "administrator".into(),
            ended: None,
        });
        decided.chain(guessing).collect()
    }

    async fn ban(&self, network: &str, seconds: Option<u64>) -> Result<answers::Ban, String> {
        let network = network_of(network)?;
        let until = seconds.map(|seconds| SystemTime::now() + Duration::from_secs(seconds.min(LASTING_SECONDS_MAX)));
        self.write_down(move |overrides| overrides.ban(network, until)).await?;
        let ended = self.end_those_from(&network).await?;
        let (network, until) = (network.to_string(), until.map(rfc3339));
        Ok(answers::Ban { network, until, by: "administrator".into(), ended: Some(ended) })
    }

    async fn unban(&self, network: &str) -> Result<answers::Unbanned, String> {
        let network = network_of(network)?;
        let lifted = usize::from(self.write_down(move |overrides| overrides.lift(network)).await?);
        let lifted = lifted + self.shared.defence.pardon(&network, Instant::now());
        if lifted == 0 {
            return Err(format!("there is no ban of {network}: `gatepost bans` lists all"));
        }
        Ok(answers::Unbanned { network: network.to_string(), lifted })
    }

    fn trace(&self, user: &str, seconds: u64) -> answers::Traced {
        let user = self.entrance.world.load().config.names.canonical(user);
        let seconds = seconds.min(LASTING_SECONDS_MAX);
        self.shared.log.following().follow(&user, Duration::from_secs(seconds), Instant::now());
        answers::Traced { user, seconds }
    }

    fn certificates(&self) -> Vec<answers::Certificate> {
        let world = self.entrance.world.load();
        let describe = |(files, certificate): &(crate::config::CertificateFiles, crate::net::tls::Certificate)| {
            let expires = certificate.expires();
            let left = expires.duration_since(SystemTime::now());
            answers::Certificate {
                names: certificate.names().to_vec(),
                chain: files.chain.display().to_string(),
                key: files.key.display().to_string(),
                until: rfc3339(expires),
                days_left: seconds_left(expires).div_euclid(DAY_SECONDS),
                state: match left {
                    Err(_) => "expired".into(),
                    Ok(left) if left < EXPIRY_WARNING => "expiring".into(),
                    Ok(_) => "good".into(),
                },
            }
        };
        world.certificates().iter().map(describe).collect()
    }
}

/// The listeners of a service.
fn listening(service: &crate::config::Service) -> impl Iterator<Item = answers::Listening> {
    let name = service.protocol.name;
    service
        .listeners
        .iter()
        .map(move |listener| answers::Listening { service: name.into(), address: listener.written.address.to_string() })
}

/// The answer to whoever has it reload.
pub(super) fn reloaded(result: &Result<Vec<Problem>, Problems>) -> Answer {
    let warnings = result.as_ref().map_err(ToString::to_string)?;
    let warnings = warnings.iter().map(ToString::to_string).collect();
    answer(&Command::Reload, [answers::Reloaded { warnings }])
}

pub(super) fn network_of(text: &str) -> Result<Network, String> {
    let expected = "a network such as 192.0.2.0/24, a range 192.0.2.5-192.0.2.9 or an address";
    let network = Network::parse(text).ok_or_else(|| format!("{text:?}: expected {expected}"))?;
    // Clients of IPv4 are known by that, however they come.
    if network.first.is_ipv6() && network.first.to_canonical().is_ipv4() {
        return Err(format!("{text:?}: write the IPv4 network that it stands for"));
    }
    Ok(network)
}

/// A moment as programs and people read it.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
