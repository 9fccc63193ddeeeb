//! Who is it, and where is their mail: the password where that is Gatepost's to check, then the map.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost_wire::{Credentials, Proof, Refusal};
use tokio::time::Instant;

use super::Session;
use super::login::Denied;
use crate::auth::{Account, Denial};
use crate::backend::Backend;
use crate::directory::{Bar, Entry, LoginPassword, Via, Who};
use crate::map::{Evidence, Found, NoPlace, Unanswered, admits};

/// How often a directory is asked whether a user who is being moved has arrived.
const HOLD_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The user is in, as far as Gatepost can say.
pub(super) struct Place {
    pub(super) backend: Arc<Backend>,
    /// The name at the back end.
    pub(super) login: String,
    /// The password at the back end, where it is not the user's.
    pub(super) password: Option<LoginPassword>,
    /// When the session must end.
    pub(super) expires: Option<SystemTime>,
}

/// What a directory has found right.
#[derive(Clone)]
struct Checked {
    by: Arc<str>,
    entry: Entry,
    /// The entry is what the directory says now.
    is_current: bool,
}

impl Session {
    /// Checks the password where that is Gatepost's to do, and finds the back end.
    pub(super) async fn resolve(&mut self, credentials: &Credentials) -> Result<Place, Denied> {
        let mut who = Who {
            user: self.story.user.clone().unwrap_or_default(),
            service: self.snapshot.listener.service.name(),
            client: self.address,
            via: Via {
                local: self.local,
                is_proxied: self.is_proxied,
                tls: self.client.tls_facts(),
                attempt: self.story.attempts,
            },
        };
        let checked = self.check(&mut who, credentials).await?;
        if who.user.is_empty() {
            return Err(Denied::Unfit("the client names no user, and only a token that is checked here could".into()));
        }
        let started = Instant::now();
        let found = self.locate(&who, credentials, checked.as_ref()).await?;
        self.story.took.map = Some(started.elapsed().into());
        let is_checked = checked.is_some() || matches!(found, Found::Account { is_checked: true, .. });
        let (backend, _) = self.snapshot.map.choose(&who.user, &found).map_err(|no_place| match no_place {
            NoPlace::Unknown => Denied::Refused(Refusal::BadCredentials),
            NoPlace::Refused(text) => Denied::Misplaced(text),
        })?;
        let entry = found.entry();
        let acts_for_the_user = backend.master().is_some() || entry.is_some_and(|entry| entry.login_password.is_some());
        if is_checked {
            entry.map_or(Ok(()), |entry| permitted(entry, &who))?;
        } else if acts_for_the_user || entry.is_some_and(|entry| permitted(entry, &who).is_err()) {
            // Who may not in learns that only with the right password, and a log-in by somebody else's must not
            // let anybody in whose own nobody asked for. What was remembered is not good enough here.
            self.check_by_map(&who, &backend, credentials).await?;
        }
        Ok(Place {
            login: entry.and_then(|entry| entry.login.clone()).unwrap_or(who.user),
            password: entry.and_then(|entry| entry.login_password.clone()),
            expires: checked.and_then(|checked| checked.entry.expires),
            backend,
        })
    }

    /// Checks the password or token against the service's directories, where it has some: what that gave.
    async fn check(&mut self, who: &mut Who, credentials: &Credentials) -> Result<Option<Checked>, Denied> {
        let Some(checks) = &self.snapshot.listener.service.checks else { return Ok(None) };
        let (judges, proof) = match &credentials.proof {
            Proof::Password(password) => (&checks.passwords, password),
            Proof::Token(token) => (&checks.tokens, token),
        };
        let started = Instant::now();
        let (judges, proof) = (judges.clone(), proof.duplicate());
        let (checker, asked) = (self.shared.checker.clone(), who.clone());
        let checking = async move {
            for judge in &judges {
                match judge.judge(&checker, &asked, &proof).await {
                    Ok(Err(Denial::Unknown)) => {}
                    Ok(judged) => {
                        let by = Arc::clone(&judge.name);
                        let finds = judge.directory.finds();
                        let checked = |Account { entry, is_remembered }| Checked {
                            by,
                            entry,
                            is_current: !is_remembered || !finds,
                        };
                        return Ok(judged.map(checked));
                    }
                    Err(fault) => return Err(format!("{}: {fault}", judge.name)),
                }
            }
            Ok(Err(Denial::Unknown))
        };
        let judged = self.on_control(checking).await.map_err(|fault| Denied::Fault(Refusal::Unavailable, fault))?;
        self.story.took.auth = Some(started.elapsed().into());
        let checked = judged.map_err(denied)?;
        if let Some(name) = &checked.entry.name {
            self.take_name(who, name)?;
        }
        permitted(&checked.entry, who)?;
        Ok(Some(checked))
    }

    /// Whose a token is, says the token: the client may have said the same, or nothing. So may other directories say.
    fn take_name(&mut self, who: &mut Who, name: &str) -> Result<(), Denied> {
        let name = self.snapshot.listener.settings.names.canonical(name);
        if who.user.is_empty() {
            who.user.clone_from(&name);
            self.story.user = Some(name);
        } else if who.user != name {
            return Err(Denied::Unfit(format!("what was shown is that of {name:?}")));
        }
        Ok(())
    }

    /// What the map's directories say; while they say that the user is being moved, not at once.
    async fn locate(&self, who: &Who, credentials: &Credentials, checked: Option<&Checked>) -> Result<Found, Denied> {
        let mut found = match self.snapshot.map.known(who) {
            // The way to the control plane and back costs more than the rest of a log-in.
            Some(found) if checked.is_none_or(|checked| !checked.is_current) => found,
            _ => self.ask_map(who, credentials, checked, false).await?,
        };
        let patience = Instant::now() + self.snapshot.map.settings.hold_time;
        while found.entry().is_some_and(|entry| entry.held) {
            if Instant::now() + HOLD_LOOK_INTERVAL > patience {
                return Err(Denied::Fault(Refusal::Unavailable, "the directory holds the user's log-ins".into()));
            }
            tokio::time::sleep(HOLD_LOOK_INTERVAL).await;
            found = self.ask_map(who, credentials, None, true).await?;
        }
        match found {
            Found::Denied(denial) => Err(denied(denial)),
            found => Ok(found),
        }
    }

    async fn ask_map(
        &self,
        who: &Who,
        credentials: &Credentials,
        checked: Option<&Checked>,
        is_now: bool,
    ) -> Result<Found, Denied> {
        let (map, who) = (Arc::clone(&self.snapshot.map), who.clone());
        let checked = checked.cloned();
        let proof = credentials.proof.duplicate();
        let found = self.on_control(async move {
            let password = match &proof {
                Proof::Password(password) => Some(password),
                Proof::Token(_) => None,
            };
            let checked = checked.as_ref().filter(|checked| checked.is_current);
            let checked = checked.map(|Checked { by, entry, .. }| (&**by, entry));
            let evidence = Evidence { password, checked };
            if is_now { map.find_now(&who, evidence).await } else { map.find(&who, evidence).await }
        });
        found.await.map_err(|found| unanswered(&found))
    }

    /// Checks a password against what the map's directories say now.
    async fn check_by_map(&self, who: &Who, backend: &Backend, credentials: &Credentials) -> Result<(), Denied> {
        let unfit = || {
            let what = "has a master log-in or the account is restricted, and no directory can check its password";
            Denied::Unfit(format!("{} {what}", backend.name))
        };
        let Proof::Password(password) = &credentials.proof else { return Err(unfit()) };
        let (map, checker, asked) = (Arc::clone(&self.snapshot.map), self.shared.checker.clone(), who.clone());
        let password = password.duplicate();
        let judged = self.on_control(async move { map.judge(&checker, &asked, &password).await }).await;
        match judged.map_err(|found| unanswered(&found))? {
            Some(Ok(entry)) => permitted(&entry, who),
            Some(Err(denial)) => Err(denied(denial)),
            None => Err(unfit()),
        }
    }

    /// Runs what may talk to directories on the control plane.
    async fn on_control<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        match self.shared.control.spawn(work).await {
            Ok(value) => value,
            // The control plane ends only with the program, and this session with it.
            Err(_) => std::future::pending().await,
        }
    }
}

fn unanswered(unanswered: &Unanswered) -> Denied {
    Denied::Fault(Refusal::Unavailable, unanswered.to_string())
}

fn denied(denial: Denial) -> Denied {
    Denied::Refused(match denial {
        Denial::Unfit(why) => return Denied::Unfit(why),
        // A locked account is told apart in the log alone: the password may be wrong.
        Denial::Unknown | Denial::Wrong | Denial::Unjudged | Denial::Barred(Bar::Locked) => Refusal::BadCredentials,
        Denial::Barred(Bar::Disabled) => Refusal::Disabled,
        Denial::Barred(Bar::Expired) => Refusal::Expired,
    })
}

/// Whether an account, whose password is right, may be used so.
fn permitted(entry: &Entry, who: &Who) -> Result<(), Denied> {
    if let Some(bar) = entry.barred {
        return Err(denied(Denial::Barred(bar)));
    }
    if entry.services.as_ref().is_some_and(|services| !services.iter().any(|name| name == who.service)) {
        return Err(Denied::Refused(Refusal::Disabled));
    }
    if !admits(entry, who.client.ip()) {
        return Err(Denied::Refused(Refusal::BadCredentials));
    }
    Ok(())
}
