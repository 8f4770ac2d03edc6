//! Sends messages to the host. All threads of the server send through one outbox, so that lines never interleave.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use guest_protocol::{Message, VERSION, encode};
use nix::unistd::{SysconfVar, getppid, sysconf};

use crate::{clock, marker};

/// Sends messages to the host, one line each.
pub struct Outbox {
    writer: Mutex<Box<dyn Write + Send>>,
}

impl Outbox {
    /// An outbox that writes to a channel to the host.
    pub fn new(writer: impl Write + Send + 'static) -> Outbox {
        Outbox { writer: Mutex::new(Box::new(writer)) }
    }

    /// Sends a message. An error is printed on the console.
    pub fn send(&self, message: &Message) {
        self.encoded(message, |line| self.line(line));
    }

    /// Sends an encoded message, with its newline.
    pub fn line(&self, line: &[u8]) {
        line_to(&mut **self.writer(), line);
    }

    /// Sends a message, and executes another marker after a system call. Nothing else is sent in between. A host that
    /// holds the guest's clock saves the guest between these two markers. The system call ends the block of
    /// instructions that QEMU executes as one, so a guest that is to be stopped does not come to the second marker.
    pub fn send_and_stand(&self, message: &Message) {
        self.encoded(message, |line| {
            let mut writer = self.writer();
            line_to(&mut **writer, line);
            getppid();
            marker::mark();
        });
    }

    fn encoded(&self, message: &Message, send: impl FnOnce(&[u8])) {
        match encode(message) {
            Ok(line) => send(line.as_bytes()),
            Err(error) => eprintln!("iov-agent: cannot encode a message ({message}): {error}"),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Box<dyn Write + Send>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends hello.
    pub fn hello(&self) {
        let kernel = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1);
        self.send(&Message::Hello {
            version: VERSION,
            kernel: kernel.unwrap_or_else(|error| format!("unknown ({error})")),
            cpus: u32::try_from(cpus).unwrap_or(1),
            at: clock::now(),
        });
    }
}

/// Writes a line, and marks that it was written. The caller holds the outbox's lock, so that the marker of a line comes
/// before the next line.
fn line_to(writer: &mut dyn Write, line: &[u8]) {
    if let Err(error) = writer.write_all(line).and_then(|()| writer.flush()) {
        eprintln!("iov-agent: cannot write to the host: {error}");
    }
    marker::mark();
}
