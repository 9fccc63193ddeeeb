//! Flow control: who holds how many connections, and how many came lately.
//!
//! One lock guards all counts, and a connection takes everything it needs under one hold of it or
//! nothing at all: the limits are exact however many threads ask. The counts outlive reloads.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Limits;

/// Something with limits of its own (a service, a listener, an access rule), by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) name: Arc<str>,
    pub(crate) limits: Limits,
}

/// A limit that is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) scope: Arc<str>,
    /// The setting's name.
    pub(crate) limit: &'static str,
    pub(crate) max: u32,
}

/// All counts of this node.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    scopes: Mutex<HashMap<Arc<str>, Account>>,
}

/// What one scope holds.
#[derive(Debug, Default)]
struct Account {
    total: Entry,
    by_address: HashMap<IpAddr, Entry>,
    /// Entries left after the last clean-up: the next comes when there are twice as many.
    clean_entries: usize,
}

/// Connections at once, and the times of the latest ones.
#[derive(Debug, Default)]
struct Entry {
    held: u32,
    recent: VecDeque<Instant>,
}

impl Entry {
    fn forget_before(&mut self, interval: Duration, now: Instant) {
        while self.recent.front().is_some_and(|&at| now.saturating_duration_since(at) >= interval) {
            self.recent.pop_front();
        }
    }

    /// What one more connection would break, if anything.
    fn exceeded(
        &mut self,
        (held, held_max): (&'static str, Option<u32>),
        (recent, recent_max): (&'static str, Option<u32>),
        interval: Duration,
        now: Instant,
    ) -> Option<(&'static str, u32)> {
        if let Some(max) = held_max.filter(|&max| self.held >= max) {
            return Some((held, max));
        }
        self.forget_before(interval, now);
        recent_max.filter(|&max| self.recent.len() >= max as usize).map(|max| (recent, max))
    }

    fn take(&mut self, timed: bool, now: Instant) {
        self.held += 1;
        if timed {
            self.recent.push_back(now);
        }
    }
}

/// Connections held in one or more scopes; given back on drop, however the session ends.
#[derive(Debug)]
pub(crate) struct Slots {
    ledger: Arc<Ledger>,
    scopes: Box<[Arc<str>]>,
    address: IpAddr,
}

impl Ledger {
    /// Takes a place in every scope for a connection from `address`, or in none.
    pub(crate) fn take<'a>(
        self: &Arc<Self>,
        scopes: impl Iterator<Item = &'a Scope> + Clone,
        address: IpAddr,
        now: Instant,
    ) -> Result<Slots, Exceeded> {
        let address = bucket(address);
        let mut accounts = self.lock();
        for scope in scopes.clone() {
            let account = accounts.entry(Arc::clone(&scope.name)).or_default();
            if let Some((limit, max)) = account.exceeded(&scope.limits, address, now) {
                return Err(Exceeded { scope: Arc::clone(&scope.name), limit, max });
            }
        }
        for scope in scopes.clone() {
            accounts.entry(Arc::clone(&scope.name)).or_default().take(&scope.limits, address, now);
        }
        Ok(Slots { ledger: Arc::clone(self), scopes: scopes.map(|scope| Arc::clone(&scope.name)).collect(), address })
    }

    /// Connections held in a scope now.
    pub(crate) fn held(&self, scope: &str) -> u32 {
        self.lock().get(scope).map_or(0, |account| account.total.held)
    }

    /// A panic elsewhere doesn't make counts wrong: each change is whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Account>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn exceeded(&mut self, limits: &Limits, address: IpAddr, now: Instant) -> Option<(&'static str, u32)> {
        let held = ("connections", limits.connections);
        let recent = ("new_connections", limits.new_connections);
        if let Some(exceeded) = self.total.exceeded(held, recent, limits.interval, now) {
            return Some(exceeded);
        }
        let held = ("connections_per_ip", limits.connections_per_ip);
        let recent = ("new_connections_per_ip", limits.new_connections_per_ip);
        let nothing = &mut Entry::default();
        self.by_address.get_mut(&address).unwrap_or(nothing).exceeded(held, recent, limits.interval, now)
    }

    fn take(&mut self, limits: &Limits, address: IpAddr, now: Instant) {
        self.total.take(limits.new_connections.is_some(), now);
        self.by_address.entry(address).or_default().take(limits.new_connections_per_ip.is_some(), now);
        if self.by_address.len() > 1024 + 2 * self.clean_entries {
            self.clean(limits.interval, now);
        }
    }

    /// Removes addresses that hold nothing and did nothing lately, so that passers-by don't add up.
    fn clean(&mut self, interval: Duration, now: Instant) {
        self.by_address.retain(|_, entry| {
            entry.forget_before(interval, now);
            entry.held > 0 || !entry.recent.is_empty()
        });
        self.clean_entries = self.by_address.len();
    }

    fn give_back(&mut self, address: IpAddr) {
        self.total.held = self.total.held.saturating_sub(1);
        if let Some(entry) = self.by_address.get_mut(&address) {
            entry.held = entry.held.saturating_sub(1);
            if entry.held == 0 && entry.recent.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let mut accounts = self.ledger.lock();
        for scope in &self.scopes {
            if let Some(account) = accounts.get_mut(scope) {
                account.give_back(self.address);
            }
        }
    }
}

/// The address as it is counted: a subscriber of IPv6 has a whole /64, and so is that one address.
pub(crate) fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Where the addresses end that are counted as this one.
pub(crate) fn bucket_end(bucket: IpAddr) -> IpAddr {
    match bucket {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) | u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(limits: Limits) -> Scope {
        Scope { name: "imap".into(), limits }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn limits_at_once_are_exact_under_concurrent_connects() {
        let ledger = Arc::new(Ledger::default());
        let scopes = [
            scope(Limits { connections: Some(100), ..Limits::NONE }),
            Scope { name: "listener".into(), limits: Limits { connections_per_ip: Some(30), ..Limits::NONE } },
        ];
        let held: Vec<_> = std::thread::scope(|threads| {
            let take = |n: u8| {
                let (ledger, scopes) = (&ledger, &scopes);
                threads.spawn(move || {
                    let from = IpAddr::from([10, 0, 0, n % 4]);
                    (0..50).filter_map(|_| ledger.take(scopes.iter(), from, Instant::now()).ok()).collect::<Vec<_>>()
                })
            };
            let threads: Vec<_> = (0..8).map(take).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
        });
        assert_eq!(held.len(), 100);
        assert_eq!(ledger.held("imap"), 100);
        for n in 0..4 {
            let from = held.iter().filter(|slots| slots.address == IpAddr::from([10, 0, 0, n])).count();
            assert!(from <= 30, "{from} from one address");
        }
        drop(held);
        assert_eq!((ledger.held("imap"), ledger.held("listener")), (0, 0));
    }

    #[test]
    fn a_refused_connection_takes_nothing_anywhere() {
        let ledger = Arc::new(Ledger::default());
        let scopes = [
            scope(Limits::NONE),
            Scope { name: "rule".into(), limits: Limits { connections: Some(0), ..Limits::NONE } },
        ];
        let refused = ledger.take(scopes.iter(), address("10.0.0.1"), Instant::now()).expect_err("over the limit");
        assert_eq!((&*refused.scope, refused.limit, refused.max), ("rule", "connections", 0));
        assert_eq!(ledger.held("imap"), 0);
    }

    #[test]
    fn no_interval_ever_holds_more_than_allowed() {
        let ledger = Arc::new(Ledger::default());
        let limits = Limits { new_connections: Some(3), interval: Duration::from_secs(10), ..Limits::NONE };
        let scopes = [scope(limits)];
        let start = Instant::now();
        let at = |second| ledger.take(scopes.iter(), address("10.0.0.1"), start + Duration::from_secs(second)).is_ok();
        assert_eq!([0, 8, 9, 9, 10, 11, 18, 19].map(at), [true, true, true, false, true, false, true, true]);
    }

    #[test]
    fn a_slash_64_is_one_address() {
        let ledger = Arc::new(Ledger::default());
        let scopes = [scope(Limits { connections_per_ip: Some(1), ..Limits::NONE })];
        let take = |text| ledger.take(scopes.iter(), address(text), Instant::now());
        let _first = take("2001:db8::1").expect("the first");
        assert!(take("2001:db8::ffff:1").is_err());
        let _other = take("2001:db8:0:1::1").expect("another /64");
        let _v4 = take("10.0.0.1").expect("IPv4");
        assert!(take("::ffff:10.0.0.1").is_err(), "a mapped address is the one it maps");
    }

    #[test]
    fn passers_by_are_forgotten() {
        let ledger = Arc::new(Ledger::default());
        let scopes =
            [scope(Limits { new_connections_per_ip: Some(9), interval: Duration::from_secs(1), ..Limits::NONE })];
        let start = Instant::now();
        for n in 0..100_000_u32 {
            let from = IpAddr::from(n.to_be_bytes());
            drop(ledger.take(scopes.iter(), from, start + Duration::from_millis(n.into())));
        }
        let kept = ledger.lock()["imap"].by_address.len();
        assert!(kept < 5000, "{kept} addresses are kept");
    }
}
