//! The listening sockets: bound here, or taken over from a running process, or given to the next
//! one. Decides nothing about when; `server` does.
//!
//! A successor waits at a Unix socket. The running process connects to it, sends its listening
//! sockets and then waits for one byte that says that the successor serves. Only then does it stop
//! accepting; a successor that dies before costs nothing. Both accept from the same kernel queue in
//! between, so no connection is lost.
//!
//! Invariant: a listening socket is held here until [`Sockets`] is dropped, which therefore has to
//! happen when accepting ends, or clients would queue up in front of nobody.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel completes ahead of `accept`.
const BACKLOG: i32 = 1024;
/// Listeners that can change hands at once.
const SOCKETS_MAX: usize = 16;
/// Their addresses, one per line.
const ADDRESSES_BYTES_MAX: usize = 2048;
/// How long a successor waits for its predecessor's signal.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(60);
/// How long a predecessor looks for a successor.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(10);
/// How long a successor may take from the sockets to serving.
const READY_WAIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const READY: u8 = b'R';
/// A process started from here must not keep the listeners open.
#[cfg(target_os = "linux")]
const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const RECEIVE: RecvFlags = RecvFlags::empty();

/// The sockets did not change hands.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("the upgrade socket {path} cannot be used: {error}")]
    Socket { path: PathBuf, error: io::Error },
    #[error("nobody came to the upgrade socket {path} within {seconds} s")]
    Nobody { path: PathBuf, seconds: u64 },
    #[error("the process at the upgrade socket belongs to another user")]
    Stranger,
    #[error("the sockets did not come through: {0}")]
    Transfer(#[from] io::Error),
    #[error("what came through is not a list of listening sockets")]
    Garbled,
    #[error("the successor took the sockets but did not come up: {0}")]
    NotReady(io::Error),
}

/// This process's listening sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    /// By the address that was asked for.
    held: BTreeMap<String, TcpListener>,
    /// Taken over and not asked for yet.
    inherited: BTreeMap<String, TcpListener>,
    predecessor: Option<Predecessor>,
}

/// The process that gave us its sockets and waits for our word.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Sockets {
    /// Waits for a running process to hand its sockets over at `path`. Blocks.
    pub fn take_over(path: &Path) -> Result<Self, HandoverError> {
        let broken = |error| HandoverError::Socket {
            path: path.to_owned(),
            error,
        };
        let listener = open_upgrade_socket(path).map_err(broken)?;
        let accepted = poll_for(PREDECESSOR_WAIT, || match listener.accept() {
            Ok((stream, _)) => Some(Ok(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error)),
        });
        // Whatever comes of it, nobody else is to come this way.
        let _ = std::fs::remove_file(path);
        let stream = accepted
            .ok_or_else(|| nobody(path, PREDECESSOR_WAIT))?
            .map_err(broken)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(SUCCESSOR_WAIT))?;
        check_owner(&stream)?;
        Ok(Self {
            held: BTreeMap::new(),
            inherited: receive(&stream)?,
            predecessor: Some(Predecessor(stream)),
        })
    }

    /// A listening socket for `address`: the inherited one, or a new one. Port 0 gives any free
    /// port.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = match self.inherited.remove(&address.to_string()) {
            Some(inherited) => inherited,
            None => bind(address)?,
        };
        let mut key = address;
        if key.port() == 0 {
            key = listener.local_addr()?;
        }
        self.held.insert(key.to_string(), listener.try_clone()?);
        Ok(listener)
    }

    /// Closes what was inherited and is not listened to any more; its clients would wait for ever.
    pub fn close_unclaimed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.inherited).into_keys().collect()
    }

    /// The process to tell when this one serves.
    pub fn predecessor(&mut self) -> Option<Predecessor> {
        self.predecessor.take()
    }

    /// Gives the sockets to the successor that waits at `path` and waits until it serves. Blocks.
    pub fn hand_over(&self, path: &Path) -> Result<(), HandoverError> {
        let mut stream = poll_for(SUCCESSOR_WAIT, || UnixStream::connect(path).ok())
            .ok_or_else(|| nobody(path, SUCCESSOR_WAIT))?;
        check_owner(&stream)?;
        self.send(&stream)?;
        stream.set_read_timeout(Some(READY_WAIT))?;
        let mut word = [0];
        match stream.read_exact(&mut word) {
            Ok(()) if word == [READY] => Ok(()),
            Ok(()) => Err(HandoverError::Garbled),
            Err(error) => Err(HandoverError::NotReady(error)),
        }
    }

    fn send(&self, stream: &UnixStream) -> Result<(), HandoverError> {
        let addresses: String = self.held.keys().flat_map(|key| [key, "\n"]).collect();
        let sockets: Vec<BorrowedFd<'_>> = self.held.values().map(AsFd::as_fd).collect();
        if sockets.len() > SOCKETS_MAX || addresses.len() > ADDRESSES_BYTES_MAX {
            return Err(HandoverError::Garbled);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if !rights.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(HandoverError::Garbled);
        }
        let bytes = [IoSlice::new(addresses.as_bytes())];
        let sent = rustix::net::sendmsg(stream, &bytes, &mut rights, SendFlags::empty())
            .map_err(io::Error::from)?;
        if sent != addresses.len() {
            return Err(HandoverError::Garbled);
        }
        Ok(())
    }
}

impl Predecessor {
    /// Says that this process serves; the predecessor then stops accepting.
    pub fn release(mut self) -> io::Result<()> {
        self.0.write_all(&[READY])
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted process must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The sockets that come through `path` become listeners, so only its owner may reach it.
fn open_upgrade_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(parent)?;
    }
    match std::fs::symlink_metadata(path) {
        // Left behind by a successor that was killed.
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("a file is in the way")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// File modes are checked by the system on connecting only; this checks both ends.
#[cfg(target_os = "linux")]
fn check_owner(stream: &UnixStream) -> Result<(), HandoverError> {
    let other = rustix::net::sockopt::socket_peercred(stream).map_err(io::Error::from)?;
    if other.uid == rustix::process::geteuid() || other.uid.is_root() {
        Ok(())
    } else {
        Err(HandoverError::Stranger)
    }
}

#[cfg(not(target_os = "linux"))]
fn check_owner(_stream: &UnixStream) -> Result<(), HandoverError> {
    Ok(())
}

fn receive(stream: &UnixStream) -> Result<BTreeMap<String, TcpListener>, HandoverError> {
    let mut text = vec![0; ADDRESSES_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut text)],
        &mut rights,
        RECEIVE,
    )
    .map_err(io::Error::from)?;
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    text.truncate(received.bytes);
    let text = String::from_utf8(text).map_err(|_| HandoverError::Garbled)?;
    let addresses: Vec<&str> = text.lines().collect();
    if addresses.len() != sockets.len() {
        return Err(HandoverError::Garbled);
    }
    let mut inherited = BTreeMap::new();
    for (address, socket) in addresses.into_iter().zip(sockets) {
        let listener = TcpListener::from(socket);
        // Port 0 is resolved before it is written down, so the two are the same text.
        if !matches!(listener.local_addr(), Ok(bound) if bound.to_string() == address) {
            return Err(HandoverError::Garbled);
        }
        inherited.insert(address.to_owned(), listener);
    }
    Ok(inherited)
}

fn nobody(path: &Path, waited: Duration) -> HandoverError {
    HandoverError::Nobody {
        path: path.to_owned(),
        seconds: waited.as_secs(),
    }
}

/// Asks again and again until there is something or `limit` has passed.
fn poll_for<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let mut waited = Duration::ZERO;
    loop {
        match ask() {
            Some(found) => return Some(found),
            None if waited >= limit => return None,
            None => {
                std::thread::sleep(LOOK_EVERY);
                waited += LOOK_EVERY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::{HandoverError, Sockets, poll_for};
    use crate::listener::tests::{PATIENCE, Scratch};

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn sockets_change_hands_and_connections_made_meanwhile_are_not_lost() {
        let scratch = Scratch::new();
        let path = scratch.path().join("upgrade.sock");
        let mut old = Sockets::default();
        let listeners = [old.listen(ANY).unwrap(), old.listen(ANY).unwrap()];
        let addresses = listeners
            .each_ref()
            .map(|listener| listener.local_addr().unwrap());
        let waiting = TcpStream::connect(addresses[0]).unwrap();

        let successor = thread::spawn({
            let path = path.clone();
            move || {
                let mut new = Sockets::take_over(&path).unwrap();
                let taken = [new.listen(addresses[0]).unwrap()];
                assert_eq!(new.close_unclaimed(), [addresses[1].to_string()]);
                new.predecessor().unwrap().release().unwrap();
                taken
            }
        });
        old.hand_over(&path).unwrap();
        drop(old);
        let taken = successor.join().unwrap();
        let (_, peer) = poll_for(PATIENCE, || taken[0].accept().ok()).unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
        assert!(!path.exists());
        drop(listeners);
        assert!(TcpStream::connect(addresses[0]).is_ok());
        assert!(TcpStream::connect(addresses[1]).is_err());
    }

    #[test]
    fn dropping_the_sockets_closes_the_listeners() {
        let mut sockets = Sockets::default();
        let address = sockets.listen(ANY).unwrap().local_addr().unwrap();
        assert!(TcpStream::connect(address).is_ok());
        drop(sockets);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn what_is_no_list_of_sockets_is_refused() {
        let scratch = Scratch::new();
        let path = scratch.path().join("private/upgrade.sock");
        let successor = thread::spawn({
            let path = path.clone();
            move || Sockets::take_over(&path)
        });
        let mut stream = poll_for(PATIENCE, || UnixStream::connect(&path).ok()).unwrap();
        stream.write_all(b"127.0.0.1:80\n").unwrap();
        let refused = successor.join().unwrap().unwrap_err();
        assert!(matches!(refused, HandoverError::Garbled), "{refused}");
    }

    #[test]
    fn only_the_owner_reaches_the_upgrade_socket_and_no_file_is_overwritten() {
        let scratch = Scratch::new();
        let path = scratch.path().join("private/upgrade.sock");
        let listener = super::open_upgrade_socket(&path).unwrap();
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(listener);
        // Left behind by a process that was killed.
        super::open_upgrade_socket(&path).unwrap();

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(super::open_upgrade_socket(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
