//! How often something happened lately: counted within a sliding window, which is reckoned from two fixed ones.

use std::time::{Duration, Instant};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Sliding {
    start: Instant,
    current: u32,
    previous: u32,
}

impl Sliding {
    /// Nothing yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { start: now, current: 0, previous: 0 }
    }

    /// Leaves behind what is too long ago. To be called before all else.
    pub(crate) fn roll(&mut self, window: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.start);
        if passed >= window * 2 {
            *self = Self::new(now);
        } else if passed >= window {
            (self.previous, self.current) = (self.current, 0);
            self.start += window;
        }
    }

    /// How often within the last window.
    pub(crate) fn count(&self, window: Duration, now: Instant) -> u32 {
        let left = window.saturating_sub(now.saturating_duration_since(self.start));
        let previous = u128::from(self.previous) * left.as_millis() / window.as_millis().max(1);
        self.current.saturating_add(u32::try_from(previous).unwrap_or(u32::MAX))
    }

    /// It happened once more.
    pub(crate) fn add(&mut self) {
        self.current = self.current.saturating_add(1);
    }
}
