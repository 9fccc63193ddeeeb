//! Getting a connection to a back end that is ready, logged in or for mail: at the first of its hosts that serves.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use gatepost_wire::smtp::Dialect;
use gatepost_wire::{BuildBack, Protocol, Welcome};
use tokio::time::Instant;

use super::conversation::{Done, Trouble};
use super::host::Beginning;
use super::{Backend, Client, Credentials, Host, Lease, Own, ServiceLink};
use crate::net::health::Standing;
use crate::net::stream::{Stream, TlsFacts};

/// Rounds over all hosts while they say that they can't serve at the moment.
const ROUNDS_MAX: u32 = 3;
/// The pause before each further round.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// What is said of a host that refuses credentials which nobody has shown.
pub(super) const NOBODYS_LOG_IN: &str = "it answers a log-in that nobody made";

/// What a connection to a back end is for.
pub(crate) struct Purpose<'a> {
    pub(crate) protocol: &'static Protocol,
    /// The user's name there, by which a host is drawn too.
    pub(crate) user: &'a str,
    pub(crate) aim: Aim<'a>,
    pub(crate) client: Client<'a>,
    pub(crate) own: Own<'a>,
    /// When the client's patience is over.
    pub(crate) deadline: Instant,
    /// Who wants to hear the conversation, secrets struck out.
    pub(crate) tell: Option<&'a (dyn Fn(String) + Sync)>,
}

/// What is wanted of a back end.
#[derive(Clone, Copy)]
pub(crate) enum Aim<'a> {
    /// To log in, by a machine that this builds.
    LogIn(BuildBack, &'a Credentials<'a>),
    /// To hand over mail.
    HandOver(Dialect),
}

/// A connection that is ready: logged in, or for mail.
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) lease: Lease,
    pub(crate) welcome: Welcome,
    /// What the back end sent behind its answer.
    pub(crate) rest: Vec<u8>,
    pub(crate) host: SocketAddr,
    pub(crate) tls: Option<TlsFacts>,
    /// Until the greeting, and from there to the answer.
    pub(crate) connect_took: Duration,
    pub(crate) login_took: Duration,
}

impl Connected {
    fn new(done: Done, lease: Lease) -> Self {
        let Done { stream, address, welcome, rest, connect_took, answer_took } = done;
        let tls = stream.tls_facts();
        Self { stream, lease, welcome, rest, host: address, tls, connect_took, login_took: answer_took }
    }
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The back end doesn't take these credentials.
    BadCredentials,
    /// It refuses in words of its own.
    Passed(String),
    /// It has as many connections as it may.
    Limit(u32),
    /// It can't be had, by no fault of the user's. The text says why, for each host that was tried.
    Unavailable(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadCredentials => f.write_str("it refuses the log-in"),
            Self::Passed(text) | Self::Unavailable(text) => f.write_str(text),
            Self::Limit(max) => write!(f, "it has max_connections, {max}"),
        }
    }
}

/// What went wrong at a host.
enum HostError {
    /// The log-in is answered, by a no: no other host would say otherwise.
    Final(Failure),
    /// This host doesn't serve: the next one. Who is to blame, and why.
    Next(Blame, String),
    /// This host asks for patience: the next one, and perhaps again later.
    Busy(String),
    /// Trying further makes it worse.
    Loop(String),
}

/// Why a host did not serve.
enum Blame {
    /// It is out of order.
    Host,
    /// It did not answer: because it is out of order, or because of what it was asked.
    Somebody,
    /// It answers, but can't be used for this log-in.
    LogIn,
    /// We are short of something.
    Ourselves,
}

/// What a round over all hosts has left, where none of them has ended the search.
enum Left {
    /// A host that asks for patience.
    Busy,
    /// No host that could say anything else.
    Nobody,
}

/// The search for a host that serves.
struct Search<'a> {
    backend: &'a Backend,
    link: &'a ServiceLink,
    purpose: &'a Purpose<'a>,
    deadline: Instant,
    lease: Lease,
    /// Why each host that was tried did not serve.
    reasons: Vec<String>,
    /// Hosts that would say the same again.
    given_up: Vec<&'a str>,
}

impl<'a> Search<'a> {
    async fn run(mut self) -> Result<Connected, Failure> {
        for round in 0..ROUNDS_MAX {
            match self.try_hosts().await {
                ControlFlow::Break(result) => return result.map(|done| Connected::new(done, self.lease)),
                ControlFlow::Continue(Left::Busy)
                    if round + 1 < ROUNDS_MAX && Instant::now() + ROUND_PAUSE < self.deadline =>
                {
                    tokio::time::sleep(ROUND_PAUSE).await;
                }
                ControlFlow::Continue(Left::Busy | Left::Nobody) => break,
            }
        }
        Err(self.unavailable())
    }

    /// Tries each host that may still serve, once.
    async fn try_hosts(&mut self) -> ControlFlow<Result<Done, Failure>, Left> {
        let mut left = Left::Nobody;
        let hosts = self.backend.in_order(self.purpose.protocol.name, self.purpose.user);
        for (n, Host { name: host, state }) in hosts.iter().enumerate() {
            if self.given_up.contains(host) {
                continue;
            }
            let begun = Beginning::now();
            if state.standing() == Standing::Out {
                let fault = state.fault().unwrap_or_default();
                self.give_up(host, &format!("not tried, too many log-ins in a row failed there: {fault}"));
                continue;
            }
            let share = self.share(&hosts[n + 1..]);
            match self.backend.try_host(host, self.link, self.purpose, Instant::now() + share).await {
                Ok(done) => {
                    state.served();
                    return ControlFlow::Break(Ok(done));
                }
                Err(HostError::Final(failure)) => {
                    state.served();
                    return ControlFlow::Break(Err(failure));
                }
                Err(HostError::Loop(reason)) => {
                    return ControlFlow::Break(Err(Failure::Unavailable(format!("{host}: {reason}"))));
                }
                Err(HostError::Busy(reason)) => {
                    left = Left::Busy;
                    self.reasons.push(format!("{host}: {reason}"));
                }
                Err(HostError::Next(blame, reason)) => {
                    self.give_up(host, &reason);
                    match blame {
                        Blame::Host if self.is_fair(share) => state.failed(begun, reason),
                        Blame::Somebody if self.is_fair(share) => {
                            state.unanswered(begun, self.purpose.client.address.ip(), reason);
                        }
                        Blame::LogIn => state.served(),
                        Blame::Host | Blame::Somebody | Blame::Ourselves => {}
                    }
                }
            }
            if Instant::now() >= self.deadline {
                return ControlFlow::Break(Err(self.unavailable()));
            }
        }
        ControlFlow::Continue(left)
    }

    /// The time for one host: one that hangs must leave time for those behind it that will be tried.
    fn share(&self, behind: &[Host<'_>]) -> Duration {
        let is_worth_time =
            |other: &&Host<'_>| other.state.appears() != Standing::Out && !self.given_up.contains(&other.name);
        let left = self.deadline.saturating_duration_since(Instant::now());
        left / (1 + behind.iter().filter(is_worth_time).count() as u32)
    }

    /// Where the client has hardly any patience left, its end says nothing of the host.
    fn is_fair(&self, share: Duration) -> bool {
        let settings = &self.link.settings.written;
        share >= settings.connect_timeout.min(settings.login_timeout / 2)
    }

    fn give_up(&mut self, host: &'a str, reason: &str) {
        self.reasons.push(format!("{host}: {reason}"));
        self.given_up.push(host);
    }

    fn unavailable(&self) -> Failure {
        Failure::Unavailable(self.reasons.join("; "))
    }
}

impl Backend {
    /// Gets what `purpose` is after, at the first host that serves.
    pub(crate) async fn reach(&self, purpose: &Purpose<'_>) -> Result<Connected, Failure> {
        let service = purpose.protocol.name;
        let link = self.link(service).ok_or_else(|| no_settings(purpose.protocol))?;
        if let Some(duty) = self.duty() {
            let what = format!("an administrator has taken it out of service ({})", duty.name());
            return Err(Failure::Unavailable(what));
        }
        let settings = &link.settings.written;
        let search = Search {
            backend: self,
            link,
            purpose,
            deadline: purpose.deadline.min(Instant::now() + settings.login_timeout),
            lease: self.state.lease(service, settings.max_connections).map_err(Failure::Limit)?,
            reasons: Vec::new(),
            given_up: Vec::new(),
        };
        search.run().await
    }

    /// How mail of a service is handed over to it.
    pub(crate) fn dialect(&self, service: &Protocol) -> Result<Dialect, Failure> {
        let dialect = self.link(service.name).and_then(|link| link.settings.protocol.course.dialect());
        dialect.ok_or_else(|| no_settings(service))
    }

    async fn try_host(
        &self,
        host: &str,
        link: &ServiceLink,
        purpose: &Purpose<'_>,
        deadline: Instant,
    ) -> Result<Done, HostError> {
        let build = |setup| match purpose.aim {
            Aim::LogIn(build, credentials) => {
                build(setup, credentials.log_in(purpose.user, link.settings.written.mechanism.0))
            }
            Aim::HandOver(dialect) => dialect.back(setup),
        };
        let request = link.request(build, Some(&purpose.client), purpose.own, purpose.tell);
        let done = self.converse(host, link, request, deadline).await.map_err(|trouble| match trouble {
            Trouble::BadCredentials => refused(purpose.aim),
            Trouble::Passed(text) => HostError::Final(Failure::Passed(text)),
            Trouble::Down(reason) => HostError::Next(Blame::Host, reason),
            Trouble::Unanswered(reason) => HostError::Next(Blame::Somebody, reason),
            Trouble::Unfit(reason) => HostError::Next(Blame::LogIn, reason),
            Trouble::Shortage(reason) => HostError::Next(Blame::Ourselves, reason),
            Trouble::Busy(reason) => HostError::Busy(reason),
            Trouble::Loop(reason) => HostError::Loop(reason),
        })?;
        self.learn(purpose.protocol, host, done.welcome.capabilities.as_deref().unwrap_or_default());
        Ok(done)
    }
}

fn no_settings(service: &Protocol) -> Failure {
    Failure::Unavailable(format!("it is not set up for {}", service.name))
}

/// Whose doing it is that credentials are refused.
fn refused(aim: Aim<'_>) -> HostError {
    match aim {
        Aim::LogIn(_, Credentials::Master(_)) => {
            HostError::Next(Blame::LogIn, "it refuses the master log-in of this back end".into())
        }
        Aim::LogIn(_, Credentials::Directory(_)) => {
            let what = "the back end refuses the log-in that the directory holds for this user";
            HostError::Final(Failure::Unavailable(what.into()))
        }
        Aim::LogIn(_, Credentials::User(_)) => HostError::Final(Failure::BadCredentials),
        Aim::HandOver(_) => HostError::Next(Blame::LogIn, NOBODYS_LOG_IN.into()),
    }
}
