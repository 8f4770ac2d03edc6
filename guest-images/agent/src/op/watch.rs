//! A reader that reads attributes as soon as an event wakes it.

use std::os::fd::{AsFd, OwnedFd};

use guest_protocol::{Access, LinkEvent, Progress, Sched, Sighting, Source};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MlockAllFlags, mlockall};

use super::{Report, attribute};
use crate::error::AgentError;
use crate::job::Controls;
use crate::netlink::{self, Wait};
use crate::{clock, link, sched, uevent};

/// The attribute that is read to warm up. Reading it takes no lock.
const WARM_UP: &str = "/sys/kernel/uevent_seqnum";

/// How often it is read. Once is not enough: QEMU links translated blocks when they run for the second time.
const WARM_UPS: usize = 3;

/// Watches until the host says stop. Events that are in the queue then are still reported.
pub fn watch(
    source: &Source,
    read: &[String],
    sched: Sched,
    report: &Report,
    controls: &Controls,
) -> Result<(), AgentError> {
    let socket = match source {
        Source::Uevent { .. } => uevent::open()?,
        Source::Rtnetlink => link::open()?,
    };
    let mut watcher = Watcher { source, read, socket, datagram: vec![0; netlink::LARGEST], text: vec![0; 64 << 10] };
    watcher.warm_up();
    sched::apply(sched)?;
    report.progress(Progress::Watching)?;
    loop {
        let told = watcher.wait(controls)?;
        watcher.drain(report)?;
        if told {
            return Ok(());
        }
    }
}

/// A reader. All its memory is allocated before the first event.
struct Watcher<'a> {
    source: &'a Source,
    read: &'a [String],
    socket: OwnedFd,
    datagram: Vec<u8>,
    text: Vec<u8>,
}

impl Watcher<'_> {
    /// Locks its memory and reads an attribute a few times. Otherwise the first event would be delayed by page faults,
    /// and by QEMU's translation of code that has not run yet (7 ms with TCG).
    fn warm_up(&mut self) {
        // Without locked memory the reader may be slower, but its results are right.
        if let Err(errno) = mlockall(MlockAllFlags::MCL_CURRENT) {
            eprintln!("iov-agent: the reader's memory is not locked: {errno}");
        }
        for _ in 0..WARM_UPS {
            attribute::read_into(WARM_UP, &mut self.text);
        }
    }

    /// Waits for an event or for the host. True if the host says stop.
    fn wait(&self, controls: &Controls) -> Result<bool, AgentError> {
        if controls.read_ahead() {
            return Ok(true);
        }
        let mut fds =
            [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(controls.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => return Ok(fds[1].any().unwrap_or(true)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(AgentError::io("wait for events", errno)),
            }
        }
    }

    /// Handles all events in the queue.
    fn drain(&mut self, report: &Report) -> Result<(), AgentError> {
        loop {
            let datagram = match netlink::receive(&self.socket, &mut self.datagram, Wait::No) {
                Ok(datagram) => datagram,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::ENOBUFS) => {
                    let message = "the queue of events overflowed and some were lost".to_owned();
                    return Err(AgentError::Refused(message));
                }
                Err(errno) => return Err(AgentError::io("receive an event", errno)),
            };
            let seen = clock::now();
            if !matches(self.source, datagram) {
                continue;
            }
            // Read first. Parsing and reporting can wait.
            let reads: Vec<Access> = self.read.iter().map(|path| attribute::read_into(path, &mut self.text)).collect();
            for event in sightings(self.source, datagram)? {
                report.progress(Progress::Saw { event, seen, reads: reads.clone() })?;
            }
        }
    }
}

/// Whether an event is one to read attributes at.
fn matches(source: &Source, datagram: &[u8]) -> bool {
    match source {
        Source::Rtnetlink => link::is_newlink(datagram),
        Source::Uevent { action, devpath } => uevent::header(datagram).is_some_and(|(is_action, is_devpath)| {
            action.as_deref().is_none_or(|wanted| wanted == is_action)
                && devpath.as_deref().is_none_or(|wanted| wanted == is_devpath)
        }),
    }
}

fn sightings(source: &Source, datagram: &[u8]) -> Result<Vec<Sighting>, AgentError> {
    match source {
        Source::Uevent { .. } => Ok(vec![Sighting::Uevent(uevent::parse(datagram)?)]),
        Source::Rtnetlink => {
            let changed = |link: &LinkEvent| !link.gone;
            Ok(link::parse(datagram)?.into_iter().filter(changed).map(Sighting::Link).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_filter_matches_any_event() {
        let datagram = b"change@/devices/x\0ACTION=change\0DEVPATH=/devices/x\0SEQNUM=1\0";
        for (action, devpath, expected) in [
            (None, None, true),
            (Some("change"), None, true),
            (Some("add"), None, false),
            (None, Some("/devices/x"), true),
            (None, Some("/devices/x/y"), false),
            (Some("change"), Some("/devices/x"), true),
            (Some("add"), Some("/devices/x"), false),
        ] {
            let source = Source::Uevent { action: action.map(str::to_owned), devpath: devpath.map(str::to_owned) };
            assert_eq!(matches(&source, datagram), expected, "{source:?}");
        }
    }
}
