//! Which of several servers should be asked first: one that failed a moment ago comes last.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A server that failed is tried last for this long. Short: one that returns is used again within two seconds.
const DOWN_TIME: Duration = Duration::from_millis(1500);

/// How one server is doing.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// When it may be tried in its turn again, in milliseconds of [`uptime`]; 0: it is up.
    down_until: AtomicU64,
}

/// Milliseconds since the program's first use of this clock.
fn uptime() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Health {
    /// It failed.
    pub(crate) fn mark_down(&self) {
        self.down_until.store(uptime() + DOWN_TIME.as_millis() as u64, Ordering::Relaxed);
    }

    /// It served.
    pub(crate) fn mark_up(&self) {
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

    /// Whether it should be tried in its turn. One that was down and whose time is over is tried by one
    /// caller; to the others it stays down until that one knows better.
    pub(crate) fn is_up(&self) -> bool {
        let until = self.down_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let now = uptime();
        let next = now + DOWN_TIME.as_millis() as u64;
        now >= until && self.down_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether it failed lately, as far as anybody knows. Takes nobody's turn.
    pub(crate) fn is_down(&self) -> bool {
        let until = self.down_until.load(Ordering::Relaxed);
        until != 0 && uptime() < until
    }
}

/// `servers` in the order in which they should be tried: those that are down last. With a single one there
/// is no choice, and asking it is the fastest way to know.
pub(crate) fn in_order<T>(servers: Vec<T>, health: impl Fn(&T) -> &Health) -> Vec<T> {
    if servers.len() == 1 {
        return servers;
    }
    let (mut up, mut down): (Vec<_>, Vec<_>) = servers.into_iter().partition(|server| health(server).is_up());
    up.append(&mut down);
    up
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_failed_is_tried_by_one_once_its_time_is_over() {
        let health = Health::default();
        assert!(health.is_up() && !health.is_down());
        health.mark_down();
        assert!(!health.is_up() && health.is_down());
        health.down_until.store(1, Ordering::Relaxed);
        while uptime() < 1 {}
        assert!(health.is_up(), "one tries");
        assert!(!health.is_up(), "the others wait for what it finds");
        health.mark_up();
        assert!(health.is_up() && health.is_up());
    }

    #[test]
    fn those_that_are_down_come_last() {
        let servers = [Health::default(), Health::default(), Health::default()];
        servers[0].mark_down();
        let order = in_order(servers.iter().collect(), |server| server).into_iter().map(std::ptr::from_ref);
        assert!(order.eq([&raw const servers[1], &raw const servers[2], &raw const servers[0]]));
    }
}
