//! Runs a program, and reports what it prints.
//!
//! The operation's process makes a session of its own. All processes that the program starts are in it, also when the
//! process that started them has ended, unless they make a session of their own. So all of them can be killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use guest_protocol::{ProgramEnd, Progress, Reply};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

use super::Report;
use crate::error::{AgentError, doing};
use crate::job::Controls;
use crate::procfs;

/// How many bytes of a program's output are reported. The host keeps all messages in memory.
const REPORTED: u64 = 4 << 20;

/// How many bytes at the end of the output are reported, whatever is left out before them.
const LAST: usize = 2048;

/// How many bytes are read at once.
const CHUNK: usize = 32 << 10;

/// How often it is looked whether the program has ended although others still have its output open, in milliseconds. A
/// line that is not complete is reported after this time.
const INTERVAL: u16 = 100;

/// The variables that the program gets beside those of the request. The processes of the agent have those of PID 1.
const ENVIRONMENT: [(&str, &str); 2] = [("PATH", "/bin:/sbin:/usr/bin:/usr/sbin"), ("HOME", "/")];

/// A program to run.
pub struct Program<'a> {
    /// Its path.
    pub path: &'a str,
    /// Its arguments.
    pub args: &'a [String],
    /// Its variables, beside [`ENVIRONMENT`].
    pub env: &'a BTreeMap<String, String>,
    /// Whether its output is a socket, and no pipe.
    pub socket: bool,
}

/// Runs a program until it has ended or the host says stop.
pub fn run(program: &Program<'_>, report: &Report, controls: &Controls) -> Result<Reply, AgentError> {
    doing("make a session", setsid)?;
    let (child, output) = doing(&format!("start {}", program.path), || start(program))?;
    let mut running = Running { child, output: Some(output), printed: Printed::default(), report };
    let status = running.wait(controls)?;
    doing("end the processes that the program has left", kill_session)?;
    running.rest()?;
    Ok(Reply::Ran { end: end(status), unreported: running.printed.unreported })
}

/// Standard output and standard error are one pipe or socket, so that what the program writes keeps its order.
fn start(program: &Program<'_>) -> io::Result<(Child, File)> {
    let (output, writer): (OwnedFd, OwnedFd) = if program.socket {
        let (output, writer) = UnixStream::pair()?;
        (output.into(), writer.into())
    } else {
        let (output, writer) = io::pipe()?;
        (output.into(), writer.into())
    };
    let mut command = Command::new(program.path);
    command.args(program.args).env_clear().envs(ENVIRONMENT).envs(program.env).stdin(Stdio::null());
    let child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    Ok((child, File::from(output)))
}

struct Running<'a> {
    child: Child,
    /// None after its end.
    output: Option<File>,
    printed: Printed,
    report: &'a Report,
}

impl Running<'_> {
    /// Reports the program's output until the program ends. When the host says stop, kills its session.
    fn wait(&mut self, controls: &Controls) -> Result<ExitStatus, AgentError> {
        let mut told = false;
        loop {
            if let Some(status) = doing("wait for the program", || self.child.try_wait())? {
                return Ok(status);
            }
            if !told && doing("check for a stop request", || controls.is_told())? {
                told = true;
                doing("end the program", kill_session)?;
            }
            if self.output.is_none() {
                self.pause(controls, told)?;
            } else if !self.read()? {
                self.report_all(true)?;
            }
        }
    }

    /// Reads output that is there, or comes within the interval. False if none came.
    fn read(&mut self) -> Result<bool, AgentError> {
        let Some(output) = &mut self.output else { return Ok(false) };
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(INTERVAL)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(errno) => return Err(AgentError::io("wait for the program's output", errno)),
        }
        let mut chunk = vec![0; CHUNK];
        match doing("read the program's output", || output.read(&mut chunk))? {
            0 => self.output = None,
            length => self.printed.add(&chunk[..length]),
        }
        self.report_all(false)?;
        Ok(true)
    }

    /// Waits for the program without output, or for the host. After the host has said stop, there is nothing to wait
    /// for but the time.
    fn pause(&self, controls: &Controls, told: bool) -> Result<(), AgentError> {
        let mut fds = [PollFd::new(controls.as_fd(), PollFlags::POLLIN)];
        let fds = if told { &mut [][..] } else { &mut fds[..] };
        match poll(fds, PollTimeout::from(INTERVAL)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(AgentError::io("wait for the program", errno)),
        }
    }

    /// Reports the output that is left after the program's end. A process in a session of its own may still have it
    /// open: that one is not waited for.
    fn rest(&mut self) -> Result<(), AgentError> {
        while self.output.is_some() && self.read()? {}
        self.report_all(true)?;
        match self.printed.last_words() {
            Some(text) => self.report.progress(Progress::Printed { text }),
            None => Ok(()),
        }
    }

    fn report_all(&mut self, incomplete_too: bool) -> Result<(), AgentError> {
        match self.printed.take(incomplete_too) {
            Some(text) => self.report.progress(Progress::Printed { text }),
            None => Ok(()),
        }
    }
}

/// Output that was read.
#[derive(Default)]
struct Printed {
    /// What is not reported yet.
    pending: Vec<u8>,
    reported: u64,
    unreported: u64,
    /// The end of what is not reported.
    last: Vec<u8>,
}

impl Printed {
    fn add(&mut self, bytes: &[u8]) {
        let room = REPORTED.saturating_sub(self.reported + self.pending.len() as u64);
        let (kept, rest) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        self.pending.extend_from_slice(kept);
        self.unreported += rest.len() as u64;
        self.last.extend_from_slice(rest);
        self.last.drain(..self.last.len().saturating_sub(LAST));
    }

    /// What was written last, if something before it was not reported. Then it is reported, too.
    fn last_words(&mut self) -> Option<String> {
        let last = std::mem::take(&mut self.last);
        self.unreported -= last.len() as u64;
        let text = String::from_utf8_lossy(&last);
        (!last.is_empty()).then(|| format!("\n[{} bytes are left out here]\n{text}", self.unreported))
    }

    /// The complete lines that are not reported yet. A line that is not complete counts too if the next call may come
    /// late, or if it is long.
    fn take(&mut self, incomplete_too: bool) -> Option<String> {
        let lines = self.pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let length = if incomplete_too || self.pending.len() - lines > CHUNK { self.pending.len() } else { lines };
        let taken: Vec<u8> = self.pending.drain(..length).collect();
        self.reported += taken.len() as u64;
        (!taken.is_empty()).then(|| String::from_utf8_lossy(&taken).into_owned())
    }
}

/// Kills all processes of this session but this one. New ones may be started meanwhile, so it looks again until there
/// are none. A process that is stuck in the kernel dies only when the kernel lets it go: it is not waited for.
fn kill_session() -> io::Result<()> {
    let own = std::process::id() as i32;
    let mut killed = Vec::new();
    loop {
        let mut others = procfs::session(own)?;
        others.retain(|pid| *pid != own && !killed.contains(pid));
        if others.is_empty() {
            return Ok(());
        }
        for pid in others {
            // An error means that the process has ended.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            killed.push(pid);
        }
    }
}

fn end(status: ExitStatus) -> ProgramEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => ProgramEnd::Exited(code),
        (None, signal) => {
            let number = signal.unwrap_or_default();
            ProgramEnd::Killed(Signal::try_from(number).map_or_else(|_| number.to_string(), |s| s.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn complete_lines_are_reported_first() {
        let mut printed = Printed::default();
        printed.add(b"one\ntw");
        assert_eq!(printed.take(false).as_deref(), Some("one\n"));
        assert_eq!(printed.take(false), None);
        printed.add(b"o\n\xff");
        assert_eq!(printed.take(true).as_deref(), Some("two\n\u{fffd}"));
        assert_eq!(printed.take(true), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_below_the_limit(chunks in prop::collection::vec("[a-z\n]{0,20}", 0..20)) {
            let (mut printed, mut said) = (Printed::default(), String::new());
            for (number, chunk) in chunks.iter().enumerate() {
                printed.add(chunk.as_bytes());
                said += &printed.take(number % 3 == 0).unwrap_or_default();
            }
            said += &printed.take(true).unwrap_or_default();
            prop_assert_eq!((said, printed.unreported), (chunks.concat(), 0));
        }
    }

    #[test]
    fn output_beyond_the_limit_is_counted() {
        let mut printed = Printed::default();
        let mut reported = 0;
        for _ in 0..REPORTED / CHUNK as u64 + 2 {
            printed.add(&[b'x'; CHUNK]);
            reported += printed.take(true).map_or(0, |text| text.len() as u64);
        }
        assert_eq!((reported, printed.unreported), (REPORTED, 2 * CHUNK as u64));
        printed.add(b"the end");
        let last = printed.last_words().unwrap();
        assert!(last.starts_with("\n[63495 bytes are left out here]\nxxx") && last.ends_with("xxxthe end"), "{last}");
        assert_eq!(printed.last_words(), None);
    }
}
