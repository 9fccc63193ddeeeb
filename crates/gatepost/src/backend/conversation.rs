//! One conversation with one host of a back end: from the connection to what the protocol's machine makes of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gatepost_wire::{BackEvent, BackFault, BackSetup, BackStep, Protocol, Welcome};
use tokio::io::Interest;
use tokio::time::{Instant, timeout_at};

use super::{Backend, ServiceLink};
use crate::config::{Announce, TlsMode};
use crate::net::socket::Connection;
use crate::net::stream::Stream;
use crate::net::tls;

/// Addresses tried of one host name.
const ADDRESSES_MAX: usize = 4;

/// What a host is talked to for.
pub(super) struct Errand<'a> {
    pub(super) protocol: &'static Protocol,
    pub(super) setup: BackSetup,
    /// What goes before all else: the PROXY header, where one is announced.
    pub(super) header: Vec<u8>,
    /// Where we listen: a back end that is there is no back end.
    pub(super) own_listeners: &'a [SocketAddr],
    /// Who wants to hear the conversation, secrets struck out.
    pub(super) tell: Option<&'a (dyn Fn(String) + Sync)>,
}

/// An errand that is done.
pub(super) struct Done {
    pub(super) stream: Stream,
    pub(super) address: SocketAddr,
    pub(super) welcome: Welcome,
    /// What the host sent behind its answer.
    pub(super) rest: Vec<u8>,
    /// Until the greeting, and from there to the answer.
    pub(super) connect_took: Duration,
    pub(super) answer_took: Duration,
}

/// How a conversation went wrong.
pub(super) enum Trouble {
    /// The host doesn't take these credentials.
    BadCredentials,
    /// It refuses in words of its own.
    Passed(String),
    /// It is out of order: it did not come as far as the errand.
    Down(String),
    /// It took the errand and did not answer, which may be the errand's own doing.
    Unanswered(String),
    /// It serves, but not this errand.
    Unfit(String),
    /// We are short of something, which says nothing of the host.
    Shortage(String),
    /// It asks for patience.
    Busy(String),
    /// It is ourselves.
    Loop(String),
}

impl Backend {
    /// Does an errand at a host.
    pub(super) async fn converse(
        &self,
        host: &str,
        link: &ServiceLink,
        errand: Errand<'_>,
        deadline: Instant,
    ) -> Result<Done, Trouble> {
        let started = Instant::now();
        let connect_deadline = deadline.min(started + link.settings.written.connect_timeout);
        let connecting = self.connect(host, link, &errand, connect_deadline);
        let (mut stream, address) =
            timeout_at(connect_deadline, connecting).await.map_err(|_| too_slow_to_greet(started))??;

        let Errand { protocol, setup, tell, .. } = errand;
        let mut back = (protocol.back)(setup);
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
                        Trouble::Unanswered(format!("no answer to the log-in within {}", seconds(Instant::now() - at)))
                    }
                    None => too_slow_to_greet(started),
                })?;
                let read = read.map_err(|error| at_fault(greeted, format!("the connection broke: {error}")))?;
                back.step(if read == 0 { BackEvent::Closed } else { BackEvent::Input(&input) }, &mut out)
            };
            if let Some(tell) = tell {
                back.take_trace().into_iter().for_each(tell);
            }
            let write = timeout_at(deadline, stream.write_all(&out)).await;
            wipe(&mut out);
            match write {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(at_fault(greeted, format!("the connection broke: {error}"))),
                Err(_) => return Err(at_fault(greeted, "it does not read what is sent to it".into())),
            }
            match step {
                BackStep::Read => {
                    // A STARTTLS that is asked for is still part of connecting.
                    if stream.tls_facts().is_some() || link.settings.written.tls == TlsMode::None {
                        greeted.get_or_insert_with(Instant::now);
                    }
                }
                BackStep::StartTls => {
                    let name = certificate_name(host)?;
                    let config = link.tls.clone().ok_or_else(|| Trouble::Down("TLS is not set up".into()))?;
                    let secured = timeout_at(connect_deadline, stream.connect_tls(config, name)).await;
                    secured.map_err(|_| too_slow_to_greet(started))?.map_err(|error| tls_failed(&error))?;
                    event = Some(BackEvent::TlsUp);
                }
                BackStep::Done(welcome) => {
                    let greeted = greeted.unwrap_or(started);
                    return Ok(Done {
                        address,
                        welcome,
                        rest: back.take_rest(),
                        connect_took: greeted - started,
                        answer_took: greeted.elapsed(),
                        stream,
                    });
                }
                BackStep::BadCredentials => return Err(Trouble::BadCredentials),
                BackStep::Passed(text) => return Err(Trouble::Passed(text)),
                BackStep::Fault(fault @ BackFault::Unavailable(_)) => return Err(Trouble::Busy(fault.to_string())),
                BackStep::Fault(fault @ BackFault::Loop) => return Err(Trouble::Loop(fault.to_string())),
                BackStep::Fault(fault @ (BackFault::NoMechanism | BackFault::NotUnderstood)) => {
                    return Err(Trouble::Unfit(fault.to_string()));
                }
                BackStep::Fault(fault) => return Err(at_fault(greeted, fault.to_string())),
            }
        }
    }

    /// A connection to the host, with implicit TLS where that is set.
    async fn connect(
        &self,
        host: &str,
        link: &ServiceLink,
        errand: &Errand<'_>,
        connect_deadline: Instant,
    ) -> Result<(Stream, SocketAddr), Trouble> {
        let settings = &link.settings;
        let addresses: Vec<SocketAddr> = if let Ok(address) = host.parse::<IpAddr>() {
            vec![SocketAddr::new(address, settings.port)]
        } else {
            let resolver = self.resolver.as_ref().ok_or_else(|| Trouble::Down("names can't be looked up".into()))?;
            let mut found = resolver.addresses(host, settings.port).await.map_err(Trouble::Down)?;
            found.truncate(ADDRESSES_MAX);
            found
        };
        let (first, awaited) = match (settings.announce, settings.written.tls) {
            (Announce::ProxyV2, _) | (_, TlsMode::Implicit) => (Interest::WRITABLE, "connection"),
            // A server that speaks first has accepted the connection when it does.
            _ => (Interest::READABLE, "greeting"),
        };
        let mut reason = "its name has no address".to_owned();
        let many = addresses.len();
        for (n, address) in addresses.into_iter().enumerate() {
            if errand.own_listeners.contains(&address) {
                return Err(Trouble::Loop(format!(
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
                Ok(Err(error)) if is_shortage(&error) => {
                    return Err(Trouble::Shortage(format!("Gatepost can open no more connections: {error}")));
                }
                Ok(Err(error)) => {
                    reason = format!("{address}: {error}");
                    continue;
                }
            };
            if leads_to_ourselves(&connection, address, errand.own_listeners) {
                return Err(Trouble::Loop(format!(
                    "{address} is one of our own listeners: the map leads back to Gatepost"
                )));
            }
            let mut stream = Stream::new(connection);
            if !errand.header.is_empty() {
                stream
                    .write_all(&errand.header)
                    .await
                    .map_err(|error| Trouble::Down(format!("the connection broke: {error}")))?;
            }
            if settings.written.tls == TlsMode::Implicit {
                let name = certificate_name(host)?;
                let config = link.tls.clone().ok_or_else(|| Trouble::Down("TLS is not set up".into()))?;
                stream.connect_tls(config, name).await.map_err(|error| tls_failed(&error))?;
            }
            return Ok((stream, address));
        }
        Err(Trouble::Down(reason))
    }
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
fn certificate_name(host: &str) -> Result<rustls::pki_types::ServerName<'static>, Trouble> {
    let mut name = host;
    while name.starts_with('_') {
        name = name.split_once('.').map_or("", |(_, rest)| rest);
    }
    tls::server_name(name).ok_or_else(|| Trouble::Down("its name can't stand in a certificate".into()))
}

/// Whether no connection could be opened for want of something of our own: files, ports, memory.
fn is_shortage(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| own.contains(&Errno::from_raw_os_error(code)))
}

/// What went wrong before the errand was taken is the host's fault; behind that, it may be the errand's.
fn at_fault(greeted: Option<Instant>, reason: String) -> Trouble {
    if greeted.is_some() { Trouble::Unanswered(reason) } else { Trouble::Down(reason) }
}

fn tls_failed(error: &std::io::Error) -> Trouble {
    Trouble::Down(format!("TLS failed: {error}"))
}

fn too_slow_to_greet(started: Instant) -> Trouble {
    Trouble::Down(format!("no greeting within {}", seconds(started.elapsed())))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

fn wipe(out: &mut Vec<u8>) {
    use zeroize::Zeroize as _;
    out.zeroize();
}
