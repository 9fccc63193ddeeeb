//! Against guessing: failed log-ins make the next ones slow, and then refused.
//!
//! Failures are counted for the address, for the user, and for both together. No more log-ins are under way at a time
//! than may still fail, so that guesses made side by side are no cheaper than one after another. Whoever logged in from
//! an address lately is known there: to such a user, only their own failures from that place matter, so that nobody can
//! lock them out from elsewhere. The counts outlive reloads.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{self, Network};
use crate::ledger::bucket;
use crate::sliding::Sliding;

/// Addresses, users and pairs of both that are counted at once; beyond it, those seen least go first.
const COUNTED_MAX: usize = 200_000;
/// Users known at an address, remembered at once …
const KNOWN_MAX: usize = 200_000;
/// … and for how long after their last log-in there.
const KNOWN_TIME: Duration = Duration::from_hours(24 * 30);
/// The first delay. It doubles with each failure.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Failures that anybody may have without a delay.
const FREE_FAILURES: u32 = 2;
/// A place or a user has so many failures for each that somebody at that place would have: many share them.
const SHARE: u32 = 4;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Defence {
    /// Made when it is first needed.
    state: Mutex<Option<State>>,
    hasher: RandomState,
}

struct State {
    counters: quick_cache::unsync::Cache<Key, Counter>,
    known: quick_cache::unsync::Cache<Key, Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    User(Arc<str>),
    Pair(IpAddr, Arc<str>),
}

/// What is held against somebody.
#[derive(Debug, Clone)]
struct Counter {
    failures: Sliding,
    /// Log-ins under way.
    pending: u32,
    banned_until: Option<Instant>,
    /// A keyed hash of what was wrong last: a program that goes on trying an old password guesses nothing.
    last: Option<u64>,
}

impl Counter {
    fn new(now: Instant) -> Self {
        Self { failures: Sliding::new(now), pending: 0, banned_until: None, last: None }
    }

    fn roll(&mut self, window: Duration, now: Instant) {
        if self.banned_until.is_some_and(|until| until <= now) {
            // What the ban was for has been paid.
            *self = Self { pending: self.pending, ..Self::new(now) };
        }
        self.failures.roll(window, now);
    }
}

/// Who may not try at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Nobody at this address who isn't known there.
    Address,
    /// This user, from places where they are not known.
    User,
    /// Nobody, until some of those who try have ended.
    Crowded,
}

/// What a failure led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consequence {
    Nothing,
    /// From now on the address is banned.
    Ban,
}

/// A log-in under way; dropped without a word, as if it had never been.
pub(crate) struct Attempt {
    defence: Arc<Defence>,
    /// `None`: it is exempt, and nothing is counted.
    counted: Option<Counted>,
    /// How long it must wait before anybody is asked.
    pub(crate) delay: Duration,
}

/// Whom a log-in counts for, and by which rules.
struct Counted {
    settings: Arc<config::Defence>,
    address: IpAddr,
    /// The full name, where one is given.
    user: Option<Arc<str>>,
}

impl Counted {
    fn place(&self) -> Key {
        Key::Address(self.address)
    }

    fn pair(&self) -> Option<Key> {
        self.user.as_ref().map(|user| Key::Pair(self.address, Arc::clone(user)))
    }

    /// Everybody who is counted.
    fn keys(&self) -> impl Iterator<Item = Key> {
        let user = self.user.as_ref().map(|user| Key::User(Arc::clone(user)));
        [Some(self.place()), user, self.pair()].into_iter().flatten()
    }
}

impl Defence {
    /// Begins a log-in from `address`; `user` is the full name, where one is given.
    pub(crate) fn begin(
        self: &Arc<Self>,
        settings: Option<&Arc<config::Defence>>,
        address: IpAddr,
        user: Option<&str>,
        now: Instant,
    ) -> Result<Attempt, Stopped> {
        let is_exempt = |settings: &&Arc<config::Defence>| settings.exempt.iter().any(|net| net.contains(address));
        let Some(settings) = settings.filter(|settings| !is_exempt(settings)) else {
            return Ok(Attempt { defence: Arc::clone(self), counted: None, delay: Duration::ZERO });
        };
        let (settings, address) = (Arc::clone(settings), bucket(address));
        let counted = Counted { settings, address, user: user.map(Arc::from) };
        let mut guard = self.lock();
        let delay = guard.get_or_insert_with(State::new).begin(&counted, now)?;
        Ok(Attempt { defence: Arc::clone(self), counted: Some(counted), delay })
    }

    /// Whether nobody at `address` may log in: it is banned, and nobody is known there.
    pub(crate) fn bans(&self, settings: &config::Defence, address: IpAddr, now: Instant) -> bool {
        if settings.exempt.iter().any(|network| network.contains(address)) {
            return false;
        }
        let key = Key::Address(bucket(address));
        self.lock().as_ref().is_some_and(|state| {
            let counter = state.counters.get(&key);
            counter.is_some_and(|counter| counter.banned_until.is_some_and(|at| at > now)) && !state.knows(&key, now)
        })
    }

    /// Addresses that are banned, and for how long yet.
    pub(crate) fn banned(&self, now: Instant) -> Vec<(IpAddr, Duration)> {
        let guard = self.lock();
        let counted = guard.iter().flat_map(|state| state.counters.iter());
        let banned = counted.filter_map(|(key, counter)| match key {
            Key::Address(address) => Some((*address, counter.banned_until?.checked_duration_since(now)?)),
            Key::User(_) | Key::Pair(..) => None,
        });
        banned.collect()
    }

    /// Lifts the bans of addresses in `network`, and forgets what was held against them; how many there were.
    pub(crate) fn pardon(&self, network: &Network, now: Instant) -> usize {
        let banned = self.banned(now);
        let mut guard = self.lock();
        let Some(state) = guard.as_mut() else { return 0 };
        // One address of a network that counts as one stands for all of it.
        let one = (network.first == network.last).then(|| bucket(network.first));
        let pardoned = banned.iter().filter(|(address, _)| network.contains(*address) || one == Some(*address));
        pardoned
            .filter(|(address, _)| {
                let counter = state.counters.get_mut(&Key::Address(*address));
                counter
                    .map(|mut counter| *counter = Counter { pending: counter.pending, ..Counter::new(now) })
                    .is_some()
            })
            .count()
    }

    /// A keyed hash of what a client showed.
    pub(crate) fn tag(&self, shown: &[u8]) -> u64 {
        self.hasher.hash_one(shown)
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> Self {
        Self {
            counters: quick_cache::unsync::Cache::new(COUNTED_MAX),
            known: quick_cache::unsync::Cache::new(KNOWN_MAX),
        }
    }

    /// One more is under way, if it may be: how long it must wait.
    fn begin(&mut self, counted: &Counted, now: Instant) -> Result<Duration, Stopped> {
        let settings = &counted.settings;
        let is_known = counted.pair().is_some_and(|pair| self.knows(&pair, now));
        let mut is_crowded = false;
        let mut level = 0;
        for key in counted.keys() {
            // Where a user is known, others' failures are not theirs.
            if is_known && !matches!(key, Key::Pair(..)) {
                continue;
            }
            let (count, pending, is_banned) = self.with(&key, settings.window, now, |counter| {
                let is_banned = counter.banned_until.is_some_and(|until| until > now);
                (counter.failures.count(settings.window, now), counter.pending, is_banned)
            });
            let (max, stopped, share) = match key {
                Key::Address(_) if is_banned => return Err(Stopped::Address),
                Key::Address(_) => (settings.failures_per_ip, Stopped::Address, SHARE),
                Key::User(_) => (settings.failures_per_user, Stopped::User, SHARE),
                Key::Pair(..) => (settings.failures_per_user, Stopped::User, 1),
            };
            if count >= max {
                return Err(stopped);
            }
            is_crowded |= count + pending >= max;
            level = level.max(count / share);
        }
        if is_crowded {
            return Err(Stopped::Crowded);
        }
        for key in counted.keys() {
            self.with(&key, settings.window, now, |counter| counter.pending += 1);
        }
        let doublings = level.checked_sub(FREE_FAILURES);
        let delay = doublings.map_or(Duration::ZERO, |n| FIRST_DELAY.saturating_mul(2_u32.saturating_pow(n)));
        Ok(delay.min(settings.delay))
    }

    /// One fewer is under way.
    fn end(&mut self, counted: &Counted) {
        for key in counted.keys() {
            if let Some(mut counter) = self.counters.get_mut(&key) {
                counter.pending = counter.pending.saturating_sub(1);
            }
        }
    }

    /// Looks at a counter, and changes it.
    fn with<T>(&mut self, key: &Key, window: Duration, now: Instant, work: impl FnOnce(&mut Counter) -> T) -> T {
        let mut counter = self.counters.get(key).cloned().unwrap_or_else(|| Counter::new(now));
        counter.roll(window, now);
        let result = work(&mut counter);
        self.counters.insert(key.clone(), counter);
        result
    }

    fn knows(&self, key: &Key, now: Instant) -> bool {
        self.known.get(key).is_some_and(|at| now.saturating_duration_since(*at) < KNOWN_TIME)
    }
}

impl Attempt {
    /// The password was right: the user is known here from now on.
    pub(crate) fn succeeded(self, user: &str, now: Instant) {
        let Some(counted) = &self.counted else { return };
        let (place, pair) = (counted.place(), Key::Pair(counted.address, user.into()));
        let mut guard = self.defence.lock();
        let state = guard.get_or_insert_with(State::new);
        if let Some(mut counter) = state.counters.get_mut(&pair) {
            (counter.failures, counter.last) = (Sliding::new(now), None);
        }
        state.known.insert(place, now);
        state.known.insert(pair, now);
    }

    /// What the client showed, by its [`Defence::tag`], was wrong.
    pub(crate) fn failed(mut self, tag: u64, now: Instant) -> Consequence {
        let Some(counted) = self.counted.take() else { return Consequence::Nothing };
        let settings = &counted.settings;
        let mut guard = self.defence.lock();
        let state = guard.get_or_insert_with(State::new);
        let is_repeated = counted.pair().is_some_and(|pair| {
            state.with(&pair, settings.window, now, |counter| counter.last.replace(tag) == Some(tag))
        });
        state.end(&counted);
        if is_repeated {
            return Consequence::Nothing;
        }
        for key in counted.keys() {
            state.with(&key, settings.window, now, |counter| counter.failures.add());
        }
        let is_banned = state.with(&counted.place(), settings.window, now, |counter| {
            let is_over = counter.failures.count(settings.window, now) >= settings.failures_per_ip;
            let is_new = is_over && counter.banned_until.is_none_or(|until| until <= now);
            if is_new {
                counter.banned_until = Some(now + settings.ban);
            }
            is_new
        });
        if is_banned { Consequence::Ban } else { Consequence::Nothing }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(counted) = &self.counted
            && let Some(state) = self.defence.lock().as_mut()
        {
            state.end(counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bed {
        defence: Arc<Defence>,
        settings: Arc<config::Defence>,
        start: Instant,
    }

    impl Bed {
        fn new() -> Self {
            let settings = config::Defence {
                failures_per_ip: 10,
                failures_per_user: 6,
                window: Duration::from_mins(10),
                delay: Duration::from_secs(15),
                ban: Duration::from_hours(1),
                exempt: vec![config::Network::parse("192.0.2.0/24").expect("a network")],
            };
            Self { defence: Arc::default(), settings: Arc::new(settings), start: Instant::now() }
        }

        fn begin(&self, from: &str, user: &str, second: u64) -> Result<Attempt, Stopped> {
            let now = self.start + Duration::from_secs(second);
            self.defence.begin(Some(&self.settings), from.parse().expect("an address"), Some(user), now)
        }

        /// A wrong guess; each is another.
        fn guess(&self, from: &str, user: &str, second: u64) -> Result<Consequence, Stopped> {
            static GUESS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            let tag = GUESS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let attempt = self.begin(from, user, second)?;
            Ok(attempt.failed(tag, self.start + Duration::from_secs(second)))
        }

        fn log_in(&self, from: &str, user: &str, second: u64) {
            let attempt = self.begin(from, user, second).unwrap_or_else(|stopped| panic!("{stopped:?}"));
            attempt.succeeded(user, self.start + Duration::from_secs(second));
        }
    }

    #[test]
    fn one_address_that_tries_many_users_is_banned() {
        let bed = Bed::new();
        for n in 0..9 {
            assert_eq!(bed.guess("10.0.0.1", &format!("user{n}"), n), Ok(Consequence::Nothing));
        }
        assert_eq!(bed.guess("10.0.0.1", "user9", 9), Ok(Consequence::Ban));
        assert_eq!(bed.guess("10.0.0.1", "user10", 10), Err(Stopped::Address));
        assert!(bed.defence.bans(&bed.settings, "10.0.0.1".parse().expect("an address"), bed.start));
        assert!(bed.begin("10.0.0.2", "user10", 10).is_ok(), "another address");
        assert!(bed.begin("10.0.0.1", "user10", 3500).is_err(), "an hour is not over");
        let banned = bed.defence.banned(bed.start);
        assert_eq!(banned.iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>(), ["10.0.0.1"]);
        assert!(bed.begin("10.0.0.1", "user10", 3700).is_ok());
        (0..10).for_each(|n| assert!(bed.guess("10.0.0.3", &format!("user{n}"), 1).is_ok()));
        assert_eq!(bed.guess("10.0.0.3", "user11", 2), Err(Stopped::Address));
        assert_eq!(bed.defence.pardon(&config::Network::parse("10.0.0.0/30").expect("a network"), bed.start), 1);
        assert!(bed.guess("10.0.0.3", "user11", 2).is_ok(), "it is pardoned");
    }

    #[test]
    fn many_addresses_that_try_one_user_are_stopped_and_the_user_still_gets_in() {
        let bed = Bed::new();
        bed.log_in("10.1.1.1", "kim", 0);
        for n in 0..6 {
            assert_eq!(bed.guess(&format!("10.0.0.{n}"), "kim", 1), Ok(Consequence::Nothing));
        }
        assert_eq!(bed.guess("10.0.0.9", "kim", 2), Err(Stopped::User));
        let own = bed.begin("10.1.1.1", "kim", 2).unwrap_or_else(|stopped| panic!("{stopped:?}"));
        assert_eq!(own.delay, Duration::ZERO, "others' failures are not kim's");
        drop(own);
        assert!(bed.begin("10.0.0.9", "lee", 2).is_ok(), "another user");
        assert!(bed.begin("10.0.0.9", "kim", 1300).is_ok(), "the window has passed");
    }

    #[test]
    fn a_known_place_is_no_licence_to_guess() {
        let bed = Bed::new();
        bed.log_in("10.1.1.1", "kim", 0);
        for _ in 0..6 {
            assert!(bed.guess("10.1.1.1", "kim", 1).is_ok());
        }
        assert_eq!(bed.guess("10.1.1.1", "kim", 1), Err(Stopped::User));
    }

    #[test]
    fn a_banned_address_lets_those_in_who_are_known_there() {
        let bed = Bed::new();
        bed.log_in("10.1.1.1", "kim", 0);
        for n in 0..10 {
            assert!(bed.guess("10.1.1.1", &format!("user{n}"), 1).is_ok());
        }
        assert_eq!(bed.guess("10.1.1.1", "lee", 2), Err(Stopped::Address));
        bed.log_in("10.1.1.1", "kim", 3);
        assert!(!bed.defence.bans(&bed.settings, "10.1.1.1".parse().expect("an address"), bed.start));
    }

    #[test]
    fn delays_grow_to_their_limit() {
        let bed = Bed::new();
        let mut delays = Vec::new();
        for _ in 0..6 {
            let attempt = bed.begin("10.0.0.1", "kim", 1).unwrap_or_else(|stopped| panic!("{stopped:?}"));
            delays.push(attempt.delay.as_secs());
            let tag = delays.len() as u64 + 1_000_000;
            attempt.failed(tag, bed.start);
        }
        assert_eq!(delays, [0, 0, 1, 2, 4, 8]);
    }

    #[test]
    fn guesses_side_by_side_are_no_cheaper() {
        let bed = Bed::new();
        let attempts: Vec<_> = (0..20).map_while(|_| bed.begin("10.0.0.1", "kim", 1).ok()).collect();
        assert_eq!(attempts.len(), 6);
        drop(attempts);
        assert!(bed.begin("10.0.0.1", "kim", 1).is_ok(), "none of them turned out to be wrong");
    }

    #[test]
    fn a_slash_64_is_one_address_and_some_are_exempt() {
        let bed = Bed::new();
        for n in 0..10 {
            assert!(bed.guess(&format!("2001:db8::{n}"), &format!("user{n}"), 1).is_ok());
        }
        assert_eq!(bed.guess("2001:db8::ffff", "lee", 1), Err(Stopped::Address));
        for n in 0..50 {
            assert!(bed.guess("192.0.2.7", &format!("user{}", n % 3), 1).is_ok());
        }
    }

    #[test]
    fn an_old_password_that_a_program_goes_on_trying_is_one_failure() {
        let bed = Bed::new();
        for second in 0..50 {
            let attempt = bed.begin("10.0.0.1", "kim", second).unwrap_or_else(|stopped| panic!("{stopped:?}"));
            assert_eq!(attempt.failed(7, bed.start), Consequence::Nothing);
        }
    }
}
