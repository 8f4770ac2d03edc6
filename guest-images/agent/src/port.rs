//! The virtio-serial port to the host (`drivers/char/virtio_console.c`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_protocol::PORT_NAME;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::AgentError;
use crate::netlink::{self, Wait};
use crate::outbox::Outbox;
use crate::uevent;

/// Where the kernel lists ports.
const CLASS: &str = "/sys/class/virtio-ports";

/// How long the port may take to appear. Its driver is built in, so this is long past any boot that works.
const DEADLINE: Duration = Duration::from_secs(60);

/// Opens the port named [`PORT_NAME`] once the kernel has it.
///
/// The name comes in a message of its own, after the port, and the kernel says so with a `change` uevent; so the class
/// is looked at again after each uevent.
pub fn open() -> Result<File, AgentError> {
    let deadline = Instant::now() + DEADLINE;
    let events = uevent::open()?;
    let mut buffer = vec![0; netlink::LARGEST];
    loop {
        if let Some(device) = find()? {
            let action = format!("open {}", device.display());
            return File::options()
                .read(true)
                .write(true)
                .open(&device)
                .map_err(|source| AgentError::io(action, source));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(AgentError::Refused(format!(
                "no virtio-serial port named {PORT_NAME:?} after {} s; the guest needs -device virtio-serial-pci -device \
                 virtserialport,name={PORT_NAME}",
                DEADLINE.as_secs()
            )));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(AgentError::io("wait for uevents", errno)),
        }
        // Which event it was does not matter, nor whether some were lost: the class itself is looked at.
        while netlink::receive(&events, &mut buffer, Wait::No).is_ok() {}
    }
}

/// The device node of the port, if it is there and has its name.
fn find() -> Result<Option<PathBuf>, AgentError> {
    let ports = match fs::read_dir(CLASS) {
        Ok(ports) => ports,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AgentError::io(format!("list {CLASS}"), error)),
    };
    for port in ports.flatten() {
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            return Ok(Some(PathBuf::from("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}

/// What the host sends, over all its connections.
///
/// While no host is connected a read returns 0 at once (`port_fops_read()`), and `poll(2)` says `POLLHUP` for ever; but a
/// write waits for the host. So hello is said again: it returns when there is someone to hear it.
pub struct Requests {
    port: File,
    outbox: Arc<Outbox>,
}

impl Requests {
    /// Requests that come through the port.
    pub fn new(port: File, outbox: Arc<Outbox>) -> Requests {
        Requests { port, outbox }
    }
}

impl Read for Requests {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.port.read(buf)? {
            0 if !buf.is_empty() => {
                self.outbox.hello();
                // Half a line from the connection that broke must not become part of the next one's first.
                buf[0] = b'\n';
                Ok(1)
            }
            n => Ok(n),
        }
    }
}
