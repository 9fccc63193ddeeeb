//! What is known of running back ends: connections, how their hosts are doing, what they offer. It outlives the
//! configuration that names them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gatepost_wire::Offers;

use super::host::HostState;
use crate::net::resolve::KnownNames;

/// What is known of running back ends, by name; outlives reloads.
#[derive(Debug, Default)]
pub(crate) struct States {
    by_name: Mutex<HashMap<String, Arc<State>>>,
    pub(super) names: Arc<KnownNames>,
}

/// What is known of one running back end.
#[derive(Debug, Default)]
pub(super) struct State {
    connections: AtomicU32,
    /// The same by service, where there are any.
    used: Mutex<Vec<(&'static str, Weak<Used>)>>,
    next_source: AtomicUsize,
    offers: Mutex<HashMap<(&'static str, String), Offers>>,
    hosts: Mutex<HashMap<(&'static str, String), Arc<HostState>>>,
}

impl States {
    /// Forgets back ends that nobody refers to any more.
    pub(super) fn forget_unused(&self) {
        let mut states = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|_, state| Arc::strong_count(state) > 1);
    }

    /// What is known of the back end of this name.
    pub(super) fn of(&self, name: &str) -> Arc<State> {
        let mut states = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(states.entry(name.to_owned()).or_default())
    }
}

/// Connections to a back end for one service.
#[derive(Debug)]
struct Used {
    state: Arc<State>,
    connections: AtomicU32,
}

/// A connection to a back end, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Used>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.state.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    /// Takes a connection for a service unless there are `max` already, for all of them; an error is how many there are.
    pub(super) fn lease(self: &Arc<Self>, service: &'static str, max: Option<u32>) -> Result<Lease, u32> {
        let take = |held: u32| max.is_none_or(|max| held < max).then_some(held + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)?;
        let used = self.used(service);
        used.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Lease(used))
    }

    /// The connections that are held at this moment.
    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Those of one service.
    pub(super) fn connections_of(&self, service: &str) -> u32 {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let of_service = used.iter().find(|(name, _)| *name == service).and_then(|(_, used)| used.upgrade());
        of_service.map_or(0, |used| used.connections.load(Ordering::Relaxed))
    }

    /// The number of the next connection, by which sources take turns.
    pub(super) fn next_turn(&self) -> usize {
        self.next_source.fetch_add(1, Ordering::Relaxed)
    }

    /// What a service uses of it.
    fn used(self: &Arc<Self>, service: &'static str) -> Arc<Used> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // No more than there are services, and alive for as long as there is a connection.
        if let Some((_, used)) = used.iter().find(|(name, _)| *name == service)
            && let Some(used) = used.upgrade()
        {
            return used;
        }
        let fresh = Arc::new(Used { state: Arc::clone(self), connections: AtomicU32::new(0) });
        used.retain(|(name, _)| *name != service);
        used.push((service, Arc::downgrade(&fresh)));
        fresh
    }

    /// What each service was offered lately by each host.
    pub(super) fn offers(&self) -> MutexGuard<'_, HashMap<(&'static str, String), Offers>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a host is doing, for a service.
    pub(super) fn host(&self, service: &'static str, host: &str) -> Arc<HostState> {
        let mut known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry((service, host.to_owned())).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_exact_and_come_back() {
        let state = Arc::new(State::default());
        let held: Vec<_> = (0..3).filter_map(|_| state.lease("imap", Some(2)).ok()).collect();
        assert_eq!((held.len(), state.connections()), (2, 2));
        assert_eq!((state.connections_of("imap"), state.connections_of("pop3")), (2, 0));
        drop(held);
        assert_eq!((state.connections(), state.connections_of("imap")), (0, 0));
        assert!(state.lease("pop3", None).is_ok());
    }
}
