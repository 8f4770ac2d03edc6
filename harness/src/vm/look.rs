//! Looking at a guest for who waits for whom, while it stands.

use std::sync::Arc;

use qapi::qmp;
use tokio::task::JoinError;

use super::Vm;
use super::memory::MemoryError;
use super::qmp::QmpError;
use crate::waits::{Graph, Kernel, LookError, look};

/// There is no graph of a guest.
#[derive(Debug, thiserror::Error)]
pub enum NoGraph {
    /// Its memory cannot be read from outside.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// QEMU did not stop it, or did not let it go on.
    #[error(transparent)]
    Stop(#[from] QmpError),
    /// Its memory makes no sense.
    #[error(transparent)]
    Look(#[from] LookError),
    /// Its clock is held, but it does not stand: it spins.
    #[error("the guest does not stand, although its clock is held")]
    Runs,
    /// The look panicked.
    #[error("the look at the guest ended without a result: {0}")]
    Task(#[from] JoinError),
}

impl Vm {
    /// Looks at the guest for who waits for whom. A guest on the host's clock is stopped for some milliseconds. A guest
    /// whose clock is held stands already.
    ///
    /// # Errors
    /// [`NoGraph`].
    pub async fn look(self: &Arc<Vm>, kernel: &Arc<Kernel>) -> Result<Graph, NoGraph> {
        match self.gate() {
            Some(gate) => {
                let memory = self.memory().await?;
                if gate.stop().is_none() {
                    return Err(NoGraph::Runs);
                }
                Ok(look(memory, kernel)?)
            }
            None => {
                // By itself, so that the guest goes on although whoever looks may be dropped.
                let (vm, kernel) = (self.clone(), kernel.clone());
                tokio::spawn(async move { vm.look_stopped(&kernel).await }).await?
            }
        }
    }

    async fn look_stopped(&self, kernel: &Kernel) -> Result<Graph, NoGraph> {
        let memory = self.memory().await?;
        let _standing = self.standing.lock().await;
        if self.qmp.execute(qmp::query_status {}).await?.running {
            self.qmp.execute(qmp::stop {}).await?;
            let graph = look(memory, kernel);
            self.qmp.execute(qmp::cont {}).await?;
            return Ok(graph?);
        }
        // It stands already, for example because it panicked, and must not go on.
        Ok(look(memory, kernel)?)
    }
}
