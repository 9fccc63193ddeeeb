//! Checking at the proxy what clients show: passwords, tokens and proofs.
//!
//! Here belongs checking what a client shows. Whom a directory knows is the directory's to say, and where mail is the map's.

pub(crate) mod hash;
mod pace;
mod remembered;
pub(crate) mod scram;

use std::sync::Arc;

use gatepost_wire::Secret;
use tokio::sync::Semaphore;

use crate::config;
use crate::directory::{Accounts, Bar, Bearer, Entry, Fault, KeptSecret, TokenVerdict, Tokens, Verdict, Who};
use crate::metrics::CacheMetrics;
pub(crate) use pace::RefusalPace;
use remembered::Remembered;

/// Checks hashes on threads of their own, few at a time: each Argon2 takes 19 MiB and a core for a
/// while, and log-ins that wait cost less than a machine without memory.
#[derive(Debug, Clone)]
pub(crate) struct Checker {
    runtime: tokio::runtime::Handle,
    permits: Arc<Semaphore>,
}

impl Checker {
    /// A checker that works on `runtime`'s blocking threads.
    pub(crate) fn new(runtime: tokio::runtime::Handle) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { runtime, permits: Arc::new(Semaphore::new(cores)) }
    }

    /// Whether `password` is the one that `stored` was made of. Without `stored`, takes as long as with
    /// one and says no: nobody learns from the clock which users exist. An error says what is wrong
    /// with the hash, never what it is.
    pub(crate) async fn check(&self, stored: Option<KeptSecret>, password: Secret) -> Result<bool, hash::Unusable> {
        // Neither the semaphore nor the runtime closes while anyone can ask.
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return Err(hash::Unusable::Stopped) };
        let work = move || {
            // Whoever asked may leave; the work goes on, and so does its share.
            let _permit = permit;
            match stored {
                Some(stored) => {
                    let stored = stored.expose_text().ok_or(hash::Unusable::Malformed)?;
                    hash::verify(stored, &password)
                }
                None => hash::verify(hash::nobody(), &password).map(|_| false),
            }
        };
        self.runtime.spawn_blocking(work).await.unwrap_or(Err(hash::Unusable::Stopped))
    }

    /// Says no where there is nothing to compare with, in as much time as where there is.
    async fn deny(&self, denial: Denial, password: &Secret) -> Denial {
        let _ = self.check(None, password.duplicate()).await;
        denial
    }
}

/// A directory of accounts with its name, that authenticates users: by comparing hashes of its entries, where it does not do
/// so itself.
pub(crate) struct Authenticator {
    pub(crate) name: Arc<str>,
    pub(crate) directory: Arc<dyn Accounts>,
    pub(crate) abilities: config::Abilities,
    remembered: Option<Remembered>,
    /// How what is remembered fares.
    cache_metrics: Arc<CacheMetrics>,
}

/// A user whose password is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) entry: Entry,
    /// The directory was not asked: what else the entry says may be old.
    pub(crate) is_remembered: bool,
}

/// What a directory says of a password.
pub(crate) type Checked = Result<Account, Denial>;

/// Why a user is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denial {
    /// Nobody has this name.
    Unknown,
    Wrong,
    /// As wrong; the text is for the administrator.
    Unfit(String),
    /// The directory knows the user, and has no password to compare with.
    NoPassword,
    /// The password is right; the account can't be used.
    Barred(Bar),
}

impl Authenticator {
    /// Passwords that were right are remembered as `times` says.
    pub(crate) fn new(
        name: &str,
        abilities: config::Abilities,
        directory: Arc<dyn Accounts>,
        times: config::Cache,
        cache_metrics: &Arc<CacheMetrics>,
    ) -> Self {
        let (name, remembered) = (name.into(), Remembered::new(times));
        Self { name, directory, abilities, remembered, cache_metrics: Arc::clone(cache_metrics) }
    }

    /// Forgets what it has remembered of a user, or of all; how many answers there were.
    pub(crate) fn forget(&self, users: Option<&[String]>) -> usize {
        self.remembered.as_ref().map_or(0, |remembered| remembered.forget_all(users))
    }

    /// This directory's fault.
    pub(crate) fn unanswered(&self, fault: Fault) -> Unanswered {
        Unanswered::of(&self.name, fault)
    }

    /// The account of `who`, if `password` is right. An error means that nobody can say.
    pub(crate) async fn authenticate(&self, checker: &Checker, who: &Who, password: &Secret) -> Result<Checked, Fault> {
        let old = |entry| Ok(Account { entry, is_remembered: true });
        let remembered = self.remembered.as_ref();
        let is_down = self.directory.is_down();
        let known = remembered.and_then(|r| {
            self.cache_metrics.note(if is_down { r.stale(who, password) } else { r.fresh(who, password) })
        });
        if let Some(entry) = known {
            return Ok(old(entry));
        }
        let verdict = match self.directory.authenticate(who, password).await {
            Ok(verdict) => verdict,
            Err(fault) => return remembered.and_then(|r| r.stale(who, password)).map(old).ok_or(fault),
        };
        let checked = match verdict {
            Verdict::Right(entry) => Ok(entry),
            Verdict::Compare(entry) => match entry.password.clone() {
                Some(stored) => match checker.check(Some(stored), password.duplicate()).await {
                    Ok(true) => Ok(entry),
                    Ok(false) => Err(Denial::Wrong),
                    // It says nothing of the entry.
                    Err(ours @ (hash::Unusable::Stopped | hash::Unusable::Short)) => {
                        return Err(Fault(ours.to_string()));
                    }
                    Err(unusable) => return Err(unusable_entry(unusable)),
                },
                None => Err(checker.deny(Denial::NoPassword, password).await),
            },
            Verdict::Unknown => Err(checker.deny(Denial::Unknown, password).await),
            Verdict::Wrong => Err(Denial::Wrong),
            Verdict::Unfit(why) => Err(Denial::Unfit(why)),
            Verdict::Barred(bar) => Err(Denial::Barred(bar)),
        };
        if let Some(remembered) = remembered {
            match &checked {
                Ok(entry) if entry.objection(who).is_none() => remembered.keep(who, password, entry),
                // Who may not in is asked about anew, so that they are in as soon as they may, and by no older password.
                Ok(_) => remembered.forget_account(who),
                Err(_) => remembered.forget(who, password),
            }
        }
        Ok(checked.map(|entry| Account { entry, is_remembered: false }))
    }
}

/// A directory of tokens with its name. What it knows of them it remembers itself, within their life.
pub(crate) struct TokenChecker {
    pub(crate) name: Arc<str>,
    tokens: Arc<dyn Tokens>,
}

impl TokenChecker {
    pub(crate) fn new(name: &str, tokens: Arc<dyn Tokens>) -> Self {
        Self { name: name.into(), tokens }
    }

    /// Whose a token is, if it is good. An error means that nobody can say.
    pub(crate) async fn check(&self, token: &Secret) -> Result<Result<Bearer, Denial>, Unanswered> {
        match self.tokens.check(token).await {
            Ok(TokenVerdict::Good(bearer)) => Ok(Ok(bearer)),
            Ok(TokenVerdict::Wrong) => Ok(Err(Denial::Wrong)),
            Ok(TokenVerdict::Unfit(why)) => Ok(Err(Denial::Unfit(why))),
            Err(fault) => Err(Unanswered::of(&self.name, fault)),
        }
    }

    /// Forgets what it remembers of all tokens; how many there were.
    pub(crate) fn forget(&self) -> usize {
        self.tokens.forget()
    }
}

/// The account in the first of these directories that knows the user, and which that is. Directories that only answer to
/// who brings a password are passed over.
pub(crate) async fn find_first(
    authenticators: &[Arc<Authenticator>],
    who: &Who,
) -> Result<Option<(Arc<str>, Entry)>, Unanswered> {
    for authenticator in authenticators.iter().filter(|authenticator| authenticator.abilities.finds) {
        match authenticator.directory.find(who).await {
            Ok(Some(entry)) => return Ok(Some((Arc::clone(&authenticator.name), entry))),
            Ok(None) => {}
            Err(fault) => return Err(authenticator.unanswered(fault)),
        }
    }
    Ok(None)
}

/// What the first of these directories that knows the user says of a password; one whose account `is_theirs` takes for
/// somebody else's is passed over.
pub(crate) async fn authenticate_first(
    authenticators: &[Arc<Authenticator>],
    checker: &Checker,
    who: &Who,
    password: &Secret,
    is_theirs: impl Fn(&Entry) -> bool,
) -> Result<Option<(Arc<Authenticator>, Checked)>, Unanswered> {
    for authenticator in authenticators {
        match authenticator.authenticate(checker, who, password).await {
            Ok(Err(Denial::Unknown)) => {}
            Ok(Ok(account)) if !is_theirs(&account.entry) => {}
            Ok(checked) => return Ok(Some((Arc::clone(authenticator), checked))),
            Err(fault) => return Err(authenticator.unanswered(fault)),
        }
    }
    Ok(None)
}

/// A directory has an account with which no password or proof could be compared.
pub(crate) fn unusable_entry(unusable: hash::Unusable) -> Fault {
    Fault(format!("the directory's entry can't be used: {unusable}"))
}

/// A directory had to be asked and can't answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unanswered {
    pub(crate) directory: String,
    pub(crate) fault: String,
}

impl Unanswered {
    fn of(directory: &str, Fault(fault): Fault) -> Self {
        Self { directory: directory.to_owned(), fault }
    }
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.directory, self.fault)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::scripted::{Scripted, abilities};

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn checker() -> Checker {
        Checker::new(tokio::runtime::Handle::current())
    }

    fn kim() -> Who {
        Who::somebody("kim", "imap")
    }

    fn entry(password: Option<&str>) -> Entry {
        Entry { password: password.map(KeptSecret::new), place: Some("a".into()), ..Entry::default() }
    }

    const NEVER: Duration = Duration::ZERO;
    /// So short that it is over when somebody looks.
    const HARDLY: Duration = Duration::from_nanos(1);
    const LONG: Duration = Duration::from_mins(1);

    /// Remembers right passwords for this time, and where nobody can be asked, for a minute.
    fn authenticator(name: &str, directory: &Arc<Scripted>, verified: Duration) -> Arc<Authenticator> {
        let times = config::Cache { found: NEVER, missing: NEVER, stale: LONG, verified, entries: 10 };
        Arc::new(Authenticator::new(name, abilities(true), Arc::clone(directory) as _, times, &Arc::default()))
    }

    const fn account(entry: Entry, is_remembered: bool) -> Account {
        Account { entry, is_remembered }
    }

    #[tokio::test]
    async fn a_checker_tells_right_from_wrong_and_knows_nobody() {
        let checker = checker();
        let stored = || Some(KeptSecret::new("{PLAIN}right"));
        assert_eq!(checker.check(stored(), secret("right")).await, Ok(true));
        assert_eq!(checker.check(stored(), secret("wrong")).await, Ok(false));
        assert_eq!(checker.check(None, secret("x")).await, Ok(false));
        assert_eq!(
            checker.check(Some(KeptSecret::new("{WHAT}x")), secret("x")).await,
            Err(hash::Unusable::UnknownScheme)
        );
    }

    #[tokio::test]
    async fn every_verdict_becomes_what_a_log_in_is_told() {
        let checker = checker();
        let directory = Scripted::with(&[]);
        let authenticator = authenticator("people", &directory, NEVER);
        let hashed = entry(Some("{PLAIN}x"));
        for (verdict, expected) in [
            (Verdict::Right(entry(None)), Ok(entry(None))),
            (Verdict::Compare(hashed.clone()), Ok(hashed)),
            (Verdict::Compare(entry(Some("{PLAIN}other"))), Err(Denial::Wrong)),
            (Verdict::Compare(entry(None)), Err(Denial::NoPassword)),
            (Verdict::Unknown, Err(Denial::Unknown)),
            (Verdict::Wrong, Err(Denial::Wrong)),
            (Verdict::Unfit("why".into()), Err(Denial::Unfit("why".into()))),
            (Verdict::Barred(Bar::Expired), Err(Denial::Barred(Bar::Expired))),
        ] {
            directory.say("kim", verdict);
            let said = authenticator.authenticate(&checker, &kim(), &secret("x")).await;
            assert_eq!(said, Ok(expected.map(|entry| account(entry, false))));
        }
        directory.say("kim", Verdict::Compare(entry(Some("{WHAT}x"))));
        let fault = authenticator.authenticate(&checker, &kim(), &secret("x")).await.expect_err("a fault");
        assert!(fault.0.contains("scheme that is not supported"), "{fault}");
    }

    #[tokio::test]
    async fn whose_a_token_is_is_told_as_the_directory_has_it() {
        let directory = Scripted::with(&[]);
        let checker = TokenChecker::new("sso", Arc::clone(&directory) as _);
        let kim = Bearer { name: "kim".into(), expires: None };
        for (verdict, expected) in [
            (TokenVerdict::Good(kim.clone()), Ok(kim)),
            (TokenVerdict::Wrong, Err(Denial::Wrong)),
            (TokenVerdict::Unfit("why".into()), Err(Denial::Unfit("why".into()))),
        ] {
            directory.say_of_tokens(verdict);
            assert_eq!(checker.check(&secret("t")).await, Ok(expected));
        }
        directory.be_silent(true);
        let unanswered = checker.check(&secret("t")).await.expect_err("nobody can say");
        assert_eq!((unanswered.to_string(), checker.forget()), ("sso: no answer".to_owned(), 10));
    }

    #[tokio::test]
    async fn a_right_password_is_asked_for_once_and_a_wrong_one_each_time() {
        let checker = checker();
        let known = entry(Some("{PLAIN}right"));
        let directory = Scripted::with(&[("kim", known.clone())]);
        let authenticator = authenticator("people", &directory, LONG);
        let ask = |password: &str| {
            let (authenticator, checker, password) = (Arc::clone(&authenticator), checker.clone(), secret(password));
            async move { authenticator.authenticate(&checker, &kim(), &password).await }
        };
        assert_eq!(ask("right").await, Ok(Ok(account(known.clone(), false))));
        assert_eq!((ask("right").await, directory.asked()), (Ok(Ok(account(entry(None), true))), 1));
        assert_eq!((ask("wrong").await, ask("wrong").await), (Ok(Err(Denial::Wrong)), Ok(Err(Denial::Wrong))));
        assert_eq!(
            (ask("right").await, directory.asked()),
            (Ok(Ok(account(entry(None), true))), 2),
            "a guess changes nothing"
        );
        let everybody = [None, Some(vec!["lee".to_owned()]), Some(vec!["kim".to_owned()])];
        let forgotten = everybody.map(|users| {
            let forgotten = authenticator.forget(users.as_deref());
            authenticator.remembered.as_ref().expect("a memory").keep(&kim(), &secret("right"), &known);
            forgotten
        });
        assert_eq!(forgotten, [1, 0, 1]);
        authenticator.forget(None);
        assert_eq!((ask("right").await, directory.asked()), (Ok(Ok(account(known, false))), 1));
    }

    #[tokio::test]
    async fn who_was_barred_is_in_as_soon_as_they_may() {
        let checker = checker();
        let known = entry(Some("{PLAIN}right"));
        let directory = Scripted::with(&[("kim", known.clone())]);
        let authenticator = authenticator("people", &directory, LONG);
        let barred = Entry { barred: Some(Bar::Disabled), ..known.clone() };
        let elsewhere = Entry { services: Some(vec!["pop3".into()]), ..known.clone() };
        for now in [barred, elsewhere, known] {
            directory.say("kim", Verdict::Compare(now.clone()));
            let said = authenticator.authenticate(&checker, &kim(), &secret("right")).await;
            assert_eq!(said, Ok(Ok(account(now, false))));
        }
    }

    #[tokio::test]
    async fn who_is_barred_has_no_older_password_either() {
        let checker = checker();
        let directory = Scripted::with(&[("kim", entry(Some("{PLAIN}old")))]);
        let authenticator = authenticator("people", &directory, LONG);
        let old = secret("old");
        assert!(authenticator.authenticate(&checker, &kim(), &old).await.is_ok_and(|checked| checked.is_ok()));
        let barred = Entry { barred: Some(Bar::Disabled), ..entry(Some("{PLAIN}new")) };
        directory.say("kim", Verdict::Compare(barred));
        assert!(
            authenticator.authenticate(&checker, &kim(), &secret("new")).await.is_ok_and(|checked| checked.is_ok())
        );
        assert_eq!(authenticator.authenticate(&checker, &kim(), &old).await, Ok(Err(Denial::Wrong)));
    }

    #[tokio::test]
    async fn what_was_right_serves_where_the_directory_can_not_answer() {
        let checker = checker();
        let known = entry(Some("{PLAIN}right"));
        let directory = Scripted::with(&[("kim", known.clone())]);
        let remembering = authenticator("people", &directory, HARDLY);
        let other = authenticator("people", &directory, NEVER);
        let (right_one, wrong_one) = (secret("right"), secret("wrong"));
        for _ in 0..2 {
            let asked = remembering.authenticate(&checker, &kim(), &right_one).await;
            assert_eq!((asked, directory.asked()), (Ok(Ok(account(known.clone(), false))), 1));
        }
        directory.be_down(true);
        let while_down = remembering.authenticate(&checker, &kim(), &right_one).await;
        assert_eq!((while_down, directory.asked()), (Ok(Ok(account(entry(None), true))), 0));
        directory.be_down(false);
        directory.be_silent(true);
        let without_answer = remembering.authenticate(&checker, &kim(), &right_one).await;
        assert_eq!((without_answer, directory.asked()), (Ok(Ok(account(entry(None), true))), 1));
        let unknown = Err(Fault("no answer".into()));
        assert_eq!(remembering.authenticate(&checker, &kim(), &wrong_one).await, unknown);
        assert_eq!(other.authenticate(&checker, &kim(), &right_one).await, unknown);
        let unanswered = other.unanswered(Fault("no answer".into()));
        assert_eq!(unanswered.to_string(), "people: no answer");
    }

    #[tokio::test]
    async fn the_first_directory_that_knows_the_user_answers() {
        let checker = checker();
        let theirs = |name: &str| Entry { name: Some(name.into()), ..entry(Some("{PLAIN}x")) };
        let [empty, other, full] = [&[][..], &[("kim", theirs("lee"))], &[("kim", theirs("kim"))]].map(Scripted::with);
        let all: Vec<_> = [("empty", &empty), ("other", &other), ("full", &full)]
            .map(|(name, directory)| authenticator(name, directory, NEVER))
            .to_vec();
        let found = find_first(&all, &kim()).await.expect("an answer");
        assert_eq!(found, Some(("other".into(), theirs("lee"))));
        let is_kims = |entry: &Entry| entry.name.as_deref() == Some("kim");
        let checked = authenticate_first(&all, &checker, &kim(), &secret("x"), is_kims).await;
        let (by, account) = checked.expect("an answer").expect("a directory");
        assert_eq!((&*by.name, account), ("full", Ok(Account { entry: theirs("kim"), is_remembered: false })));
        let wrong = authenticate_first(&all, &checker, &kim(), &secret("y"), is_kims).await;
        let (by, account) = wrong.expect("an answer").expect("a directory");
        assert_eq!((&*by.name, account), ("other", Err(Denial::Wrong)), "who knows the user has the word");
        assert!(
            authenticate_first(&all[..1], &checker, &kim(), &secret("x"), |_| true).await.expect("an answer").is_none()
        );
        assert_eq!(find_first(&all[..1], &kim()).await, Ok(None));
        empty.be_silent(true);
        let unanswered = Unanswered { directory: "empty".into(), fault: "no answer".into() };
        assert_eq!(find_first(&all, &kim()).await, Err(unanswered.clone()));
        let checked = authenticate_first(&all, &checker, &kim(), &secret("x"), |_| true).await;
        assert_eq!(checked.err(), Some(unanswered));
        let times = config::Cache { found: NEVER, missing: NEVER, stale: NEVER, verified: NEVER, entries: 1 };
        let mute = Authenticator::new("mute", abilities(false), Arc::clone(&full) as _, times, &Arc::default());
        full.asked();
        assert_eq!((find_first(&[Arc::new(mute)], &kim()).await, full.asked()), (Ok(None), 0));
    }
}
