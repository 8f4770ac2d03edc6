//! How functions are reset.

use guest_protocol::Sched;

use super::{Error, Guest, Pf};

/// A way to reset a function (`drivers/pci/pci.c`, `pci_reset_fn_methods`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetMethod {
    /// Function level reset.
    Flr,
    /// The reset of all that is on its bus, through its slot if that can do it.
    Bus,
}

impl Guest {
    /// Has the kernel reset a PF in this way and no other.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`]; [`Error::Lacks`] where the kernel leaves no choice. That came with 5.15. Before, an FLR
    /// is what comes first for a function that has it, as igb has.
    pub async fn reset_by(&self, pf: &Pf, method: ResetMethod) -> Result<(), Error> {
        let word = match method {
            ResetMethod::Flr => "flr",
            ResetMethod::Bus => "bus",
        };
        let write = self.write(pf.attribute("reset_method"), word, Sched::default()).await?;
        match (write.accessed(self.prompt()).await?.value, method) {
            (Ok(_), _) => Ok(()),
            (Err(errno), ResetMethod::Flr) if errno.name == NOT_THERE => Ok(()),
            (Err(errno), ResetMethod::Bus) if errno.name == NOT_THERE => {
                Err(Error::Lacks("attribute reset_method, by which a reset through the slot is chosen".to_owned()))
            }
            (Err(errno), _) => Err(Error::refused("reset_method", write.what(), &errno)),
        }
    }
}

/// The kernel's word for an attribute that is not there.
const NOT_THERE: &str = "ENOENT";
