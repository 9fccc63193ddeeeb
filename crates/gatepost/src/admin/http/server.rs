//! Listening for HTTP, with bounds on everything that a stranger could use up.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
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
use crate::net::socket;
use crate::world::Door;

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// How long TLS, or a request's head, may take to come.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// What of a request's head is read.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// A connection lasts no longer than this, whatever is asked on it.
const CONNECTION_TIME: Duration = Duration::from_hours(1);

/// How long the last answers may take.
const LAST_TIME: Duration = Duration::from_secs(1);

/// All addresses that are listened on, until this is dropped.
pub(crate) struct Http {
    app: Arc<App>,
    router: Router,
    permits: Arc<Semaphore>,
    serving: HashMap<SocketAddr, JoinHandle<()>>,
    /// True once answers under way are the last.
    ending: watch::Sender<bool>,
}

impl Drop for Http {
    fn drop(&mut self) {
        self.serving.values().for_each(JoinHandle::abort);
    }
}

impl Http {
    pub(crate) fn new(app: Arc<App>) -> Self {
        let router = router(&app);
        let (ending, _) = watch::channel(false);
        Self { app, router, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)), serving: HashMap::new(), ending }
    }

    /// Listens on exactly the addresses of `door`; where one of them can't be had, on those before.
    pub(crate) fn listen(&mut self, door: &Arc<Door>) -> Result<(), (SocketAddr, io::Error)> {
        let fresh = door.addresses.iter().filter(|address| !self.serving.contains_key(address));
        let sockets: Vec<(SocketAddr, StdListener)> = fresh
            .map(|address| socket::listen(*address).map(|socket| (*address, socket)).map_err(|error| (*address, error)))
            .collect::<Result<_, _>>()?;
        let mut listeners = Vec::new();
        for (address, socket) in sockets {
            listeners.push((address, TcpListener::from_std(socket).map_err(|error| (address, error))?));
        }
        self.app.door.store(Arc::clone(door));
        self.serving.retain(|address, serving| {
            let stays = door.addresses.contains(address);
            if !stays {
                serving.abort();
            }
            stays
        });
        for (address, listener) in listeners {
            let (app, permits) = (Arc::clone(&self.app), Arc::clone(&self.permits));
            let answering = Answering { router: self.router.clone(), ending: self.ending.subscribe() };
            self.serving.insert(address, tokio::spawn(accept(listener, app, answering, permits)));
        }
        Ok(())
    }

    /// Ends it once what is being answered is, or after a moment.
    pub(crate) async fn finish(self) {
        self.serving.values().for_each(JoinHandle::abort);
        let _ = self.ending.send(true);
        let _ = timeout(LAST_TIME, self.permits.acquire_many(CONNECTIONS_MAX as u32)).await;
    }
}

/// What a connection needs.
#[derive(Clone)]
struct Answering {
    router: Router,
    ending: watch::Receiver<bool>,
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
        let door = app.door.load();
        let tls = address.filter(|address| door.speaks_tls(address)).and(door.tls.clone());
        let answering = answering.clone();
        tokio::spawn(async move {
            // Whoever hangs up or is too slow misses the answer, which is all.
            let _ = timeout(CONNECTION_TIME, serve(tcp, peer, tls, answering)).await;
            drop(permit);
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
    let Answering { router, mut ending } = answering;
    let router = router.layer(axum::Extension(peer));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
