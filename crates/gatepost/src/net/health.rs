//! How servers are doing: which of several should be asked first, and which had better be left alone.
//!
//! What is found in use and what is found by looks at a server are two things: a server that greets and then fails
//! whoever comes in would otherwise be up and down in turns.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A server that failed is tried last for this long. Short: one that returns is used again within two seconds.
const DOWN_TIME: Duration = Duration::from_millis(1500);
/// One that looks find out of order too is tried so seldom: whether it returns, the looks will find.
const MISSED_DOWN_TIME: Duration = Duration::from_secs(10);
/// After so many failures in a row a server is left alone, but for one that tries it now and then …
const BREAK_FAILURES: u32 = 5;
/// … unless all of them came within this time: many fail at once in a restart of a moment.
const BREAK_TIME: Duration = Duration::from_secs(2);
/// One that is left alone, looks well and is tried by nobody gets another chance after this time.
const FORGIVE_TIME: Duration = Duration::from_mins(1);

/// How one server is doing. Times are in milliseconds of [`uptime`]; 0 is no time.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// When it may be tried in its turn again; 0: it did not fail last time.
    down_until: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    /// When the first of them was, and the last.
    failing_since: AtomicU64,
    failed_at: AtomicU64,
    served_at: AtomicU64,
    /// Looks find it out of order.
    is_missed: AtomicBool,
}

/// What should be done about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Ask it in its turn.
    Up,
    /// Ask the others first.
    Last,
    /// Leave it alone.
    Out,
}

/// Milliseconds since the program's first use of this clock, from 1.
pub(crate) fn uptime() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

const fn milliseconds(time: Duration) -> u64 {
    time.as_millis() as u64
}

impl Health {
    /// It failed.
    pub(crate) fn mark_down(&self) {
        self.mark_down_since(u64::MAX);
    }

    /// It failed whoever began to ask it at `begun`; if it has served others since, that says nothing.
    pub(crate) fn mark_down_since(&self, begun: u64) {
        if begun < self.served_at.load(Ordering::Relaxed) {
            return;
        }
        let now = uptime();
        if self.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            self.failing_since.store(now, Ordering::Relaxed);
        }
        self.failed_at.store(now, Ordering::Relaxed);
        self.down_until.store(now + self.pause(), Ordering::Relaxed);
    }

    /// It served.
    pub(crate) fn mark_up(&self) {
        self.served_at.store(uptime(), Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.down_until.store(0, Ordering::Relaxed);
    }

    /// It served, or failed.
    pub(crate) fn mark(&self, served: bool) {
        if served {
            self.mark_up();
        } else {
            self.mark_down();
        }
    }

    /// Looks find it out of order.
    pub(crate) fn mark_missed(&self) {
        self.is_missed.store(true, Ordering::Relaxed);
    }

    /// Looks find it in order again: if it failed before, the next who comes finds whether it serves, too.
    pub(crate) fn mark_found(&self) {
        self.is_missed.store(false, Ordering::Relaxed);
        let soon = |until| (until != 0).then(uptime);
        let _ = self.down_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, soon);
    }

    /// A look found it in order. One that is left alone and has been tried by nobody for long gets another chance;
    /// its next failure takes that back.
    pub(crate) fn forgive(&self) {
        let failed_at = self.failed_at.load(Ordering::Relaxed);
        if self.is_broken() && uptime().saturating_sub(failed_at) >= milliseconds(FORGIVE_TIME) {
            self.failures.store(BREAK_FAILURES - 1, Ordering::Relaxed);
            self.down_until.store(0, Ordering::Relaxed);
        }
    }

    /// Whether looks find it out of order.
    pub(crate) fn is_missed(&self) -> bool {
        self.is_missed.load(Ordering::Relaxed)
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether so many failed in a row, and over so long, that it is left alone.
    pub(crate) fn is_broken(&self) -> bool {
        let span = self.failed_at.load(Ordering::Relaxed).saturating_sub(self.failing_since.load(Ordering::Relaxed));
        self.failures() >= BREAK_FAILURES && span >= milliseconds(BREAK_TIME)
    }

    /// What should be done about it, by whoever is about to. One that failed and whose time is over is up to one
    /// caller; to the others it stays as it was until that one knows better.
    pub(crate) fn standing(&self) -> Standing {
        let until = self.down_until.load(Ordering::Relaxed);
        let now = uptime();
        let is_turn = || {
            let next = now + self.pause();
            self.down_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        self.verdict(until == 0 || (now >= until && is_turn()))
    }

    /// As [`Health::standing`], for whoever only wants to know. Takes nobody's turn.
    pub(crate) fn appears(&self) -> Standing {
        let until = self.down_until.load(Ordering::Relaxed);
        self.verdict(until == 0 || uptime() >= until)
    }

    fn verdict(&self, is_due: bool) -> Standing {
        match (is_due, self.is_missed()) {
            (true, false) => Standing::Up,
            (true, true) => Standing::Last,
            (false, _) if self.is_broken() => Standing::Out,
            (false, _) => Standing::Last,
        }
    }

    /// Whether it failed lately, as far as anybody knows. Takes nobody's turn.
    pub(crate) fn is_down(&self) -> bool {
        let until = self.down_until.load(Ordering::Relaxed);
        until != 0 && uptime() < until
    }

    fn pause(&self) -> u64 {
        milliseconds(if self.is_missed() { MISSED_DOWN_TIME } else { DOWN_TIME })
    }
}

/// `servers` in the order in which they should be tried: those that are down last. With a single one there
/// is no choice, and asking it is the fastest way to know.
pub(crate) fn in_order<T>(servers: Vec<T>, health: impl Fn(&T) -> &Health) -> Vec<T> {
    if servers.len() == 1 {
        return servers;
    }
    let is_up = |server: &T| health(server).standing() == Standing::Up;
    let (mut up, mut down): (Vec<_>, Vec<_>) = servers.into_iter().partition(is_up);
    up.append(&mut down);
    up
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its time is over.
    fn pass(health: &Health) {
        health.down_until.store(uptime(), Ordering::Relaxed);
    }

    #[test]
    fn a_server_that_failed_is_tried_by_one_once_its_time_is_over() {
        let health = Health::default();
        assert!(health.standing() == Standing::Up && !health.is_down());
        health.mark_down();
        assert!(health.standing() == Standing::Last && health.is_down());
        pass(&health);
        assert_eq!(health.standing(), Standing::Up, "one tries");
        assert_eq!(health.standing(), Standing::Last, "the others wait for what it finds");
        health.mark_up();
        assert!(health.standing() == Standing::Up && health.standing() == Standing::Up);
    }

    /// It has failed so often, and for so long, that it is left alone.
    fn broken() -> Health {
        let health = Health::default();
        (0..BREAK_FAILURES).for_each(|_| health.mark_down());
        assert_eq!(health.standing(), Standing::Last, "all at once is not enough");
        let since = uptime();
        health.failing_since.store(since, Ordering::Relaxed);
        health.failed_at.store(since + milliseconds(BREAK_TIME), Ordering::Relaxed);
        health
    }

    #[test]
    fn after_failures_in_a_row_it_is_left_alone_until_one_is_served() {
        let health = broken();
        assert_eq!((health.standing(), health.appears()), (Standing::Out, Standing::Out));
        pass(&health);
        assert_eq!(health.appears(), Standing::Up);
        assert_eq!((health.standing(), health.standing()), (Standing::Up, Standing::Out), "one tries");
        health.mark_up();
        assert_eq!(health.standing(), Standing::Up);
    }

    #[test]
    fn looks_and_use_are_two_things() {
        let health = Health::default();
        health.mark_missed();
        assert_eq!(health.standing(), Standing::Last, "nobody failed there yet: better than nothing");
        health.mark_found();
        assert_eq!(health.standing(), Standing::Up);
        let health = broken();
        health.mark_missed();
        health.mark_found();
        assert_eq!((health.standing(), health.standing()), (Standing::Up, Standing::Out), "one tries");
    }

    #[test]
    fn what_began_before_it_served_others_says_nothing() {
        let health = Health::default();
        let begun = uptime();
        health.served_at.store(begun + 1, Ordering::Relaxed);
        health.mark_down_since(begun);
        assert_eq!(health.standing(), Standing::Up);
        health.mark_down_since(begun + 1);
        assert_eq!(health.standing(), Standing::Last);
    }

    #[test]
    fn those_that_are_down_come_last() {
        let servers = [Health::default(), Health::default(), Health::default()];
        servers[0].mark_down();
        let order = in_order(servers.iter().collect(), |server| server).into_iter().map(std::ptr::from_ref);
        assert!(order.eq([&raw const servers[1], &raw const servers[2], &raw const servers[0]]));
    }
}
