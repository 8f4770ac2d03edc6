//! Waiting for the end of an operation, with a method for each kind of reply.

use std::time::Duration;

use guest_protocol::{Access, Inventory, ProgramEnd, Reply, Swept, TaskState};

use super::agent::{AgentError, Operation};
use crate::notes::Cycled;

impl Operation {
    /// Waits for the end of a read or a write.
    ///
    /// # Errors
    /// As [`Operation::done`]; [`AgentError::Reply`].
    pub async fn accessed(&self, within: Duration) -> Result<Access, AgentError> {
        match self.done(within).await? {
            Reply::Access(access) => Ok(access),
            reply => Err(self.unexpected(reply, "an access")),
        }
    }

    /// Waits for the end of an operation that lists names.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn names(&self, within: Duration) -> Result<Vec<String>, AgentError> {
        match self.done(within).await? {
            Reply::Names(names) => Ok(names),
            reply => Err(self.unexpected(reply, "names")),
        }
    }

    /// Waits for the end of an operation that reads a symbolic link.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn target(&self, within: Duration) -> Result<String, AgentError> {
        match self.done(within).await? {
            Reply::Target(target) => Ok(target),
            reply => Err(self.unexpected(reply, "the target of a link")),
        }
    }

    /// Waits for the end of an operation that searches for tasks.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn tasks(&self, within: Duration) -> Result<Vec<TaskState>, AgentError> {
        match self.done(within).await? {
            Reply::Tasks(tasks) => Ok(tasks),
            reply => Err(self.unexpected(reply, "tasks")),
        }
    }

    /// Waits for the end of a sweep.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn swept(&self, within: Duration) -> Result<Vec<Swept>, AgentError> {
        match self.done(within).await? {
            Reply::Swept(swept) => Ok(swept),
            reply => Err(self.unexpected(reply, "a sweep")),
        }
    }

    /// Waits for the end of an operation that lists all PCI functions.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn inventory(&self, within: Duration) -> Result<Inventory, AgentError> {
        match self.done(within).await? {
            Reply::Inventory(inventory) => Ok(*inventory),
            reply => Err(self.unexpected(reply, "an inventory")),
        }
    }

    /// Waits for the end of a cycle of writes.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn cycled(&self, within: Duration) -> Result<Cycled, AgentError> {
        match self.done(within).await? {
            Reply::Cycled { rounds, refused } => Ok(Cycled { rounds, refused }),
            reply => Err(self.unexpected(reply, "rounds")),
        }
    }

    /// Waits for the end of a program. The result is how it ended, and how many bytes of its output were not reported.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn ran(&self, within: Duration) -> Result<(ProgramEnd, u64), AgentError> {
        match self.done(within).await? {
            Reply::Ran { end, unreported } => Ok((end, unreported)),
            reply => Err(self.unexpected(reply, "the end of a program")),
        }
    }

    fn unexpected(&self, reply: Reply, expected: &'static str) -> AgentError {
        AgentError::Reply { what: self.what().to_owned(), reply, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_reply_and_the_expected_kind() {
        let reply = Reply::Names(vec!["a".to_owned(), "b".to_owned()]);
        let error = AgentError::Reply { what: "read /sys/a".to_owned(), reply, expected: "an access" };
        assert_eq!(
            error.to_string(),
            "the agent was asked to read /sys/a and answered with 2 names, not with an access"
        );
    }
}
