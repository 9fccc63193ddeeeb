//! The map: which back end holds whose mail.
//!
//! Asking the directories is the only part that waits; what follows from their answers is a pure [`choice`].
//! Connections to back ends don't belong here.

mod choice;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost_wire::{Offers, Protocol, Secret};

use crate::auth::{Account, Authenticator, Checker, Denial, Unanswered, authenticate_first};
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
    /// Never that a password was right, or wrong, nor what it is compared with.
    cache: Cache<Found>,
    flights: Flights<Result<Found, Unanswered>>,
    checker: Checker,
    log: Logger,
    /// How the cache fares, where there is one.
    cache_metrics: Option<Arc<CacheMetrics>>,
}

/// What the directories say of a user.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// This directory has the account.
    Account { directory: Arc<str>, entry: Box<Entry> },
    /// No directory knows the user.
    Nobody,
}

/// What they say to who has shown something.
#[derive(Debug)]
pub(crate) enum Answer {
    /// No more than to anybody.
    Found(Found),
    /// This directory has the account, has seen what was shown and found it right.
    Checked { directory: Arc<str>, entry: Box<Entry> },
    /// A directory that only answers to who brings a password refuses this one.
    Denied(Denial),
}

impl Found {
    fn account(directory: &Arc<str>, entry: Entry) -> Self {
        Self::Account { directory: Arc::clone(directory), entry: Box::new(entry) }
    }

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

impl Answer {
    /// The account, if there is one.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Found(found) => found.entry(),
            Self::Checked { entry, .. } => Some(entry),
            Self::Denied(_) => None,
        }
    }

    /// As it is for who has shown nothing, and so is neither found right nor refused.
    fn unshown(self) -> Found {
        match self {
            Self::Found(found) => found,
            Self::Checked { directory, entry } => Found::Account { directory, entry },
            Self::Denied(_) => Found::Nobody,
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

    /// Asks the directories in turn. An error means that one that had to be asked can't answer, and nothing remembered
    /// helps: the user may exist.
    pub(crate) async fn find(&self, who: &Who) -> Result<Found, Unanswered> {
        Ok(self.find_by(who, Evidence::default()).await?.unshown())
    }

    /// As [`Map::find`], without remembered answers: for what must be true now.
    pub(crate) async fn find_now(&self, who: &Who) -> Result<Found, Unanswered> {
        Ok(self.find_by_now(who, Evidence::default()).await?.unshown())
    }

    /// As [`Map::find`], for who has shown this.
    pub(crate) async fn find_by(&self, who: &Who, evidence: Evidence<'_>) -> Result<Answer, Unanswered> {
        if evidence.checked.is_some() || self.authenticators.iter().any(|authenticator| !authenticator.abilities.finds)
        {
            // What these say goes for this log-in alone.
            return self.find_by_now(who, evidence).await;
        }
        // Whoever asks has looked for a known answer, but not just now.
        if let Some(found) = self.remembered(who, |kept| self.lifetime(kept)) {
            return Ok(Answer::Found(found));
        }
        let stale = self.remembered(who, |kept| self.kept_for(kept));
        if let Some(stale) =
            stale.clone().filter(|_| self.authenticators.iter().any(|authenticator| authenticator.directory.is_down()))
        {
            return Ok(Answer::Found(stale));
        }
        let asking = async { Ok(self.ask(who, Evidence::default(), stale).await?.unshown()) };
        Ok(Answer::Found(self.flights.join(&who.question(), asking).await?))
    }

    /// As [`Map::find_now`], for who has shown this.
    pub(crate) async fn find_by_now(&self, who: &Who, evidence: Evidence<'_>) -> Result<Answer, Unanswered> {
        self.ask(who, evidence, None).await
    }

    async fn ask(&self, who: &Who, evidence: Evidence<'_>, stale: Option<Found>) -> Result<Answer, Unanswered> {
        let now = Instant::now();
        let mut is_cacheable = true;
        for authenticator in &self.authenticators {
            let name = &authenticator.name;
            let found = match evidence {
                Evidence { checked: Some((by, entry)), .. } if by == &**name => {
                    if is_cacheable && authenticator.abilities.finds {
                        self.keep(who, Found::account(name, entry.to_keep()), now);
                    }
                    return Ok(Answer::Checked { directory: Arc::clone(name), entry: Box::new(entry.clone()) });
                }
                _ if authenticator.abilities.finds => authenticator.directory.find(who).await,
                Evidence { password: Some(password), .. } => {
                    is_cacheable = false;
                    match authenticator.authenticate(&self.checker, who, password).await {
                        Ok(Ok(Account { entry, .. })) if !entry.is_of(&who.user, &self.names) => Ok(None),
                        Ok(Ok(Account { entry, .. })) => {
                            return Ok(Answer::Checked { directory: Arc::clone(name), entry: Box::new(entry) });
                        }
                        Ok(Err(Denial::Unknown)) => Ok(None),
                        Ok(Err(denial)) => return Ok(Answer::Denied(denial)),
                        Err(fault) => Err(fault),
                    }
                }
                Evidence { password: None, .. } => {
                    is_cacheable = false;
                    Ok(None)
                }
            };
            match found {
                Ok(Some(entry)) if entry.is_of(&who.user, &self.names) => {
                    if is_cacheable {
                        self.keep(who, Found::account(name, entry.to_keep()), now);
                    }
                    return Ok(Answer::Found(Found::account(name, entry)));
                }
                Ok(_) => {}
                Err(fault) => {
                    let served = if stale.is_some() { "a remembered answer" } else { "nothing" };
                    self.log
                        .record(config::Level::Error, "directory", "a directory can't answer")
                        .with("directory", &**name)
                        .with("served", served)
                        .with("fault", fault.0.as_str())
                        .write();
                    return stale.map(Answer::Found).ok_or_else(|| authenticator.unanswered(fault));
                }
            }
        }
        if is_cacheable {
            // Who has been removed must not come back when the directory is down.
            self.cache.forget(&who.question());
            self.keep(who, Found::Nobody, now);
        }
        Ok(Answer::Found(Found::Nobody))
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
            choice::Place::Named(name) => self.backends.named(&name).ok_or_else(|| {
                NoPlace::Refused(format!("there is no [backend.{name}] in the configuration, which names it"))
            })?,
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
    fn remembered(&self, who: &Who, lifetime: impl FnOnce(&Found) -> Duration) -> Option<Found> {
        let kept = self.cache.get(&who.question(), Instant::now(), lifetime)?;
        (!self.backends.overrides().was_moved_lately(&who.user)).then_some(kept)
    }

    fn lifetime(&self, kept: &Found) -> Duration {
        match kept {
            Found::Account { .. } => self.settings.cache.found,
            Found::Nobody => self.settings.cache.missing,
        }
    }

    /// How long an answer is kept: that nobody knows a user is no answer for a time of trouble.
    fn kept_for(&self, kept: &Found) -> Duration {
        match kept {
            Found::Account { .. } => self.settings.cache.found.max(self.settings.cache.stale),
            Found::Nobody => self.settings.cache.missing,
        }
    }

    fn keep(&self, who: &Who, kept: Found, now: Instant) {
        // What was asked before a move is no answer for after it.
        if self.kept_for(&kept) > Duration::ZERO && !self.was_moved_since(&who.user, now) {
            self.cache.keep(who.question(), kept, now);
        }
    }
}
