//! A directory for unit tests: it says what it is told to say, and counts how often it is asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use gatepost_wire::Secret;

use super::{Accounts, Answering, Entry, Fault, TokenVerdict, Tokens, Verdict, Who};
use crate::config::Abilities;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Scripted {
    accounts: Mutex<HashMap<String, Entry>>,
    verdicts: Mutex<HashMap<String, Verdict>>,
    of_tokens: Mutex<Option<TokenVerdict>>,
    is_silent: AtomicBool,
    is_down: AtomicBool,
    is_exact: AtomicBool,
    asked: AtomicU32,
}

impl Scripted {
    /// One that knows these users.
    pub(crate) fn with(accounts: &[(&str, Entry)]) -> Arc<Self> {
        let scripted = Self::default();
        accounts.iter().for_each(|(user, entry)| scripted.know(user, Some(entry.clone())));
        Arc::new(scripted)
    }

    /// From now on it knows this account of a user, or none.
    pub(crate) fn know(&self, user: &str, entry: Option<Entry>) {
        let mut accounts = self.accounts.lock().expect("a lock");
        match entry {
            Some(entry) => drop(accounts.insert(user.to_owned(), entry)),
            None => drop(accounts.remove(user)),
        }
    }

    /// From now on it says this of any password of a user.
    pub(crate) fn say(&self, user: &str, verdict: Verdict) {
        self.verdicts.lock().expect("a lock").insert(user.to_owned(), verdict);
    }

    /// From now on it says this of any token.
    pub(crate) fn say_of_tokens(&self, verdict: TokenVerdict) {
        *self.of_tokens.lock().expect("a lock") = Some(verdict);
    }

    /// Whether it gives no answer when it is asked.
    pub(crate) fn be_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Whether it says itself that it can't answer.
    pub(crate) fn be_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Whether it knows accounts by their whole names alone.
    pub(crate) fn be_exact(&self, is_exact: bool) {
        self.is_exact.store(is_exact, Ordering::Relaxed);
    }

    /// How often it was asked since this was last called.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    fn answer<T>(&self, answer: impl FnOnce() -> T) -> Result<T, Fault> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_silent.load(Ordering::Relaxed) { Err(Fault("no answer".into())) } else { Ok(answer()) }
    }

    fn account(&self, who: &Who) -> Option<Entry> {
        self.accounts.lock().expect("a lock").get(&who.user).cloned()
    }
}

impl Accounts for Scripted {
    fn is_exact(&self) -> bool {
        self.is_exact.load(Ordering::Relaxed)
    }

    fn find<'a>(&'a self, who: &'a Who) -> Answering<'a, Option<Entry>> {
        Box::pin(async move { self.answer(|| self.account(who)) })
    }

    fn authenticate<'a>(&'a self, who: &'a Who, _: &'a Secret) -> Answering<'a, Verdict> {
        Box::pin(async move {
            self.answer(|| {
                let told = self.verdicts.lock().expect("a lock").get(&who.user).cloned();
                told.unwrap_or_else(|| self.account(who).map_or(Verdict::Unknown, Verdict::Compare))
            })
        })
    }

    fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }
}

impl Tokens for Scripted {
    fn check<'a>(&'a self, _: &'a Secret) -> Answering<'a, TokenVerdict> {
        Box::pin(async move {
            let told = || self.of_tokens.lock().expect("a lock").clone();
            self.answer(|| told().unwrap_or(TokenVerdict::Wrong))
        })
    }

    /// Ten, each time.
    fn forget(&self) -> usize {
        10
    }
}

/// What the configuration would say of one that keeps hashes.
pub(crate) const fn abilities(finds: bool) -> Abilities {
    Abilities { keeps_hashes: true, finds, tells_unknown: true }
}
