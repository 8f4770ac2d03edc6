//! Reads a register of a network interface's PHY as `mii-tool` does, as fast as possible.

use std::os::fd::AsRawFd;

use guest_protocol::Reply;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{AgentError, doing};
use crate::job::Controls;

/// Length of an interface name with its NUL: `IFNAMSIZ` in `include/uapi/linux/if.h`.
const NAME: usize = 16;

/// `struct ifreq` of `include/uapi/linux/if.h` with a `struct mii_ioctl_data` of `include/uapi/linux/mii.h` in its
/// union.
#[derive(Debug, Default)]
#[repr(C)]
struct Request {
    name: [u8; NAME],
    phy: u16,
    register: u16,
    value_in: u16,
    value_out: u16,
    rest: [u8; 16],
}

/// Reads until the host says stop, or the interface is gone.
pub fn read(ifname: &str, register: u16, controls: &Controls) -> Result<Reply, AgentError> {
    let mut request = Request { register, ..Request::default() };
    if ifname.len() >= NAME {
        return Err(AgentError::Refused(format!(
            "`{ifname}` is too long for the name of an interface: at most {} bytes",
            NAME - 1
        )));
    }
    request.name[..ifname.len()].copy_from_slice(ifname.as_bytes());
    // A socket of any family works (`net/socket.c`, `sock_do_ioctl()`).
    let socket =
        doing("open a socket", || socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None))?;
    let mut done = 0;
    let mut refused = 0;
    while !doing("check for a stop request", || controls.is_told())? {
        // SAFETY: the kernel reads and writes one `Request`, which lives longer than the call.
        match unsafe { ioctl::get_mii_register(socket.as_raw_fd(), &mut request) } {
            Ok(_) => {}
            // The interface is gone.
            Err(Errno::ENODEV) if done > 0 => return Ok(Reply::Cycled { rounds: done, refused }),
            Err(errno) if done == 0 => {
                return Err(AgentError::io(format!("read a register of {ifname}'s PHY"), errno));
            }
            Err(_) => refused += 1,
        }
        done += 1;
    }
    Ok(Reply::Cycled { rounds: done, refused })
}

/// The ioctl of `include/uapi/linux/sockios.h`. Its number contains neither size nor direction.
mod ioctl {
    use nix::ioctl_readwrite_bad;

    use super::Request;

    /// `SIOCGMIIREG`.
    const GET_MII_REGISTER: u64 = 0x8948;

    ioctl_readwrite_bad!(get_mii_register, GET_MII_REGISTER, Request);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct ifreq` has 40 bytes on 64-bit machines.
    #[test]
    fn the_layout_is_that_of_struct_ifreq() {
        assert_eq!(size_of::<Request>(), 40);
        assert_eq!(std::mem::offset_of!(Request, phy), NAME);
    }
}
