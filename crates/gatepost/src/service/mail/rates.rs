//! How much mail clients and senders may send within a time.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_wire::smtp::{OwnReply, Reply};

use crate::config;
use crate::ledger::bucket;
use crate::service::Session;
use crate::sliding::Sliding;

/// Clients and senders that are counted at once; beyond that, those seen least go first.
const COUNTED_MAX: usize = 100_000;

/// See the module's documentation. Outlives reloads.
#[derive(Default)]
pub(crate) struct Rates {
    /// Made when it is first needed.
    counted: Mutex<Option<quick_cache::unsync::Cache<Key, Sliding>>>,
}

/// What is counted, of which service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Messages(&'static str, IpAddr),
    Recipients(&'static str, IpAddr),
    Sender(&'static str, String),
}

impl Rates {
    /// Counts one more, unless there are `max` already.
    fn take(&self, key: &Key, max: Option<u32>, interval: Duration, now: Instant) -> bool {
        let Some(max) = max else { return true };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counted.get_or_insert_with(|| quick_cache::unsync::Cache::new(COUNTED_MAX));
        let mut sliding = counted.get(key).cloned().unwrap_or_else(|| Sliding::new(now));
        sliding.roll(interval, now);
        if sliding.count(interval, now) >= max {
            return false;
        }
        sliding.add();
        counted.insert(key.clone(), sliding);
        true
    }
}

impl Session {
    /// Counts a message of this sender; a reply is what it is told if there are too many.
    pub(super) fn count_message(&self, rates: config::Rates, sender: Option<&str>) -> Option<Reply> {
        let (name, now) = (self.service().name(), Instant::now());
        let take = |key: &Key, max| self.shared.rates.take(key, max, rates.interval, now);
        if !take(&Key::Messages(name, bucket(self.address.ip())), rates.messages_per_ip) {
            return Some(OwnReply::TooManyMessages.reply());
        }
        // Reports come by no sender.
        let sender = sender.map(|sender| Key::Sender(name, sender.to_lowercase()));
        if sender.is_some_and(|sender| !take(&sender, rates.messages_per_sender)) {
            return Some(OwnReply::TooManyOfSender.reply());
        }
        None
    }

    /// Counts a recipient; a reply is what the client is told if there are too many.
    pub(super) fn count_recipient(&self, rates: config::Rates) -> Option<Reply> {
        let key = Key::Recipients(self.service().name(), bucket(self.address.ip()));
        let is_in = self.shared.rates.take(&key, rates.recipients_per_ip, rates.interval, Instant::now());
        (!is_in).then(|| OwnReply::TooManyRecipients.reply())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact_and_recover() {
        let (rates, start) = (Rates::default(), Instant::now());
        let key = Key::Sender("smtp", "a@b".into());
        let minute = Duration::from_mins(1);
        let taken = |max, second| rates.take(&key, max, minute, start + Duration::from_secs(second));
        assert!((0..5).all(|n| taken(Some(5), n)));
        assert!(!taken(Some(5), 5) && taken(None, 5));
        assert!(taken(Some(5), 61) && !taken(Some(5), 62), "most of the minute before still counts");
        assert!(taken(Some(5), 120));
    }
}
