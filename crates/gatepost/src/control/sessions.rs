//! Commands about sessions: who is there, and having them go.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::commands::rfc3339;
use super::{DRAIN_STEP, Server};
use crate::admin::{Whose, answers};
use crate::config::{Level, Network};
use crate::directory::Who;
use crate::map::{Evidence, Found, NoPlace};
use crate::overrides::{Duty, Overrides};
use crate::service::idle::Present;

/// How long a user who is moved has to end what is under way; then the sessions are cut.
const MOVE_TIME: Duration = Duration::from_secs(5);
/// How often it is looked whether they have gone.
const MOVE_STEP: Duration = Duration::from_millis(100);

impl Server {
    /// The sessions that are meant.
    async fn present(&self, whose: &Whose) -> Vec<Present> {
        let mut present = self.entrance.workers.present().await;
        if !whose.is_everybody() {
            // As it is given, and as the log has it.
            let canonical = whose.user.as_ref().map(|user| self.entrance.world.load().config.map.names.canonical(user));
            present.retain(|present| is_meant(present, whose, canonical.as_deref()));
        }
        present
    }

    pub(super) async fn sessions(&self, whose: &Whose) -> Result<Vec<answers::Session>, String> {
        let present = self.present(whose).await;
        describe_all(present).await
    }

    /// Ends the sessions that are meant.
    pub(super) async fn kick(&self, whose: &Whose) -> Result<Vec<answers::Session>, String> {
        if whose.is_everybody() {
            return Err("say whose sessions are to end: an id, a user, a back end or a service".into());
        }
        let present = self.present(whose).await;
        if let (Some(id), true) = (&whose.id, present.is_empty()) {
            return Err(format!("there is no session {id:?}: `gatepost sessions` lists all"));
        }
        present.iter().for_each(Present::kick);
        describe_all(present).await
    }

    /// Ends the sessions of clients from a network; how many there were.
    pub(super) async fn end_those_from(&self, network: &Network) -> usize {
        let present = self.entrance.workers.present().await;
        let from_there = present.iter().filter(|present| network.contains(present.story().client.ip()));
        from_there.map(Present::kick).count()
    }

    /// Takes a back end out of service: no log-in comes to it any more, and those there go within this time.
    pub(super) async fn relieve(
        self: &Arc<Self>,
        backend: &str,
        duty: Duty,
        over: Duration,
    ) -> Result<answers::Service, String> {
        self.check_backend(backend)?;
        self.lasting.overrides.set_duty(backend, Some(duty))?;
        let whose = Whose { backend: Some(backend.to_owned()), ..Whose::default() };
        let sessions = self.present(&whose).await.len();
        let emptying = tokio::spawn(Arc::clone(self).empty(whose, over)).abort_handle();
        self.replace_emptying(backend, Some(emptying));
        Ok(answers::Service { name: backend.to_owned(), state: duty.name(), sessions, over_seconds: over.as_secs() })
    }

    /// Takes a back end into service again; sessions that were to go stay.
    pub(super) fn make_ready(&self, backend: &str) -> Result<answers::Service, String> {
        // One that the configuration has no more can be forgotten.
        if self.lasting.overrides.duty(backend).is_none() {
            self.check_backend(backend)?;
        }
        self.replace_emptying(backend, None);
        self.lasting.overrides.set_duty(backend, None)?;
        Ok(answers::Service { name: backend.to_owned(), state: "up", sessions: 0, over_seconds: 0 })
    }

    /// Whoever ends a back end's sessions so far stops doing so.
    fn replace_emptying(&self, backend: &str, emptying: Option<tokio::task::AbortHandle>) {
        let mut all = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match emptying {
            Some(emptying) => all.insert(backend.to_owned(), emptying),
            None => all.remove(backend),
        };
        before.iter().for_each(tokio::task::AbortHandle::abort);
    }

    /// Ends sessions spread over a time: quiet ones between two commands, and at its end the rest.
    async fn empty(self: Arc<Self>, whose: Whose, over: Duration) {
        let deadline = Instant::now() + over;
        loop {
            let present = self.present(&whose).await;
            if present.is_empty() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                present.iter().for_each(Present::kick);
                break;
            }
            let steps = usize::try_from(left.as_millis() / DRAIN_STEP.as_millis()).unwrap_or(usize::MAX).max(1);
            let share = present.len().div_ceil(steps);
            present.iter().filter(|present| present.is_quiet()).take(share).for_each(Present::ask_to_go);
            tokio::time::sleep(DRAIN_STEP.min(left)).await;
        }
        let log = &self.shared.log;
        let backend = whose.backend.unwrap_or_default();
        log.record(Level::Info, "admin", "a back end out of service has no sessions").with("backend", backend).write();
    }

    /// Has a user come to another back end from now on: log-ins wait until it is written down and old sessions are gone.
    pub(super) async fn move_user(&self, user: &str, backend: &str) -> Result<answers::Moved, String> {
        self.check_backend(backend)?;
        let world = self.entrance.world.load_full();
        let user = world.config.map.names.canonical(user);
        let service = world.config.services.first().map_or("imap", |service| service.protocol.name);
        let who = Who::somebody(&user, service);
        let find = || world.map.find_now(&who, Evidence::default());
        let found = find().await.map_err(|unanswered| unanswered.to_string())?;
        let from = match world.map.choose(&user, &found) {
            Ok((from, _)) => from.name.to_string(),
            Err(NoPlace::Unknown) => return Err(format!("nobody knows a user {user:?}: `gatepost explain` says why")),
            Err(NoPlace::Refused(_)) => String::new(),
        };
        let _held = Held::new(&self.lasting.overrides, &user);
        let kept = match &found {
            Found::Account { directory, .. } => {
                let judge = world.directory(directory);
                let written = match &judge {
                    Some(judge) => {
                        judge.directory.set_place(&user, backend).await.map_err(|fault| fault.to_string())?
                    }
                    None => false,
                };
                written.then(|| format!("directory {directory}"))
            }
            Found::Nobody | Found::Denied(_) => None,
        };
        // What the directory says now needs no override, and what it can't be told does.
        self.lasting.overrides.set_place(&user, kept.is_none().then_some(backend))?;
        world.forget(Some(&user));
        let ended = self.see_off(&user, backend).await;
        Ok(answers::Moved {
            user: user.clone(),
            from,
            to: backend.to_owned(),
            kept: kept.unwrap_or_else(|| "state".into()),
            ended,
        })
    }

    /// Has a user's sessions elsewhere than at `backend` go; how many there were.
    async fn see_off(&self, user: &str, backend: &str) -> usize {
        let whose = Whose { user: Some(user.to_owned()), ..Whose::default() };
        let deadline = Instant::now() + MOVE_TIME;
        let mut most = 0;
        loop {
            let mut present = self.present(&whose).await;
            // Those on their way to a log-in wait for it to be over.
            present.retain(|present| {
                let story = present.story();
                story.is_logged_in && story.backend.as_deref() != Some(backend)
            });
            most = most.max(present.len());
            if present.is_empty() || Instant::now() > deadline + MOVE_TIME {
                return most;
            }
            if Instant::now() > deadline {
                present.iter().for_each(Present::kick);
            } else {
                present.iter().filter(|present| present.is_quiet()).for_each(Present::ask_to_go);
            }
            tokio::time::sleep(MOVE_STEP).await;
        }
    }
}

/// A user whose log-ins wait until this is dropped.
struct Held<'a> {
    overrides: &'a Overrides,
    user: &'a str,
}

impl<'a> Held<'a> {
    fn new(overrides: &'a Overrides, user: &'a str) -> Self {
        overrides.hold(user, true);
        Self { overrides, user }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.overrides.hold(self.user, false);
    }
}

fn is_meant(present: &Present, whose: &Whose, canonical: Option<&str>) -> bool {
    let story = present.story();
    let fits = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| is == Some(wanted));
    let user = story.user.as_deref();
    fits(&whose.id, Some(story.session.as_str()))
        && (fits(&whose.user, user) || canonical.is_some() && canonical == user)
        && fits(&whose.backend, story.backend.as_deref())
        && fits(&whose.service, Some(story.service))
}

/// There may be many; the control plane has other things to do.
async fn describe_all(present: Vec<Present>) -> Result<Vec<answers::Session>, String> {
    let work = move || {
        let mut sessions: Vec<_> = present.iter().map(describe).collect();
        sessions.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.id.cmp(&b.id)));
        sessions
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

fn describe(present: &Present) -> answers::Session {
    let story = present.story();
    let (bytes_up, bytes_down) = present.bytes();
    let tls = |facts: Option<crate::net::stream::TlsFacts>| {
        facts.map(|facts| format!("{} {}", facts.version(), facts.cipher()))
    };
    answers::Session {
        id: story.session.as_str().to_owned(),
        service: story.service,
        user: story.user.clone(),
        backend: story.backend.as_deref().map(str::to_owned),
        client: story.client.to_string(),
        since: rfc3339(SystemTime::now() - story.started.elapsed()),
        state: match (story.is_logged_in, present.is_relay()) {
            (_, true) => "open",
            (true, false) => "mail",
            (false, false) => "log-in",
        },
        listener: story.listener.to_string(),
        host: story.host.map(|host| host.to_string()),
        mechanism: story.mechanism,
        tls: tls(story.tls),
        backend_tls: tls(story.backend_tls),
        idle_seconds: present.idle_seconds,
        bytes_up,
        bytes_down,
    }
}
