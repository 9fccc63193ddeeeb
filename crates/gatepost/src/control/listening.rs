//! Everything that is listened on: the listeners of the configuration, the command line's socket, console and API.
//!
//! Here belongs which addresses are had and given up. What is done with a connection is its acceptor's.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::acceptor::{Acceptor, Entrance};
use crate::admin::http::Http;
use crate::admin::socket::Socket;
use crate::config::{Config, Listener, Problem, Problems};
use crate::net::handover::Given;
use crate::net::socket;

/// See the module's documentation.
pub(super) struct Listening {
    entrance: Arc<Entrance>,
    acceptors: HashMap<SocketAddr, Acceptor>,
    /// `None`: it could not be had, or there is no place for it.
    pub(super) socket: Option<Socket>,
    pub(super) http: Http,
    /// What was given to be listened on.
    pub(super) given: Given,
}

impl Listening {
    /// Accepts on these sockets.
    pub(super) fn new(
        entrance: &Arc<Entrance>,
        given: Given,
        sockets: Vec<(SocketAddr, TcpListener)>,
        socket: Option<Socket>,
        http: Http,
    ) -> Self {
        let mut listening = Self { entrance: Arc::clone(entrance), acceptors: HashMap::new(), socket, http, given };
        listening.accept_on(sockets);
        listening
    }

    /// How many addresses clients may connect to.
    pub(super) fn listeners(&self) -> usize {
        self.acceptors.len()
    }

    /// Whether clients may connect to this one.
    pub(super) fn has(&self, address: &SocketAddr) -> bool {
        self.acceptors.contains_key(address)
    }

    /// The sockets, for a process that takes over; an error says of what.
    pub(super) fn sockets(&self) -> Result<Vec<(SocketAddr, TcpListener)>, (&'static str, io::Error)> {
        let acceptors = self.acceptors.iter().map(|(address, acceptor)| (*address, acceptor.socket(), "a listener"));
        let http = self.http.sockets().map(|(address, socket)| (address, socket, "the console's listener"));
        let had = |(address, socket, what): (_, io::Result<_>, _)| match socket {
            Ok(socket) => Ok((address, socket)),
            Err(error) => Err((what, error)),
        };
        acceptors.chain(http).map(had).collect()
    }

    /// Takes no more clients. The ways in for administrators are left.
    pub(super) async fn end_listeners(self) -> (Option<Socket>, Http) {
        for acceptor in self.acceptors.into_values() {
            acceptor.end().await;
        }
        (self.socket, self.http)
    }

    /// Listens on exactly the addresses that `config` names, or on those before.
    pub(super) async fn move_listeners(&mut self, before: &Config, config: &Config) -> Result<(), Problems> {
        let is_over = |old: &&Listener| !config.listeners().any(|new| new.written.address == old.written.address);
        let new: Vec<_> = config.listeners().filter(|new| !self.has(&new.written.address)).collect();
        let old: Vec<_> = before.listeners().filter(is_over).collect();
        // An old address can stand in a new one's way, as 127.0.0.1:143 does in that of 0.0.0.0:143.
        let stands_in_the_way =
            |old: &&&Listener| new.iter().any(|new| new.written.address.port() == old.written.address.port());
        let in_the_way: Vec<_> = old.iter().filter(stands_in_the_way).copied().collect();
        for listener in &in_the_way {
            self.end(listener.written.address).await;
        }
        let mut problems = Vec::new();
        let mut sockets = bind(&new, &mut self.given, &mut problems);
        if !problems.is_empty() {
            sockets.clear();
            let back = bind(&in_the_way, &mut self.given, &mut problems);
            self.accept_on(back);
        }
        Problems::check(problems, ())?;
        for listener in old {
            self.end(listener.written.address).await;
        }
        self.accept_on(sockets);
        Ok(())
    }

    fn accept_on(&mut self, sockets: Vec<(SocketAddr, TcpListener)>) {
        for (address, socket) in sockets {
            self.acceptors.insert(address, Acceptor::start(&self.entrance, address, socket));
        }
    }

    /// Takes no more clients at an address, if it does.
    async fn end(&mut self, address: SocketAddr) {
        if let Some(acceptor) = self.acceptors.remove(&address) {
            acceptor.end().await;
        }
    }
}

/// Listens on every address; each that can't be had is a problem of its own, with what to do about it.
pub(super) fn bind(
    listeners: &[&Listener],
    given: &mut Given,
    problems: &mut Vec<Problem>,
) -> Vec<(SocketAddr, TcpListener)> {
    let mut sockets = Vec::new();
    for listener in listeners {
        let address = listener.written.address;
        match socket::listen(address, given) {
            Ok(socket) => sockets.push((address, socket)),
            Err(error) => {
                let message = match error.kind() {
                    io::ErrorKind::AddrInUse => "is in use by another program (`ss -ltnp` names it)".to_owned(),
                    io::ErrorKind::PermissionDenied => {
                        "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE".to_owned()
                    }
                    io::ErrorKind::AddrNotAvailable => "is no address of this machine".to_owned(),
                    _ => format!("can't be listened on: {error}"),
                };
                problems.push(Problem::at(&listener.place, format!("the listener {address} {message}")));
            }
        }
    }
    sockets
}
