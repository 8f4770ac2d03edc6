//! Reading a guest's memory while it stands: to look for something, and for a dump.

use std::path::Path;
use std::sync::Arc;

use qapi::qmp;
use tokio::task::JoinError;

use super::Vm;
use super::argv::CPUS;
use super::dump::{About, DumpError, dump};
use super::memory::{GuestMemory, MemoryError};
use super::qmp::QmpError;
use crate::waits::{Kernel, LookError, Memory, vmcoreinfo};

/// A guest could not be looked at.
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

/// There is no dump of a guest.
#[derive(Debug, thiserror::Error)]
pub enum NoDump {
    /// The guest's memory cannot be read, or the guest does not stand.
    #[error(transparent)]
    Guest(#[from] NoGraph),
    /// What the dump says of the kernel is not in its memory.
    #[error(transparent)]
    Kernel(#[from] LookError),
    /// It was not written.
    #[error(transparent)]
    Dump(#[from] DumpError),
}

/// What is looked for: one of the functions of [`crate::waits`].
pub type Look<T> = fn(&dyn Memory, &Kernel) -> Result<T, LookError>;

impl Vm {
    /// Looks at the guest.
    ///
    /// # Errors
    /// [`NoGraph`].
    pub async fn look<T: Send + 'static>(self: &Arc<Vm>, kernel: &Arc<Kernel>, look: Look<T>) -> Result<T, NoGraph> {
        let kernel = kernel.clone();
        Ok(self.standing(move |memory| look(memory, &kernel)).await??)
    }

    /// Dumps the guest's memory into a file. `kernel` is needed for what the dump says of the kernel.
    ///
    /// # Errors
    /// [`NoDump`].
    pub async fn dump(self: &Arc<Vm>, kernel: Option<&Arc<Kernel>>, path: &Path) -> Result<(), NoDump> {
        let (kernel, path) = (kernel.cloned(), path.to_owned());
        let written = self.standing(move |memory| {
            let (names, vmcoreinfo) = match kernel {
                Some(kernel) => vmcoreinfo(memory, &kernel)?,
                None => Default::default(),
            };
            Ok::<_, NoDump>(dump(memory, memory.blocks(), &About { names, vmcoreinfo, cpus: CPUS }, &path)?)
        });
        written.await?
    }

    /// Does something with the memory of the guest while it stands. A guest on the host's clock is stopped meanwhile. A
    /// guest whose clock is held stands already.
    async fn standing<T: Send + 'static>(
        self: &Arc<Vm>,
        read: impl FnOnce(&GuestMemory) -> T + Send + 'static,
    ) -> Result<T, NoGraph> {
        match self.gate() {
            Some(gate) => {
                if gate.stop().is_none() {
                    return Err(NoGraph::Runs);
                }
                Ok(read(&*self.memory().await?))
            }
            None => {
                // By itself, so that the guest goes on although whoever reads may be dropped.
                let vm = self.clone();
                tokio::spawn(async move { vm.stopped(read).await }).await?
            }
        }
    }

    async fn stopped<T>(&self, read: impl FnOnce(&GuestMemory) -> T) -> Result<T, NoGraph> {
        let _standing = self.standing.lock().await;
        if self.qmp.execute(qmp::query_status {}).await?.running {
            self.qmp.execute(qmp::stop {}).await?;
            let read = self.memory().await.map(|memory| read(&memory));
            self.qmp.execute(qmp::cont {}).await?;
            return Ok(read?);
        }
        // It stands already, for example because it panicked, and must not go on.
        Ok(read(&*self.memory().await?))
    }
}
