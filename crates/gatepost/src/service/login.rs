//! The conversation with the client until it is logged in, and what its questions set in motion.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use gatepost_wire::smtp::Receiver;
use gatepost_wire::{Carry, Event, Front, FrontSetup, Introduction, Mechanism, Offers, Outcome, Proof, Refusal, Step};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::claim::{Claim, Heard, Progress};
use super::idle::Heart;
use super::listener;
use super::relay::Relay;
use super::resolve::Place;
use super::{Established, Session, Shared};
use crate::backend::{Aim, Backend, Client, Connected, Failure, Purpose};
use crate::config::{self, Level, Senders};
use crate::defence::{Attempt, Consequence, Stopped};
use crate::ledger::Slots;
use crate::metrics::{LogIn, Stage};
use crate::net::stream::{Scratch, Stream};
use crate::story::Ended;

/// How long a wrong password takes where Gatepost checks it: longer than any hash in use.
const CHECKED_HERE_TIME: Duration = Duration::from_secs(1);
/// A refusal that takes its time still comes this long before the client's time is over.
const ANSWER_MARGIN: Duration = Duration::from_millis(200);

/// What of a conversation is kept while it is not known whose it is.
const UNHEARD_BYTES_MAX: usize = 8 * 1024;

/// How often a log-in that waits for others looks whether they have ended.
const CROWD_PAUSE: Duration = Duration::from_millis(100);
/// Why a log-in came to nothing, or to an early end.
pub(super) const MOVED: &str = "the user was moved during this log-in";

/// What is wanted of a back end, and for whom.
pub(super) struct Wanted<'a> {
    pub(super) user: &'a str,
    pub(super) aim: Aim<'a>,
    pub(super) introduction: &'a Introduction,
    /// The client's name in the DNS, where that is known to be its own.
    pub(super) name: Option<&'a str>,
    pub(super) deadline: Instant,
}

/// Builds a protocol's front.
pub(super) type Build = fn(FrontSetup) -> Box<dyn Front>;

/// What the client sent behind its log-in, and what it is told when Gatepost stops.
pub(super) struct Farewell {
    pub(super) client_rest: Vec<u8>,
    /// What it called itself.
    pub(super) helo: Option<String>,
    text: &'static [u8],
}

/// The user is not in.
pub(super) enum Denied {
    /// The user's fault, or nobody's: one answer.
    Refused(Refusal),
    /// The back end's own words.
    Passed(String),
    /// The client is gone.
    Left,
    /// As for wrong credentials, but the configuration is why; the text is for the log.
    Unfit(String),
    /// A directory names a place that can't be used, or nothing can be told the back end there; the text is for the log.
    Misplaced(String),
    /// Something is out of order; the text is for the log.
    Fault(Refusal, String),
}

impl Session {
    /// Talks with the client until a back end has taken its log-in.
    pub(super) async fn log_in(&mut self, build: Build) -> Result<(Connected, Farewell), Ended> {
        let mut front = build(self.front_setup(Carry::default()));
        let mut out = Vec::new();
        let mut progress = Progress::default();
        let mut step = front.step(Event::Start, &mut out);
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            step = front.step(Event::Input(&early), &mut out);
        }
        loop {
            if !front.is_exchanging() && matches!(step, Step::Read) {
                // Whatever was begun over several messages is given up.
                self.give_up(std::mem::take(&mut progress));
            }
            self.trace(front.as_mut(), &out, &progress);
            self.send(&mut out).await?;
            step = match step {
                Step::Read => match self.receive().await? {
                    Received::Bytes(bytes) => front.step(Event::Input(bytes.expose()), &mut out),
                    Received::Nothing(refusal) => front.step(Event::Close(refusal), &mut out),
                },
                Step::StartTls => {
                    self.secure().await?;
                    front = build(self.front_setup(front.carry()));
                    front.step(Event::TlsUp, &mut out)
                }
                Step::Ask(ask) => {
                    let introduction = front.introduction();
                    match self.hear(ask, &introduction, &mut progress).await {
                        Heard::Answer(answer) => front.step(Event::Answer(answer), &mut out),
                        Heard::Left => return Err(Ended::Gone("left during its log-in".into())),
                    }
                }
                Step::Through => {
                    let text = (self.snapshot.listener.service.settings.protocol.turned_away)(Refusal::ShuttingDown);
                    let helo = front.introduction().helo;
                    let farewell = Farewell { client_rest: front.take_rest(), helo, text };
                    // A front is only through after a welcome.
                    let Progress::In(connected) = progress else { return Err(Ended::Gone("no back end".into())) };
                    return Ok((*connected, farewell));
                }
                Step::Close(outcome) => {
                    return Err(match outcome {
                        Outcome::LoggedOut => Ended::LoggedOut,
                        Outcome::Refused(refusal) => Ended::Refused(refusal),
                    });
                }
            };
        }
    }

    /// What the front of a new conversation must know. Of one before it, in clear, nothing but counts remains.
    fn front_setup(&self, carry: Carry) -> FrontSetup {
        let listener = &self.snapshot.listener;
        let config::Service { protocol, senders, .. } = listener.service.settings;
        let offers = self.snapshot.map.offers(protocol);
        let offers = if senders == Senders::Own { Receiver::carries(protocol, offers) } else { offers };
        self.setup(offers, carry)
    }

    /// What a state machine towards this client must know to begin, where so much may be promised.
    pub(super) fn setup(&self, offers: Offers, carry: Carry) -> FrontSetup {
        let client = listener::Client {
            address: self.address,
            is_secured: self.client.tls_facts().is_some(),
            has_certificate: self.client.peer_certificate().is_some(),
            can_bind: self.can_bind(),
        };
        self.snapshot.listener.front(&client, offers, carry, self.is_heard())
    }

    /// At level `protocol` the log shows the conversation.
    fn trace(&self, front: &mut dyn Front, out: &[u8], progress: &Progress) {
        if !self.is_heard() {
            return;
        }
        // With challenges, who reads the log could try passwords at leisure.
        let is_challenge = matches!(progress, Progress::Dared(_) | Progress::Agreed(_));
        let said = if is_challenge { "[struck out]".into() } else { String::from_utf8_lossy(out) };
        self.tell_talk(front.take_trace(), &said);
    }

    /// Logs what a client said, as far as that may be seen, and what it was told.
    pub(super) fn tell_talk(&self, heard: Vec<String>, said: &str) {
        let lines = heard.into_iter().map(|line| format!("C: {line}"));
        for line in lines.chain(said.lines().map(|line| format!("S: {line}"))) {
            self.tell_line("client", line);
        }
    }

    /// Whether anybody may want to know what is said.
    pub(super) fn is_heard(&self) -> bool {
        let log = &self.shared.log;
        log.wants(Level::Protocol) || log.is_following()
    }

    /// Logs a line of a conversation, or keeps it until it is known whether its user is followed.
    fn tell_line(&self, with: &'static str, line: String) {
        let (log, story) = (&self.shared.log, self.story());
        if log.wants(Level::Protocol) {
            return story.tell_line(log, false, with, line);
        }
        let mut unheard = self.unheard.lock().unwrap_or_else(PoisonError::into_inner);
        if story.user.as_ref().is_some_and(|user| log.follows(user)) {
            let kept = std::mem::take(&mut *unheard).into_iter();
            kept.chain([(with, line)]).for_each(|(with, line)| story.tell_line(log, true, with, line));
        } else if unheard.iter().map(|(_, line)| line.len()).sum::<usize>() + line.len() <= UNHEARD_BYTES_MAX {
            unheard.push((with, line));
        }
    }

    pub(super) async fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Ended> {
        let sent = timeout_at(self.deadline, self.client.write_all(out)).await;
        out.clear();
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Ended::Gone(error.to_string())),
            Err(_) => Err(Ended::Refused(Refusal::TimedOut)),
        }
    }

    /// What the client says next, unless the session is to end.
    pub(super) async fn receive(&mut self) -> Result<Received, Ended> {
        let called_off = called_off(&self.shared, &self.heart);
        tokio::select! {
            received = read_until(&mut self.client, self.deadline) => received,
            _ = called_off => Ok(Received::Nothing(Refusal::ShuttingDown)),
        }
    }

    /// What the client says next, whether or not the session is to end.
    pub(super) async fn receive_on(&mut self) -> Result<Received, Ended> {
        read_until(&mut self.client, self.deadline).await
    }

    /// A log-in begins: `user` is the name as the client wrote it, where there is one.
    pub(super) async fn take_up(&mut self, mechanism: Mechanism, user: &str) -> Result<Attempt, Denied> {
        self.story().attempts += 1;
        self.story().mechanism = Some(mechanism.name());
        let names = &self.snapshot.listener.settings.names;
        self.story().user = Some(user).filter(|user| !user.is_empty()).map(|user| names.canonical(user));
        let user = self.story().user.clone();
        self.begin(user.as_deref()).await
    }

    /// Answers a log-in: who is it, where is the mail, and does the back end agree?
    pub(super) async fn answer(
        &mut self,
        attempt: Attempt,
        claim: &Claim,
        introduction: &Introduction,
    ) -> Result<(gatepost_wire::Welcome, Connected), Denied> {
        // Behind the delay of a log-in after failures: what hides how long a check takes must not pass meanwhile.
        let asked = Instant::now();
        let result = match timeout_at(self.deadline, self.resolve(claim)).await {
            Ok(Ok(place)) => {
                let connected = self.connect(place, claim.means.proof(), introduction, asked).await;
                self.still_there(connected)
            }
            Ok(Err(denied)) => {
                if matches!(denied, Denied::Refused(Refusal::BadCredentials) | Denied::Unfit(_)) {
                    self.take_time(asked).await;
                }
                Err(denied)
            }
            Err(_) => Err(Denied::Fault(Refusal::Unavailable, "the directories took too long".into())),
        };
        let now = std::time::Instant::now();
        let protocol = self.snapshot.listener.service.settings.protocol;
        let is_failure = |denied: &Denied| match denied {
            Denied::Refused(refusal) => *refusal == Refusal::BadCredentials,
            Denied::Unfit(_) => true,
            Denied::Passed(text) => (protocol.passed_counts)(text),
            Denied::Left | Denied::Misplaced(_) | Denied::Fault(..) => false,
        };
        match &result {
            Ok(_) => attempt.succeeded(self.story().user.as_deref().unwrap_or_default(), now),
            Err(denied) if is_failure(denied) => {
                let tag = self.shared.defence.tag(claim.means.shown());
                self.count_failure(attempt, tag, now);
            }
            // Not wrong, as far as anybody knows.
            Err(_) => drop(attempt),
        }
        if let Err(denied) = &result {
            self.tell(denied);
        }
        result
    }

    /// A user who was moved meanwhile is not where this log-in went.
    pub(super) fn still_there<T>(&self, connected: Result<T, Denied>) -> Result<T, Denied> {
        let user = self.story().user.clone().unwrap_or_default();
        if connected.is_ok() && self.snapshot.map.was_moved_since(&user, self.looked_up) {
            return Err(Denied::Fault(Refusal::Unavailable, MOVED.into()));
        }
        connected
    }

    /// A log-in begins, unless too many failed before it; some must wait.
    async fn begin(&self, user: Option<&str>) -> Result<Attempt, Denied> {
        let (defence, address) = (&self.shared.defence, self.address.ip());
        let settings = self.snapshot.defence.as_ref();
        let last = self.deadline - ANSWER_MARGIN;
        let begun = loop {
            match defence.begin(settings, address, user, std::time::Instant::now()) {
                // So many are under way that more could be too many, if all fail: it waits until some have ended.
                Err(Stopped::Crowded) if Instant::now() + CROWD_PAUSE < last => tokio::time::sleep(CROWD_PAUSE).await,
                begun => break begun,
            }
        };
        let stopped = match begun {
            Ok(attempt) => {
                if !attempt.delay.is_zero() {
                    tokio::time::sleep_until((Instant::now() + attempt.delay).min(last)).await;
                }
                return Ok(attempt);
            }
            Err(stopped) => stopped,
        };
        let (what, whose) = match stopped {
            Stopped::Address => {
                ("log-ins from an address are refused: too many failed", address.to_canonical().to_string())
            }
            Stopped::User => {
                let what = "log-ins of a user from new places are refused: too many failed";
                (what, user.unwrap_or_default().to_owned())
            }
            Stopped::Crowded => {
                let denied = Denied::Fault(Refusal::Unavailable, "too many log-ins from there are under way".into());
                self.tell(&denied);
                return Err(denied);
            }
        };
        if let Some(times) = self.shared.log.seldom(&format!("{what} {whose}")) {
            self.story().tell_guessing(&self.shared.log, what, times);
        }
        let denied = Denied::Refused(Refusal::Guessing);
        self.tell(&denied);
        Err(denied)
    }

    pub(super) fn count_failure(&self, attempt: Attempt, tag: u64, now: std::time::Instant) {
        if attempt.failed(tag, now) == Consequence::Ban {
            self.story().tell_guessing(&self.shared.log, "an address is banned: too many log-ins failed", 1);
        }
    }

    /// Counts and logs credentials that no user can have, and takes as long as for any others.
    pub(super) async fn refuse_hopeless(&mut self, mechanism: Mechanism) {
        let Ok(attempt) = self.take_up(mechanism, "").await else { return };
        self.take_time(Instant::now()).await;
        self.count_failure(attempt, 0, std::time::Instant::now());
        self.tell(&Denied::Refused(Refusal::BadCredentials));
    }

    /// A refusal that Gatepost could give at once takes as long as one by a back end, or where Gatepost
    /// checks passwords, longer than any check: the clock tells nobody which users exist.
    pub(super) async fn take_time(&self, asked: Instant) {
        let is_checked_here = self.snapshot.listener.service.checks.is_some();
        let time = if is_checked_here { CHECKED_HERE_TIME } else { self.shared.pace.sample() };
        tokio::time::sleep_until((asked + time).min(self.deadline - ANSWER_MARGIN)).await;
    }

    /// Does at a back end what is wanted of it, on behalf of this client.
    pub(super) async fn reach(&self, backend: &Backend, wanted: Wanted<'_>) -> Result<Connected, Failure> {
        let Wanted { user, aim, introduction, name, deadline } = wanted;
        let service = &self.snapshot.listener.service;
        let session = self.story().session;
        let tell = |line| self.tell_line("back end", line);
        let purpose = Purpose {
            protocol: service.settings.protocol,
            user,
            aim,
            client: Client { address: self.address, local: self.local, session: session.as_str(), name, introduction },
            own_greeting: &service.greeting(),
            own_listeners: &self.snapshot.own_listeners,
            deadline,
            tell: self.is_heard().then_some(&tell),
        };
        backend.log_in(&purpose).await
    }

    /// Logs in at the back end.
    async fn connect(
        &mut self,
        place: Place,
        proof: Option<&Proof>,
        introduction: &Introduction,
        asked: Instant,
    ) -> Result<(gatepost_wire::Welcome, Connected), Denied> {
        let Place { backend, login, password, expires } = place;
        let other = password.map(|password| Proof::Password(password.0.duplicate()));
        self.story().backend = Some(Arc::clone(&backend.name));
        let aim = Aim::LogIn(other.as_ref().or(proof));
        let wanted = Wanted { user: &login, aim, introduction, name: None, deadline: self.deadline };
        #[cfg(feature = "traces")]
        let started = Instant::now();
        let logged_in = tokio::select! {
            logged_in = self.reach(&backend, wanted) => logged_in,
            () = self.client.connection().broken() => return Err(Denied::Left),
            why = called_off(&self.shared, &self.heart) => {
                return Err(Denied::Fault(Refusal::ShuttingDown, why.into()));
            }
        };
        #[cfg(feature = "traces")]
        if logged_in.is_err() {
            // However far it came.
            self.note_lap(Stage::BackendLogin, started.elapsed(), Duration::ZERO);
        }
        match logged_in {
            Ok(mut connected) => {
                self.story().host = Some(connected.host);
                self.story().backend_tls = connected.tls;
                self.took_before(Stage::Connect, connected.connect_took, connected.login_took);
                self.took(Stage::BackendLogin, connected.login_took);
                self.expires = expires;
                let welcome = std::mem::take(&mut connected.welcome);
                // Where mail follows, it must be known what may be said there.
                connected.welcome.capabilities.clone_from(&welcome.capabilities);
                Ok((welcome, connected))
            }
            Err(Failure::BadCredentials) if other.is_some() => {
                let what = "the back end refuses the log-in that the directory holds for this user";
                Err(Denied::Fault(Refusal::Unavailable, what.into()))
            }
            Err(Failure::BadCredentials) => {
                self.shared.pace.record(asked.elapsed());
                Err(Denied::Refused(Refusal::BadCredentials))
            }
            Err(Failure::Passed(text)) => Err(Denied::Passed(text)),
            Err(Failure::Limit(max)) => {
                Err(Denied::Fault(Refusal::TooMany, format!("the back end has max_connections, {max}")))
            }
            Err(Failure::Unavailable(reason)) => Err(Denied::Fault(Refusal::Unavailable, reason)),
        }
    }

    /// Logs a failed log-in at once, in the words that filters against guessing know.
    pub(super) fn tell(&self, denied: &Denied) {
        let log = &self.shared.log;
        let result = match denied {
            Denied::Refused(Refusal::Guessing) => Some(LogIn::Guessing),
            Denied::Refused(_) | Denied::Passed(_) | Denied::Unfit(_) => Some(LogIn::Denied),
            Denied::Left | Denied::Fault(Refusal::ShuttingDown, _) => None,
            Denied::Fault(Refusal::TooMany, _) => Some(LogIn::Limit),
            Denied::Misplaced(_) | Denied::Fault(..) => Some(LogIn::Unavailable),
        };
        result.into_iter().for_each(|result| self.note_log_in(result));
        match denied {
            Denied::Refused(_) | Denied::Passed(_) => self.story().tell_failure(log, self.local.ip()),
            // Whose doing it is, is logged already.
            Denied::Left | Denied::Fault(Refusal::ShuttingDown, _) => {}
            Denied::Unfit(text) => {
                self.story().tell_failure(log, self.local.ip());
                self.story().tell_fault(log, Level::Error, text);
            }
            Denied::Misplaced(text) => {
                let complaint = format!("{:?} {text}", self.story().service);
                if let Some(times) = log.seldom(&complaint) {
                    let text = if times > 1 {
                        format!("{text} ({times} log-ins since this was last said)")
                    } else {
                        text.clone()
                    };
                    self.story().tell_fault(log, Level::Error, &text);
                }
            }
            Denied::Fault(refusal, text) => {
                let level = if *refusal == Refusal::TooMany { Level::Warning } else { Level::Error };
                self.story().tell_fault(log, level, text);
            }
        }
    }

    /// Counts a log-in.
    pub(super) fn note_log_in(&self, result: LogIn) {
        let mechanism = self.story().mechanism.unwrap_or_default();
        self.snapshot.listener.service.metrics.log_in(mechanism, result);
        #[cfg(feature = "traces")]
        self.trace_log_in(result);
    }

    #[cfg(feature = "traces")]
    fn trace_log_in(&self, result: LogIn) {
        let Some(tracer) = &self.snapshot.tracer else { return };
        let laps = self.trail.lock().unwrap_or_else(PoisonError::into_inner).take();
        let story = self.story();
        tracer.tell(crate::traces::Trace {
            session: story.session.bytes(),
            service: story.service,
            listener: Arc::clone(&story.listener),
            mechanism: story.mechanism,
            backend: story.backend.clone(),
            result,
            ended: SystemTime::now(),
            laps,
        });
    }

    /// From here on bytes only pass: what was read too early goes first, and secrets are gone.
    pub(super) fn hand_over(
        self,
        connected: Connected,
        farewell: &Farewell,
        held: (Slots, OwnedSemaphorePermit),
    ) -> Option<Established> {
        self.note_log_in(LogIn::Ok);
        let Self { mut client, heart, shared, snapshot, expires, witness, looked_up, .. } = self;
        witness.iter().for_each(|witness| witness.forget());
        let Connected { stream: mut server, lease, rest, .. } = connected;
        let moved = Scratch::with(|scratch| {
            if !farewell.client_rest.is_empty() {
                server.send(&farewell.client_rest, false, &mut scratch.outgoing)?;
            }
            if !rest.is_empty() {
                client.send(&rest, false, &mut scratch.outgoing)?;
            }
            Ok::<_, std::io::Error>(())
        });
        heart.story().logged_in();
        // Whoever moves a user has those go who are logged in: one who became so a moment later must see to it here.
        let is_elsewhere = snapshot.map.was_moved_since(heart.story().user.as_deref().unwrap_or_default(), looked_up);
        let moved = if is_elsewhere { Err(std::io::Error::other(MOVED)) } else { moved };
        if let Err(error) = moved {
            heart.story().finish(&shared.log, &Ended::Gone(error.to_string()));
            return None;
        }
        heart.relays(snapshot.listener.settings.idle_timeout);
        let metrics = Arc::clone(&snapshot.listener.service.metrics);
        let (up, down) = (farewell.client_rest.len() as u64, rest.len() as u64);
        heart.moved(up, down);
        metrics.bytes_up.add(up);
        metrics.bytes_down.add(down);
        if let Some(left) = expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default()) {
            heart.end_after(left);
        }
        let relay = Relay::new(client, server, heart, farewell.text);
        let (slots, permit) = held;
        Some(Established { relay, metrics, _held: (slots, lease, permit) })
    }
}

/// Waits until a session that is no relay must end, and says why.
async fn called_off(shared: &Shared, heart: &Heart) -> &'static str {
    let mut stopping = shared.stopping.clone();
    tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => "Gatepost is stopping",
        () = heart.told() => "an administrator ended the session",
    }
}

/// What a client says next, within the time that it has.
async fn read_until(client: &mut Stream, deadline: Instant) -> Result<Received, Ended> {
    let mut bytes = Vec::new();
    match timeout_at(deadline, client.read(&mut bytes)).await {
        Ok(Ok(0)) => Err(Ended::Gone("closed by the client".into())),
        Ok(Err(error)) => Err(Ended::Gone(error.to_string())),
        Ok(Ok(_)) => Ok(Received::Bytes(gatepost_wire::Secret::new(bytes))),
        Err(_) => Ok(Received::Nothing(Refusal::TimedOut)),
    }
}

/// What came from the client.
pub(super) enum Received {
    Bytes(gatepost_wire::Secret),
    /// Nothing will: tell it why, and end.
    Nothing(Refusal),
}
