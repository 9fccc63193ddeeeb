//! One connection's way, from the accepted socket to its last byte.
//!
//! [`establish`] is the whole of it up to the log-in, a stage a line. What is needed only until then lives in one boxed
//! future that is dropped there, but for sessions in which mail is taken; what stays is the [`relay`], which is small. What
//! outlives a connection belongs elsewhere, and is handed in with [`Shared`] and [`Snapshot`].

mod access;
pub(crate) mod admit;
mod arrive;
mod attempt;
mod called_off;
mod claim;
mod conversation;
mod denied;
mod errand;
mod hand_over;
pub(crate) mod listener;
pub(crate) mod mail;
mod reach;
mod relay;
mod resolve;
mod secure;
mod transcript;
pub(crate) mod wheel;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gatepost_wire::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::auth::scram::Decoys;
use crate::auth::{Checker, RefusalPace};
use crate::config::{self, Task};
use crate::defence::Defence;
use crate::directory::{Via, Who};
use crate::ledger::Ledger;
use crate::log::Logger;
use crate::map::Map;
use crate::metrics::{Rejection, Stage};
use crate::net::channel_binding::Witness;
use crate::net::stream::Stream;
use crate::overrides::Overrides;
use crate::story::{Ended, Story};
use crate::traces::{Tracer, Trail};
use arrive::arrive;
use errand::Errand;
use hand_over::Established;
use listener::{Listener, Service};
use transcript::Unheard;
use wheel::SessionHandle;

/// What sessions share with one another and with the control plane; outlives reloads.
pub(crate) struct Shared {
    pub(crate) log: Logger,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) defence: Arc<Defence>,
    pub(crate) overrides: Arc<Overrides>,
    pub(crate) checker: Checker,
    pub(crate) pace: RefusalPace,
    pub(crate) decoys: Decoys,
    pub(crate) rates: mail::Rates,
    pub(crate) memory: Arc<mail::Memory>,
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
    pub(crate) access: Arc<admit::AccessLevel>,
    pub(crate) map: Arc<Map>,
    /// Every address that is listened on.
    pub(crate) own_listeners: Arc<[SocketAddr]>,
    pub(crate) defence: Option<Arc<config::Defence>>,
    pub(crate) tracer: Option<Arc<Tracer>>,
}

/// A connection as it was accepted.
pub(crate) struct Arrival {
    pub(crate) tcp: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) snapshot: Snapshot,
    /// A share of the process' file descriptors, held for the session's whole life.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// A session on its way to the log-in, or in which mail is taken.
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
    /// Until then the client must have logged in; where it brings mail, something must have come of what it says, which moves
    /// this on.
    deadline: Instant,
    /// Sees what binds to this connection, where log-ins may be bound.
    witness: Option<Arc<Witness>>,
    /// Bytes that came before they were asked for, behind a PROXY header.
    early: Secret,
    unheard: Unheard,
    trail: Trail,
    handle: SessionHandle,
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
            let (up, down) = established.relay.handle().bytes();
            let polled = Pin::new(&mut established.relay).poll(cx);
            let (up_now, down_now) = established.relay.handle().bytes();
            if (up_now, down_now) != (up, down) {
                established.metrics.bytes_up.add(up_now - up);
                established.metrics.bytes_down.add(down_now - down);
            }
            let outcome = ready!(polled);
            established.relay.handle().story().finish(&shared.log, &Ended::Relayed(outcome));
        }
        Poll::Ready(())
    }
}

/// From the socket to the log-in: arrive, admit, secure, log in, hand over. Where mail is taken, to the end.
async fn establish(arrival: Arrival, shared: Arc<Shared>) -> Option<Established> {
    let (mut session, permit) = arrive(arrival, shared).await?;
    let slots = match session.admit() {
        Ok(slots) => slots,
        Err(turned_away) => {
            session.turn_away(&turned_away);
            return None;
        }
    };
    if session.snapshot.listener.tls.is_implicit()
        && let Err(ended) = session.secure().await
    {
        session.story().finish(&session.shared.log, &ended);
        return None;
    }
    let ended = match &session.service().settings.task {
        &Task::Relay(machines) => match session.log_in(machines).await {
            Ok(to) => return session.hand_over(to, (slots, permit)),
            Err(ended) => ended,
        },
        // Mail is taken in boxes of their own, so that log-ins have no room for that.
        &Task::Submit { machines, .. } => match session.log_in(machines).await {
            Ok(to) => Box::pin(session.submit(to)).await,
            Err(ended) => ended,
        },
        Task::TakeMail(dialect, settings) => {
            let (dialect, settings) = (*dialect, Arc::clone(settings));
            Box::pin(session.take_mail(dialect, settings)).await
        }
    };
    session.linger().await;
    session.story().finish(&session.shared.log, &ended);
    None
}

impl Session {
    /// What is known of it. Not to be held while anything is waited for.
    fn story(&self) -> MutexGuard<'_, Story> {
        self.handle.story()
    }

    fn service(&self) -> &Service {
        &self.snapshot.listener.service
    }

    /// Counts a connection that nobody spoke with, or that TLS was not to be had for.
    fn reject(&self, why: Rejection) {
        self.service().metrics.reject(why);
    }

    /// A user of this name, come as this client has.
    fn who(&self, user: &str) -> Who {
        Who {
            user: user.to_owned(),
            service: self.service().name(),
            client: self.address,
            via: Via {
                local: self.local,
                is_proxied: self.is_proxied,
                tls: self.client.tls_facts(),
                attempt: self.story().attempts,
            },
        }
    }

    /// Begins what may talk to directories on the control plane, where it runs for as long as this session waits for it.
    fn on_control<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Errand<T> {
        Errand::begin(&self.shared.control, work)
    }

    /// A part of the log-in took so long, and ended just now.
    fn took(&self, stage: Stage, time: Duration) {
        self.took_before(stage, time, Duration::ZERO);
    }

    /// A part of the log-in took so long, and ended so long ago.
    fn took_before(&self, stage: Stage, time: Duration, ago: Duration) {
        self.service().metrics.took(stage, time);
        self.story().took.note(stage, time);
        self.trail.note(stage, time, ago);
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

    #[test]
    fn what_a_log_in_needs_is_bounded() {
        // Allocated, copied and freed once a session: what any stage keeps while it waits is room in all of them.
        fn room<A, B, F: Future>(_stages: fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let log_in = room(establish);
        assert!(log_in <= 6656, "{log_in} bytes a log-in");
    }
}
