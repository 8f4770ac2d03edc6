//! Netlink sockets that listen to the kernel.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};

/// Longest datagram that is received whole: a link message of a PF grows with the number of its VFs.
pub const LARGEST: usize = 256 << 10;

/// What may wait in a socket, in bytes: far more than enabling all VFs of a device makes.
const QUEUE: usize = 4 << 20;

/// A socket that is a member of multicast groups (a mask; 0 for none) from now on.
pub fn open(protocol: SockProtocol, groups: u32) -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    match setsockopt(&fd, sockopt::RcvBufForce, &QUEUE) {
        // Not root: only in tests on a host, which do not need it.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// Whether to wait for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until there is one.
    Yes,
    /// Not at all: `EAGAIN` if there is none.
    No,
}

/// The next datagram. `ENOBUFS` means that the queue overflowed and some are lost.
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
