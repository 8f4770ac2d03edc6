//! `iov watch`: prints the kernel's events, reads attributes at each, and ends with the one that was waited for.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use guest_protocol::{Message, Policy, Sched};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::look::WITHIN;
use super::{Ended, Next, Words, missing, number};
use crate::error::{AgentError, doing};
use crate::netlink::{self, Wait};
use crate::op::attribute;
use crate::{kmsg, link, sched, uevent};

/// The CPU of a reader and of its command, so that the reader preempts what sends the event.
const CPU: u32 = 0;

/// The reader's priority, that of threads of interrupts.
const PRIORITY: u8 = 50;

/// What to watch, and what to do.
#[derive(Default)]
struct Asked {
    of: Vec<String>,
    until: Option<String>,
    read: Vec<String>,
    then: Option<String>,
    within: Option<u64>,
    command: Vec<String>,
}

/// The source of events.
enum Source {
    Uevent(OwnedFd),
    Link(OwnedFd),
    Kmsg(File),
}

/// `iov watch`.
pub fn watch(mut words: Words) -> Ended {
    let kind = words.one("what to watch (uevent, link or kmsg)")?;
    let mut source = Source::open(&kind)?;
    let asked = Asked::of(words)?;
    let child = asked.start()?;
    let deadline = Instant::now() + Duration::from_secs(asked.within.unwrap_or(WITHIN));
    let found = asked.follow(&mut source, deadline)?;
    if let Some(mut child) = child {
        doing("wait for the command", || child.wait())?;
    }
    if !found {
        eprintln!("iov watch: no event with \"{}\" came", asked.until.unwrap_or_default());
    }
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Asked {
    fn of(mut words: Words) -> Result<Asked, AgentError> {
        let mut asked = Asked::default();
        while let Some(next) = words.next()? {
            match next {
                Next::Option(name) => match name.as_str() {
                    "of" => asked.of.push(words.value(&name)?),
                    "until" => asked.until = Some(words.value(&name)?),
                    "read" => asked.read.push(words.value(&name)?),
                    "do" => asked.then = Some(words.value(&name)?),
                    "within" => asked.within = Some(number(&words.value(&name)?, "--within")?),
                    _ => return Err(Next::Option(name).unknown("watch")),
                },
                // The first word of the command: all after it belong to it.
                Next::Word(word) => {
                    asked.command = std::iter::once(word).chain(words.rest()?).collect();
                    break;
                }
            }
        }
        if asked.until.is_none() && asked.within.is_none() {
            return Err(missing("--until TEXT or --within S"));
        }
        Ok(asked)
    }

    /// Starts the command. A reader gets its priority afterwards, so that the command does not have it.
    fn start(&self) -> Result<Option<Child>, AgentError> {
        let reads = !self.read.is_empty();
        if reads {
            self.read.iter().for_each(|path| drop(attribute::read(path)));
            sched::apply(Sched { cpu: Some(CPU), policy: Policy::Other })?;
        }
        let child = match self.command.split_first() {
            None => None,
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).stdin(Stdio::null());
                Some(doing(&format!("start {program}"), || command.spawn())?)
            }
        };
        if reads {
            sched::apply(Sched { cpu: Some(CPU), policy: Policy::Fifo(PRIORITY) })?;
        }
        Ok(child)
    }

    /// Prints the events until the one that is waited for. False if it did not come in time.
    fn follow(&self, source: &mut Source, deadline: Instant) -> Result<bool, AgentError> {
        let mut events: VecDeque<String> = VecDeque::new();
        loop {
            let Some(event) = events.pop_front() else {
                if !source.wait(deadline)? {
                    return Ok(self.until.is_none());
                }
                events.extend(source.take()?);
                continue;
            };
            let is_one = self.of.iter().all(|text: &String| event.contains(text.as_str()));
            if is_one {
                self.report(&event)?;
            }
            if is_one && self.until.as_ref().is_some_and(|text| event.contains(text.as_str())) {
                return Ok(true);
            }
        }
    }

    /// Reads the attributes first. Printing can wait.
    fn report(&self, event: &str) -> Result<(), AgentError> {
        let values: Vec<_> = self.read.iter().map(|path| attribute::read(path).shown().to_owned()).collect();
        let line: Vec<_> = std::iter::once(event.to_owned()).chain(values).collect();
        doing("print an event", || {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{}", line.join(" "))?;
            stdout.flush()
        })?;
        if let Some(then) = &self.then {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", then]).env("EVENT", event).stdin(Stdio::null());
            doing(&format!("run `{then}`"), || shell.status())?;
        }
        Ok(())
    }
}

impl Source {
    fn open(kind: &str) -> Result<Source, AgentError> {
        match kind {
            "uevent" => uevent::open().map(Source::Uevent),
            "link" => link::open().map(Source::Link),
            "kmsg" => doing("open /dev/kmsg", || {
                let mut file = fs::OpenOptions::new().read(true).open("/dev/kmsg")?;
                file.seek(SeekFrom::End(0))?;
                Ok::<_, io::Error>(Source::Kmsg(file))
            }),
            other => Err(AgentError::Refused(format!("`iov watch` takes uevent, link or kmsg, not `{other}`"))),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Uevent(socket) | Source::Link(socket) => socket.as_fd(),
            Source::Kmsg(file) => file.as_fd(),
        }
    }

    /// Waits for events. False if none came in time.
    fn wait(&self, deadline: Instant) -> Result<bool, AgentError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(count) => Ok(count > 0),
            Err(Errno::EINTR) => Ok(!left.is_zero()),
            Err(errno) => Err(AgentError::io("wait for events", errno)),
        }
    }

    /// The events that have come, one line each.
    fn take(&mut self) -> Result<Vec<String>, AgentError> {
        let mut buffer = vec![0; netlink::LARGEST];
        let failed = |errno: Errno| match errno {
            Errno::EAGAIN => Ok(Vec::new()),
            Errno::ENOBUFS => Err(AgentError::Refused("the queue of events overflowed and some were lost".to_owned())),
            errno => Err(AgentError::io("receive an event", errno)),
        };
        match self {
            Source::Uevent(socket) => match netlink::receive(socket, &mut buffer, Wait::No) {
                Ok(datagram) => {
                    let header = uevent::header(datagram);
                    Ok(header.map(|(action, devpath)| format!("{action} {devpath}")).into_iter().collect())
                }
                Err(errno) => failed(errno),
            },
            Source::Link(socket) => match netlink::receive(socket, &mut buffer, Wait::No) {
                Ok(datagram) => {
                    let state = |link: &guest_protocol::LinkEvent| match (link.gone, link.operstate) {
                        (true, _) => "gone",
                        (false, Some(UP)) => "up",
                        (false, _) => "down",
                    };
                    Ok(link::parse(datagram)?.iter().map(|link| format!("{} {}", link.ifname, state(link))).collect())
                }
                Err(errno) => failed(errno),
            },
            Source::Kmsg(file) => {
                let length = doing("read /dev/kmsg", || file.read(&mut buffer))?;
                let text = kmsg::parse(&buffer[..length]).and_then(|message| match message {
                    Message::Kmsg { text, .. } => Some(text),
                    _ => None,
                });
                Ok(text.into_iter().collect())
            }
        }
    }
}

/// `IF_OPER_UP` (RFC 2863, `include/uapi/linux/if.h`).
const UP: u8 = 6;
