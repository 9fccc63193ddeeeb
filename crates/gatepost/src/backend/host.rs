//! How one host of a back end is doing, for one service.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::ledger::bucket;
use crate::net::health::{Health, Standing, uptime};

/// So many clients in a row must fail behind the greeting before that is the host's fault.
const CLIENTS_MAX: usize = 5;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct HostState {
    health: Health,
    known: Mutex<Known>,
    /// A log-in failed there: worth a look.
    trouble: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// What was wrong last.
    fault: Option<String>,
    /// Clients whose log-ins failed behind the greeting since one was answered: what is wrong with one of them may be
    /// that client's own doing.
    clients: Vec<IpAddr>,
}

/// A log-in's moment of beginning, by which later ones are told from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning(u64);

impl Beginning {
    pub(super) fn now() -> Self {
        Self(uptime())
    }
}

impl HostState {
    /// A log-in was answered.
    pub(super) fn served(&self) {
        self.health.mark_up();
        self.known().clients.clear();
    }

    /// A log-in failed before it was made: because of the host, whoever made it.
    pub(super) fn failed(&self, begun: Beginning, fault: String) {
        self.health.mark_down_since(begun.0);
        self.note(fault);
        self.trouble.notify_one();
    }

    /// A log-in of this client's was made, and not answered. That is held against the host once several clients in a
    /// row say so.
    pub(super) fn unanswered(&self, begun: Beginning, client: IpAddr, fault: String) {
        let mut known = self.known();
        let client = bucket(client);
        if known.clients.len() < CLIENTS_MAX && !known.clients.contains(&client) {
            known.clients.push(client);
        }
        let are_many = known.clients.len() >= CLIENTS_MAX;
        known.fault = Some(fault);
        drop(known);
        if are_many {
            self.health.mark_down_since(begun.0);
        }
        self.trouble.notify_one();
    }

    /// This is wrong.
    pub(super) fn note(&self, fault: String) {
        self.known().fault = Some(fault);
    }

    /// Looks agree that it is in order, or out of it.
    pub(super) fn agreed(&self, is_found: bool) {
        if is_found {
            self.health.mark_found();
        } else {
            self.health.mark_missed();
        }
    }

    /// One look found it in order.
    pub(super) fn found(&self) {
        self.health.forgive();
    }

    /// Whether looks find it out of order.
    pub(super) fn is_missed(&self) -> bool {
        self.health.is_missed()
    }

    /// What whoever is about to log in should do about it.
    pub(super) fn standing(&self) -> Standing {
        self.health.standing()
    }

    /// As [`HostState::standing`], for whoever only wants to know.
    pub(super) fn appears(&self) -> Standing {
        self.health.appears()
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.health.failures()
    }

    /// Whether they are so many that it is left alone.
    pub(super) fn is_broken(&self) -> bool {
        self.health.is_broken()
    }

    /// What was wrong last.
    pub(super) fn fault(&self) -> Option<String> {
        self.known().fault.clone()
    }

    /// Waits until a log-in fails.
    pub(super) async fn trouble(&self) {
        self.trouble.notified().await;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_alone_takes_no_host_from_the_others() {
        let state = HostState::default();
        let client = |n: u8| IpAddr::from([192, 0, 2, n]);
        for _ in 0..100 {
            state.unanswered(Beginning::now(), client(1), "it closed the connection".into());
        }
        assert_eq!(state.standing(), Standing::Up);
        (2..5).for_each(|n| state.unanswered(Beginning::now(), client(n), String::new()));
        assert_eq!(state.standing(), Standing::Up);
        state.unanswered(Beginning::now(), client(5), "no answer".into());
        assert_eq!((state.standing(), state.fault().as_deref()), (Standing::Last, Some("no answer")));
        state.served();
        state.unanswered(Beginning::now(), client(6), String::new());
        assert_eq!(state.standing(), Standing::Up, "they are counted from there");
    }
}
