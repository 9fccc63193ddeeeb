//! Commands about sessions: who is there, and having them go.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::de::IgnoredAny;

use super::commands::{network_of, rfc3339};
use super::{DRAIN_STEP, Server};
use crate::admin::{Command, NO_SESSION, Whose, answers, items};
use crate::config::{Level, Network};
use crate::directory::Who;
use crate::map::{Found, NoPlace};
use crate::overrides::{Duty, Overrides};
use crate::service::wheel::SessionRef;

/// How long a user who is moved has to end what is under way; then the sessions are cut.
const MOVE_TIME: Duration = Duration::from_secs(5);
/// How often it is looked whether they have gone.
const MOVE_STEP: Duration = Duration::from_millis(250);

impl Server {
    /// Has what administrators decided written down.
    pub(super) async fn write_down<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Overrides) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let overrides = Arc::clone(&self.lasting.overrides);
        tokio::task::spawn_blocking(move || work(&overrides)).await.map_err(|error| error.to_string())?
    }

    /// Looks at every session and keeps what `work` makes of them. There may be many: few do so at a time, and not
    /// where log-ins are served or directories asked.
    pub(super) async fn look_at_all<T: Send + 'static>(
        &self,
        work: impl FnOnce(Vec<SessionRef>) -> T + Send + 'static,
    ) -> Result<T, String> {
        let _permit = self.looks.acquire().await;
        let sessions = self.entrance.workers.all_sessions().await;
        tokio::task::spawn_blocking(move || work(sessions)).await.map_err(|error| error.to_string())
    }

    /// The sessions that are meant.
    async fn sessions_of(&self, whose: &Whose) -> Result<Vec<SessionRef>, String> {
        // As it is given, and as the log has it.
        let canonical = whose.user.as_ref().map(|user| self.entrance.world.load().config.names.canonical(user));
        let network = whose.network.as_deref().map(network_of).transpose()?;
        let whose = whose.clone();
        let keep = move |mut sessions: Vec<SessionRef>| {
            let is_from_there =
                |session: &SessionRef| network.is_none_or(|network| network.contains(session.story().client.ip()));
            sessions.retain(|session| is_meant(session, &whose, canonical.as_deref()) && is_from_there(session));
            sessions
        };
        self.look_at_all(keep).await
    }

    pub(super) async fn sessions(&self, whose: &Whose) -> Result<Vec<answers::Session>, String> {
        let sessions = self.sessions_of(whose).await?;
        describe_all(sessions, self.generation).await
    }

    /// Ends the sessions that are meant.
    pub(super) async fn kick(&self, whose: &Whose) -> Result<Vec<answers::Session>, String> {
        if whose.is_everybody() {
            return Err("say whose sessions are to end: an id, a user, a back end or a service".into());
        }
        let sessions = self.sessions_of(whose).await?;
        if let (Some(id), true) = (&whose.id, sessions.is_empty()) {
            return Err(format!("{NO_SESSION} {id:?}: `gatepost sessions` lists all"));
        }
        sessions.iter().for_each(SessionRef::kick);
        describe_all(sessions, self.generation).await
    }

    /// Ends the sessions of clients from a network, those of processes before this one too; how many there were.
    pub(super) async fn end_those_from(&self, network: &Network) -> Result<usize, String> {
        let whose = Whose { network: Some(network.to_string()), ..Whose::default() };
        let sessions = self.sessions_of(&whose).await?;
        sessions.iter().for_each(SessionRef::kick);
        Ok(sessions.len() + self.kick_at_elders(whose).await)
    }

    /// Ends the sessions that processes before this one have; how many there were.
    async fn kick_at_elders(&self, whose: Whose) -> usize {
        let answers = self.ask_elders(&Command::Kick(whose)).await;
        let count = |(_, answer)| items::<IgnoredAny>("kick", answer).map_or(0, |kicked| kicked.len());
        answers.into_iter().map(count).sum()
    }

    /// Takes a back end out of service: no log-in comes to it any more, and those there go within this time.
    pub(super) async fn relieve(
        self: &Arc<Self>,
        backend: &str,
        duty: Duty,
        over: Duration,
    ) -> Result<answers::BackendState, String> {
        self.check_backend(backend)?;
        self.decide(backend, Some(duty)).await?;
        let whose = Whose { backend: Some(backend.to_owned()), ..Whose::default() };
        let sessions = self.sessions_of(&whose).await?.len();
        let emptying = tokio::spawn(Arc::clone(self).empty(backend.to_owned(), duty, over)).abort_handle();
        self.replace_emptying(backend, Some(emptying));
        Ok(answers::BackendState {
            name: backend.to_owned(),
            state: duty.name().into(),
            sessions,
            over_seconds: over.as_secs(),
        })
    }

    /// Takes a back end into service again; sessions that were to go stay.
    pub(super) async fn make_ready(&self, backend: &str) -> Result<answers::BackendState, String> {
        // One that the configuration has no more can be forgotten.
        if self.lasting.overrides.duty(backend).is_none() {
            self.check_backend(backend)?;
        }
        self.decide(backend, None).await?;
        self.replace_emptying(backend, None);
        // Those before this one may be emptying it still.
        self.ask_elders(&Command::Ready { backend: backend.to_owned() }).await;
        Ok(self.in_service(backend))
    }

    /// A back end that is in service again, with how it is doing.
    pub(super) fn in_service(&self, backend: &str) -> answers::BackendState {
        let known = self.backends().into_iter().find(|known| known.name == backend);
        let state = known.map_or_else(|| "gone".into(), |known| known.state);
        answers::BackendState { name: backend.to_owned(), state, sessions: 0, over_seconds: 0 }
    }

    /// Writes down what a back end is to do; a disk may take its time.
    async fn decide(&self, backend: &str, duty: Option<Duty>) -> Result<(), String> {
        let backend = backend.to_owned();
        self.write_down(move |overrides| overrides.set_duty(&backend, duty)).await
    }

    /// Whoever ends a back end's sessions so far stops doing so.
    pub(super) fn replace_emptying(&self, backend: &str, emptying: Option<tokio::task::AbortHandle>) {
        let mut all = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match emptying {
            Some(emptying) => all.insert(backend.to_owned(), emptying),
            None => all.remove(backend),
        };
        before.iter().for_each(tokio::task::AbortHandle::abort);
    }

    /// Ends sessions spread over a time: quiet ones between two commands, and at its end the rest.
    async fn empty(self: Arc<Self>, backend: String, duty: Duty, over: Duration) {
        let whose = Whose { backend: Some(backend.clone()), ..Whose::default() };
        let deadline = Instant::now() + over;
        let mut turn = 0;
        loop {
            let Ok(sessions) = self.sessions_of(&whose).await else { return };
            if self.lasting.overrides.duty(&backend) != Some(duty) {
                return;
            }
            if sessions.is_empty() && self.elders().await.is_empty() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                sessions.iter().for_each(SessionRef::kick);
                // Those of processes before this one could stay until now.
                self.kick_at_elders(whose).await;
                break;
            }
            let steps = usize::try_from(left.as_millis() / DRAIN_STEP.as_millis()).unwrap_or(usize::MAX).max(1);
            let share = sessions.len().div_ceil(steps);
            let quiet: Vec<_> = sessions.iter().filter(|session| session.is_quiet()).collect();
            // In turn, so that those who always decline don't stand in the way of the others.
            let from = turn % quiet.len().max(1);
            quiet.iter().cycle().skip(from).take(share.min(quiet.len())).for_each(|session| session.ask_to_go());
            turn = from + share;
            tokio::time::sleep(DRAIN_STEP.min(left)).await;
        }
        let log = &self.shared.log;
        log.record(Level::Info, "admin", "a back end out of service has no sessions").with("backend", backend).write();
    }

    /// Has a user come to another back end from now on: log-ins wait until it is written down and old sessions are gone.
    pub(super) async fn move_user(&self, user: &str, backend: &str) -> Result<answers::Moved, String> {
        self.check_backend(backend)?;
        let world = self.entrance.world.load_full();
        let user = world.config.names.canonical(user);
        let service = world.config.services.first().map_or("imap", |service| service.protocol.name);
        let who = Who::somebody(&user, service);
        let find = || world.map.find_now(&who);
        let found = find().await.map_err(|unanswered| unanswered.to_string())?;
        let from = match world.map.choose(&user, &found) {
            Ok((from, _)) => Some(from.name.to_string()),
            Err(NoPlace::Unknown) => return Err(format!("nobody knows a user {user:?}: `gatepost explain` says why")),
            Err(NoPlace::Refused(_)) => None,
        };
        let _waiting = LogInsWait::new(&self.lasting.overrides, &user);
        let kept = match &found {
            Found::Account { directory, .. } => {
                let authenticator = world.authenticator(directory);
                let written = match &authenticator {
                    Some(authenticator) => {
                        authenticator.directory.set_place(&user, backend).await.map_err(|fault| fault.to_string())?
                    }
                    None => false,
                };
                written.then(|| format!("directory {directory}"))
            }
            Found::Nobody => None,
        };
        // What the directory says now needs no override, and what it can't be told does.
        let (moved, place) = (user.clone(), kept.is_none().then(|| backend.to_owned()));
        self.write_down(move |overrides| overrides.set_place(&moved, place.as_deref())).await?;
        world.forget(Some(&user));
        let mut ended = self.see_off(&user, backend).await;
        // Processes before this one know of no move: whoever is there is where they were before.
        let whose = Whose { user: Some(user.clone()), ..Whose::default() };
        ended += self.kick_at_elders(whose).await;
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
            let Ok(mut sessions) = self.sessions_of(&whose).await else { return most };
            // Those on their way to a log-in are refused at its end.
            sessions.retain(|session| {
                let story = session.story();
                story.is_logged_in && !story.backends().any(|at| at == backend)
            });
            most = most.max(sessions.len());
            if sessions.is_empty() || Instant::now() > deadline + MOVE_TIME {
                return most;
            }
            if Instant::now() > deadline {
                sessions.iter().for_each(SessionRef::kick);
            } else {
                sessions.iter().filter(|session| session.is_quiet()).for_each(SessionRef::ask_to_go);
            }
            tokio::time::sleep(MOVE_STEP).await;
        }
    }
}

/// A user whose log-ins wait until this is dropped.
struct LogInsWait<'a> {
    overrides: &'a Overrides,
    user: &'a str,
}

impl<'a> LogInsWait<'a> {
    fn new(overrides: &'a Overrides, user: &'a str) -> Self {
        overrides.hold(user);
        Self { overrides, user }
    }
}

impl Drop for LogInsWait<'_> {
    fn drop(&mut self) {
        self.overrides.release(self.user);
    }
}

fn is_meant(session: &SessionRef, whose: &Whose, canonical: Option<&str>) -> bool {
    let story = session.story();
    let fits = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| is == Some(wanted));
    let user = story.user.as_deref();
    fits(&whose.id, Some(story.session.as_str()))
        && (fits(&whose.user, user) || canonical.is_some() && canonical == user)
        && whose.backend.as_deref().is_none_or(|wanted| story.backends().any(|at| at == wanted))
        && fits(&whose.service, Some(story.protocol.name))
}

/// There may be many; the control plane has other things to do.
async fn describe_all(sessions: Vec<SessionRef>, generation: u32) -> Result<Vec<answers::Session>, String> {
    let work = move || {
        let mut sessions: Vec<_> = sessions.iter().map(|session| describe(session, generation)).collect();
        sessions.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.id.cmp(&b.id)));
        sessions
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

fn describe(session: &SessionRef, generation: u32) -> answers::Session {
    let story = session.story();
    let (bytes_up, bytes_down) = session.bytes();
    let tls = |facts: Option<crate::net::stream::TlsFacts>| {
        facts.map(|facts| format!("{} {}", facts.version(), facts.cipher()))
    };
    // Mail may be at several; what is tried for a log-in stands for none that it is at.
    let backend = if story.awaits_log_in() {
        story.at.backend().map(ToString::to_string)
    } else {
        let at: Vec<_> = story.backends().collect();
        (!at.is_empty()).then(|| at.join(","))
    };
    answers::Session {
        id: story.session.as_str().to_owned(),
        service: story.protocol.name.into(),
        user: story.user.clone(),
        backend,
        client: story.client.to_string(),
        since: rfc3339(SystemTime::now() - story.started.elapsed()),
        state: match session.is_relay() {
            true => "open",
            false if story.awaits_log_in() => "log-in",
            false => "mail",
        }
        .into(),
        listener: story.listener.to_string(),
        host: story.at.host().map(|host| host.to_string()),
        mechanism: story.mechanism.map(|mechanism| mechanism.name().into()),
        tls: tls(story.tls),
        backend_tls: tls(story.at.tls()),
        generation,
        idle_seconds: session.idle_seconds,
        bytes_up,
        bytes_down,
    }
}
