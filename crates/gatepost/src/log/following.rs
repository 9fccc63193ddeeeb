//! Users whose conversations are logged whatever the level.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// Until when each is.
    users: Mutex<HashMap<String, Instant>>,
    /// Whether there are any: what every session asks must not cost a lock.
    is_any: AtomicBool,
}

impl Following {
    /// Logs a user's conversations for this long; for no time, no more.
    pub(crate) fn follow(&self, user: &str, time: Duration, now: Instant) {
        let mut users = self.users();
        if time.is_zero() {
            users.remove(user);
        } else {
            users.insert(user.to_owned(), now + time);
        }
        self.drop_expired(&mut users, now);
    }

    /// Ends what is to be followed no more.
    pub(crate) fn expire(&self, now: Instant) {
        self.drop_expired(&mut self.users(), now);
    }

    fn drop_expired(&self, users: &mut HashMap<String, Instant>, now: Instant) {
        users.retain(|_, until| *until > now);
        self.is_any.store(!users.is_empty(), Ordering::Relaxed);
    }

    /// Whether anybody's are.
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// Whether this user's are.
    pub(crate) fn has(&self, user: &str, now: Instant) -> bool {
        self.is_any() && self.users().get(user).is_some_and(|until| *until > now)
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_followed_until_their_time_is_over_or_it_is_said() {
        let following = Following::default();
        let (now, minute) = (Instant::now(), Duration::from_mins(1));
        assert!(!following.is_any() && !following.has("kim", now));
        following.follow("kim", 2 * minute, now);
        following.follow("lee", minute, now);
        assert!(following.is_any() && following.has("kim", now) && following.has("lee", now));
        assert!(!following.has("max", now) && !following.has("lee", now + minute));
        following.follow("kim", Duration::ZERO, now);
        assert!(following.is_any() && !following.has("kim", now));
        following.expire(now + minute / 2);
        assert!(following.is_any());
        following.expire(now + minute);
        assert!(!following.is_any());
    }
}
