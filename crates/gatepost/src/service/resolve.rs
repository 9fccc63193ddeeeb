//! Who is it, and where is their mail: the password where that is Gatepost's to check, then the map.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost_wire::Secret;
use tokio::time::Instant;

use super::Session;
use super::claim::{Means, Scram};
use super::denied::Denied;
use crate::auth::{Account, Authenticator, Denial, Unanswered, authenticate_first, find_first};
use crate::backend::{Backend, Credentials};
use crate::directory::{Bar, Bearer, Entry, Objection, Who};
use crate::map::{Answer, Evidence, Found, NoPlace};
use crate::metrics::Stage;

/// How often a directory is asked whether a user who is being moved has arrived.
const HOLD_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The user is in, as far as Gatepost can say.
pub(super) struct Destination<'c> {
    /// As the session is known from here on.
    pub(super) user: String,
    pub(super) backend: Arc<Backend>,
    /// The name at the back end.
    pub(super) login: String,
    /// What is said there.
    pub(super) credentials: Credentials<'c>,
    /// When the session must end.
    pub(super) expires: Option<SystemTime>,
    /// When the directories were asked where the user's mail is.
    pub(super) placed_at: std::time::Instant,
}

/// What shows here that the user is who they say.
enum Checked {
    /// Nothing: the back end must say.
    Nothing,
    /// A password, a proof of one, or a certificate whose owner a directory knows.
    Account(Verified),
    /// A token, as long as it is good.
    Token { expires: Option<SystemTime> },
    /// A certificate, and nobody was asked about its owner.
    Certificate,
}

/// An account as the directory has it that found it to be the user's.
#[derive(Clone)]
struct Verified {
    by: Arc<str>,
    entry: Entry,
    /// The entry is what the directory says now.
    is_current: bool,
}

/// What is good enough to place a user by.
enum Basis {
    /// Nothing but what the directories say at this moment.
    Now,
    /// What is remembered, and what one of them said of the account when it found what was shown right.
    Known(Option<Verified>),
}

impl Session {
    /// Checks the password where that is Gatepost's to do, and finds the back end.
    pub(super) async fn resolve<'c>(&self, means: &'c Means) -> Result<Destination<'c>, Denied> {
        let (who, checked) = self.check(means).await?;
        let started = Instant::now();
        if means.password().is_none() {
            self.check_map_can_answer()?;
        }
        let (answer, placed_at) = self.locate(&who, means, &checked).await?;
        let (found, is_checked_there) = match answer {
            Answer::Found(found) => (found, false),
            Answer::Checked { directory, entry } => (Found::Account { directory, entry }, true),
            Answer::Denied(denial) => return Err(denial.into()),
        };
        self.took(Stage::Map, started.elapsed());
        let is_checked = is_checked_there || !matches!(checked, Checked::Nothing);
        let (backend, _) = self.snapshot.map.choose(&who.user, &found).map_err(|no_place| match no_place {
            NoPlace::Unknown => Denied::Wrong,
            NoPlace::Refused(text) => Denied::Misplaced(text),
        })?;
        let entry = found.entry();
        let log_in = backend.log_in_as(entry);
        if is_checked {
            entry.map_or(Ok(()), |entry| permitted(entry, &who))?;
        } else if !log_in.is_own() || entry.is_some_and(|entry| permitted(entry, &who).is_err()) {
            // Who may not in learns that only with the right password, and a log-in by somebody else's must not
            // let anybody in whose own nobody asked for. What was remembered is not good enough here.
            self.check_by_map(&who, &backend, means).await?;
        }
        let credentials = log_in.with(means.shown()).ok_or_else(|| {
            let what = "needs a master log-in ([backend.NAME.login]), or a password in the directory";
            Denied::Misplaced(format!("{} {what}: the client has shown nothing that could be passed on", backend.name))
        })?;
        Ok(Destination {
            login: found.log_in_name(&who.user).to_owned(),
            user: who.user,
            credentials,
            expires: match checked {
                Checked::Token { expires } => expires,
                Checked::Nothing | Checked::Account(_) | Checked::Certificate => None,
            },
            backend,
            placed_at,
        })
    }

    /// Checks what was shown against the service's directories, where it has some: who this is, and by what.
    async fn check(&self, means: &Means) -> Result<(Who, Checked), Denied> {
        match means {
            Means::Token { user, token } => self.check_token(user.as_deref(), token).await,
            Means::Certificate { user } => self.check_certificate(user.as_deref()).await,
            Means::Password { user, password } => self.check_password(user, password).await,
            Means::Scram(scram) => self.check_scram(scram),
        }
    }

    /// Whose a token is, says the token: the client may have said the same, or nothing.
    async fn check_token(&self, user: Option<&str>, token: &Secret) -> Result<(Who, Checked), Denied> {
        let Some(checks) = &self.service().checks else {
            let nameless = || Denied::Suspect("the client names no user, and its token is not looked at here".into());
            return Ok((self.who(user.ok_or_else(nameless)?), Checked::Nothing));
        };
        // The configuration offers tokens only where somebody checks them.
        let Some(checker) = checks.tokens.clone() else { return Err(Denied::Wrong) };
        let (started, token) = (Instant::now(), token.duplicate());
        let checked = self.on_control(async move { checker.check(&token).await }).await?;
        self.took(Stage::Auth, started.elapsed());
        let Bearer { name, expires } = checked?;
        let name = self.snapshot.listener.settings.names.canonical(&name);
        match user {
            Some(user) if user != name => return Err(Denied::Suspect(format!("what was shown is that of {name:?}"))),
            Some(_) => {}
            None => self.story().user = Some(name.clone()),
        }
        Ok((self.who(&name), Checked::Token { expires }))
    }

    /// Whose the client's certificate is, and what the service's directories say of them.
    async fn check_certificate(&self, user: Option<&str>) -> Result<(Who, Checked), Denied> {
        let names = &self.snapshot.listener.settings.names;
        let held: Vec<_> = self.certified_names().iter().map(|name| names.canonical(name)).collect();
        // One that holds several names is for any of them.
        let who = match (held.iter().find(|held| Some(held.as_str()) == user), held.first()) {
            (Some(user), _) => self.who(user),
            (None, Some(name)) => {
                return Err(Denied::Suspect(format!("the client's certificate is that of {name:?}")));
            }
            (None, None) => {
                return Err(Denied::Suspect("the client's certificate holds no name, or has ended".into()));
            }
        };
        let Some(checks) = &self.service().checks else { return Ok((who, Checked::Certificate)) };
        let started = Instant::now();
        let (authenticators, asked) = (checks.passwords.clone(), who.clone());
        let found = self.on_control(async move { find_first(&authenticators, &asked).await }).await?;
        self.took(Stage::Auth, started.elapsed());
        let (by, entry) = found.ok_or(Denied::Wrong)?;
        self.verified(who, Verified { by, entry, is_current: true })
    }

    async fn check_password(&self, user: &str, password: &Secret) -> Result<(Who, Checked), Denied> {
        let who = self.who(user);
        let Some(checks) = &self.service().checks else { return Ok((who, Checked::Nothing)) };
        let started = Instant::now();
        let (authenticators, password) = (checks.passwords.clone(), password.duplicate());
        let (checker, asked) = (self.shared.checker.clone(), who.clone());
        let checking = async move { authenticate_first(&authenticators, &checker, &asked, &password, |_| true).await };
        let checked = self.on_control(checking).await?;
        self.took(Stage::Auth, started.elapsed());
        let Some((authenticator, checked)) = checked else { return Err(Denied::Wrong) };
        let Account { entry, is_remembered } = checked?;
        let is_current = !is_remembered || !authenticator.abilities.finds;
        self.verified(who, Verified { by: Arc::clone(&authenticator.name), entry, is_current })
    }

    fn check_scram(&self, scram: &Scram) -> Result<(Who, Checked), Denied> {
        let (by, entry) = scram.check()?;
        self.verified(self.who(&scram.user), Verified { by, entry, is_current: true })
    }

    /// What a directory found right is this user's, and may be used so.
    fn verified(&self, who: Who, verified: Verified) -> Result<(Who, Checked), Denied> {
        if let Some(name) = &verified.entry.name {
            let name = self.snapshot.listener.settings.names.canonical(name);
            if who.user != name {
                return Err(Denied::Suspect(format!("what was shown is that of {name:?}")));
            }
        }
        permitted(&verified.entry, &who)?;
        Ok((who, Checked::Account(verified)))
    }

    /// A directory of the map that only answers to who brings a password would be left out by who brings none, and the
    /// user be placed as if it had said nothing.
    fn check_map_can_answer(&self) -> Result<(), Denied> {
        let is_mute = |authenticator: &&Arc<Authenticator>| !authenticator.abilities.finds;
        match self.snapshot.map.authenticators().iter().find(is_mute) {
            Some(authenticator) => {
                let what = "of `map.directories` only answers to who brings a password";
                Err(Denied::Misplaced(format!("{} {what}", authenticator.name)))
            }
            None => Ok(()),
        }
    }

    /// What the map's directories say; while they say that the user is being moved, not at once.
    async fn locate(
        &self,
        who: &Who,
        means: &Means,
        checked: &Checked,
    ) -> Result<(Answer, std::time::Instant), Denied> {
        let mut placed_at = std::time::Instant::now();
        // The way to the control plane and back costs more than the rest of a log-in.
        let (known, basis) = match checked {
            Checked::Nothing => (self.snapshot.map.known(who), Basis::Known(None)),
            Checked::Account(verified) if verified.is_current => (None, Basis::Known(Some(verified.clone()))),
            Checked::Account(_) => (self.snapshot.map.known(who), Basis::Known(None)),
            // These are good for as long as they last: whether their owner still is, only the directory knows.
            Checked::Token { .. } | Checked::Certificate => (None, Basis::Now),
        };
        let mut answer = match known {
            Some(found) => Answer::Found(found),
            None => self.ask_map(who, means, basis).await?,
        };
        // Whoever is held to the end of a log-in's time was held, and no directory too slow: the last look comes before it.
        let last = self.deadline - 2 * HOLD_LOOK_INTERVAL;
        let patience = (Instant::now() + self.snapshot.map.settings.hold_time).min(last);
        loop {
            let is_held = self.snapshot.map.is_held(&who.user);
            if !is_held && !answer.entry().is_some_and(|entry| entry.held) {
                break;
            }
            if Instant::now() + HOLD_LOOK_INTERVAL > patience {
                return Err(Denied::Held("the user's log-ins are held"));
            }
            tokio::select! {
                () = tokio::time::sleep(HOLD_LOOK_INTERVAL) => {}
                () = self.client.connection().broken() => return Err(Denied::Left),
            }
            if is_held && self.snapshot.map.is_held(&who.user) {
                continue;
            }
            placed_at = std::time::Instant::now();
            answer = self.ask_map(who, means, Basis::Now).await?;
        }
        Ok((answer, placed_at))
    }

    async fn ask_map(&self, who: &Who, means: &Means, basis: Basis) -> Result<Answer, Unanswered> {
        let (map, who) = (Arc::clone(&self.snapshot.map), who.clone());
        let password = means.password().map(Secret::duplicate);
        self.on_control(async move {
            let password = password.as_ref();
            match &basis {
                Basis::Now => map.find_by_now(&who, Evidence { password, checked: None }).await,
                Basis::Known(checked) => {
                    let checked = checked.as_ref().map(|Verified { by, entry, .. }| (&**by, entry));
                    map.find_by(&who, Evidence { password, checked }).await
                }
            }
        })
        .await
    }

    /// Checks a password against what the map's directories say now.
    async fn check_by_map(&self, who: &Who, backend: &Backend, means: &Means) -> Result<(), Denied> {
        let unfit = || {
            let what = "has a master log-in or the account is restricted, and no directory can check its password";
            Denied::Unfit(format!("{} {what}", backend.name))
        };
        let Some(password) = means.password() else { return Err(unfit()) };
        let (map, checker, asked) = (Arc::clone(&self.snapshot.map), self.shared.checker.clone(), who.clone());
        let password = password.duplicate();
        let checked = self.on_control(async move { map.authenticate(&checker, &asked, &password).await }).await;
        match checked? {
            Some(Ok(entry)) => permitted(&entry, who),
            Some(Err(denial)) => Err(denial.into()),
            None => Err(unfit()),
        }
    }
}

impl From<Denial> for Denied {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Unfit(why) => Self::Unfit(why),
            // A locked account is told apart in the log alone: the password may be wrong.
            Denial::Unknown | Denial::Wrong | Denial::NoPassword | Denial::Barred(Bar::Locked) => Self::Wrong,
            Denial::Barred(Bar::Disabled) => Self::Disabled,
            Denial::Barred(Bar::Expired) => Self::Expired,
        }
    }
}

/// Whether an account, whose password is right, may be used so.
fn permitted(entry: &Entry, who: &Who) -> Result<(), Denied> {
    match entry.objection(who) {
        None => Ok(()),
        Some(Objection::Barred(bar)) => Err(Denial::Barred(bar).into()),
        Some(Objection::Service) => Err(Denied::Disabled),
        Some(Objection::Address) => Err(Denied::Wrong),
    }
}
