//! Answers remembered for a while: bounded in number, forgotten at different moments, and asked for once
//! however many wait for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

/// Answers that were given together must not all be asked for again at the same moment: each is good for
/// up to this part less of its time.
const JITTER_DIVISOR: u32 = 10;

/// Answers by what was asked. Beyond its size, those that are asked for least go first.
pub(crate) struct Cache<V> {
    answers: quick_cache::sync::Cache<String, Kept<V>>,
}

#[derive(Clone)]
struct Kept<V> {
    value: V,
    at: Instant,
    /// From 0 to 255: how much of the jitter is this answer's.
    jitter: u8,
}

impl<V: Clone> Cache<V> {
    /// Room for so many answers; for one at least.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { answers: quick_cache::sync::Cache::new(entries_max.max(1)) }
    }

    /// The answer to `question`, if it is not older than `lifetime` says of it.
    pub(crate) fn get(&self, question: &str, now: Instant, lifetime: impl FnOnce(&V) -> Duration) -> Option<V> {
        let Kept { value, at, jitter } = self.answers.get(question)?;
        let lifetime = lifetime(&value);
        let lifetime = lifetime.saturating_sub(lifetime / JITTER_DIVISOR / 255 * u32::from(jitter));
        (now.saturating_duration_since(at) < lifetime).then_some(value)
    }

    /// Remembers an answer, in the stead of an earlier one.
    pub(crate) fn keep(&self, question: String, value: V, now: Instant) {
        let mut jitter = [0];
        // Without randomness answers end together, and that works too.
        let _ = getrandom::fill(&mut jitter);
        self.answers.insert(question, Kept { value, at: now, jitter: jitter[0] });
    }

    /// Forgets the answers about these users, whose names stand behind the first space of a question, or all; how many
    /// there were.
    pub(crate) fn forget_about(&self, users: Option<&[String]>) -> usize {
        let is_such = |question: &str| {
            let about = question.split_once(' ').map(|(_, about)| about);
            users.is_none_or(|users| users.iter().any(|user| about == Some(user)))
        };
        let count = std::sync::atomic::AtomicUsize::new(0);
        self.answers.retain(|question, _| {
            let goes = is_such(question);
            count.fetch_add(usize::from(goes), std::sync::atomic::Ordering::Relaxed);
            !goes
        });
        count.into_inner()
    }

    /// Forgets the answer to `question`.
    pub(crate) fn forget(&self, question: &str) {
        self.answers.remove(question);
    }
}

/// Questions that are being asked at this moment: who asks the same waits for the same answer.
pub(crate) struct Flights<V>(Mutex<HashMap<String, Weak<OnceCell<V>>>>);

impl<V> Default for Flights<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Clone> Flights<V> {
    /// The answer of whoever asks `question` already, else that of `ask`. Should the one who asks give up,
    /// the next goes on in its stead.
    pub(crate) async fn join(&self, question: &str, ask: impl Future<Output = V>) -> V {
        let cell = {
            let mut flights = self.lock();
            let known = flights.get(question).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let cell = Arc::default();
                flights.insert(question.to_owned(), Arc::downgrade(&cell));
                cell
            })
        };
        let answer = cell.get_or_init(|| ask).await.clone();
        let mut flights = self.lock();
        if flights.get(question).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(&cell))) {
            flights.remove(question);
        }
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<OnceCell<V>>>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Left behind by those who gave up.
        if flights.len() > 64 && flights.len() == flights.capacity() {
            flights.retain(|_, cell| cell.strong_count() > 0);
        }
        flights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn answers_live_as_long_as_they_should() {
        let cache = Cache::new(10);
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        cache.keep("kim".into(), 1, start);
        assert_eq!(cache.get("kim", start + seconds(89), |_| seconds(100)), Some(1));
        assert_eq!(cache.get("kim", start + seconds(100), |_| seconds(100)), None);
        assert_eq!(cache.get("kim", start, |_| Duration::ZERO), None);
        assert_eq!(cache.get("lee", start, |_| seconds(100)), None, "never another's answer");
        cache.keep("imap lee".into(), 2, start);
        assert_eq!(cache.forget_about(Some(&["kim".into(), "lee".into()])), 1);
        assert_eq!(cache.get("imap lee", start, |_| seconds(100)), None);
        cache.forget("kim");
        assert_eq!(cache.get("kim", start, |_| seconds(100)), None);
    }

    #[test]
    fn answers_end_at_different_moments() {
        let cache = Cache::new(1000);
        let start = Instant::now();
        (0..100).for_each(|n| cache.keep(n.to_string(), n, start));
        let alive = |age| {
            let now = start + Duration::from_secs(age);
            (0..100).filter(|n| cache.get(&n.to_string(), now, |_| Duration::from_secs(100)).is_some()).count()
        };
        assert_eq!((alive(89), alive(100)), (100, 0));
        assert!((1..100).contains(&alive(95)), "{}", alive(95));
    }

    #[test]
    fn it_never_grows_beyond_its_size() {
        let cache = Cache::new(100);
        let now = Instant::now();
        (0..10_000).for_each(|n| cache.keep(n.to_string(), n, now));
        assert!(cache.answers.len() <= 100);
    }

    #[tokio::test]
    async fn many_who_ask_the_same_are_one_question() {
        let flights = Flights::default();
        let asked = AtomicU32::new(0);
        let ask = || async {
            tokio::task::yield_now().await;
            asked.fetch_add(1, Ordering::Relaxed)
        };
        let answers = tokio::join!(flights.join("a", ask()), flights.join("a", ask()), flights.join("b", ask()));
        assert_eq!((answers.0, asked.load(Ordering::Relaxed)), (answers.1, 2));
        assert_eq!(flights.join("a", ask()).await, 2, "the next question is a new one");
        let given_up = flights.join("c", std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(1), given_up).await.is_err());
        assert_eq!(flights.join("c", ask()).await, 3);
        assert!(flights.lock().is_empty());
    }
}
