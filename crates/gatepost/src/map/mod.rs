//! The map: which back end holds whose mail.
//!
//! Asking the directories is the only part that waits; what follows from their answers is a pure [`choice`].
//! Connections to back ends don't belong here.

pub(crate) mod choice;

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
    cache: Cache<Found>,
    flights: Flights<Result<Found, Unanswered>>,
    checker: Checker,
    log: Logger,
    /// How the cache fares, where there is one.
    places: Option<Arc<CacheMetrics>>,
}

/// What the directories say of a user.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// This directory has the account. `is_checked`: it has seen the password, and found it right.
    Account { directory: Arc<str>, entry: Box<Entry>, is_checked: bool },
    /// No directory knows the user.
    Nobody,
    /// A directory that only answers to who brings a password refuses this one.
    Denied(Denial),
}

impl Found {
    /// The account, if there is one.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Account { entry, .. } => Some(entry),
            Self::Nobody | Self::Denied(_) => None,
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
        places: &Arc<CacheMetrics>,
    ) -> Self {
        // Room is only taken where something is to be remembered.
        let config::Cache { found, missing, stale, entries, .. } = settings.cache;
        let is_used = found.max(missing).max(stale) > Duration::ZERO;
        let cache = Cache::new(if is_used { entries as usize } else { 1 });
        let (flights, places) = (Flights::default(), is_used.then(|| Arc::clone(places)));
        let (settings, names) = (settings.clone(), names.clone());
        Self { settings, names, authenticators, backends, cache, flights, checker, log, places }
    }

    /// What is known without asking anybody: remembered, or because there is nobody to ask.
    pub(crate) fn known(&self, who: &Who) -> Option<Found> {
        if self.authenticators.is_empty() {
            return Some(Found::Nobody);
        }
        let known = self.remembered(who, |found| self.lifetime(found));
        match &self.places {
            Some(places) => places.note(known),
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
    pub(crate) async fn find_now(&self, who: &Who, evidence: Evidence<'_>) -> Result<Found, Unanswered> {
        self.ask(who, evidence, None).await
    }

    /// Asks the directories in turn. An error means that one that had to be asked can't answer, and
    /// nothing remembered helps: the user may exist.
    pub(crate) async fn find(&self, who: &Who, evidence: Evidence<'_>) -> Result<Found, Unanswered> {
        if evidence.checked.is_some() || self.authenticators.iter().any(|authenticator| !authenticator.abilities.finds)
        {
            // What these say goes for this log-in alone.
            return self.ask(who, evidence, None).await;
        }
        // Whoever asks has looked for a known answer, but not just now.
        if let Some(found) = self.remembered(who, |found| self.lifetime(found)) {
            return Ok(found);
        }
        let stale = self.remembered(who, |found| self.kept_for(found));
        if let Some(stale) =
            stale.clone().filter(|_| self.authenticators.iter().any(|authenticator| authenticator.directory.is_down()))
        {
            return Ok(stale);
        }
        self.flights.join(&question(who), self.ask(who, evidence, stale)).await
    }

    async fn ask(&self, who: &Who, evidence: Evidence<'_>, stale: Option<Found>) -> Result<Found, Unanswered> {
        let now = Instant::now();
        let mut is_cacheable = true;
        for authenticator in &self.authenticators {
            let answer = match evidence {
                Evidence { checked: Some((name, entry)), .. } if name == &*authenticator.name => {
                    let account = |is_checked| {
                        let entry = Box::new(entry.clone());
                        Found::Account { directory: Arc::clone(&authenticator.name), entry, is_checked }
                    };
                    if is_cacheable && authenticator.abilities.finds {
                        // Good for the place alone: the next one's password is another question.
                        self.keep(who, &account(false), now);
                    }
                    return Ok(account(true));
                }
                _ if authenticator.abilities.finds => {
                    authenticator.directory.find(who).await.map(|found| found.map(|e| (e, false)))
                }
                Evidence { password: Some(password), .. } => {
                    is_cacheable = false;
                    match authenticator.authenticate(&self.checker, who, password).await {
                        Ok(Ok(account)) => Ok(Some((account.entry, true))),
                        Ok(Err(Denial::Unknown)) => Ok(None),
                        Ok(Err(denial)) => return Ok(Found::Denied(denial)),
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
                    let found = Found::Account {
                        directory: Arc::clone(&authenticator.name),
                        entry: Box::new(entry),
                        is_checked,
                    };
                    if is_cacheable {
                        self.keep(who, &found, now);
                    }
                    return Ok(found);
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
                    return stale.ok_or(Unanswered { directory: authenticator.name.to_string(), fault: fault.0 });
                }
            }
        }
        if is_cacheable {
            // Who has been removed must not come back when the directory is down.
            self.cache.forget(&question(who));
            self.keep(who, &Found::Nobody, now);
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
    fn remembered(&self, who: &Who, lifetime: impl FnOnce(&Found) -> Duration) -> Option<Found> {
        let found = self.cache.get(&question(who), Instant::now(), lifetime)?;
        (!self.backends.overrides().was_moved_lately(&who.user)).then_some(found)
    }

    fn lifetime(&self, found: &Found) -> Duration {
        match found {
            Found::Account { .. } => self.settings.cache.found,
            Found::Nobody => self.settings.cache.missing,
            Found::Denied(_) => Duration::ZERO,
        }
    }

    /// How long an answer is kept: that nobody knows a user is no answer for a time of trouble.
    fn kept_for(&self, found: &Found) -> Duration {
        match found {
            Found::Account { .. } => self.settings.cache.found.max(self.settings.cache.stale),
            Found::Nobody | Found::Denied(_) => self.lifetime(found),
        }
    }

    fn keep(&self, who: &Who, found: &Found, now: Instant) {
        // What was asked before a move is no answer for after it.
        if self.kept_for(found) > Duration::ZERO && !self.was_moved_since(&who.user, now) {
            self.cache.keep(question(who), found.clone(), now);
        }
    }
}

/// What the cache knows an answer by: directories may answer differently to different services.
fn question(who: &Who) -> String {
    format!("{} {}", who.service, who.user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::scripted::{Scripted, settings};
    use crate::overrides::{Duty, Overrides};
    use gatepost_wire::PROTOCOLS;

    /// Two back ends, and what is said of the map.
    fn map_of(said: &str, directories: &[(&str, &Arc<Scripted>, bool)]) -> Map {
        let text = format!(
            "[imap]\n[[imap.listener]]\naddress = \"127.0.0.1:1143\"\ntls = \"none\"\n[map]\n{said}\n\
             [backend.a]\nhost = \"127.0.0.1\"\n[backend.b]\nhost = \"127.0.0.1\"\n"
        );
        let draft = config::parse(std::path::Path::new("gatepost.toml"), &text).expect("a file");
        let config = draft.sound().unwrap_or_else(|problems| panic!("{problems}")).config;
        let (states, overrides) = (Arc::default(), Arc::new(Overrides::default()));
        let backends = Backends::open(&config, &states, &overrides, &mut Vec::new()).expect("back ends");
        let authenticators = directories.iter().map(|(name, directory, finds)| {
            let times = config::Cache { verified: Duration::ZERO, ..config.map.cache };
            let directory = Arc::clone(directory) as _;
            Arc::new(Authenticator::new(&settings(name, *finds), directory, times, &Arc::default()))
        });
        let authenticators = authenticators.collect();
        let log = Logger::start(&config::Log { level: config::Level::Critical, rules: Vec::new() }).expect("a log");
        let checker = Checker::new(tokio::runtime::Handle::current());
        Map::new(&config.map, &config.names, authenticators, backends, checker, log, &Arc::default())
    }

    const REMEMBERING: &str = "default = \"a\"\n[map.cache]\nfound = \"1h\"\nmissing = \"1h\"";

    fn kim() -> Who {
        Who::somebody("kim", "imap")
    }

    fn at(place: &str) -> Entry {
        Entry { place: Some(place.to_owned()), password: Some("{PLAIN}right".into()), ..Entry::default() }
    }

    async fn place(map: &Map, who: &Who) -> Option<String> {
        let found = map.find(who, Evidence::default()).await.expect("an answer");
        found.entry().map(|entry| entry.place.clone().unwrap_or_default())
    }

    #[tokio::test]
    async fn without_directories_nobody_is_asked() {
        let map = map_of("default = \"a\"", &[]);
        assert!(matches!(map.known(&kim()), Some(Found::Nobody)));
        let (backend, reason) = map.choose("kim", &Found::Nobody).expect("a place");
        assert_eq!((&*backend.name, reason), ("a", Reason::Default));
        assert!(map.authenticators().is_empty() && map.backends().named("b").is_some());
    }

    #[tokio::test]
    async fn the_first_directory_that_knows_the_user_says_where() {
        let [first, second] = [&[("lee", at("a"))][..], &[("kim", at("b")), ("lee", at("b"))]].map(Scripted::with);
        let map = map_of("default = \"a\"", &[("first", &first, true), ("second", &second, true)]);
        let found = map.find(&kim(), Evidence::default()).await.expect("an answer");
        assert!(matches!(&found, Found::Account { directory, is_checked: false, .. } if &**directory == "second"));
        let (backend, reason) = map.choose("kim", &found).expect("a place");
        assert_eq!((&*backend.name, reason), ("b", Reason::Directory));
        assert_eq!(place(&map, &Who::somebody("lee", "imap")).await.as_deref(), Some("a"));
        assert_eq!(place(&map, &Who::somebody("max", "imap")).await, None);
        first.asked();
        // Nothing is remembered that nobody asked to have remembered.
        assert!(map.known(&kim()).is_none());
        place(&map, &kim()).await;
        place(&map, &kim()).await;
        assert_eq!(first.asked(), 2);
        first.be_silent(true);
        let unanswered = map.find(&kim(), Evidence::default()).await.expect_err("no answer");
        assert_eq!(unanswered.to_string(), "first: no answer");
    }

    #[tokio::test]
    async fn an_account_of_another_name_is_passed_over() {
        let other = Scripted::with(&[("kim", Entry { name: Some("lee".into()), ..at("b") })]);
        let map = map_of("default = \"a\"", &[("other", &other, true)]);
        assert_eq!(place(&map, &kim()).await, None);
        let evidence = secret("right");
        let checker = Checker::new(tokio::runtime::Handle::current());
        assert_eq!(map.authenticate(&checker, &kim(), &evidence).await, Ok(None));
    }

    #[tokio::test]
    async fn answers_are_remembered_for_each_service_until_they_are_forgotten() {
        let people = Scripted::with(&[("kim", at("b"))]);
        let map = map_of(REMEMBERING, &[("people", &people, true)]);
        let (pop3, max) = (Who::somebody("kim", "pop3"), Who::somebody("max", "imap"));
        assert!(map.known(&kim()).is_none());
        for who in [&kim(), &kim(), &pop3, &max, &max] {
            place(&map, who).await;
        }
        assert_eq!(people.asked(), 3);
        assert_eq!(map.known(&kim()).and_then(|found| found.entry().cloned()), Some(at("b")));
        assert!(matches!(map.known(&max), Some(Found::Nobody)));
        let places = map.places.as_ref().expect("figures");
        assert_eq!((places.hits.get(), places.misses.get()), (2, 1));
        people.know("kim", Some(at("a")));
        people.know("max", Some(at("b")));
        assert_eq!((place(&map, &kim()).await.as_deref(), people.asked()), (Some("b"), 0));
        let now = map.find_now(&kim(), Evidence::default()).await.expect("an answer");
        assert_eq!(now.entry(), Some(&at("a")), "who asks for now is not given what was");
        assert_eq!((place(&map, &kim()).await.as_deref(), place(&map, &max).await), (Some("a"), None));
        assert_eq!(map.forget(Some(&["max".to_owned()])), 1);
        assert_eq!(place(&map, &max).await.as_deref(), Some("b"));
        assert_eq!(map.forget(None), 3);
        assert!(map.known(&kim()).is_none());
    }

    #[tokio::test]
    async fn who_is_gone_is_forgotten_even_where_that_is_not_remembered() {
        let people = Scripted::with(&[("kim", at("b"))]);
        let map = map_of("default = \"a\"\n[map.cache]\nfound = \"1h\"\nstale = \"1h\"", &[("people", &people, true)]);
        place(&map, &kim()).await;
        people.know("kim", None);
        let now = map.find_now(&kim(), Evidence::default()).await.expect("an answer");
        assert!(matches!(now, Found::Nobody));
        people.be_silent(true);
        people.be_down(true);
        assert!(map.known(&kim()).is_none());
        assert!(map.find(&kim(), Evidence::default()).await.is_err(), "not served from before");
    }

    #[tokio::test]
    async fn an_old_answer_serves_in_an_outage_and_only_then() {
        let people = Scripted::with(&[("kim", at("b"))]);
        let map = map_of("default = \"a\"\n[map.cache]\nstale = \"1h\"", &[("people", &people, true)]);
        place(&map, &kim()).await;
        assert_eq!((place(&map, &kim()).await.as_deref(), people.asked()), (Some("b"), 2));
        assert!(map.known(&kim()).is_none());
        people.be_silent(true);
        assert_eq!((place(&map, &kim()).await.as_deref(), people.asked()), (Some("b"), 1));
        people.be_down(true);
        assert_eq!((place(&map, &kim()).await.as_deref(), people.asked()), (Some("b"), 0));
        assert!(map.find(&Who::somebody("max", "imap"), Evidence::default()).await.is_err());
    }

    #[tokio::test]
    async fn who_was_moved_is_looked_up_anew() {
        let people = Scripted::with(&[("kim", at("b"))]);
        let map = map_of(REMEMBERING, &[("people", &people, true)]);
        let began = Instant::now();
        place(&map, &kim()).await;
        assert!(map.known(&kim()).is_some() && !map.was_moved_since("kim", began) && !map.is_held("kim"));
        let overrides = map.backends().overrides();
        overrides.hold("kim");
        assert!(map.is_held("kim") && !map.is_held("lee"));
        assert!(map.was_moved_since("kim", began) && !map.was_moved_since("lee", began));
        overrides.release("kim");
        assert!(map.known(&kim()).is_none() && !map.is_held("kim"));
        people.asked();
        place(&map, &kim()).await;
        place(&map, &kim()).await;
        assert_eq!(people.asked(), 2, "not believed for a while");
        overrides.set_place("kim", Some("a")).expect("kept");
        let found = map.find(&kim(), Evidence::default()).await.expect("an answer");
        let (backend, reason) = map.choose("kim", &found).expect("a place");
        assert_eq!((&*backend.name, reason), ("a", Reason::Moved));
    }

    #[tokio::test]
    async fn an_answer_from_before_a_move_is_not_kept() {
        let people = Scripted::with(&[("kim", at("b"))]);
        let map = map_of(REMEMBERING, &[("people", &people, true)]);
        let asked = Instant::now();
        map.backends().overrides().hold("kim");
        let found = map.find_now(&kim(), Evidence::default()).await.expect("an answer");
        map.backends().overrides().release("kim");
        map.keep(&kim(), &found, asked);
        assert!(map.cache.get(&question(&kim()), Instant::now(), |_| Duration::MAX).is_none());
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_directory_that_wants_to_see_a_password_is_asked_with_it_or_passed_over() {
        let (mute, open) = (Scripted::with(&[("kim", at("b"))]), Scripted::with(&[("kim", at("a"))]));
        let map = map_of(REMEMBERING, &[("mute", &mute, false), ("open", &open, true)]);
        assert_eq!((place(&map, &kim()).await.as_deref(), mute.asked()), (Some("a"), 0));
        let (right, wrong) = (secret("right"), secret("wrong"));
        let ask = async |who: &Who, password| {
            let evidence = Evidence { password: Some(password), ..Evidence::default() };
            map.find(who, evidence).await
        };
        let found = ask(&kim(), &right).await.expect("an answer");
        assert!(matches!(&found, Found::Account { directory, is_checked: true, .. } if &**directory == "mute"));
        assert!(matches!(ask(&kim(), &wrong).await, Ok(Found::Denied(Denial::Wrong))));
        assert!(matches!(ask(&Who::somebody("max", "imap"), &right).await, Ok(Found::Nobody)));
        assert!(map.known(&kim()).is_none(), "such an answer is for the one who brought the password");
        mute.be_silent(true);
        assert!(ask(&kim(), &right).await.is_err());
    }

    #[tokio::test]
    async fn the_directory_that_has_checked_the_password_is_not_asked_again() {
        let people = Scripted::with(&[("kim", at("a"))]);
        let [finding, mute] = [true, false].map(|finds| map_of(REMEMBERING, &[("people", &people, finds)]));
        for (map, finds) in [(finding, true), (mute, false)] {
            let checked = at("b");
            let evidence = Evidence { checked: Some(("people", &checked)), ..Evidence::default() };
            let found = map.find(&kim(), evidence).await.expect("an answer");
            assert!(matches!(&found, Found::Account { is_checked: true, entry, .. } if **entry == checked));
            assert_eq!(people.asked(), 0);
            let known = map.known(&kim());
            assert_eq!(known.is_some(), finds);
            assert!(!matches!(known, Some(Found::Account { is_checked: true, .. })), "good for the place alone");
            let newer = at("c");
            let evidence = Evidence { checked: Some(("people", &newer)), ..Evidence::default() };
            let found = map.find(&kim(), evidence).await.expect("an answer");
            assert_eq!(found.entry(), Some(&newer), "whatever is remembered");
            map.forget(None);
            let other = Evidence { checked: Some(("other", &checked)), ..Evidence::default() };
            let found = map.find(&kim(), other).await.expect("an answer");
            assert_eq!(found.entry(), finds.then_some(&at("a")), "of another directory's word nothing follows");
            people.asked();
        }
    }

    #[tokio::test]
    async fn a_password_is_checked_by_whoever_knows_the_user() {
        let people = Scripted::with(&[("kim", at("a")), ("lee", Entry::default())]);
        let map = map_of("default = \"a\"", &[("people", &people, true)]);
        let checker = Checker::new(tokio::runtime::Handle::current());
        let check = async |user: &str, password: &str| {
            map.authenticate(&checker, &Who::somebody(user, "imap"), &secret(password)).await
        };
        assert_eq!(check("kim", "right").await, Ok(Some(Ok(at("a")))));
        assert_eq!(check("kim", "wrong").await, Ok(Some(Err(Denial::Wrong))));
        assert_eq!(check("lee", "right").await, Ok(None), "there is nothing to compare with");
        assert_eq!(check("max", "right").await, Ok(None));
        people.be_silent(true);
        assert!(check("kim", "right").await.is_err());
        people.be_exact(true);
        assert!(map.is_exact("people") && !map.is_exact("other"));
        people.be_exact(false);
        assert!(!map.is_exact("people"));
    }

    #[tokio::test]
    async fn what_a_user_may_come_to_is_what_is_offered() {
        let pop3 = PROTOCOLS.iter().find(|protocol| protocol.name == "pop3").expect("a protocol");
        let people = Scripted::with(&[]);
        let sole = map_of("default = \"a\"", &[]);
        let shared = map_of("default = \"a\"", &[("people", &people, true)]);
        let open = map_of("default = \"a\"\nhosts = [\"127.0.0.1\"]", &[("people", &people, true)]);
        for map in [&sole, &shared, &open] {
            let know = |name: &str, list: &str| {
                map.backends().named(name).expect("a back end").learn(pop3, "127.0.0.1", list);
            };
            know("a", "TOP UIDL");
            know("b", "UIDL UTF8");
        }
        let offers = |map: &Map| map.offers(pop3).names(pop3).collect::<Vec<_>>();
        assert_eq!(offers(&sole), ["TOP", "UIDL"]);
        assert_eq!(offers(&shared), ["UIDL"]);
        assert!(offers(&open).is_empty());
    }

    #[tokio::test]
    async fn a_spread_leaves_out_who_takes_no_log_ins() {
        let map = map_of("spread = { a = 1, b = 1 }", &[]);
        let named = |user: &str| map.choose(user, &Found::Nobody).expect("a place").0.name.to_string();
        let users: Vec<_> = (0..20).map(|n| format!("user{n}")).collect();
        let before: std::collections::BTreeSet<_> = users.iter().map(|user| named(user)).collect();
        assert_eq!(before.len(), 2);
        map.backends().overrides().set_duty("a", Some(Duty::Maint)).expect("kept");
        assert!(users.iter().all(|user| named(user) == "b"));
    }

    #[tokio::test]
    async fn a_host_that_the_directory_names_is_taken_where_it_may_be() {
        let map = map_of("default = \"a\"\nhosts = [\"127.0.0.1\"]", &[]);
        let found = |place: &str| Found::Account {
            directory: "people".into(),
            entry: Box::new(Entry { port: Some(1144), ..at(place) }),
            is_checked: false,
        };
        let (backend, reason) = map.choose("kim", &found("127.0.0.1")).expect("a place");
        assert_eq!((&*backend.name, reason), ("127.0.0.1:1144", Reason::Directory));
        assert!(matches!(map.choose("kim", &found("127.0.0.2")), Err(NoPlace::Refused(_))));
    }
}
