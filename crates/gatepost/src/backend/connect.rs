//! A connection to one host of a back end, on the first of its addresses that answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::time::{Instant, timeout_at};

use super::conversation::{Trouble, seconds};
use super::{Backend, ServiceLink};
use crate::config::Announce;
use crate::net::socket::Connection;
use crate::net::stream::Stream;
use crate::net::tls::{self, Spoken};

/// Addresses tried of one host name.
const ADDRESSES_MAX: usize = 4;

/// How a host is approached.
pub(super) struct Approach<'a> {
    /// What goes before all else: the PROXY header, where one is announced.
    pub(super) header: Vec<u8>,
    /// Where we listen: a back end that is there is no back end.
    pub(super) own_listeners: &'a [SocketAddr],
}

impl Backend {
    /// A connection to the host, with implicit TLS where that is set.
    pub(super) async fn connect(
        &self,
        host: &str,
        link: &ServiceLink,
        approach: Approach<'_>,
        connect_deadline: Instant,
    ) -> Result<(Stream, SocketAddr), Trouble> {
        let settings = &link.settings;
        let addresses: Vec<SocketAddr> = if let Ok(address) = host.parse::<IpAddr>() {
            vec![SocketAddr::new(address, settings.port)]
        } else {
            let mut found = self.resolver.addresses(host, settings.port).await.map_err(Trouble::Down)?;
            found.truncate(ADDRESSES_MAX);
            found
        };
        let (first, awaited) = match (settings.announce, &link.tls) {
            (Announce::ProxyV2, _) | (_, Spoken::Implicit(_)) => (Interest::WRITABLE, "connection"),
            // A server that speaks first has accepted the connection when it does.
            (Announce::Inband | Announce::Nothing, Spoken::Never | Spoken::StartTls(_)) => {
                (Interest::READABLE, "greeting")
            }
        };
        let mut reason = "its name has no address".to_owned();
        let many = addresses.len();
        for (n, address) in addresses.into_iter().enumerate() {
            if approach.own_listeners.contains(&address) {
                return Err(own_listener(address));
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
            if leads_to_ourselves(&connection, address, approach.own_listeners) {
                return Err(own_listener(address));
            }
            let mut stream = Stream::new(connection);
            if !approach.header.is_empty() {
                stream
                    .write_all(&approach.header)
                    .await
                    .map_err(|error| Trouble::Down(format!("the connection broke: {error}")))?;
            }
            if link.tls.is_implicit() {
                link.begin_tls(&mut stream, host).await?;
            }
            return Ok((stream, address));
        }
        Err(Trouble::Down(reason))
    }
}

impl ServiceLink {
    /// Speaks TLS from here on; the host's name is the one that its certificate must carry.
    pub(super) async fn begin_tls(&self, stream: &mut Stream, host: &str) -> Result<(), Trouble> {
        let name = certificate_name(host)?;
        let config = match &self.tls {
            Spoken::StartTls(config) | Spoken::Implicit(config) => config,
            Spoken::Never => return Err(Trouble::Unfit("no TLS is wanted of it (`tls` = none)".into())),
        };
        let secured = stream.connect_tls(Arc::clone(config), name).await;
        secured.map_err(|error| Trouble::Down(format!("TLS failed: {error}")))
    }
}

fn own_listener(address: SocketAddr) -> Trouble {
    Trouble::Loop(format!("{address} is one of our own listeners: the map leads back to Gatepost"))
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
