//! Right passwords, remembered for a while as keyed hashes.
//!
//! Only that a password was right is ever remembered: one that doesn't match is for the directory to
//! judge, so that a changed password works at once. The key is made anew at each start and reload, and
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
        let known = self.known.get(&question(who), Instant::now(), |_| lifetime)?;
        let is_same = hmac::verify(&self.key, message(who, password).expose(), known.tag.as_ref()).is_ok();
        is_same.then(|| known.entry.clone())
    }

    /// This password is right.
    pub(super) fn keep(&self, who: &Who, password: &Secret, entry: &Entry) {
        let tag = hmac::sign(&self.key, message(who, password).expose());
        self.known.keep(question(who), Arc::new(Known { tag, entry: entry.clone() }), Instant::now());
    }

    /// Forgets the right passwords of a user, or of all; how many there were.
    pub(super) fn forget_all(&self, users: Option<&[String]>) -> usize {
        self.known.forget_about(users)
    }

    /// This password is wrong. Were it another that is remembered, guessing would make Gatepost forget the right one.
    pub(super) fn forget(&self, who: &Who, password: &Secret) {
        if self.find(who, password, Duration::MAX).is_some() {
            self.known.forget(&question(who));
        }
    }
}

/// Directories may answer differently to different services.
fn question(who: &Who) -> String {
    format!("{} {}", who.service, who.user)
}

fn message(who: &Who, password: &Secret) -> Secret {
    // A name holds no NUL.
    Secret::new([who.user.as_bytes(), b"\0", password.expose()].concat())
}
