//! Sockets: opened with the options that every session needs, and watched at the least cost.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::handover::Given;

/// Connections that may wait in the kernel to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG_CONNECTIONS: i32 = 4096;
/// A peer that is gone behind a NAT is found after ten minutes: five of silence, then five probes.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_mins(1);
const KEEPALIVE_PROBES: u32 = 5;

/// Listens on `address`: by what was given for it, where somebody listens there for us already.
pub(crate) fn listen(address: SocketAddr, given: &mut Given) -> io::Result<TcpListener> {
    if let Some(socket) = given.take(address).transpose()? {
        let reference = SockRef::from(&socket);
        reference.set_nonblocking(true)?;
        prepare(&reference)?;
        keep_alive(&reference)?;
        return Ok(socket);
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` means IPv6: who wants IPv4 as well says so with a second listener.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // What is accepted inherits these, at no cost for each connection.
    prepare(&socket)?;
    keep_alive(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG_CONNECTIONS)?;
    Ok(socket.into())
}

/// Nagle's algorithm together with delayed acknowledgements would hold small answers back for 40 ms.
fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)
}

fn keep_alive(socket: &Socket) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Makes a file one that this thread's reactor watches.
#[expect(
    deprecated,
    reason = "its successor is not safe to call; sockets keep their descriptor for as long as they live, which is all that is asked"
)]
pub(crate) fn watch<T: AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}

/// A connection on this thread's reactor.
///
/// It is watched for reading alone until a write has to wait, which most never do; and what the reactor
/// said of it is used to the full: that there is nothing more to read is known without asking.
pub(crate) struct Connection {
    /// `None` only once watching it failed.
    watched: Option<AsyncFd<TcpStream>>,
    watches_writes: bool,
}

/// What one read gave.
pub(super) struct Read {
    pub(crate) count: usize,
    /// The peer says no more: the next read would give nothing.
    pub(crate) is_last: bool,
}

impl Connection {
    /// Watches a connected socket that doesn't block.
    pub(crate) fn new(tcp: TcpStream) -> io::Result<Self> {
        Ok(Self { watched: Some(watch(tcp, Interest::READABLE)?), watches_writes: false })
    }

    /// Connects to `address`, from `source` if one is given. `first` says what comes first: words of
    /// the peer's, or ours. Dropped, the attempt ends.
    pub(crate) async fn open(address: SocketAddr, source: Option<IpAddr>, first: Interest) -> io::Result<Self> {
        let connection = Self::start(address, source, first)?;
        let ready = connection.watched()?.ready(first).await?.ready();
        if (ready.is_read_closed() || ready.is_write_closed())
            && let Some(error) = connection.tcp()?.take_error()?
        {
            return Err(error);
        }
        Ok(connection)
    }

    fn start(address: SocketAddr, source: Option<IpAddr>, first: Interest) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        prepare(&socket)?;
        if let Some(source) = source {
            // The kernel gives each connection a port of its own then, wherever it leads: so an address is good for as many
            // connections as there are ports.
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => {
                let watched = watch(socket.into(), first | Interest::READABLE)?;
                Ok(Self { watched: Some(watched), watches_writes: first.is_writable() })
            }
        }
    }

    fn watched(&self) -> io::Result<&AsyncFd<TcpStream>> {
        self.watched.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The socket, for its addresses and options.
    pub(crate) fn tcp(&self) -> io::Result<&TcpStream> {
        Ok(self.watched()?.get_ref())
    }

    /// Has the kernel look from time to time whether the peer is still there.
    pub(crate) fn keep_alive(&self) -> io::Result<()> {
        keep_alive(&SockRef::from(self.tcp()?))
    }

    /// Ends our side.
    pub(super) fn shut_down_write(&self) -> io::Result<()> {
        self.tcp()?.shutdown(Shutdown::Write)
    }

    /// Reads what is there, or waits for it.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<Read>> {
        let watched = self.watched()?;
        loop {
            let mut guard = ready!(watched.poll_read_ready(cx))?;
            match rustix::net::recv(watched.get_ref(), &mut *room, RecvFlags::empty()) {
                Ok((count, _)) => {
                    // Less than there was room for: that was all, unless the reactor says otherwise.
                    let is_drained = count < room.len();
                    let is_last = is_drained && guard.ready().is_read_closed();
                    if is_drained {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(Read { count, is_last }));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes as much as the kernel takes at once; `None`: it takes nothing now. With `more`, it may wait
    /// a moment for what follows, to send both together.
    pub(crate) fn write(&self, bytes: &[u8], more: bool) -> io::Result<Option<usize>> {
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        loop {
            match rustix::net::send(self.tcp()?, bytes, flags) {
                Ok(count) => return Ok(Some(count)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// From now on the reactor watches whether the kernel takes more. Whoever waits to read must ask again.
    pub(super) fn watch_writes(&mut self) -> io::Result<()> {
        if !self.watches_writes
            && let Some(watched) = self.watched.take()
        {
            self.watched = Some(watch(watched.into_inner(), Interest::READABLE | Interest::WRITABLE)?);
            self.watches_writes = true;
        }
        Ok(())
    }

    /// Waits, after a write that took nothing, until it is worth another try.
    pub(super) fn poll_write_again(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.watched()?.poll_write_ready(cx))?;
        // If that was old news, the next time waits.
        guard.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// Waits until the connection is broken or closed both ways, without reading from it. A peer that only
    /// ended its own side is not waited for.
    pub(crate) async fn broken(&self) {
        match self.watched() {
            // While writes are not watched, nothing but this makes the socket ready for them.
            Ok(watched) if !self.watches_writes => drop(watched.writable().await),
            _ => std::future::pending().await,
        }
    }
}
