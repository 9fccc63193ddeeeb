//! Accepting connections: first room for a session, then the connection, then a worker for it.
//!
//! Acceptors run on the first worker's thread, so that the sessions it serves itself, all of them where
//! there is no other, cost no hop between threads.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::net::SocketFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::Level;
use crate::log::Logger;
use crate::net::socket;
use crate::service::Arrival;
use crate::worker::Workers;
use crate::world::World;

/// How often it is looked whether a new listener's configuration is in force.
const WORLD_STEP: Duration = Duration::from_millis(5);
/// How long accepting pauses when the system has no file descriptor or memory for a connection.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// How often a shortage is said.
const SHORTAGE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What all acceptors need.
pub(crate) struct Entrance {
    pub(crate) world: ArcSwap<World>,
    pub(crate) workers: Arc<Workers>,
    /// Shares of the process' open files.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) log: Logger,
}

/// An acceptor at work on one address.
pub(crate) struct Acceptor {
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
    /// Its socket, to be handed over.
    socket: Arc<TcpListener>,
}

impl Acceptor {
    /// Begins to accept on a socket. An acceptor that waits holds a permit, so each brings its own.
    pub(crate) fn start(entrance: &Arc<Entrance>, address: SocketAddr, socket: TcpListener) -> Self {
        let (stop, mut stopping) = oneshot::channel();
        let (done, stopped) = oneshot::channel();
        entrance.permits.add_permits(1);
        let socket = Arc::new(socket);
        let (here, own) = (Arc::clone(entrance), Arc::clone(&socket));
        entrance.workers.run_on_first(Box::pin(async move {
            tokio::select! {
                _ = &mut stopping => {}
                () = here.accept(address, own) => {}
            }
            let _ = done.send(());
            // The permit that it brought goes with it, if need be when a session gives one back.
            if let Ok(permit) = here.permits.acquire().await {
                permit.forget();
            }
        }));
        Self { stop, stopped, socket }
    }

    /// Its socket once more, for another process.
    pub(crate) fn socket(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// Ends it; its socket is closed when this returns.
    pub(crate) async fn end(self) {
        let _ = self.stop.send(());
        let _ = self.stopped.await;
    }
}

impl Entrance {
    async fn accept(&self, address: SocketAddr, socket: Arc<TcpListener>) {
        let mut said = None;
        let socket = match socket::watch(socket, Interest::READABLE) {
            Ok(socket) => socket,
            Err(error) => return self.say_shortage(address, &error, &mut said),
        };
        loop {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
            match accept_one(&socket).await {
                Ok(accepted) => self.pass_on(address, accepted, permit).await,
                // A client that left already is nobody's business.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.say_shortage(address, &error, &mut said);
                    tokio::time::sleep(SHORTAGE_PAUSE).await;
                }
            }
        }
    }

    /// Gives a connection to a worker.
    async fn pass_on(
        &self,
        address: SocketAddr,
        accepted: (std::net::TcpStream, SocketAddr),
        permit: OwnedSemaphorePermit,
    ) {
        // A listener is there a moment before the configuration that names it is in force. Should that come to nothing, this
        // ends with the listener.
        let snapshot = loop {
            match self.world.load().snapshot(address) {
                Some(snapshot) => break snapshot,
                None => tokio::time::sleep(WORLD_STEP).await,
            }
        };
        let (tcp, peer) = accepted;
        self.workers.dispatch_from_first(Arrival { tcp, peer, snapshot, permit });
    }

    fn say_shortage(&self, address: SocketAddr, error: &io::Error, said: &mut Option<Instant>) {
        if said.is_none_or(|at| at.elapsed() >= SHORTAGE_LOG_INTERVAL) {
            *said = Some(Instant::now());
            self.log
                .record(Level::Critical, "server", "connections can't be accepted")
                .with("listener", address.to_string())
                .with("error", error.to_string())
                .write();
        }
    }
}

/// Accepts one connection, without making it this thread's: sessions live on their worker's.
async fn accept_one(socket: &AsyncFd<Arc<TcpListener>>) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    loop {
        let mut ready = socket.readable().await?;
        let Ok(accepted) = ready.try_io(|socket| Ok(rustix::net::acceptfrom_with(socket.get_ref(), flags)?)) else {
            continue;
        };
        let (descriptor, peer) = accepted?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        return Ok((descriptor.into(), peer));
    }
}
