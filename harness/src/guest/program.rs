//! Files that are put into the guest, and programs that run there.

use std::time::Duration;

use guest_protocol::{Command, ProgramEnd, Progress};

use super::{Error, Guest};
use crate::vm::agent::Operation;

/// A folder in memory, for files that are put into the guest.
const FOLDER: &str = "/tmp";

/// A program that runs in the guest, or has ended.
pub struct Program {
    operation: Operation,
}

/// How a program ended, and what it printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub end: ProgramEnd,
    /// What it wrote to standard output and standard error, in the order of the writes.
    pub printed: String,
    /// How many bytes it wrote beyond that.
    pub unreported: u64,
}

impl Guest {
    /// Puts a file into the guest, under this name in a folder in memory. Returns its path there.
    ///
    /// # Errors
    /// The agent's.
    pub async fn put_file(&self, name: &str, bytes: &[u8], executable: bool) -> Result<String, Error> {
        let path = format!("{FOLDER}/{name}");
        self.agent().put_file(&path, bytes, executable, self.prompt()).await?;
        Ok(path)
    }

    /// Starts a program of the guest.
    ///
    /// # Errors
    /// The agent's.
    pub async fn run(&self, program: &str, args: &[&str]) -> Result<Program, Error> {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let command = Command::Run { program: program.to_owned(), args, env: Default::default(), socket: false };
        Ok(Program { operation: self.agent().start(command).await? })
    }

    /// Ends a program and all processes that it has started. Returns when they have ended.
    ///
    /// # Errors
    /// The agent's. A deadline if a process is stuck in the kernel.
    pub async fn end_program(&self, program: &Program) -> Result<Ran, Error> {
        self.agent().call(Command::Stop { target: program.operation.id() }, self.prompt()).await?;
        program.ended(self.prompt()).await
    }
}

impl Program {
    /// The program of an operation that runs one.
    pub(super) fn of(operation: Operation) -> Program {
        Program { operation }
    }

    /// Its operation. The operation is over when the program has ended.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    /// The agent's.
    pub async fn ended(&self, within: Duration) -> Result<Ran, Error> {
        let (end, unreported) = self.operation.ran(within).await?;
        Ok(Ran { end, printed: self.printed(), unreported })
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        let text = |_, progress: &Progress| match progress {
            Progress::Printed { text } => Some(text.clone()),
            _ => None,
        };
        self.operation.steps(text).concat()
    }
}
