//! The reset methods of a PCI function.

use guest_protocol::Sched;

use super::{Error, Guest, Pf};

/// A reset method (`drivers/pci/pci.c`, `pci_reset_fn_methods`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetMethod {
    /// Function level reset.
    Flr,
    /// Reset of all functions on its bus, through the slot if the slot supports that.
    Bus,
}

impl Guest {
    /// Makes the kernel use only this method to reset a PF.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`]; [`Error::Lacks`] if the kernel has no `reset_method`, which came with 5.15.
    /// Earlier kernels try an FLR first if the function has it, as igb does.
    pub async fn reset_by(&self, pf: &Pf, method: ResetMethod) -> Result<(), Error> {
        let word = match method {
            ResetMethod::Flr => "flr",
            ResetMethod::Bus => "bus",
        };
        let write = self.write(pf.attribute("reset_method"), word, Sched::default()).await?;
        match (write.accessed(self.prompt()).await?.value, method) {
            (Ok(_), _) => Ok(()),
            (Err(errno), ResetMethod::Flr) if errno.name == NOT_THERE => Ok(()),
            (Err(errno), ResetMethod::Bus) if errno.name == NOT_THERE => Err(Error::Lacks(
                "attribute reset_method, which is needed to choose a reset through the slot".to_owned(),
            )),
            (Err(errno), _) => Err(Error::refused("reset_method", write.what(), &errno)),
        }
    }
}

/// The errno for an attribute that does not exist.
const NOT_THERE: &str = "ENOENT";
