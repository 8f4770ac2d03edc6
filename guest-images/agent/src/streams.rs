//! Streams uevents, link messages and the kernel's log to the host, each from a thread of its own.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use guest_protocol::Message;
use nix::errno::Errno;

use crate::error::{self, AgentError};
use crate::netlink::{self, Wait};
use crate::outbox::Outbox;
use crate::{clock, kmsg, link, uevent};

/// Streams that listen to the kernel and do not send yet.
pub struct Streams {
    uevents: Option<OwnedFd>,
    links: Option<OwnedFd>,
    kmsg: Option<File>,
}

impl Streams {
    /// Starts listening. A stream that this kernel does not have is left out, with a message on the console.
    pub fn arm() -> Streams {
        Streams {
            uevents: armed(uevent::open()),
            links: armed(link::open()),
            // Reading begins with the oldest record that the kernel still has.
            kmsg: armed(error::doing("open /dev/kmsg", || File::open("/dev/kmsg"))),
        }
    }

    /// Starts sending to the host.
    pub fn start(self, outbox: &Arc<Outbox>) {
        if let Some(socket) = self.uevents {
            let outbox = outbox.clone();
            thread::spawn(move || datagrams(&socket, "uevent", &outbox, uevent_message));
        }
        if let Some(socket) = self.links {
            let outbox = outbox.clone();
            thread::spawn(move || datagrams(&socket, "link", &outbox, link_messages));
        }
        if let Some(file) = self.kmsg {
            let outbox = outbox.clone();
            thread::spawn(move || records(file, &outbox));
        }
    }
}

fn armed<T>(result: Result<T, AgentError>) -> Option<T> {
    result.inspect_err(|error| eprintln!("iov-agent: cannot start a stream: {}", error::chain(error))).ok()
}

fn uevent_message(at: u64, datagram: &[u8]) -> Result<Vec<Message>, AgentError> {
    Ok(vec![Message::Uevent { at, uevent: uevent::parse(datagram)? }])
}

fn link_messages(at: u64, datagram: &[u8]) -> Result<Vec<Message>, AgentError> {
    Ok(link::parse(datagram)?.into_iter().map(|link| Message::Link { at, link }).collect())
}

/// Sends what a netlink socket receives. Sends [`Message::Lost`] if its queue overflows or a datagram cannot be parsed.
fn datagrams(
    socket: &OwnedFd,
    stream: &str,
    outbox: &Outbox,
    messages: fn(u64, &[u8]) -> Result<Vec<Message>, AgentError>,
) {
    let lost = || outbox.send(&Message::Lost { stream: stream.to_owned(), at: clock::now() });
    let mut buffer = vec![0; netlink::LARGEST];
    loop {
        match netlink::receive(socket, &mut buffer, Wait::Yes) {
            Ok(datagram) => match messages(clock::now(), datagram) {
                Ok(messages) => messages.iter().for_each(|message| outbox.send(message)),
                Err(error) => {
                    eprintln!("iov-agent: {}", error::chain(&error));
                    lost();
                }
            },
            Err(Errno::ENOBUFS) => lost(),
            Err(errno) => {
                eprintln!("iov-agent: the {stream} stream ends: {errno}");
                return lost();
            }
        }
    }
}

/// Sends the kernel's log. One `read(2)` returns one record. `EPIPE` means that records were overwritten before they
/// were read; the next read returns the oldest record that is left (`devkmsg_read()` in `kernel/printk/printk.c`).
fn records(mut file: File, outbox: &Outbox) {
    let lost = || outbox.send(&Message::Lost { stream: "kmsg".to_owned(), at: clock::now() });
    let mut buffer = vec![0; kmsg::LARGEST];
    loop {
        match file.read(&mut buffer) {
            Ok(length) => match kmsg::parse(&buffer[..length]) {
                Some(message) => outbox.send(&message),
                None => lost(),
            },
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => lost(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                eprintln!("iov-agent: the kmsg stream ends: {error}");
                return lost();
            }
        }
    }
}
