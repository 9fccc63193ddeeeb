//! The first of the stages: a connection becomes a session, and a load balancer says whose it is.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::{Secret, proxy_header};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::called_off::{CalledOff, unless_called_off};
use super::listener::ProxyHeader;
use super::transcript::Unheard;
use super::wheel::Wheel;
use super::{Arrival, Session, Shared};
use crate::config::Level;
use crate::metrics::Rejection;
use crate::net::socket::Connection;
use crate::net::stream::Stream;
use crate::story::Story;
use crate::traces::Trail;

/// How long a greeting waits for a header where one may come, but need not: a client that waits for the greeting would
/// wait for ever.
const OPTIONAL_HEADER_TIME: Duration = Duration::from_millis(250);

/// Reads the PROXY header where one may come. `None`: the peer is gone or lied, or we can't serve it; that is logged.
pub(super) async fn arrive(arrival: Arrival, shared: Arc<Shared>) -> Option<(Session, OwnedSemaphorePermit)> {
    let Arrival { tcp, peer, snapshot, permit } = arrival;
    let started = Instant::now();
    let service = &snapshot.listener.service;
    let bound = snapshot.listener.settings.written.address;
    // Asked only where the answer is not known anyway.
    let local = if bound.ip().is_unspecified() { tcp.local_addr() } else { Ok(bound) };
    let (local, connection) = match local.and_then(|local| Ok((local, Connection::new(tcp)?))) {
        Ok(both) => both,
        Err(error) => {
            let what = "a connection that was accepted can't be served";
            if let Some(times) = shared.log.seldom(what) {
                let record = shared.log.record(Level::Error, service.name(), what);
                record.with("fault", error.to_string()).with("times", times).write();
            }
            return None;
        }
    };
    let deadline = started + service.settings.written.login_timeout;
    let handle = Wheel::enter(Story::new(service.settings.protocol, &snapshot.listener.scope.name, peer));
    snapshot.listener.connections.one();
    let mut session = Session {
        client: Stream::new(connection),
        address: peer,
        local,
        is_proxied: false,
        deadline,
        witness: None,
        early: Secret::default(),
        unheard: Unheard::default(),
        trail: Trail::new(snapshot.tracer.as_ref()),
        handle,
        shared,
        snapshot,
    };
    let header = session.snapshot.listener.proxy_header_of(peer.ip());
    let read = if header == ProxyHeader::Never { Ok(()) } else { session.read_proxy_header(header).await };
    let log = &session.shared.log;
    match read {
        Ok(()) => return Some((session, permit)),
        Err(NoHeader::Refused(reason)) => {
            session.reject(Rejection::ProxyHeader);
            log.record(Level::Warning, session.story().protocol.name, "a PROXY header was refused")
                .with("listener", &*session.snapshot.listener.scope.name)
                .with("sender", peer.to_string())
                .with("reason", reason)
                .write();
        }
        Err(NoHeader::CalledOff(called_off)) => session.story().finish(log, &called_off.into()),
    }
    None
}

/// Why nobody is announced who should be.
enum NoHeader {
    /// It is the sender's doing; the text says how.
    Refused(&'static str),
    CalledOff(CalledOff),
}

impl From<&'static str> for NoHeader {
    fn from(reason: &'static str) -> Self {
        Self::Refused(reason)
    }
}

impl From<CalledOff> for NoHeader {
    fn from(called_off: CalledOff) -> Self {
        Self::CalledOff(called_off)
    }
}

impl Session {
    async fn read_proxy_header(&mut self, header: ProxyHeader) -> Result<(), NoHeader> {
        let is_required = header == ProxyHeader::Required;
        // A log-in may come right behind it.
        let mut bytes = Zeroizing::new(Vec::new());
        loop {
            match proxy_header::parse(&bytes) {
                proxy_header::Parsed::Header { length, client } => {
                    self.early = Secret::new(bytes.split_off(length));
                    if let Some(client) = client {
                        self.address = client;
                        self.is_proxied = true;
                        self.story().client = client;
                    }
                    return Ok(());
                }
                proxy_header::Parsed::Malformed(how) => return Err(how.into()),
                proxy_header::Parsed::Absent if is_required => return Err("there is none".into()),
                proxy_header::Parsed::Absent => {
                    self.early = Secret::new(std::mem::take(&mut *bytes));
                    return Ok(());
                }
                proxy_header::Parsed::Partial => {}
            }
            let soon = Instant::now() + OPTIONAL_HEADER_TIME;
            let patience = if is_required { self.deadline } else { self.deadline.min(soon) };
            let reading = timeout_at(patience, self.client.read(&mut bytes));
            let read = unless_called_off(&self.shared, &self.handle, pin!(reading)).await?;
            match read {
                Ok(Ok(0)) => return Err("the connection was closed within it".into()),
                Ok(Err(_)) => return Err("the connection broke within it".into()),
                Ok(Ok(_)) => {}
                Err(_) if !bytes.is_empty() => return Err("it never ended".into()),
                Err(_) if is_required => return Err("none came in time".into()),
                Err(_) => return Ok(()),
            }
        }
    }
}
