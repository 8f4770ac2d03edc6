//! What an operation brings back, by the kind that its command has.

use std::time::Duration;

use guest_protocol::{Access, Inventory, Reply, Swept, TaskState};

use super::agent::{AgentError, Operation};
use crate::notes::Cycled;

impl Operation {
    /// Waits until it is over, for a read or a write.
    ///
    /// # Errors
    /// As [`Operation::done`]; [`AgentError::Reply`].
    pub async fn accessed(&self, within: Duration) -> Result<Access, AgentError> {
        match self.done(within).await? {
            Reply::Access(access) => Ok(access),
            reply => Err(self.unexpected(reply, "an access")),
        }
    }

    /// The same, for what lists names.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn names(&self, within: Duration) -> Result<Vec<String>, AgentError> {
        match self.done(within).await? {
            Reply::Names(names) => Ok(names),
            reply => Err(self.unexpected(reply, "names")),
        }
    }

    /// The same, for what reads a symbolic link.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn target(&self, within: Duration) -> Result<String, AgentError> {
        match self.done(within).await? {
            Reply::Target(target) => Ok(target),
            reply => Err(self.unexpected(reply, "the target of a link")),
        }
    }

    /// The same, for what looks for tasks.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn tasks(&self, within: Duration) -> Result<Vec<TaskState>, AgentError> {
        match self.done(within).await? {
            Reply::Tasks(tasks) => Ok(tasks),
            reply => Err(self.unexpected(reply, "tasks")),
        }
    }

    /// The same, for a sweep.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn swept(&self, within: Duration) -> Result<Vec<Swept>, AgentError> {
        match self.done(within).await? {
            Reply::Swept(swept) => Ok(swept),
            reply => Err(self.unexpected(reply, "a sweep")),
        }
    }

    /// The same, for what shows all PCI functions.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn inventory(&self, within: Duration) -> Result<Inventory, AgentError> {
        match self.done(within).await? {
            Reply::Inventory(inventory) => Ok(*inventory),
            reply => Err(self.unexpected(reply, "an inventory")),
        }
    }

    /// The same, for writes by turns.
    ///
    /// # Errors
    /// As [`Operation::accessed`].
    pub async fn cycled(&self, within: Duration) -> Result<Cycled, AgentError> {
        match self.done(within).await? {
            Reply::Cycled { rounds, refused } => Ok(Cycled { rounds, refused }),
            reply => Err(self.unexpected(reply, "rounds")),
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
    fn a_reply_of_another_kind_is_told_with_what_was_expected() {
        let reply = Reply::Names(vec!["a".to_owned(), "b".to_owned()]);
        let error = AgentError::Reply { what: "read /sys/a".to_owned(), reply, expected: "an access" };
        assert_eq!(
            error.to_string(),
            "the agent was asked to read /sys/a and answered with 2 names, not with an access"
        );
    }
}
