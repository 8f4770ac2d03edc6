//! Sends messages to the host. All threads of the server send through one outbox, so that lines never interleave.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use guest_protocol::{Message, VERSION, encode};
use nix::unistd::{SysconfVar, sysconf};

use crate::clock;

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
        match encode(message) {
            Ok(line) => self.line(line.as_bytes()),
            Err(error) => eprintln!("iov-agent: cannot encode a message ({message}): {error}"),
        }
    }

    /// Sends an encoded message, with its newline.
    pub fn line(&self, line: &[u8]) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writer.write_all(line).and_then(|()| writer.flush()) {
            eprintln!("iov-agent: cannot write to the host: {error}");
        }
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
