//! What the server writes to the standard input of an operation's process: one line with the [`Job`], then a line for
//! each [`Control`](guest_protocol::Control), or for each [`Told`] if the process is an owner's.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};

use guest_protocol::{Call, Command, OpId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

/// The work of an operation's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Id of the operation.
    pub id: OpId,
    /// What to do.
    pub command: Command,
    /// The process of [`Command::target`], while that operation runs.
    pub target: Option<i32>,
}

/// A line that the agent's server writes to an owner at [`guest_protocol::Step::Hold`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// [`guest_protocol::Command::Continue`].
    Continue,
    /// [`guest_protocol::Command::Call`].
    Call {
        /// Id of the request.
        id: OpId,
        /// What to call.
        call: Call,
    },
}

/// The standard input of an operation's process.
#[derive(Debug)]
pub struct Controls {
    reader: BufReader<File>,
}

impl Controls {
    /// Takes over standard input.
    pub fn of_stdin() -> io::Result<Controls> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Controls { reader: BufReader::new(File::from(stdin)) })
    }

    /// Waits for the next line. None at the end of the input.
    pub fn next<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = String::new();
        match self.reader.read_line(&mut line)? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
    }

    /// Whether there is input in the buffer. `poll(2)` does not see that.
    pub fn read_ahead(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// Whether there is a line to read, or the server has ended. Does not wait.
    pub fn is_told(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        Ok(self.read_ahead() || poll(&mut fds, PollTimeout::ZERO)? > 0)
    }

    /// The descriptor, for `poll(2)`.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.get_ref().as_fd()
    }
}
