//! Connecting to a back end and logging in there.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gatepost_wire::limits::ID_PAIRS_MAX;
use gatepost_wire::{
    BackEvent, BackFault, BackLogin, BackSetup, BackStep, Offers, Proof, Protocol, Welcome, proxy_header,
};
use tokio::io::Interest;
use tokio::time::{Instant, timeout_at};

use super::{Backend, Host, Lease, ServiceLink};
use crate::config::{Announce, TlsMode};
use crate::net::socket::Connection;
use crate::net::stream::{Stream, TlsFacts};
use crate::net::tls;

/// Addresses tried of one host name.
const ADDRESSES_MAX: usize = 4;
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
    /// The user's password or token.
    pub(crate) proof: &'a Proof,
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
            let hosts = self.in_order();
            for (n, Host { name: host, health }) in hosts.iter().enumerate() {
                // One that hangs must leave time for those behind it.
                let share = deadline.saturating_duration_since(Instant::now()) / (hosts.len() - n) as u32;
                match self.try_host(host, link, purpose, Instant::now() + share, &mut lease).await {
                    Ok(connected) => {
                        health.mark_up();
                        return Ok(connected);
                    }
                    Err(Attempt::Final(failure)) => {
                        health.mark_up();
                        return Err(failure);
                    }
                    Err(Attempt::Loop(reason)) => return Err(Failure::Unavailable(format!("{host}: {reason}"))),
                    Err(Attempt::Down(reason)) => {
                        health.mark_down();
                        reasons.push(format!("{host}: {reason}"));
                    }
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
        let started = Instant::now();
        let connect_deadline = deadline.min(started + link.settings.connect_timeout);
        let connecting = self.connect(host, link, purpose, connect_deadline);
        let (mut stream, host_address) =
            timeout_at(connect_deadline, connecting).await.map_err(|_| too_slow_to_greet(started))??;

        let mut back = (purpose.protocol.back)(self.setup(link, purpose));
        let (mut input, mut out) = (Vec::new(), Vec::new());
        let mut greeted = None;
        let mut event = None;
        loop {
            let step = if let Some(event) = event.take() {
                back.step(event, &mut out)
            } else {
                input.clear();
                let until = if greeted.is_some() { deadline } else { connect_deadline };
                let read = timeout_at(until, stream.read(&mut input)).await.map_err(|_| match greeted {
                    Some(at) => {
                        Attempt::Down(format!("no answer to the log-in within {}", seconds(Instant::now() - at)))
                    }
                    None => too_slow_to_greet(started),
                })?;
                match read {
                    Ok(0) => return Err(Attempt::Down("it closed the connection".into())),
                    Err(error) => return Err(Attempt::Down(format!("the connection broke: {error}"))),
                    Ok(_) => {}
                }
                back.step(BackEvent::Input(&input), &mut out)
            };
            if let Some(tell) = purpose.tell {
                back.take_trace().into_iter().for_each(tell);
            }
            let write = timeout_at(deadline, stream.write_all(&out)).await;
            wipe(&mut out);
            match write {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Attempt::Down(format!("the connection broke: {error}"))),
                Err(_) => return Err(Attempt::Down("it does not read what is sent to it".into())),
            }
            match step {
                BackStep::Read => {
                    // A STARTTLS that is asked for is still part of connecting.
                    if stream.tls_facts().is_some() || link.settings.tls == TlsMode::None {
                        greeted.get_or_insert_with(Instant::now);
                    }
                }
                BackStep::StartTls => {
                    let name = certificate_name(host)?;
                    let config = link.tls.clone().ok_or_else(|| Attempt::Down("TLS is not set up".into()))?;
                    let secured = timeout_at(connect_deadline, stream.connect_tls(config, name)).await;
                    secured.map_err(|_| too_slow_to_greet(started))?.map_err(|error| tls_failed(&error))?;
                    event = Some(BackEvent::TlsUp);
                }
                BackStep::Done(welcome) => {
                    let list = welcome.capabilities.as_deref().unwrap_or_default();
                    self.state.offers().insert(purpose.protocol.name, Offers::of(purpose.protocol, list));
                    let greeted = greeted.unwrap_or(started);
                    // The only place that takes it, and the loop ends here.
                    let lease = lease.take().ok_or_else(|| Attempt::Down("its connection is not counted".into()))?;
                    return Ok(Connected {
                        tls: stream.tls_facts(),
                        lease,
                        welcome,
                        rest: back.take_rest(),
                        host: host_address,
                        connect_took: greeted - started,
                        login_took: greeted.elapsed(),
                        stream,
                    });
                }
                BackStep::BadCredentials if self.master.is_some() => {
                    return Err(Attempt::Down("it refuses the master log-in of this back end".into()));
                }
                BackStep::BadCredentials => return Err(Attempt::Final(Failure::BadCredentials)),
                BackStep::Passed(text) => return Err(Attempt::Final(Failure::Passed(text))),
                BackStep::Fault(fault @ BackFault::Unavailable(_)) => return Err(Attempt::Busy(fault.to_string())),
                BackStep::Fault(fault @ BackFault::Loop) => return Err(Attempt::Loop(fault.to_string())),
                BackStep::Fault(fault) => return Err(Attempt::Down(fault.to_string())),
            }
        }
    }

    /// A connection to the host, with implicit TLS where that is set.
    async fn connect(
        &self,
        host: &str,
        link: &ServiceLink,
        purpose: &Purpose<'_>,
        connect_deadline: Instant,
    ) -> Result<(Stream, SocketAddr), Attempt> {
        let settings = &link.settings;
        let addresses: Vec<SocketAddr> = if let Ok(address) = host.parse::<IpAddr>() {
            vec![SocketAddr::new(address, settings.port)]
        } else {
            let resolver = self.resolver.as_ref().ok_or_else(|| Attempt::Down("names can't be looked up".into()))?;
            let mut found = resolver.addresses(host, settings.port).await.map_err(Attempt::Down)?;
            found.truncate(ADDRESSES_MAX);
            found
        };
        let (first, awaited) = match (settings.announce, settings.tls) {
            (Announce::ProxyV2, _) | (_, TlsMode::Implicit) => (Interest::WRITABLE, "connection"),
            // A server that speaks first has accepted the connection when it does.
            _ => (Interest::READABLE, "greeting"),
        };
        let mut reason = "its name has no address".to_owned();
        let many = addresses.len();
        for (n, address) in addresses.into_iter().enumerate() {
            if purpose.own_listeners.contains(&address) {
                return Err(Attempt::Loop(format!(
                    "{address} is one of our own listeners: the map leads back to Gatepost"
                )));
            }
            let share = connect_deadline.saturating_duration_since(Instant::now()) / (many - n) as u32;
            let connecting = Connection::open(address, self.source(settings, address), first);
            let connection = match timeout_at(Instant::now() + share, connecting).await {
                Ok(Ok(connection)) => connection,
                Err(_) => {
                    reason = format!("{address}: no {awaited} within {}", seconds(share));
                    continue;
                }
                Ok(Err(error)) => {
                    reason = format!("{address}: {error}");
                    continue;
                }
            };
            if leads_to_ourselves(&connection, address, purpose.own_listeners) {
                return Err(Attempt::Loop(format!(
                    "{address} is one of our own listeners: the map leads back to Gatepost"
                )));
            }
            let mut stream = Stream::new(connection);
            if settings.announce == Announce::ProxyV2 {
                let header = proxy_header::write_v2(purpose.client.address, purpose.client.local);
                stream
                    .write_all(&header)
                    .await
                    .map_err(|error| Attempt::Down(format!("the connection broke: {error}")))?;
            }
            if settings.tls == TlsMode::Implicit {
                let name = certificate_name(host)?;
                let config = link.tls.clone().ok_or_else(|| Attempt::Down("TLS is not set up".into()))?;
                stream.connect_tls(config, name).await.map_err(|error| tls_failed(&error))?;
            }
            return Ok((stream, address));
        }
        Err(Attempt::Down(reason))
    }

    fn setup(&self, link: &ServiceLink, purpose: &Purpose<'_>) -> BackSetup {
        let mut login = BackLogin {
            user: purpose.user.to_owned(),
            master: None,
            proof: purpose.proof.duplicate(),
            mechanism: link.settings.mechanism,
        };
        if let Some(master) = &self.master {
            login.proof = Proof::Password(master.password.duplicate());
            match master.separator {
                Some(separator) => login.user = format!("{}{separator}{}", purpose.user, master.name),
                None => login.master = Some(master.name.clone()),
            }
        }
        BackSetup {
            starttls: link.settings.tls == TlsMode::StartTls,
            login,
            id: announcement(link.settings.announce, &purpose.client),
            own_greeting: purpose.own_greeting.to_owned(),
            trace: purpose.tell.is_some(),
        }
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

/// A listener on all addresses is met by connecting to any of our own.
fn leads_to_ourselves(connection: &Connection, address: SocketAddr, own_listeners: &[SocketAddr]) -> bool {
    let everywhere = |own: &SocketAddr| {
        own.ip().is_unspecified() && own.port() == address.port() && own.is_ipv4() == address.is_ipv4()
    };
    let is_here = || connection.tcp()?.local_addr().map(|local| local.ip() == address.ip());
    own_listeners.iter().any(everywhere) && is_here().unwrap_or(false)
}

/// The name that the certificate must carry. Of a service's name, the domain: what hosts serve it says the DNS,
/// which anybody on the path could have said instead (RFC 6125, section 6.2.1).
fn certificate_name(host: &str) -> Result<rustls::pki_types::ServerName<'static>, Attempt> {
    let mut name = host;
    while name.starts_with('_') {
        name = name.split_once('.').map_or("", |(_, rest)| rest);
    }
    tls::server_name(name).ok_or_else(|| Attempt::Down("its name can't stand in a certificate".into()))
}

fn tls_failed(error: &std::io::Error) -> Attempt {
    Attempt::Down(format!("TLS failed: {error}"))
}

fn too_slow_to_greet(started: Instant) -> Attempt {
    Attempt::Down(format!("no greeting within {}", seconds(started.elapsed())))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

fn wipe(out: &mut Vec<u8>) {
    use zeroize::Zeroize as _;
    out.zeroize();
}
