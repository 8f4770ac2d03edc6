//! Netlink sockets: opening one, and receiving from it.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};

/// Size of the receive buffer. A link message of a PF grows with the number of its VFs.
pub const LARGEST: usize = 256 << 10;

/// Receive queue of a socket, in bytes. Enabling all VFs of a device needs far less.
const QUEUE: usize = 4 << 20;

/// Opens a socket and joins multicast groups (a mask, 0 for none). It receives their messages from now on.
pub fn open(protocol: SockProtocol, groups: u32) -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    match setsockopt(&fd, sockopt::RcvBufForce, &QUEUE) {
        // The process is not root. That is so only in tests on a host, and they need no long queue.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// Whether to wait for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Wait until there is a datagram.
    Yes,
    /// Do not wait. The error is `EAGAIN` if there is no datagram.
    No,
}

/// Receives the next datagram. The error is `ENOBUFS` if the queue overflowed and datagrams were lost.
pub fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8], wait: Wait) -> Result<&'a [u8], Errno> {
    let flags = if wait == Wait::No { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
    loop {
        match recv(socket.as_raw_fd(), buffer, flags) {
            Ok(length) => return Ok(&buffer[..length]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
