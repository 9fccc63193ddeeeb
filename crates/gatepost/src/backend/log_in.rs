//! Logging in at a back end, at the first of its hosts that serves.

use std::net::SocketAddr;
use std::time::Duration;

use gatepost_wire::limits::ID_PAIRS_MAX;
use gatepost_wire::{BackAim, BackLogin, BackSetup, Offers, Proof, Protocol, Welcome, proxy_header};
use tokio::time::Instant;

use super::conversation::{Done, Errand, Trouble};
use super::{Backend, Host, Lease, Master, ServiceLink};
use crate::config::{Announce, TlsMode};
use crate::net::health::Standing;
use crate::net::stream::{Stream, TlsFacts};

/// Rounds over all hosts while they say that they can't serve at the moment.
const ROUNDS_MAX: u32 = 3;
/// What of a client's ID is passed on.
const CLIENT_ID_BYTES_MAX: usize = 4096;
/// The pause before each further round.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// What a log-in at a back end is for.
pub(crate) struct Purpose<'a> {
    pub(crate) protocol: &'static Protocol,
    pub(crate) user: &'a str,
    /// The user's password or token; `None`, where there is a master log-in.
    pub(crate) proof: Option<&'a Proof>,
    pub(crate) client: Client<'a>,
    /// Our own greeting, and where we listen: a back end that has either is no back end.
    pub(crate) own_greeting: &'a str,
    pub(crate) own_listeners: &'a [SocketAddr],
    /// When the client's patience is over.
    pub(crate) deadline: Instant,
    /// Who wants to hear the conversation, secrets struck out.
    pub(crate) tell: Option<&'a (dyn Fn(String) + Sync)>,
}

/// The client, as it is announced.
pub(crate) struct Client<'a> {
    pub(crate) address: SocketAddr,
    /// Where it connected to.
    pub(crate) local: SocketAddr,
    pub(crate) session: &'a str,
    /// What it said of itself.
    pub(crate) id: &'a [(String, String)],
}

/// A connection that is logged in.
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

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The back end doesn't take these credentials.
    BadCredentials,
    /// It refuses in words of its own.
    Passed(String),
    /// It has as many connections as it may.
    Limit(u32),
    /// No host could serve. The text says for each why.
    Unavailable(String),
}

/// How one attempt went wrong.
enum Attempt {
    /// The log-in is answered, by a no: no other host would say otherwise.
    Final(Failure),
    /// This host is out of order: the next one.
    Down(String),
    /// This host can't be used for this log-in, which says nothing of others: the next one.
    Unfit(String),
    /// This host asks for patience: the next one, and perhaps again later.
    Busy(String),
    /// Trying further makes it worse.
    Loop(String),
}

impl Backend {
    /// Logs in as the user of `purpose`, at the first host that serves.
    pub(crate) async fn log_in(&self, purpose: &Purpose<'_>) -> Result<Connected, Failure> {
        let service = purpose.protocol.name;
        let Some(link) = self.link(service) else {
            return Err(Failure::Unavailable(format!("it has no settings for {service}")));
        };
        let max = link.settings.max_connections;
        let mut lease = Some(self.state.lease(max).ok_or(Failure::Limit(max.unwrap_or(0)))?);
        let deadline = purpose.deadline.min(Instant::now() + link.settings.login_timeout);
        let mut reasons = Vec::new();
        for round in 0..ROUNDS_MAX {
            let mut busy = false;
            let hosts = self.in_order(service, purpose.user);
            for (n, (standing, Host { name: host, state })) in hosts.iter().enumerate() {
                if *standing == Standing::Out {
                    reasons
                        .push(format!("{host}: not tried, too many log-ins in a row failed there: {}", state.fault()));
                    continue;
                }
                // One that hangs must leave time for those behind it.
                let share = deadline.saturating_duration_since(Instant::now()) / (hosts.len() - n) as u32;
                match self.try_host(host, link, purpose, Instant::now() + share, &mut lease).await {
                    Ok(connected) => {
                        state.served();
                        return Ok(connected);
                    }
                    Err(Attempt::Final(failure)) => {
                        state.served();
                        return Err(failure);
                    }
                    Err(Attempt::Loop(reason)) => return Err(Failure::Unavailable(format!("{host}: {reason}"))),
                    Err(Attempt::Down(reason)) => {
                        reasons.push(format!("{host}: {reason}"));
                        state.failed(reason);
                    }
                    Err(Attempt::Unfit(reason)) => reasons.push(format!("{host}: {reason}")),
                    Err(Attempt::Busy(reason)) => {
                        busy = true;
                        reasons.push(format!("{host}: {reason}"));
                    }
                }
                if Instant::now() >= deadline {
                    return Err(Failure::Unavailable(reasons.join("; ")));
                }
            }
            if !busy || round + 1 == ROUNDS_MAX || Instant::now() + ROUND_PAUSE >= deadline {
                break;
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        Err(Failure::Unavailable(reasons.join("; ")))
    }

    async fn try_host(
        &self,
        host: &str,
        link: &ServiceLink,
        purpose: &Purpose<'_>,
        deadline: Instant,
        lease: &mut Option<Lease>,
    ) -> Result<Connected, Attempt> {
        let nothing = || Attempt::Final(Failure::Unavailable("there is nothing to log in with".into()));
        let errand = self.log_in_errand(link, purpose).ok_or_else(nothing)?;
        let Done { stream, address, welcome, rest, connect_took, answer_took } =
            self.converse(host, link, errand, deadline).await.map_err(|trouble| match trouble {
                Trouble::BadCredentials if self.master.is_some() => {
                    Attempt::Unfit("it refuses the master log-in of this back end".into())
                }
                Trouble::BadCredentials => Attempt::Final(Failure::BadCredentials),
                Trouble::Passed(text) => Attempt::Final(Failure::Passed(text)),
                Trouble::Down(reason) => Attempt::Down(reason),
                Trouble::Unfit(reason) => Attempt::Unfit(reason),
                Trouble::Busy(reason) => Attempt::Busy(reason),
                Trouble::Loop(reason) => Attempt::Loop(reason),
            })?;
        let list = welcome.capabilities.as_deref().unwrap_or_default();
        self.state.offers().insert(purpose.protocol.name, Offers::of(purpose.protocol, list));
        // The only place that takes it, and no further host is tried after this one.
        let lease = lease.take().ok_or_else(|| Attempt::Down("its connection is not counted".into()))?;
        let tls = stream.tls_facts();
        Ok(Connected { stream, lease, welcome, rest, host: address, tls, connect_took, login_took: answer_took })
    }

    /// A log-in; `None`: there is nothing to log in with.
    fn log_in_errand<'a>(&self, link: &ServiceLink, purpose: &Purpose<'a>) -> Option<Errand<'a>> {
        let mechanism = link.settings.mechanism;
        let login = match (&self.master, purpose.proof) {
            (Some(Master { name, separator, password }), _) => {
                let proof = Proof::Password(password.duplicate());
                let (user, master) = match separator {
                    Some(separator) => (format!("{}{separator}{name}", purpose.user), None),
                    None => (purpose.user.to_owned(), Some(name.clone())),
                };
                BackLogin { user, master, proof, mechanism }
            }
            (None, proof) => {
                BackLogin { user: purpose.user.to_owned(), master: None, proof: proof?.duplicate(), mechanism }
            }
        };
        let client = &purpose.client;
        let header = match link.settings.announce {
            Announce::ProxyV2 => proxy_header::write_v2(client.address, client.local),
            Announce::Id | Announce::Nothing => Vec::new(),
        };
        let setup = BackSetup {
            starttls: link.settings.tls == TlsMode::StartTls,
            aim: BackAim::LogIn(login),
            id: announcement(link.settings.announce, client),
            own_greeting: purpose.own_greeting.to_owned(),
            trace: purpose.tell.is_some(),
        };
        let Purpose { protocol, own_listeners, tell, .. } = *purpose;
        Some(Errand { protocol, setup, header, own_listeners, tell })
    }
}

/// What ID tells the back end: the client's own words, then what only the proxy can know. Dovecot takes
/// the `x-` fields from the networks in its `login_trusted_networks`.
fn announcement(announce: Announce, client: &Client<'_>) -> Vec<(String, String)> {
    if announce == Announce::Nothing {
        return Vec::new();
    }
    let mut pairs = Vec::new();
    if announce == Announce::Id {
        let fields = [
            ("x-originating-ip", client.address.ip().to_canonical().to_string()),
            ("x-originating-port", client.address.port().to_string()),
            ("x-connected-ip", client.local.ip().to_canonical().to_string()),
            ("x-connected-port", client.local.port().to_string()),
        ];
        pairs.extend(fields.map(|(key, value)| (key.to_owned(), value)));
    }
    pairs.push(("x-session-id".to_owned(), client.session.to_owned()));
    // The client's own words get what room is left (RFC 2971, section 3.3: at most 30 pairs).
    let mut bytes = 0;
    let fits = |(key, value): &&(String, String)| {
        bytes += key.len() + value.len();
        bytes <= CLIENT_ID_BYTES_MAX
    };
    let room = ID_PAIRS_MAX - pairs.len();
    pairs.extend(client.id.iter().take(room).take_while(fits).cloned());
    pairs
}
