//! From a log-in to the relay: what was read too early goes first, and secrets are gone.

use std::sync::Arc;
use std::time::SystemTime;

use gatepost_wire::Refusal;
use tokio::sync::OwnedSemaphorePermit;

use super::Session;
use super::conversation::HandOver;
use super::reach::LoggedIn;
use super::relay::Relay;
use crate::backend::{Connected, Lease};
use crate::ledger::Slots;
use crate::metrics::ServiceMetrics;
use crate::net::stream::{Scratch, Stream};
use crate::story::{End, Ended, Outcome, Side};

/// A session that is logged in: all that stays.
pub(super) struct Established {
    pub(super) relay: Relay,
    pub(super) metrics: Arc<ServiceMetrics>,
    _held: (Slots, Lease, OwnedSemaphorePermit),
}

impl Session {
    /// From here on bytes only pass. `None`: the session came to its end instead.
    pub(super) fn hand_over(self, to: HandOver, held: (Slots, OwnedSemaphorePermit)) -> Option<Established> {
        let Self { mut client, handle, shared, snapshot, .. } = self;
        let HandOver { logged_in: LoggedIn { connected, expires, .. }, client_rest, .. } = to;
        let Connected { stream: mut server, lease, rest: server_rest, .. } = connected;
        let sent = Scratch::with(|scratch| {
            let mut send = |stream: &mut Stream, side: Side, bytes: &[u8]| {
                let sent = if bytes.is_empty() { Ok(()) } else { stream.send(bytes, false, &mut scratch.outgoing) };
                sent.map_err(|error| End::Broken { side, kind: error.kind() })
            };
            send(&mut server, Side::Backend, &client_rest)?;
            send(&mut client, Side::Client, &server_rest)
        });
        if let Err(end) = sent {
            let outcome = Outcome { end, bytes_up: 0, bytes_down: 0 };
            handle.story().finish(&shared.log, &Ended::Relayed(outcome));
            return None;
        }
        let service = &snapshot.listener.service;
        handle.relays(snapshot.listener.settings.idle_timeout);
        let (up, down) = (client_rest.len() as u64, server_rest.len() as u64);
        handle.moved(up, down);
        service.metrics.bytes_up.add(up);
        service.metrics.bytes_down.add(down);
        if let Some(left) = expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default()) {
            handle.end_after(left);
        }
        let farewell = (service.settings.protocol.turned_away)(Refusal::ShuttingDown);
        let relay = Relay::new(client, server, handle, farewell);
        let (slots, permit) = held;
        Some(Established { relay, metrics: Arc::clone(&service.metrics), _held: (slots, lease, permit) })
    }
}
