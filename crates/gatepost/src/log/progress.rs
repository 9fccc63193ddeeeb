//! How far records have come on their way to a place outside, and what is said of one that takes none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often it is said that records are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// What whoever hands records over and whoever sends them share.
#[derive(Clone, Default)]
pub(super) struct Progress {
    lost: Arc<AtomicU64>,
    /// Records that were handed over and neither sent nor lost yet.
    waiting: Arc<AtomicU64>,
    /// Nobody hands anything over any more.
    is_over: Arc<AtomicBool>,
}

impl Progress {
    /// A record is handed over.
    pub(super) fn expect_one(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// So many records are sent.
    pub(super) fn sent(&self, count: u64) {
        self.waiting.fetch_sub(count, Ordering::Release);
    }

    /// So many records are lost, whether or not anybody has said so.
    pub(super) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
        self.waiting.fetch_sub(count, Ordering::Release);
    }

    /// How many are still on their way.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Acquire)
    }

    /// How many were lost since this was asked last.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Nothing is handed over from now on.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// What is said on standard error of a place that takes no records, once a minute.
#[derive(Default)]
pub(super) struct Complaint {
    said: Option<Instant>,
    /// Why the last that failed did.
    why: Option<String>,
}

impl Complaint {
    pub(super) fn because(&mut self, why: String) {
        self.why = Some(why);
    }

    /// Says how many records are lost and how many wait, if something is wrong, and if it is time.
    pub(super) fn check(&mut self, place: &impl std::fmt::Display, progress: &Progress) {
        let is_wrong = self.why.is_some() || progress.lost.load(Ordering::Relaxed) > 0;
        if is_wrong && self.said.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
            self.said = Some(Instant::now());
            let (lost, waiting) = (progress.take_lost(), progress.waiting());
            let why = self.why.take().unwrap_or_else(|| "it is too slow".to_owned());
            eprintln!("gatepost: log: {place} takes no records: {why}; {lost} are lost, {waiting} wait");
        }
    }

    /// Says how many are lost at the end of it.
    pub(super) fn finish(&mut self, place: &impl std::fmt::Display, progress: &Progress) {
        if progress.lost.load(Ordering::Relaxed) > 0 {
            self.said = None;
            self.check(place, progress);
        }
    }
}
