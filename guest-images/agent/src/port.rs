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

/// The folder in which the kernel lists ports.
const CLASS: &str = "/sys/class/virtio-ports";

/// How long to wait for the port. Its driver is loaded already, so the port appears much sooner if it appears at all.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for the port named [`PORT_NAME`], and opens it.
///
/// A port gets its name in a message after its creation, and the kernel then sends a `change` uevent. So this looks for
/// the name again after each uevent.
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
        // The events themselves are not used, so it does no harm if some were lost.
        while netlink::receive(&events, &mut buffer, Wait::No).is_ok() {}
    }
}

/// The device node of the port, if the port exists and has its name.
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

/// The input from the host. It does not end when the host disconnects: it goes on with the next connection.
///
/// While no host is connected, a read returns 0 at once (`port_fops_read()`) and `poll(2)` returns `POLLHUP`, but a
/// write waits for the host. So hello is sent again: that returns when a host has connected.
pub struct Requests {
    port: File,
    outbox: Arc<Outbox>,
}

impl Requests {
    /// The input from this port.
    pub fn new(port: File, outbox: Arc<Outbox>) -> Requests {
        Requests { port, outbox }
    }
}

impl Read for Requests {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.port.read(buf)? {
            0 if !buf.is_empty() => {
                self.outbox.hello();
                // End the incomplete line of the old connection, so that it does not become part of the first new line.
                buf[0] = b'\n';
                Ok(1)
            }
            n => Ok(n),
        }
    }
}
