//! How much of what was sent to QEMU it has not taken yet.

use std::os::fd::OwnedFd;

use rustix::ioctl::{Getter, ioctl};

/// `SIOCOUTQ` of `include/uapi/linux/sockios.h`, the same number as `TIOCOUTQ`.
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

/// How many bytes of a Unix socket's output its peer has not read.
///
/// # Errors
/// Those of `ioctl(2)`.
pub fn of(socket: &OwnedFd) -> std::io::Result<u32> {
    // SAFETY: the request writes one int, and nothing else (`unix_ioctl()` in the kernel's `net/unix/af_unix.c`).
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQ, i32>::new()) }?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_peer_has_not_read_is_counted() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let socket = OwnedFd::from(near.try_clone().unwrap());
        assert_eq!(of(&socket).unwrap(), 0);
        near.write_all(b"two lines\n").unwrap();
        assert!(of(&socket).unwrap() > 0);
        far.read_exact(&mut [0; 10]).unwrap();
        assert_eq!(of(&socket).unwrap(), 0);
    }
}
