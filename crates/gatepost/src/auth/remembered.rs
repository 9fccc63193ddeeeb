//! Right passwords, remembered for a while as keyed hashes.
//!
//! Only that a password was right is ever remembered: one that doesn't match is for the directory to
//! check, so that a changed password works at once. The key is made anew at each start and reload, and
//! never leaves the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use gatepost_wire::Secret;

use crate::cache::Cache;
use crate::config;
use crate::directory::{Entry, Who};

/// See the module's documentation.
pub(super) struct Remembered {
    times: config::Cache,
    key: hmac::Key,
    known: Cache<Arc<Known>>,
}

struct Known {
    /// Of user and password together: two users with the same password have nothing in common here.
    tag: hmac::Tag,
    entry: Entry,
}

impl Remembered {
    /// `None` where nothing is to be remembered.
    pub(super) fn new(times: config::Cache) -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new()).ok()?;
        (times.verified > Duration::ZERO).then(|| Self { times, key, known: Cache::new(times.entries as usize) })
    }

    /// The account, if this password was found right a short time ago.
    pub(super) fn fresh(&self, who: &Who, password: &Secret) -> Option<Entry> {
        self.find(who, password, self.times.verified)
    }

    /// The account, if this password was found right at a time that is good enough while nobody can be asked.
    pub(super) fn stale(&self, who: &Who, password: &Secret) -> Option<Entry> {
        self.find(who, password, self.times.verified.max(self.times.stale))
    }

    fn find(&self, who: &Who, password: &Secret, lifetime: Duration) -> Option<Entry> {
        let known = self.known.get(&who.question(), Instant::now(), |_| lifetime)?;
        let is_same = hmac::verify(&self.key, message(who, password).expose(), known.tag.as_ref()).is_ok();
        is_same.then(|| known.entry.clone())
    }

    /// This password is right.
    pub(super) fn keep(&self, who: &Who, password: &Secret, entry: &Entry) {
        let tag = hmac::sign(&self.key, message(who, password).expose());
        self.known.keep(who.question(), Arc::new(Known { tag, entry: entry.to_keep() }), Instant::now());
    }

    /// Forgets the right passwords of a user, or of all; how many there were.
    pub(super) fn forget_all(&self, users: Option<&[String]>) -> usize {
        self.known.forget_about(users)
    }

    /// Forgets whatever is remembered of who this is.
    pub(super) fn forget_account(&self, who: &Who) {
        self.known.forget(&who.question());
    }

    /// This password is wrong. Were it another that is remembered, guessing would make Gatepost forget the right one.
    pub(super) fn forget(&self, who: &Who, password: &Secret) {
        if self.find(who, password, Duration::MAX).is_some() {
            self.known.forget(&who.question());
        }
    }
}

fn message(who: &Who, password: &Secret) -> Secret {
    // A name holds no NUL.
    Secret::new([who.user.as_bytes(), b"\0", password.expose()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(verified: u64, stale: u64) -> Option<Remembered> {
        let (verified, stale) = (Duration::from_secs(verified), Duration::from_secs(stale));
        let times = config::Cache { found: Duration::ZERO, missing: Duration::ZERO, stale, verified, entries: 10 };
        Remembered::new(times)
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn entry(place: &str) -> Entry {
        Entry { place: Some(place.into()), ..Entry::default() }
    }

    #[test]
    fn only_the_right_password_of_the_same_user_and_service_is_known() {
        let remembered = remembered(60, 0).expect("a memory");
        let (kim, lee) = (Who::somebody("kim", "imap"), Who::somebody("lee", "imap"));
        assert_eq!(remembered.fresh(&kim, &secret("right")), None);
        remembered.keep(&kim, &secret("right"), &entry("a"));
        remembered.keep(&lee, &secret("other"), &entry("b"));
        for known in [Remembered::fresh, Remembered::stale] {
            assert_eq!(known(&remembered, &kim, &secret("right")), Some(entry("a")));
            assert_eq!(known(&remembered, &lee, &secret("other")), Some(entry("b")));
            for (who, password) in [
                (kim.clone(), "wrong"),
                (kim.clone(), ""),
                (lee.clone(), "right"),
                (Who::somebody("kim", "pop3"), "right"),
            ] {
                assert_eq!(known(&remembered, &who, &secret(password)), None, "{who:?} {password:?}");
            }
        }
    }

    #[test]
    fn a_wrong_password_makes_nothing_forgotten_but_itself() {
        let remembered = remembered(60, 0).expect("a memory");
        let kim = Who::somebody("kim", "imap");
        remembered.keep(&kim, &secret("right"), &entry("a"));
        remembered.forget(&kim, &secret("guess"));
        assert_eq!(remembered.fresh(&kim, &secret("right")), Some(entry("a")));
        remembered.forget(&kim, &secret("right"));
        assert_eq!(remembered.fresh(&kim, &secret("right")), None);
    }

    #[test]
    fn users_are_forgotten_by_name_or_all_together() {
        let remembered = remembered(60, 0).expect("a memory");
        let everybody = ["kim", "lee", "max"].map(|name| Who::somebody(name, "imap"));
        everybody.iter().for_each(|who| remembered.keep(who, &secret("x"), &entry("a")));
        assert_eq!(remembered.forget_all(Some(&["kim".to_owned(), "nobody".to_owned()])), 1);
        let known: Vec<_> = everybody.iter().map(|who| remembered.fresh(who, &secret("x")).is_some()).collect();
        assert_eq!(known, [false, true, true]);
        assert_eq!(remembered.forget_all(None), 2);
        assert_eq!(remembered.fresh(&everybody[1], &secret("x")), None);
    }

    #[test]
    fn without_a_time_nothing_is_remembered_and_an_old_answer_serves_only_in_an_outage() {
        assert!(remembered(0, 60).is_none());
        let mut remembered = remembered(60, 60).expect("a memory");
        let kim = Who::somebody("kim", "imap");
        remembered.keep(&kim, &secret("right"), &entry("a"));
        // As if its time had passed.
        remembered.times.verified = Duration::ZERO;
        assert_eq!(remembered.fresh(&kim, &secret("right")), None);
        assert_eq!(remembered.stale(&kim, &secret("right")), Some(entry("a")));
    }
}
