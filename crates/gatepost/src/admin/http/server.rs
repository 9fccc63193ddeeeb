//! Listening for HTTP, with bounds on everything that a stranger could use up.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::gate::Peer;
use super::{App, router};
use crate::ledger::bucket;
use crate::net::handover::Given;
use crate::net::socket;
use crate::world::HttpService;

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// From one address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// How long TLS, or a request's head, may take to come.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// What of a request's head is read.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// A connection lasts no longer than this, whatever is asked on it.
const CONNECTION_TIME: Duration = Duration::from_hours(1);

/// How long what is being answered may take once nothing new is.
const ENDING_TIME: Duration = Duration::from_secs(10);
/// How long the end of the program waits for the last answers.
const LAST_TIME: Duration = Duration::from_secs(1);

/// An address that is listened on.
struct Serving {
    task: JoinHandle<()>,
    /// Its socket, to be handed over.
    socket: io::Result<StdListener>,
}

/// All addresses that are listened on, until this is dropped.
pub(crate) struct Http {
    app: Arc<App>,
    router: Router,
    permits: Arc<Semaphore>,
    serving: HashMap<SocketAddr, Serving>,
    /// True once answers under way are the last.
    ending: watch::Sender<bool>,
    crowd: Crowd,
}

impl Drop for Http {
    fn drop(&mut self) {
        self.serving.values().for_each(|serving| serving.task.abort());
    }
}

impl Http {
    pub(crate) fn new(app: Arc<App>) -> Self {
        let router = router(&app);
        let (ending, _) = watch::channel(false);
        let (permits, serving) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), HashMap::new());
        Self { app, router, permits, serving, ending, crowd: Crowd::default() }
    }

    /// What answers there.
    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// Listens on exactly the addresses of `http`; where one of them can't be had, on those before.
    pub(crate) async fn listen(
        &mut self,
        http: &Arc<HttpService>,
        given: &mut Given,
    ) -> Result<(), (SocketAddr, io::Error)> {
        let before: Vec<_> = self.serving.keys().copied().collect();
        // An old address can stand in a new one's way, as 127.0.0.1:9000 does in that of 0.0.0.0:9000.
        for address in before.iter().filter(|address| !http.addresses.contains(address)) {
            self.leave(address).await;
        }
        if let Err(failed) = self.enter(&http.addresses, given) {
            for address in http.addresses.iter().filter(|address| !before.contains(address)) {
                self.leave(address).await;
            }
            // Nobody else has had the time to take them.
            let _ = self.enter(&before, given);
            return Err(failed);
        }
        self.app.http.store(Arc::clone(http));
        Ok(())
    }

    /// Every socket once more, for another process.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (SocketAddr, io::Result<StdListener>)> {
        self.serving.iter().map(|(address, serving)| {
            let socket = match &serving.socket {
                Ok(socket) => socket.try_clone(),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            (*address, socket)
        })
    }

    async fn leave(&mut self, address: &SocketAddr) {
        if let Some(serving) = self.serving.remove(address) {
            serving.task.abort();
            // Its socket is closed when it has ended.
            let _ = serving.task.await;
        }
    }

    fn enter(&mut self, addresses: &[SocketAddr], given: &mut Given) -> Result<(), (SocketAddr, io::Error)> {
        for address in addresses {
            if self.serving.contains_key(address) {
                continue;
            }
            let failed = |error| (*address, error);
            let std_listener = socket::listen(*address, given).map_err(failed)?;
            let socket = std_listener.try_clone();
            let listener = TcpListener::from_std(std_listener).map_err(failed)?;
            let (app, permits) = (Arc::clone(&self.app), Arc::clone(&self.permits));
            let (router, crowd) = (self.router.clone(), self.crowd.clone());
            let answering = Answering { router, crowd, ending: self.ending.subscribe() };
            let task = tokio::spawn(accept(listener, app, answering, permits));
            self.serving.insert(*address, Serving { task, socket });
        }
        Ok(())
    }

    /// Ends it once what is being answered is, or after a moment.
    pub(crate) async fn finish(self) {
        self.serving.values().for_each(|serving| serving.task.abort());
        let _ = self.ending.send(true);
        let _ = timeout(LAST_TIME, self.permits.acquire_many(CONNECTIONS_MAX as u32)).await;
    }
}

/// What a connection needs.
#[derive(Clone)]
struct Answering {
    router: Router,
    crowd: Crowd,
    ending: watch::Receiver<bool>,
}

/// Connections by the address that they come from; what a proxy on this machine passes on is not counted.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A place among them, until this is dropped.
struct Place(Crowd, IpAddr);

impl Crowd {
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = bucket(address);
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = crowd.entry(address).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS_MAX && !address.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Place(self.clone(), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = crowd.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                crowd.remove(&self.1);
            }
        }
    }
}

async fn accept(listener: TcpListener, app: Arc<App>, answering: Answering, permits: Arc<Semaphore>) {
    let address = listener.local_addr().ok();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((tcp, peer)) = listener.accept().await else {
            // Out of files, most likely: it will pass.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = answering.crowd.enter(peer.ip()) else { continue };
        let http = app.http.load();
        let tls = address.and_then(|address| http.tls_at(&address).cloned());
        let answering = answering.clone();
        tokio::spawn(async move {
            // Whoever hangs up or is too slow misses the answer, which is all.
            let _ = timeout(CONNECTION_TIME, serve(tcp, peer, tls, answering)).await;
            drop((permit, place));
        });
    }
}

async fn serve(tcp: TcpStream, peer: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>, answering: Answering) {
    let _ = tcp.set_nodelay(true);
    let address = peer.ip().to_canonical();
    match tls {
        Some(config) => {
            if let Ok(Ok(stream)) = timeout(HEAD_TIME, TlsAcceptor::from(config).accept(tcp)).await {
                answer(stream, Peer { address, is_tls: true }, answering).await;
            }
        }
        None => answer(tcp, Peer { address, is_tls: false }, answering).await,
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, peer: Peer, answering: Answering) {
    let Answering { router, mut ending, .. } = answering;
    let router = router.layer(axum::Extension(peer));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    // What is being answered may be finished; what never ends by itself, as a page's live numbers, is cut.
    let _ = timeout(ENDING_TIME, connection).await;
}
