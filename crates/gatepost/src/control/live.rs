//! The last minutes in numbers, for charts.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatepost_wire::PROTOCOLS;

use super::Server;
use crate::admin::answers::{self, Sample};
use crate::admin::human::figure;

/// How far samples lie apart, and how many are kept: ten minutes.
const INTERVAL: Duration = Duration::from_secs(2);
const SAMPLES_MAX: usize = 300;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Live {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    samples: VecDeque<Sample>,
    before: Option<(Instant, Totals)>,
}

/// What only grows.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    logins: u64,
    failures: u64,
    bytes_up: u64,
    bytes_down: u64,
}

impl Live {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Takes a sample where it is time for one. Called once a second.
    pub(super) fn sample(&self) {
        let mut state = self.live.state();
        let now = Instant::now();
        let totals = self.totals();
        let Some((at, before)) = state.before else {
            state.before = Some((now, totals));
            return;
        };
        let passed = now.saturating_duration_since(at);
        if passed + Duration::from_millis(500) < INTERVAL {
            return;
        }
        let rate = |now: u64, before: u64| figure(now.saturating_sub(before)) / passed.as_secs_f64();
        let sample = Sample {
            sessions: figure(self.entrance.workers.sessions() as u64),
            logins: rate(totals.logins, before.logins),
            failures: rate(totals.failures, before.failures),
            bytes_up: rate(totals.bytes_up, before.bytes_up),
            bytes_down: rate(totals.bytes_down, before.bytes_down),
        };
        if state.samples.len() >= SAMPLES_MAX {
            state.samples.pop_front();
        }
        state.samples.push_back(sample);
        state.before = Some((now, totals));
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for protocol in PROTOCOLS {
            let service = self.lasting.metrics.service(protocol.name);
            let (logins, failures) = service.log_in_totals();
            totals.logins += logins;
            totals.failures += failures;
            totals.bytes_up += service.bytes_up.get();
            totals.bytes_down += service.bytes_down.get();
        }
        totals
    }

    pub(super) fn live(&self) -> answers::Live {
        let history: Vec<_> = self.live.state().samples.iter().copied().collect();
        let latest = history.last().copied().unwrap_or_default();
        let busy = self.entrance.workers.busy_ratios();
        let workers = u32::try_from(busy.len()).unwrap_or(u32::MAX).max(1);
        answers::Live {
            sessions: self.entrance.workers.sessions(),
            workers: busy.len(),
            logins_per_second: latest.logins,
            failures_per_second: latest.failures,
            bytes_up_per_second: latest.bytes_up,
            bytes_down_per_second: latest.bytes_down,
            busy: busy.iter().map(|(_, ratio)| ratio).sum::<f64>() / f64::from(workers),
            history,
            interval_seconds: INTERVAL.as_secs(),
        }
    }
}
