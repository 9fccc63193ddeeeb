//! Looks at back ends: each host is greeted and left politely now and then, and at once when a log-in fails there, so
//! that users need not find out that it is down, or that it is back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::Protocol;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::conversation::Trouble;
use super::host::HostState;
use super::reach::NOBODYS_LOG_IN;
use super::{Backend, Backends, Own};
use crate::config::Level;
use crate::log::Logger;
use crate::overrides::Duty;

/// While something is wrong, looks follow one another so fast.
const TROUBLE_INTERVAL: Duration = Duration::from_millis(500);
/// So many looks in a row must agree before a host counts as out of order, or as in order again.
const AGREEING: u32 = 2;
/// Looks at a time: each takes a file.
const LOOKS_MAX: usize = 8;
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
    permits: Arc<Semaphore>,
}

impl Backends {
    /// Begins to look at every host of the configuration's back ends, on the runtime that this is called on. Of hosts
    /// that directories name, only log-ins tell.
    pub(crate) fn look(&self, looker: &Looker) -> Looking {
        let mut tasks = JoinSet::new();
        let permits = Arc::new(Semaphore::new(LOOKS_MAX));
        for backend in self.named.values() {
            for (protocol, greeting) in &looker.services {
                let interval = backend.link(protocol.name).and_then(|link| link.settings.written.check_interval.0);
                for host in &backend.hosts {
                    let state = backend.state.host(protocol.name, host);
                    let Some(interval) = interval else {
                        // What looks found before a reload that ends them is nobody's to take back.
                        state.agreed(true);
                        continue;
                    };
                    let subject = Subject {
                        backend: Arc::clone(backend),
                        host: host.clone(),
                        state,
                        protocol,
                        greeting: greeting.clone(),
                        permits: Arc::clone(&permits),
                    };
                    tasks.spawn(watch(subject, looker.clone(), interval));
                }
            }
        }
        Looking { _tasks: tasks }
    }
}

/// Looks at one host, for ever.
async fn watch(subject: Subject, looker: Looker, interval: Duration) {
    // Looks in a row that say otherwise than what is held of the host.
    let mut contrary = 0;
    let mut failures = 0;
    // It was said that log-ins fail there.
    let mut is_told = false;
    // What clients may be promised is better known before the first comes; and what was found before a reload still
    // holds, until it is looked at again.
    let mut is_due = subject.protocol.tells_early || subject.state.is_missed();
    loop {
        if !std::mem::take(&mut is_due) {
            subject.wait(interval, contrary > 0).await;
        }
        if subject.backend.duty() == Some(Duty::Maint) {
            // Whoever works on it knows.
            continue;
        }
        let Some(found) = subject.look(&looker).await else { continue };
        let is_missed = subject.state.is_missed();
        contrary = if found.is_ok() == is_missed { contrary + 1 } else { 0 };
        if contrary >= AGREEING {
            contrary = 0;
            subject.state.agreed(found.is_ok());
            match &found {
                Ok(()) => subject.tell(&looker, Level::Info, "a host of a back end is in order again", None),
                Err(fault) => {
                    subject.state.note(fault.clone());
                    subject.tell(&looker, Level::Error, "a host of a back end is out of order", Some(fault));
                }
            }
        }
        let (failures_before, is_broken) = (failures, subject.state.is_broken());
        failures = subject.state.failures();
        if found.is_ok() {
            subject.state.found();
            // Log-ins failed since the look before, and this one finds nothing wrong.
            if is_broken && !is_missed && failures > failures_before && !is_told {
                is_told = true;
                let what =
                    "a host of a back end greets, but log-ins fail there: it is left alone but for one now and then";
                subject.tell(&looker, Level::Error, what, subject.state.fault().as_deref());
            }
        }
        is_told &= is_broken;
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
    /// Waits for the next look. However many log-ins fail, looks come no faster than this.
    async fn wait(&self, interval: Duration, is_urgent: bool) {
        tokio::time::sleep(TROUBLE_INTERVAL.min(interval)).await;
        if is_urgent || self.state.is_missed() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(shorter(interval)) => {}
            () = self.state.trouble() => {}
        }
    }

    /// One look; `None`: nobody knows.
    async fn look(&self, looker: &Looker) -> Option<Result<(), String>> {
        let _permit = self.permits.acquire().await;
        let link = self.backend.link(self.protocol.name)?;
        let own = Own { greeting: &self.greeting, listeners: &looker.own_listeners };
        let request = link.request(link.settings.protocol.look, None, own, None);
        let deadline = Instant::now() + link.settings.written.connect_timeout;
        Some(match self.backend.converse(&self.host, link, request, deadline).await {
            Ok(done) => {
                if let Some(list) = &done.welcome.capabilities {
                    self.backend.learn(self.protocol, &self.host, list);
                }
                Ok(())
            }
            // One that asks for patience is there, and says so to each log-in itself.
            Err(Trouble::Busy(_)) => Ok(()),
            Err(Trouble::Shortage(_)) => return None,
            Err(
                Trouble::Down(fault)
                | Trouble::Unanswered(fault)
                | Trouble::Unfit(fault)
                | Trouble::Loop(fault)
                | Trouble::Passed(fault),
            ) => Err(fault),
            Err(Trouble::BadCredentials) => Err(NOBODYS_LOG_IN.into()),
        })
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
