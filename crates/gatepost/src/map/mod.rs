//! The map: which back end holds whose mail.
//!
//! Asking the directories is the only part that waits; what follows from their answers is a pure [`choice`].
//! Connections to back ends don't belong here.

pub(crate) mod choice;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost_wire::{Offers, Protocol, Secret};

use crate::auth::{Authenticator, Checker, Denial, Unanswered, authenticate_first};
use crate::backend::{Backend, Backends, Looker, Looking};
use crate::cache::{Cache, Flights};
use crate::config;
use crate::directory::{Entry, Who};
use crate::log::Logger;
use crate::metrics::CacheMetrics;
pub(crate) use choice::{NoPlace, Reason};

/// See the module's documentation.
pub(crate) struct Map {
    pub(crate) settings: config::Map,
    /// How users' names are completed, where a listener says nothing else.
    names: config::Names,
    authenticators: Vec<Arc<Authenticator>>,
    backends: Backends,
    cache: Cache<Kept>,
    flights: Flights<Result<Found, NoAnswer>>,
    checker: Checker,
    log: Logger,
    /// How the cache fares, where there is one.
    cache_metrics: Option<Arc<CacheMetrics>>,
}

/// What the directories say of a user.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// This directory has the account. `is_checked`: it has seen the password, and found it right.
    Account { directory: Arc<str>, entry: Box<Entry>, is_checked: bool },
    /// No directory knows the user.
    Nobody,
}

/// Why the directories say nothing of a user.
#[derive(Debug, Clone)]
pub(crate) enum NoAnswer {
    /// One that had to be asked can't answer, and nothing remembered helps: the user may exist.
    Unanswered(Unanswered),
    /// One that only answers to who brings a password refuses the one that was shown.
    Denied(Denial),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unanswered(unanswered) => unanswered.fmt(f),
            Self::Denied(_) => f.write_str("a directory refuses the password"),
        }
    }
}

impl Found {
    /// The account, if there is one.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Account { entry, .. } => Some(entry),
            Self::Nobody => None,
        }
    }

    /// The name at the back end of the user whom this is said of.
    pub(crate) fn log_in_name<'n>(&'n self, user: &'n str) -> &'n str {
        self.entry().and_then(|entry| entry.login.as_deref()).unwrap_or(user)
    }
}

/// What is remembered of a user: never that a password was right, or wrong.
#[derive(Clone)]
enum Kept {
    Account { directory: Arc<str>, entry: Box<Entry> },
    Nobody,
}

impl Kept {
    fn account(directory: &Arc<str>, entry: &Entry) -> Self {
        Self::Account { directory: Arc::clone(directory), entry: Box::new(entry.to_keep()) }
    }
}

impl From<Kept> for Found {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Account { directory, entry } => Self::Account { directory, entry, is_checked: false },
            Kept::Nobody => Self::Nobody,
        }
    }
}

/// What the map may go by, beside the user's name.
#[derive(Clone, Copy, Default)]
pub(crate) struct Evidence<'a> {
    /// For directories that want to see it.
    pub(crate) password: Option<&'a Secret>,
    /// The account, in the words of the directory that has checked the password already.
    pub(crate) checked: Option<(&'a str, &'a Entry)>,
}

impl Map {
    /// The map that `settings` describe, over opened directories.
    pub(crate) fn new(
        settings: &config::Map,
        names: &config::Names,
        authenticators: Vec<Arc<Authenticator>>,
        backends: Backends,
        checker: Checker,
        log: Logger,
        cache_metrics: &Arc<CacheMetrics>,
    ) -> Self {
        // Room is only taken where something is to be remembered.
        let config::Cache { found, missing, stale, entries, .. } = settings.cache;
        let is_used = found.max(missing).max(stale) > Duration::ZERO;
        let cache = Cache::new(if is_used { entries as usize } else { 1 });
        let (flights, cache_metrics) = (Flights::default(), is_used.then(|| Arc::clone(cache_metrics)));
        let (settings, names) = (settings.clone(), names.clone());
        Self { settings, names, authenticators, backends, cache, flights, checker, log, cache_metrics }
    }

    /// What is known without asking anybody: remembered, or because there is nobody to ask.
    pub(crate) fn known(&self, who: &Who) -> Option<Found> {
        if self.authenticators.is_empty() {
            return Some(Found::Nobody);
        }
        let known = self.remembered(who, |kept| self.lifetime(kept));
        match &self.cache_metrics {
            Some(metrics) => metrics.note(known),
            None => known,
        }
    }

    /// Has the directory that knows the user check a password; `None`: none that can check one knows the user.
    pub(crate) async fn authenticate(
        &self,
        checker: &Checker,
        who: &Who,
        password: &Secret,
    ) -> Result<Option<Result<Entry, Denial>>, Unanswered> {
        let is_theirs = |entry: &Entry| entry.is_of(&who.user, &self.names);
        let checked = authenticate_first(&self.authenticators, checker, who, password, is_theirs).await?;
        Ok(match checked {
            None | Some((_, Err(Denial::NoPassword))) => None,
            Some((_, checked)) => Some(checked.map(|account| account.entry)),
        })
    }

    /// As [`Map::find`], without remembered answers: for what must be true now, such as a password.
    pub(crate) async fn find_now(&self, who: &Who, evidence: Evidence<'_>) -> Result<Found, NoAnswer> {
        self.ask(who, evidence, None).await
    }

    /// Asks the directories in turn.
    pub(crate) async fn find(&self, who: &Who, evidence: Evidence<'_>) -> Result<Found, NoAnswer> {
        if evidence.checked.is_some() || self.authenticators.iter().any(|authenticator| !authenticator.abilities.finds)
        {
            // What these say goes for this log-in alone.
            return self.ask(who, evidence, None).await;
        }
        // Whoever asks has looked for a known answer, but not just now.
        if let Some(found) = self.remembered(who, |kept| self.lifetime(kept)) {
            return Ok(found);
        }
        let stale = self.remembered(who, |kept| self.kept_for(kept));
        if let Some(stale) =
            stale.clone().filter(|_| self.authenticators.iter().any(|authenticator| authenticator.directory.is_down()))
        {
            return Ok(stale);
        }
        self.flights.join(&who.question(), self.ask(who, evidence, stale)).await
    }

    async fn ask(&self, who: &Who, evidence: Evidence<'_>, stale: Option<Found>) -> Result<Found, NoAnswer> {
        let now = Instant::now();
        let mut is_cacheable = true;
        for authenticator in &self.authenticators {
            let answer = match evidence {
                Evidence { checked: Some((name, entry)), .. } if name == &*authenticator.name => {
                    if is_cacheable && authenticator.abilities.finds {
                        self.keep(who, Kept::account(&authenticator.name, entry), now);
                    }
                    let (directory, entry) = (Arc::clone(&authenticator.name), Box::new(entry.clone()));
                    return Ok(Found::Account { directory, entry, is_checked: true });
                }
                _ if authenticator.abilities.finds => {
                    authenticator.directory.find(who).await.map(|found| found.map(|e| (e, false)))
                }
                Evidence { password: Some(password), .. } => {
                    is_cacheable = false;
                    match authenticator.authenticate(&self.checker, who, password).await {
                        Ok(Ok(account)) => Ok(Some((account.entry, true))),
                        Ok(Err(Denial::Unknown)) => Ok(None),
                        Ok(Err(denial)) => return Err(NoAnswer::Denied(denial)),
                        Err(fault) => Err(fault),
                    }
                }
                Evidence { password: None, .. } => {
                    is_cacheable = false;
                    Ok(None)
                }
            };
            match answer {
                Ok(Some((entry, _))) if !entry.is_of(&who.user, &self.names) => {}
                Ok(Some((entry, is_checked))) => {
                    if is_cacheable {
                        self.keep(who, Kept::account(&authenticator.name, &entry), now);
                    }
                    let (directory, entry) = (Arc::clone(&authenticator.name), Box::new(entry));
                    return Ok(Found::Account { directory, entry, is_checked });
                }
                Ok(None) => {}
                Err(fault) => {
                    let served = if stale.is_some() { "a remembered answer" } else { "nothing" };
                    self.log
                        .record(config::Level::Error, "directory", "a directory can't answer")
                        .with("directory", &*authenticator.name)
                        .with("served", served)
                        .with("fault", fault.0.as_str())
                        .write();
                    return stale.ok_or(NoAnswer::Unanswered(authenticator.unanswered(fault)));
                }
            }
        }
        if is_cacheable {
            // Who has been removed must not come back when the directory is down.
            self.cache.forget(&who.question());
            self.keep(who, Kept::Nobody, now);
        }
        Ok(Found::Nobody)
    }

    /// The back end for what was found, and why that one.
    pub(crate) fn choose(&self, user: &str, found: &Found) -> Result<(Arc<Backend>, Reason), NoPlace> {
        let overrides = self.backends.overrides();
        let site = choice::Site {
            is_backend: &|name| self.backends.named(name).is_some(),
            takes: &|name| overrides.duty(name).is_none(),
            moved: overrides.place(user),
        };
        let (place, reason) = choice::choose(&self.settings, &site, user, found.entry())?;
        let backend = match place {
            // The configuration names none that isn't there.
            choice::Place::Named(name) => self.backends.named(&name).ok_or(NoPlace::Unknown)?,
            choice::Place::Host { host, port } => self.backends.host(&host, port),
        };
        Ok((backend, reason))
    }

    /// What every back end that a user may come to is known to offer. Of hosts that a directory may name
    /// beside the configuration's back ends, nothing is known.
    pub(crate) fn offers(&self, protocol: &Protocol) -> Offers {
        let config::Map { default, rules, spread, hosts, .. } = &self.settings;
        match default {
            Some(default) if self.authenticators.is_empty() && rules.is_empty() && spread.0.is_empty() => {
                self.backends.named(default).map_or(Offers::NONE, |backend| backend.offers(protocol))
            }
            _ if hosts.is_empty() => self.backends.offers(protocol),
            _ => Offers::NONE,
        }
    }

    /// Forgets what it has remembered of a user, or of all, host names too; how many answers there were.
    pub(crate) fn forget(&self, users: Option<&[String]>) -> usize {
        let names = if users.is_none() { self.backends.expire_names() } else { 0 };
        self.cache.forget_about(users) + names
    }

    /// Whether a directory knows accounts by their whole names alone.
    pub(crate) fn is_exact(&self, directory: &str) -> bool {
        self.authenticators
            .iter()
            .any(|authenticator| &*authenticator.name == directory && authenticator.directory.is_exact())
    }

    /// Whether an administrator has moved this user since `began`, or is doing so.
    pub(crate) fn was_moved_since(&self, user: &str, began: Instant) -> bool {
        self.backends.overrides().was_moved_since(user, began)
    }

    /// Whether an administrator has this user's log-ins wait.
    pub(crate) fn is_held(&self, user: &str) -> bool {
        self.backends.overrides().is_held(user)
    }

    /// The configuration's back ends.
    pub(crate) fn backends(&self) -> &Backends {
        &self.backends
    }

    /// Begins to look at the back ends.
    pub(crate) fn look(&self, looker: &Looker) -> Looking {
        self.backends.look(looker)
    }

    /// The directories that are asked, in their order.
    pub(crate) fn authenticators(&self) -> &[Arc<Authenticator>] {
        &self.authenticators
    }

    /// What is remembered, but of users who were moved: that may be older.
    fn remembered(&self, who: &Who, lifetime: impl FnOnce(&Kept) -> Duration) -> Option<Found> {
        let kept = self.cache.get(&who.question(), Instant::now(), lifetime)?;
        (!self.backends.overrides().was_moved_lately(&who.user)).then(|| kept.into())
    }

    fn lifetime(&self, kept: &Kept) -> Duration {
        match kept {
            Kept::Account { .. } => self.settings.cache.found,
            Kept::Nobody => self.settings.cache.missing,
        }
    }

    /// How long an answer is kept: that nobody knows a user is no answer for a time of trouble.
    fn kept_for(&self, kept: &Kept) -> Duration {
        match kept {
            Kept::Account { .. } => self.settings.cache.found.max(self.settings.cache.stale),
            Kept::Nobody => self.settings.cache.missing,
        }
    }

    fn keep(&self, who: &Who, kept: Kept, now: Instant) {
        // What was asked before a move is no answer for after it.
        if self.kept_for(&kept) > Duration::ZERO && !self.was_moved_since(&who.user, now) {
            self.cache.keep(who.question(), kept, now);
        }
    }
}
