//! What is asked of a host: by which machine, for whom, and how they are announced.

use std::net::SocketAddr;

use gatepost_wire::{Back, BackSetup, ClientFacts, Introduction, proxy_header};

use super::ServiceLink;
use super::connect::Approach;
use crate::config::Announce;

/// What a host is talked to for.
pub(super) struct Request<'a> {
    /// Says what is wanted, and understands the answers.
    pub(super) back: Box<dyn Back>,
    pub(super) approach: Approach<'a>,
    /// Who wants to hear the conversation, secrets struck out.
    pub(super) tell: Option<&'a (dyn Fn(String) + Sync)>,
}

/// Our own greeting, and where we listen: a back end that has either is no back end.
#[derive(Clone, Copy)]
pub(crate) struct Own<'a> {
    pub(crate) greeting: &'a str,
    pub(crate) listeners: &'a [SocketAddr],
}

/// The client, as it is announced.
pub(crate) struct Client<'a> {
    pub(crate) address: SocketAddr,
    /// Where it connected to.
    pub(crate) local: SocketAddr,
    pub(crate) session: &'a str,
    /// Its name in the DNS, where that is known to be its own.
    pub(crate) name: Option<&'a str>,
    /// What it said before its log-in.
    pub(crate) introduction: &'a Introduction,
}

impl Client<'_> {
    /// What the protocol itself tells of it.
    fn facts(&self, addresses: Option<(SocketAddr, SocketAddr)>) -> ClientFacts {
        ClientFacts { addresses, session: self.session.to_owned(), name: self.name.map(str::to_owned) }
    }
}

impl ServiceLink {
    /// Asks by the machine that this builds, on behalf of a client; without one, on our own.
    pub(super) fn request<'a>(
        &self,
        build: impl FnOnce(BackSetup) -> Box<dyn Back>,
        client: Option<&Client<'_>>,
        own: Own<'a>,
        tell: Option<&'a (dyn Fn(String) + Sync)>,
    ) -> Request<'a> {
        let (header, announced) = match (self.settings.announce, client) {
            (Announce::ProxyV2, Some(client)) => {
                (proxy_header::write_v2(client.address, client.local), Some(client.facts(None)))
            }
            (Announce::ProxyV2, None) => (proxy_header::write_v2_local(), None),
            (Announce::Inband, Some(client)) => (Vec::new(), Some(client.facts(Some((client.address, client.local))))),
            (Announce::Inband, None) | (Announce::Nothing, _) => (Vec::new(), None),
        };
        let setup = BackSetup {
            starttls: self.tls.is_starttls(),
            client: announced,
            introduction: client.map(|client| client.introduction.clone()).unwrap_or_default(),
            own_greeting: own.greeting.to_owned(),
            trace: tell.is_some(),
        };
        let approach = Approach { header, own_listeners: own.listeners };
        Request { back: build(setup), approach, tell }
    }
}
