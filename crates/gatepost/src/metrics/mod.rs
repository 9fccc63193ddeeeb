//! What is counted and measured, by the names in `families`, and how it is written for Prometheus.
//!
//! Here belong the numbers that grow as things happen; what can be looked up at the moment of asking (sessions, back ends,
//! certificates) is nobody's to count. No label names a user or a client.

pub(crate) mod families;
mod labels;
pub(crate) mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost_wire::{Mechanism, PROTOCOLS};

use labels::By;
pub(crate) use labels::{Answer, LogIn, Rejection, Stage};

/// The upper bounds of a histogram's buckets, in microseconds.
const BOUNDS_MICROSECONDS: [u64; 13] =
    [500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000];

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, each time.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// By bucket, and behind them what is longer than all; not summed up.
    buckets: [Counter; BOUNDS_MICROSECONDS.len() + 1],
    microseconds: Counter,
}

impl Histogram {
    pub(crate) fn record(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_MICROSECONDS.partition_point(|bound| *bound < microseconds)].one();
        self.microseconds.add(microseconds);
    }
}

/// A service's numbers.
#[derive(Debug, Default)]
pub(crate) struct ServiceMetrics {
    pub(crate) rejected: By<Rejection, Counter>,
    /// By mechanism, and then by result.
    log_ins: By<Mechanism, By<LogIn, Counter>>,
    pub(crate) stages: By<Stage, Histogram>,
    /// From clients to back ends.
    pub(crate) bytes_up: Counter,
    pub(crate) bytes_down: Counter,
}

impl ServiceMetrics {
    pub(crate) fn reject(&self, why: Rejection) {
        self.rejected.of(why).one();
    }

    pub(crate) fn log_in(&self, mechanism: Mechanism, result: LogIn) {
        self.log_ins.of(mechanism).of(result).one();
    }

    pub(crate) fn took(&self, stage: Stage, time: Duration) {
        self.stages.of(stage).record(time);
    }

    /// Log-ins that succeeded, and those that did not.
    pub(crate) fn log_in_totals(&self) -> (u64, u64) {
        let (mut succeeded, mut failed) = (0, 0);
        for (_, result, count) in self.log_ins() {
            *(if result == LogIn::Ok { &mut succeeded } else { &mut failed }) += count;
        }
        (succeeded, failed)
    }

    /// Each count of log-ins with its mechanism and result.
    pub(crate) fn log_ins(&self) -> impl Iterator<Item = (&'static str, LogIn, u64)> {
        let of = |(mechanism, counts): (Mechanism, &By<LogIn, Counter>)| {
            counts.iter().map(|(result, count)| (mechanism.name(), result, count.get())).collect::<Vec<_>>()
        };
        self.log_ins.iter().flat_map(of)
    }
}

/// How a cache fares.
#[derive(Debug, Default)]
pub(crate) struct CacheMetrics {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
}

impl CacheMetrics {
    /// Counts an answer that was there or not, and passes it on.
    pub(crate) fn note<T>(&self, answer: Option<T>) -> Option<T> {
        if answer.is_some() {
            self.hits.one();
        } else {
            self.misses.one();
        }
        answer
    }
}

/// How a directory fares.
#[derive(Debug, Default)]
pub(crate) struct DirectoryMetrics {
    pub(crate) answers: By<Answer, Histogram>,
}

/// Everything; outlives reloads.
#[derive(Debug)]
pub(crate) struct Metrics {
    services: Vec<Arc<ServiceMetrics>>,
    /// Connections by service and listener.
    listeners: Mutex<BTreeMap<(&'static str, String), Arc<Counter>>>,
    directories: Mutex<BTreeMap<String, Arc<DirectoryMetrics>>>,
    pub(crate) places: Arc<CacheMetrics>,
    pub(crate) passwords: Arc<CacheMetrics>,
    pub(crate) reloads: Counter,
    pub(crate) failed_reloads: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            services: PROTOCOLS.iter().map(|_| Arc::default()).collect(),
            listeners: Mutex::default(),
            directories: Mutex::default(),
            places: Arc::default(),
            passwords: Arc::default(),
            reloads: Counter::default(),
            failed_reloads: Counter::default(),
        }
    }
}

impl Metrics {
    /// A service's numbers; of one that doesn't exist, some that nobody sees.
    pub(crate) fn service(&self, name: &str) -> Arc<ServiceMetrics> {
        let position = PROTOCOLS.iter().position(|protocol| protocol.name == name);
        position.and_then(|n| self.services.get(n)).map(Arc::clone).unwrap_or_default()
    }

    /// The connections of a listener.
    pub(crate) fn listener(&self, service: &'static str, address: &str) -> Arc<Counter> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(listeners.entry((service, address.to_owned())).or_default())
    }

    /// A directory's numbers.
    pub(crate) fn directory(&self, name: &str) -> Arc<DirectoryMetrics> {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(directories.entry(name.to_owned()).or_default())
    }

    /// Connections by service and listener, those of listeners that are no more among them.
    pub(crate) fn connections(&self) -> Vec<(&'static str, String, u64)> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().map(|((service, address), count)| (*service, address.clone(), count.get())).collect()
    }

    /// Every directory that was asked since the start.
    pub(crate) fn directories(&self) -> Vec<(String, Arc<DirectoryMetrics>)> {
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        directories.iter().map(|(name, metrics)| (name.clone(), Arc::clone(metrics))).collect()
    }
}
