//! What would be said with every log-in, said now and then.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the same complaint is said, and how many are told apart.
const INTERVAL: Duration = Duration::from_mins(1);
const COMPLAINTS_MAX: usize = 1000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<HashMap<String, Said>>);

#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    /// How often it came since.
    times: u64,
}

impl Complaints {
    /// A complaint comes. Whether it should be said now, and how often it came since it was last said.
    pub(super) fn note(&self, complaint: &str, now: Instant) -> Option<u64> {
        let mut complaints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() >= COMPLAINTS_MAX && !complaints.contains_key(complaint) {
            // Those go that are said again when they come next, with how often they came; where none can go, all do.
            complaints.retain(|_, said| said.at.is_some_and(|at| now - at < INTERVAL));
            if complaints.len() >= COMPLAINTS_MAX {
                complaints.clear();
            }
        }
        let said = complaints.entry(complaint.to_owned()).or_default();
        said.times += 1;
        if said.at.is_some_and(|at| now - at < INTERVAL) {
            return None;
        }
        said.at = Some(now);
        Some(std::mem::take(&mut said.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_said_once_a_minute_with_its_number() {
        let complaints = Complaints::default();
        let now = Instant::now();
        assert_eq!(complaints.note("a", now), Some(1));
        assert_eq!(complaints.note("a", now + INTERVAL / 2), None);
        assert_eq!(complaints.note("b", now + INTERVAL / 2), Some(1));
        assert_eq!(complaints.note("a", now + INTERVAL), Some(2));
    }

    #[test]
    fn however_many_there_are_those_of_the_last_minute_are_told_apart_if_they_can_be() {
        let complaints = Complaints::default();
        let now = Instant::now();
        for n in 0..COMPLAINTS_MAX - 1 {
            complaints.note(&n.to_string(), now);
        }
        let later = now + INTERVAL;
        assert_eq!(complaints.note("latest", later), Some(1));
        assert_eq!(complaints.note("one too many", later), Some(1));
        assert_eq!(complaints.note("latest", later), None, "still known");
        for n in 0..2 * COMPLAINTS_MAX {
            complaints.note(&n.to_string(), later);
        }
        assert!(complaints.0.lock().expect("a lock").len() <= COMPLAINTS_MAX);
    }
}
