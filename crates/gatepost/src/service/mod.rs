//! A session, from the accepted socket to its last byte.
//!
//! [`serve`] is the whole way. What is needed only until the log-in lives in one boxed future that is
//! dropped there; what stays is the [`relay`], which is small.

mod access;
pub(crate) mod admit;
mod claim;
pub(crate) mod idle;
pub(crate) mod listener;
mod login;
pub(crate) mod mail;
mod relay;
mod resolve;

/// How a relay ended, for the story.
pub(crate) mod relayed {
    pub(crate) use super::relay::Outcome;
}

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use gatepost_wire::{Course, Refusal, proxy_header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::auth::scram::Strangers;
use crate::auth::{Checker, Pace};
use crate::config::{self, Level, Senders, TlsMode};
use crate::defence::Defence;
use crate::ledger::{Ledger, Slots};
use crate::log::Logger;
use crate::map::Map;
use crate::metrics::{Rejection, ServiceMetrics, Stage};
use crate::net::channel_binding::Witness;
use crate::net::socket::Connection;
use crate::net::stream::{Scratch, Stream};
use crate::story::{Ended, Story};
use admit::{TurnedAway, admit};
use idle::{Heart, Wheel};
use listener::Listener;
use relay::Relay;

/// What was said last may still be on its way when a connection is closed under unread input; the peer's
/// kernel would throw it away. So much is read, and for so long, before that.
const LINGER_BYTES_MAX: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What sessions share with one another and with the control plane; outlives reloads.
pub(crate) struct Shared {
    pub(crate) log: Logger,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) defence: Arc<Defence>,
    pub(crate) checker: Checker,
    pub(crate) pace: Pace,
    pub(crate) strangers: Strangers,
    pub(crate) rates: mail::Rates,
    pub(crate) memory: mail::Memory,
    /// Directories are asked on the control plane's runtime.
    pub(crate) control: tokio::runtime::Handle,
    /// Room for sessions, of two files each: who needs more takes it from there.
    pub(crate) room: Arc<Semaphore>,
    /// True once Gatepost is stopping.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The settings in force when a connection came.
pub(crate) struct Snapshot {
    pub(crate) listener: Arc<Listener>,
    /// The global access rules.
    pub(crate) level: Arc<admit::Level>,
    pub(crate) map: Arc<Map>,
    /// Every address that is listened on.
    pub(crate) own_listeners: Arc<[SocketAddr]>,
    pub(crate) defence: Option<Arc<config::Defence>>,
    #[cfg(feature = "traces")]
    pub(crate) tracer: Option<Arc<crate::traces::Tracer>>,
}

/// A connection as it was accepted.
pub(crate) struct Arrival {
    pub(crate) tcp: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) snapshot: Snapshot,
    /// A share of the process' file descriptors, held for the session's whole life.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// A session on its way to the log-in.
struct Session {
    shared: Arc<Shared>,
    snapshot: Snapshot,
    client: Stream,
    /// The client's real address.
    address: SocketAddr,
    /// Where it connected to.
    local: SocketAddr,
    /// A load balancer announced the address.
    is_proxied: bool,
    deadline: Instant,
    /// When the session must end, whatever it does.
    expires: Option<SystemTime>,
    /// Sees what binds to this connection, where log-ins may be bound.
    witness: Option<Arc<Witness>>,
    /// Bytes that came before they were asked for, behind a PROXY header.
    early: Vec<u8>,
    /// When it was found out where the user's mail is.
    looked_up: std::time::Instant,
    /// What was said before it was known whose conversation this is, where somebody's is followed.
    unheard: Mutex<Vec<(&'static str, String)>>,
    #[cfg(feature = "traces")]
    trail: Mutex<crate::traces::Trail>,
    heart: Heart,
}

/// A session that is logged in: all that stays.
struct Established {
    relay: Relay,
    metrics: Arc<ServiceMetrics>,
    _held: (Slots, crate::backend::Lease, OwnedSemaphorePermit),
}

/// A connection that is served, to its end. Written out as what it is, a log-in and then a relay: the
/// compiler would keep room for both at once, in every session.
pub(crate) struct Serving<T> {
    phase: Phase,
    shared: Arc<Shared>,
    /// Whatever should last as long.
    _held: T,
}

#[expect(clippy::large_enum_variant, reason = "the large one is what almost all sessions are, nearly all the time")]
enum Phase {
    LogIn(Pin<Box<dyn Future<Output = Option<Established>> + Send>>),
    Relay(Established),
}

/// Serves a connection to its end; `held` is dropped then.
pub(crate) fn serve<T>(arrival: Arrival, shared: Arc<Shared>, held: T) -> Serving<T> {
    let phase = Phase::LogIn(Box::pin(establish(arrival, Arc::clone(&shared))));
    Serving { phase, shared, _held: held }
}

impl<T: Unpin> Future for Serving<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { phase, shared, .. } = self.get_mut();
        if let Phase::LogIn(log_in) = phase {
            let Some(established) = ready!(log_in.as_mut().poll(cx)) else { return Poll::Ready(()) };
            *phase = Phase::Relay(established);
        }
        if let Phase::Relay(established) = phase {
            let (up, down) = established.relay.heart().bytes();
            let polled = Pin::new(&mut established.relay).poll(cx);
            let (up_now, down_now) = established.relay.heart().bytes();
            if (up_now, down_now) != (up, down) {
                established.metrics.bytes_up.add(up_now - up);
                established.metrics.bytes_down.add(down_now - down);
            }
            let outcome = ready!(polled);
            established.relay.heart().story().finish(&shared.log, &Ended::Relayed(outcome));
        }
        Poll::Ready(())
    }
}

/// From the socket to the log-in: arrive, admit, secure, log in. Where mail is taken, to the end.
async fn establish(arrival: Arrival, shared: Arc<Shared>) -> Option<Established> {
    let (mut session, permit) = arrive(arrival, shared).await?;
    let slots = match session.admit() {
        Ok(slots) => slots,
        Err(turned_away) => {
            session.turn_away(&turned_away);
            return None;
        }
    };
    if session.snapshot.listener.settings.tls == TlsMode::Implicit
        && let Err(ended) = session.secure().await
    {
        session.story().finish(&session.shared.log, &ended);
        return None;
    }
    let config::Service { protocol, senders, .. } = session.snapshot.listener.service.settings;
    let ended = match protocol.course {
        // In boxes of their own, so that log-ins have no room for them.
        Course::Mail(dialect) => Box::pin(session.take_mail(dialect)).await,
        Course::LogIn(build) | Course::Submission(build) => match session.log_in(build).await {
            Ok((connected, farewell)) if senders == Senders::Any => {
                return session.hand_over(connected, &farewell, (slots, permit));
            }
            Ok((connected, farewell)) => Box::pin(session.submit(connected, farewell)).await,
            Err(ended) => ended,
        },
    };
    session.linger().await;
    session.story().finish(&session.shared.log, &ended);
    None
}

/// Reads the PROXY header where one may come. `None`: the peer is gone or lied.
async fn arrive(arrival: Arrival, shared: Arc<Shared>) -> Option<(Session, OwnedSemaphorePermit)> {
    let Arrival { tcp, peer, snapshot, permit } = arrival;
    let started = Instant::now();
    let service = &snapshot.listener.service;
    let bound = snapshot.listener.settings.address;
    // Asked only where the answer is not known anyway.
    let local = if bound.ip().is_unspecified() { tcp.local_addr().ok()? } else { bound };
    let connection = Connection::new(tcp).ok()?;
    let deadline = started + service.settings.login_timeout;
    let heart = Wheel::enter(Story::new(service.name(), &snapshot.listener.scope.name, peer));
    let client = Stream::new(connection);
    snapshot.listener.connections.one();
    let early = Vec::new();
    let mut session = Session {
        shared,
        snapshot,
        client,
        address: peer,
        local,
        is_proxied: false,
        deadline,
        expires: None,
        witness: None,
        early,
        looked_up: std::time::Instant::now(),
        unheard: Mutex::default(),
        #[cfg(feature = "traces")]
        trail: Mutex::default(),
        heart,
    };
    if let Some(required) = session.snapshot.listener.takes_proxy_header(peer.ip())
        && let Err(reason) = session.read_proxy_header(required).await
    {
        session.reject(Rejection::ProxyHeader);
        let log = &session.shared.log;
        log.record(Level::Warning, session.story().service, "a PROXY header was refused")
            .with("listener", &*session.snapshot.listener.scope.name)
            .with("sender", peer.to_string())
            .with("reason", reason)
            .write();
        return None;
    }
    Some((session, permit))
}

impl Session {
    /// What is known of it. Not to be held while anything is waited for.
    fn story(&self) -> MutexGuard<'_, Story> {
        self.heart.story()
    }

    async fn read_proxy_header(&mut self, required: bool) -> Result<(), &'static str> {
        let mut bytes = Vec::new();
        loop {
            match proxy_header::parse(&bytes) {
                proxy_header::Parsed::Header { length, client } => {
                    self.early = bytes.split_off(length);
                    if let Some(client) = client {
                        self.address = client;
                        self.is_proxied = true;
                        self.story().client = client;
                    }
                    return Ok(());
                }
                proxy_header::Parsed::Malformed(how) => return Err(how),
                proxy_header::Parsed::Absent if required => return Err("there is none"),
                proxy_header::Parsed::Absent => {
                    self.early = bytes;
                    return Ok(());
                }
                proxy_header::Parsed::Partial => {}
            }
            // Where a header is not required, a client that waits for our greeting would wait for ever.
            let patience =
                if required { self.deadline } else { self.deadline.min(Instant::now() + Duration::from_millis(250)) };
            match timeout_at(patience, self.client.read(&mut bytes)).await {
                Ok(Ok(0)) => return Err("the connection was closed within it"),
                Ok(Err(_)) => return Err("the connection broke within it"),
                Ok(Ok(_)) => {}
                Err(_) if required => return Err("none came in time"),
                Err(_) if bytes.is_empty() => return Ok(()),
                Err(_) => return Err("it never ended"),
            }
        }
    }

    fn admit(&self) -> Result<Slots, TurnedAway> {
        let listener = &self.snapshot.listener;
        let now = std::time::Instant::now();
        if let Some(network) = self.snapshot.map.backends().overrides().ban_of(self.address.ip()) {
            return Err(TurnedAway::Banned(Some(network)));
        }
        if let Some(settings) = &self.snapshot.defence
            && self.shared.defence.bans(settings, self.address.ip(), now)
        {
            return Err(TurnedAway::Banned(None));
        }
        let levels = [&listener.level, &listener.service.level, &self.snapshot.level];
        let scopes = [&listener.scope, &listener.service.scope];
        admit(&levels, &scopes, &self.shared.ledger, self.address.ip(), now)
    }

    /// Says so in clear where the client could read it; a client of implicit TLS just sees the end.
    fn turn_away(&mut self, turned_away: &TurnedAway) {
        self.reject(match turned_away {
            TurnedAway::Denied { .. } => Rejection::Access,
            TurnedAway::Banned(Some(_)) => Rejection::Ban,
            TurnedAway::Banned(None) => Rejection::Guessing,
            TurnedAway::Limited(_) => Rejection::Limit,
        });
        let (refusal, text) = match turned_away {
            TurnedAway::Denied { rule } => (Refusal::Forbidden, format!("denied by {rule}")),
            TurnedAway::Banned(Some(network)) => (Refusal::Forbidden, format!("denied by the ban of {network}")),
            TurnedAway::Banned(None) => (Refusal::Guessing, "banned for guessing".to_owned()),
            TurnedAway::Limited(limit) => {
                (Refusal::TooMany, format!("{} {} of {}", limit.limit, limit.max, limit.scope))
            }
        };
        let listener = &self.snapshot.listener;
        if listener.settings.tls != TlsMode::Implicit {
            let words = (listener.service.settings.protocol.turned_away)(refusal);
            let _ = Scratch::with(|scratch| self.client.send(words, true, &mut scratch.outgoing));
        }
        self.client.close();
        self.story().finish(&self.shared.log, &Ended::TurnedAway(text));
    }

    /// Counts a connection that nobody spoke with.
    fn reject(&self, why: Rejection) {
        self.snapshot.listener.service.metrics.reject(why);
    }

    /// A part of the log-in took so long, and ended just now.
    fn took(&self, stage: Stage, time: Duration) {
        self.took_before(stage, time, Duration::ZERO);
    }

    /// A part of the log-in took so long, and ended so long ago.
    fn took_before(&self, stage: Stage, time: Duration, ago: Duration) {
        self.snapshot.listener.service.metrics.took(stage, time);
        self.story().took.note(stage, time);
        #[cfg(feature = "traces")]
        self.note_lap(stage, time, ago);
        #[cfg(not(feature = "traces"))]
        let _ = ago;
    }

    /// Has a part of the log-in traced, where log-ins are.
    #[cfg(feature = "traces")]
    fn note_lap(&self, stage: Stage, time: Duration, ago: Duration) {
        if self.snapshot.tracer.is_some() {
            self.trail.lock().unwrap_or_else(std::sync::PoisonError::into_inner).note(stage, time, ago);
        }
    }

    /// Ends TLS. Whatever came in clear before is not looked at.
    async fn secure(&mut self) -> Result<(), Ended> {
        let result = self.end_tls().await;
        if result.is_err() {
            self.reject(Rejection::Tls);
        }
        result
    }

    async fn end_tls(&mut self) -> Result<(), Ended> {
        let Some(mut config) = self.snapshot.listener.tls.clone() else {
            return Err(Ended::TlsFailed("there is no certificate".into()));
        };
        if self.snapshot.listener.service.binds() {
            let (own, witness) = Witness::of(&config);
            (config, self.witness) = (own, Some(witness));
        }
        let started = Instant::now();
        let early = std::mem::take(&mut self.early);
        let we_speak = self.snapshot.listener.settings.tls == TlsMode::Implicit;
        match timeout_at(self.deadline, self.client.accept_tls(config, early, we_speak)).await {
            Ok(Ok(())) => {
                self.story().tls = self.client.tls_facts();
                self.took(Stage::Tls, started.elapsed());
                Ok(())
            }
            Ok(Err(error)) => Err(Ended::TlsFailed(error.to_string())),
            Err(_) => Err(Ended::TlsFailed("the handshake took too long".into())),
        }
    }

    /// The bytes that bind to this connection by this type; `None`: there are none.
    fn binding(&self, kind: &str) -> Option<Vec<u8>> {
        self.witness.as_ref()?.binding(kind)
    }

    /// Whether a log-in can be bound to this connection.
    fn can_bind(&self) -> bool {
        ["tls-exporter", "tls-server-end-point"].into_iter().any(|kind| self.binding(kind).is_some())
    }

    /// Sees to it that the last words arrive: ends our side, then reads what the client still sends.
    async fn linger(&mut self) {
        self.client.close();
        let deadline = Instant::now() + LINGER_TIME;
        let (mut bytes, mut total) = (Vec::new(), 0);
        while total < LINGER_BYTES_MAX {
            match timeout_at(deadline, self.client.read(&mut bytes)).await {
                Ok(Ok(count)) if count > 0 => total += count,
                _ => return,
            }
            bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_of_a_session_is_small() {
        // Kept for each session: what grows here is multiplied by all of them. Eight bytes of each connection
        // are tokio's, which has two kinds of runtime since the DNS library asks for the other one.
        let (task, story) = (size_of::<Serving<Arc<()>>>(), size_of::<Story>());
        assert!(task <= 336 && story <= 232, "{task} and {story} bytes a session");
    }
}
