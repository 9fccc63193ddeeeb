//! What systemd, or another manager of services, is told (`sd_notify(3)`): when others may begin that need Gatepost, that
//! it lives, reloads or stops, and which process Gatepost is after a hand-over.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the manager listens; nobody has set it where there is none.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// Set where the manager restarts what gives no sign of life.
const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";

/// Something that the manager is to know.
#[derive(Debug, Clone, Copy)]
pub(super) enum News {
    /// Connections are served.
    Ready,
    /// The control loop turns.
    Alive,
    /// The configuration is being read again; [`News::Ready`] follows.
    Reloading,
    /// Another process is Gatepost now.
    HandedOver { pid: u32 },
    /// No more connections are taken.
    Stopping,
}

/// Tells it, where there is a manager; an error says why it can't be told.
pub(super) fn tell(news: News) -> io::Result<()> {
    let Some(place) = std::env::var_os(VARIABLE).filter(|place| !place.is_empty()) else { return Ok(()) };
    let text = match news {
        News::Ready => "READY=1".to_owned(),
        News::Alive if std::env::var_os(WATCHDOG_VARIABLE).is_none() => return Ok(()),
        News::Alive => "WATCHDOG=1".to_owned(),
        News::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_microseconds()),
        News::HandedOver { pid } => format!("MAINPID={pid}"),
        News::Stopping => "STOPPING=1".to_owned(),
    };
    let address = match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&place)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that is stuck must not hold up the control plane.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// By which the manager tells this time of reloading from those before.
fn monotonic_microseconds() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}
