//! Looks at back ends: each host is greeted and left politely now and then, and at once when a log-in fails there, so
//! that users need not find out that it is down, or that it is back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::{BackAim, BackSetup, Protocol, proxy_header};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::conversation::{Errand, Trouble};
use super::host::HostState;
use super::{Backend, Backends, ServiceLink};
use crate::config::{Announce, Level, TlsMode};
use crate::log::Logger;

/// While something is wrong, looks follow one another so fast.
const TROUBLE_INTERVAL: Duration = Duration::from_millis(500);
/// So many looks in a row must agree before a host counts as out of order, or as in order again.
const AGREEING: u32 = 2;
/// No two nodes should look at the same moment for ever: intervals are up to so much shorter, as a divisor.
const JITTER_DIVISOR: u32 = 4;

/// What looks need to know, and whom they tell.
#[derive(Clone)]
pub(crate) struct Looker {
    /// Each service's protocol and greeting.
    pub(crate) services: Vec<(&'static Protocol, String)>,
    pub(crate) own_listeners: Arc<[SocketAddr]>,
    pub(crate) log: Logger,
}

/// Looks under way; dropped, they end.
#[derive(Debug, Default)]
pub(crate) struct Looking {
    _tasks: JoinSet<()>,
}

/// A host that is looked at.
struct Subject {
    backend: Arc<Backend>,
    host: String,
    state: Arc<HostState>,
    protocol: &'static Protocol,
    greeting: String,
}

impl Backends {
    /// Begins to look at every host of the configuration's back ends, on the runtime that this is called on. Of hosts
    /// that directories name, only log-ins tell.
    pub(crate) fn look(&self, looker: &Looker) -> Looking {
        let mut tasks = JoinSet::new();
        for backend in self.named.values() {
            for (protocol, greeting) in &looker.services {
                let Some(interval) = backend.link(protocol.name).and_then(|link| link.settings.check_interval) else {
                    continue;
                };
                for host in &backend.hosts {
                    let subject = Subject {
                        backend: Arc::clone(backend),
                        host: host.clone(),
                        state: backend.state.host(protocol.name, host),
                        protocol,
                        greeting: greeting.clone(),
                    };
                    tasks.spawn(watch(subject, looker.clone(), interval));
                }
            }
        }
        Looking { _tasks: tasks }
    }
}

/// How a host seems to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opinion {
    Up,
    Down,
}

/// Looks at one host, for ever.
async fn watch(subject: Subject, looker: Looker, interval: Duration) {
    let mut opinion = Opinion::Up;
    // Looks in a row that say otherwise.
    let mut contrary = 0;
    let mut is_told_broken = false;
    loop {
        // However many log-ins fail, looks come no faster.
        tokio::time::sleep(TROUBLE_INTERVAL.min(interval)).await;
        if opinion == Opinion::Up && contrary == 0 {
            tokio::select! {
                () = tokio::time::sleep(shorter(interval)) => {}
                () = subject.state.trouble() => {}
            }
        }
        let found = subject.look(&looker).await;
        let seen = if found.is_ok() { Opinion::Up } else { Opinion::Down };
        contrary = if seen == opinion { 0 } else { contrary + 1 };
        if contrary >= AGREEING {
            (opinion, contrary) = (seen, 0);
            subject.state.looked(seen == Opinion::Up);
            match &found {
                Ok(()) => subject.tell(&looker, Level::Info, "a host of a back end is in order again", None),
                Err(fault) => {
                    subject.state.note(fault.clone());
                    subject.tell(&looker, Level::Error, "a host of a back end is out of order", Some(fault));
                }
            }
        }
        let is_broken = found.is_ok() && subject.state.is_broken();
        if is_broken && !is_told_broken {
            let what = "a host of a back end greets, but log-ins fail there: it is left alone but for one now and then";
            subject.tell(&looker, Level::Error, what, Some(&subject.state.fault()));
        }
        is_told_broken = is_broken;
    }
}

/// Somewhat shorter than `interval`, by chance.
fn shorter(interval: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness all look at once, which does no harm.
    let _ = getrandom::fill(&mut random);
    interval.saturating_sub(interval / JITTER_DIVISOR * u32::from(random[0]) / 255)
}

impl Subject {
    /// One look.
    async fn look(&self, looker: &Looker) -> Result<(), String> {
        let Some(link) = self.backend.link(self.protocol.name) else { return Ok(()) };
        let ServiceLink { settings, .. } = link;
        let setup = BackSetup {
            starttls: settings.tls == TlsMode::StartTls,
            aim: BackAim::Check,
            id: Vec::new(),
            own_greeting: self.greeting.clone(),
            trace: false,
        };
        let header = match settings.announce {
            Announce::ProxyV2 => proxy_header::write_v2_local(),
            Announce::Id | Announce::Nothing => Vec::new(),
        };
        let own_listeners = &looker.own_listeners;
        let errand = Errand { protocol: self.protocol, setup, header, own_listeners, tell: None };
        let deadline = Instant::now() + settings.connect_timeout;
        match self.backend.converse(&self.host, link, errand, deadline).await {
            // One that asks for patience is there, and says so to each log-in itself.
            Ok(_) | Err(Trouble::Busy(_)) => Ok(()),
            Err(Trouble::Down(fault) | Trouble::Unfit(fault) | Trouble::Loop(fault) | Trouble::Passed(fault)) => {
                Err(fault)
            }
            Err(Trouble::BadCredentials) => Err("it answers a log-in that nobody made".into()),
        }
    }

    fn tell(&self, looker: &Looker, level: Level, what: &str, fault: Option<&str>) {
        let mut record = looker.log.record(level, self.protocol.name, what);
        record = record.with("backend", &*self.backend.name).with("host", self.host.as_str());
        if let Some(fault) = fault {
            record = record.with("fault", fault);
        }
        record.write();
    }
}
