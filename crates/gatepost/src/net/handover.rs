//! Listening sockets handed from one process to the next over a Unix socket, or given by a service manager: none is closed in
//! between, so that no client is ever refused.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Sockets in one message: what the kernel takes.
const SOCKETS_MAX: usize = 253;
/// Longest text that goes with them.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// How long the other process may take to send, or to take.
const EXCHANGE_TIME: Duration = Duration::from_secs(10);
/// What a process says once it serves.
const READY: u8 = b'!';

/// What goes with the sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Legacy {
    /// Where each socket listens, in their order.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Those that a service manager listens on too, for as long as there is a process of ours.
    #[serde(default)]
    pub(crate) managed: Vec<SocketAddr>,
    /// The number of the process that takes them over.
    pub(crate) generation: u32,
    /// Processes before it, which still have sessions.
    pub(crate) elders: Vec<Elder>,
}

/// A process that has handed over its sockets and still serves its sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Elder {
    pub(crate) generation: u32,
    /// Where it can be asked.
    pub(crate) socket: std::path::PathBuf,
}

/// Sockets that this process was given.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// By the process before it, until somebody listens on them.
    handed: Vec<(SocketAddr, TcpListener)>,
    /// By a service manager, which goes on listening on them whatever we close: nobody else can have the address.
    managed: Vec<(SocketAddr, TcpListener)>,
}

impl Given {
    /// The socket for an address, if there is one.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<io::Result<TcpListener>> {
        if let Some(position) = self.handed.iter().position(|(known, _)| *known == address) {
            return Some(Ok(self.handed.swap_remove(position).1));
        }
        self.managed.iter().find(|(known, _)| *known == address).map(|(_, socket)| socket.try_clone())
    }

    /// Closes what nobody listens on: the configuration names it no more.
    pub(crate) fn close_rest(&mut self) {
        self.handed.clear();
    }

    /// Where a service manager listens for us.
    pub(crate) fn managed(&self) -> impl Iterator<Item = SocketAddr> {
        self.managed.iter().map(|(address, _)| *address)
    }

    /// Adds the sockets that a service manager listens on to those that are handed over.
    pub(crate) fn add_managed(&self, legacy: &mut Legacy, sockets: &mut Vec<TcpListener>) -> io::Result<()> {
        for (address, socket) in &self.managed {
            if !legacy.addresses.contains(address) {
                legacy.addresses.push(*address);
                sockets.push(socket.try_clone()?);
            }
            legacy.managed.push(*address);
        }
        Ok(())
    }

    /// Takes the sockets that whoever started this process listens on for it (`sd_listen_fds(3)`). To be called once, while
    /// there is one thread: it removes what it finds from the environment.
    pub(crate) fn adopt(&mut self) -> io::Result<()> {
        let mut found = ListenFd::from_env();
        for n in 0..found.len() {
            let Some(socket) = found.take_tcp_listener(n)? else { continue };
            self.managed.push((socket.local_addr()?, socket));
        }
        Ok(())
    }

    /// Takes what another process sends, for whoever listens on those addresses from now on. Blocks.
    pub(crate) fn receive(&mut self, stream: &UnixStream) -> io::Result<Legacy> {
        let (legacy, sockets) = receive(stream)?;
        for (address, socket) in legacy.addresses.iter().copied().zip(sockets) {
            let list = if legacy.managed.contains(&address) { &mut self.managed } else { &mut self.handed };
            list.push((address, socket));
        }
        Ok(legacy)
    }
}

/// Sends sockets and what goes with them. Blocks.
pub(crate) fn send(stream: &UnixStream, legacy: &Legacy, sockets: &[TcpListener]) -> io::Result<()> {
    stream.set_write_timeout(Some(EXCHANGE_TIME))?;
    let text = serde_json::to_vec(legacy)?;
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
    if descriptors.len() > SOCKETS_MAX {
        return Err(io::Error::other(format!("more than {SOCKETS_MAX} sockets can't be handed over")));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(io::Error::other("too many processes that still have sessions came before"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut buffer = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        buffer.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    // The sockets go with the first byte; the text follows behind its length.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    let sent = sendmsg(stream, &[IoSlice::new(&length)], &mut buffer, SendFlags::empty())?;
    if sent != length.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    (&mut &*stream).write_all(&text)
}

/// What another process sends, with a socket for each of its addresses.
fn receive(stream: &UnixStream) -> io::Result<(Legacy, Vec<TcpListener>)> {
    stream.set_read_timeout(Some(EXCHANGE_TIME))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut buffer = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0; 4];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut length)], &mut buffer, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes != length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let descriptors = buffer.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let sockets: Vec<_> = descriptors.flatten().map(TcpListener::from).collect();
    let length = u32::from_be_bytes(length) as usize;
    if length > TEXT_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    (&mut &*stream).read_exact(&mut text)?;
    let legacy: Legacy = serde_json::from_slice(&text)?;
    if legacy.addresses.len() != sockets.len() {
        return Err(io::Error::other("sockets were lost on the way"));
    }
    Ok((legacy, sockets))
}

/// Says that this process serves now.
pub(crate) fn say_ready(stream: &UnixStream) -> io::Result<()> {
    (&mut &*stream).write_all(&[READY])
}

/// Waits until the other process serves, or for `patience`. Blocks.
pub(crate) fn wait_until_ready(stream: &UnixStream, patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    let mut byte = [0];
    (&mut &*stream).read_exact(&mut byte)?;
    if byte == [READY] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_goes_over_and_keeps_its_callers() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        // Somebody calls before the other process has it.
        let _caller = std::net::TcpStream::connect(address).expect("a connection");
        let (near, far) = UnixStream::pair().expect("a pair");
        let elder = Elder { generation: 1, socket: "/x".into() };
        let legacy = Legacy { addresses: vec![address], managed: Vec::new(), generation: 2, elders: vec![elder] };
        send(&near, &legacy, std::slice::from_ref(&listener)).expect("sent");
        drop(listener);
        let mut given = Given::default();
        assert_eq!(given.receive(&far).expect("received"), legacy);
        let listener = given.take(address).expect("a socket").expect("the socket");
        assert!(given.take(address).is_none());
        listener.accept().expect("the caller");
        say_ready(&far).expect("said");
        wait_until_ready(&near, Duration::from_secs(5)).expect("heard");
        drop(far);
        assert!(wait_until_ready(&near, Duration::from_secs(5)).is_err());
    }
}
