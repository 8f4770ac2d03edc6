//! The server's side of an operation's process: starts it, relays its messages, and reaps it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use guest_protocol::{Message, OpId, Outcome, decode};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::clock;
use crate::error::{self, AgentError};
use crate::job::Job;
use crate::outbox::Outbox;

/// A process that has started and got its job.
pub struct Process {
    child: Child,
    stdout: ChildStdout,
}

impl Process {
    /// Starts a process and writes the job to its standard input. The second value is that input, for
    /// [`Control`](guest_protocol::Control) lines.
    pub fn start(program: &Path, job: &Job) -> Result<(Process, ChildStdin), AgentError> {
        let start = || {
            let mut line = serde_json::to_string(job)?;
            line.push('\n');
            let mut child = Command::new(program).arg("op").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(std::io::Error::other("the process has no pipes"));
            };
            stdin.write_all(line.as_bytes())?;
            Ok((Process { child, stdout }, stdin))
        };
        error::doing("start a process for the operation", start)
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends its messages to the host until it ends. Then calls `forget`, after which nobody uses its process id any
    /// more, and reaps it. If it ended without [`Message::Done`], sends one with a failure.
    pub fn relay(mut self, id: OpId, outbox: &Outbox, forget: impl FnOnce()) {
        let done = self.relay_lines(outbox);
        // Its output is closed before the process has ended: it may still be stuck while other descriptors are closed.
        // WNOWAIT waits for the end without reaping, so that the process id stays valid until `forget`.
        let pid = Pid::from_raw(self.pid());
        let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        forget();
        let end = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => format!("its exit status is unknown: {error}"),
        };
        if !done {
            let message = format!("the operation's process ({pid}) ended without an answer: {end}");
            let outcome = Outcome::Err(AgentError::Refused(message).failure());
            outbox.send(&Message::Done { id, at: clock::now(), outcome });
        }
    }

    /// Relays all lines. True if [`Message::Done`] was among them.
    fn relay_lines(&mut self, outbox: &Outbox) -> bool {
        let mut done = false;
        let mut line = Vec::new();
        let mut stdout = BufReader::new(&mut self.stdout);
        while matches!(stdout.read_until(b'\n', &mut line), Ok(1..)) {
            match decode::<Message>(&String::from_utf8_lossy(&line)) {
                Ok(message) => {
                    done |= matches!(message, Message::Done { .. });
                    outbox.line(&line);
                }
                // The line is incomplete if the process was killed while it wrote.
                Err(error) => {
                    eprintln!("iov-agent: an operation's process wrote something that is no message: {error}")
                }
            }
            line.clear();
        }
        done
    }
}
