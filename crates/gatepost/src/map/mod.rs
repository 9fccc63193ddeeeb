//! The map: which back end holds whose mail.
//!
//! Asking the directories is the only part that waits; what follows from their answers is a pure choice.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_wire::{Offers, Protocol};

use crate::backend::{Backend, Backends};
use crate::config::{self, HostPattern, Names, is_host};
use crate::directory::{Directory, Entry};
use crate::log::Logger;

/// Answers remembered at once; beyond it, those whose time is over go first, then any.
const CACHE_ENTRIES_MAX: usize = 100_000;

/// See the module's documentation.
pub(crate) struct Map {
    directories: Vec<(String, Arc<dyn Directory>)>,
    default: Option<String>,
    names: Names,
    hosts: Vec<HostPattern>,
    backends: Backends,
    cache: Cache,
    log: Logger,
}

/// What the directories say of a user.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// This directory has the account.
    Account { directory: Arc<str>, entry: Entry },
    /// No directory knows the user.
    Nobody,
}

/// Why there is no back end for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// Nobody knows the user, and there is no default.
    Unknown,
    /// A directory names a place that can't be used. The text is for the administrator.
    Refused(String),
}

impl Map {
    /// The map that `settings` describe, over opened directories.
    pub(crate) fn new(
        settings: &config::Map,
        directories: Vec<(String, Arc<dyn Directory>)>,
        backends: Backends,
        log: Logger,
    ) -> Self {
        Self {
            directories,
            default: settings.default.clone(),
            names: settings.names.clone(),
            hosts: settings.hosts.clone(),
            backends,
            cache: Cache::new(settings.cache),
            log,
        }
    }

    /// The name under which a user is looked up, logged and logged in.
    pub(crate) fn canonical(&self, user: &str) -> String {
        self.names.canonical(user)
    }

    /// What is known without asking anybody: remembered, or because there is nobody to ask.
    pub(crate) fn known(&self, user: &str) -> Option<Found> {
        if self.directories.is_empty() {
            return Some(Found::Nobody);
        }
        self.cache.fresh(user, Instant::now())
    }

    /// As [`Map::find`], without remembered answers: for what must be true now, such as a password.
    pub(crate) async fn find_now(&self, user: &str) -> Result<Found, Unanswered> {
        self.ask(user, None).await
    }

    /// Asks the directories in turn. An error means that one that had to be asked can't answer, and
    /// nothing remembered helps: the user may exist.
    pub(crate) async fn find(&self, user: &str) -> Result<Found, Unanswered> {
        let now = Instant::now();
        if let Some(found) = self.known(user) {
            return Ok(found);
        }
        self.ask(user, self.cache.stale(user, now)).await
    }

    async fn ask(&self, user: &str, stale: Option<Found>) -> Result<Found, Unanswered> {
        let now = Instant::now();
        for (name, directory) in &self.directories {
            match directory.find(user).await {
                Ok(Some(entry)) => {
                    let found = Found::Account { directory: name.as_str().into(), entry };
                    self.cache.keep(user, &found, now);
                    return Ok(found);
                }
                Ok(None) => {}
                Err(fault) => {
                    let served = if stale.is_some() { "a remembered answer" } else { "nothing" };
                    self.log
                        .record(config::Level::Error, "directory", "a directory can't answer")
                        .with("directory", name.as_str())
                        .with("served", served)
                        .with("fault", fault.0.as_str())
                        .write();
                    return stale.ok_or(Unanswered { directory: name.clone(), fault: fault.0 });
                }
            }
        }
        self.cache.keep(user, &Found::Nobody, now);
        Ok(Found::Nobody)
    }

    /// The back end for what was found.
    pub(crate) fn choose(&self, found: &Found) -> Result<Arc<Backend>, NoPlace> {
        let place = match found {
            Found::Account { entry, .. } => entry.place.as_ref().map(|place| (place, entry.port)),
            Found::Nobody => None,
        };
        let Some((place, port)) = place else {
            let default = self.default.as_ref().ok_or(NoPlace::Unknown)?;
            return self.backends.named(default).ok_or(NoPlace::Unknown);
        };
        if let Some(backend) = self.backends.named(place) {
            return Ok(backend);
        }
        let (host, port) = split_port(place, port)
            .ok_or_else(|| NoPlace::Refused(format!("{place:?} is neither a back end nor a host")))?;
        if !self.hosts.iter().any(|pattern| pattern.matches(host)) {
            let message =
                format!("{host:?} is no [backend.…] of the configuration, and `map.hosts` does not allow it as a host");
            return Err(NoPlace::Refused(message));
        }
        Ok(self.backends.host(host, port))
    }

    /// What every back end that a user may come to is known to offer. Of hosts that a directory may name
    /// beside the configuration's back ends, nothing is known.
    pub(crate) fn offers(&self, protocol: &Protocol) -> Offers {
        match &self.default {
            Some(default) if self.directories.is_empty() => {
                self.backends.named(default).map_or(Offers::NONE, |backend| backend.offers(protocol))
            }
            _ if self.hosts.is_empty() => self.backends.offers(protocol),
            _ => Offers::NONE,
        }
    }

    /// The directory of that name.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &str> {
        self.directories.iter().map(|(name, _)| name.as_str())
    }
}

/// A directory had to be asked and can't answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unanswered {
    pub(crate) directory: String,
    pub(crate) fault: String,
}

/// Whether an account may be used from `client`.
pub(crate) fn admits(entry: &Entry, client: IpAddr) -> bool {
    entry.networks.is_empty() || entry.networks.iter().any(|network| network.contains(client))
}

/// `host`, `host:port`, `[v6]:port`: the host and the port, which may also be a field of its own.
fn split_port(place: &str, port: Option<u16>) -> Option<(&str, Option<u16>)> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, text)) if !host.contains(':') || host.ends_with(']') => (host, Some(text.parse().ok()?)),
        _ => (place, port),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    is_host(host).then_some((host, port))
}

/// Answers of the directories, remembered for a while.
struct Cache {
    settings: config::Cache,
    answers: Mutex<HashMap<Box<str>, (Instant, Found)>>,
}

impl Cache {
    fn new(settings: config::Cache) -> Self {
        Self { settings, answers: Mutex::default() }
    }

    fn lifetime(&self, found: &Found) -> Duration {
        match found {
            Found::Account { .. } => self.settings.found,
            Found::Nobody => self.settings.missing,
        }
    }

    /// How long an answer is kept: that nobody knows a user is no answer for a time of trouble.
    fn kept_for(&self, found: &Found) -> Duration {
        match found {
            Found::Account { .. } => self.settings.found.max(self.settings.stale),
            Found::Nobody => self.settings.missing,
        }
    }

    fn fresh(&self, user: &str, now: Instant) -> Option<Found> {
        self.answer(user, |age, found| age < self.lifetime(found), now)
    }

    /// An answer that is over its time but better than none.
    fn stale(&self, user: &str, now: Instant) -> Option<Found> {
        self.answer(user, |age, found| age < self.kept_for(found), now)
    }

    fn answer(&self, user: &str, holds: impl Fn(Duration, &Found) -> bool, now: Instant) -> Option<Found> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, found) = answers.get(user)?;
        holds(now.saturating_duration_since(*at), found).then(|| found.clone())
    }

    fn keep(&self, user: &str, found: &Found, now: Instant) {
        if self.kept_for(found).is_zero() {
            return;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= CACHE_ENTRIES_MAX {
            answers.retain(|_, (at, found)| now.saturating_duration_since(*at) < self.kept_for(found));
            if answers.len() >= CACHE_ENTRIES_MAX {
                answers.clear();
            }
        }
        answers.insert(user.into(), (now, found.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        assert_eq!(split_port("10.0.0.1", None), Some(("10.0.0.1", None)));
        assert_eq!(split_port("10.0.0.1", Some(993)), Some(("10.0.0.1", Some(993))));
        assert_eq!(split_port("a.example.org:1143", None), Some(("a.example.org", Some(1143))));
        assert_eq!(split_port("[::1]:1143", None), Some(("::1", Some(1143))));
        assert_eq!(split_port("::1", None), Some(("::1", None)));
        for bad in ["a b", "a:x", "a\r\nb", "", "a:70000", "user@host"] {
            assert_eq!(split_port(bad, None), None, "{bad:?}");
        }
    }

    #[test]
    fn answers_live_as_long_as_they_should() {
        let seconds = Duration::from_secs;
        let cache = Cache::new(config::Cache { found: seconds(10), missing: seconds(2), stale: seconds(60) });
        let start = Instant::now();
        let account = Found::Account { directory: "people".into(), entry: Entry::default() };
        cache.keep("kim", &account, start);
        cache.keep("nobody", &Found::Nobody, start);
        assert!(cache.fresh("kim", start + seconds(9)).is_some());
        assert!(cache.fresh("kim", start + seconds(10)).is_none());
        assert!(cache.stale("kim", start + seconds(59)).is_some());
        assert!(cache.stale("kim", start + seconds(60)).is_none());
        assert!(cache.fresh("nobody", start + seconds(2)).is_none());
        assert!(cache.stale("nobody", start + seconds(3)).is_none(), "trouble makes nobody unknown");
        assert!(cache.fresh("lee", start).is_none(), "never another user's answer");
    }
}
