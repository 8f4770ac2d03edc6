//! How many objects the kernel has.

use super::{Error, Guest};
use crate::waits::{Census, census};

impl Guest {
    /// Counts the objects in all of the kernel's slab caches, from the guest's memory.
    ///
    /// # Errors
    /// [`Error::Lacks`] if that is not possible: the layout of the kernel's structures is not known, its memory cannot be
    /// read, or its CPUs keep free objects in a way that is not known.
    pub async fn census(&self) -> Result<Census, Error> {
        let kernel = self.of_kernel.looks.as_ref();
        let kernel = kernel.ok_or_else(|| Error::Lacks("known layout of its structures".to_owned()))?;
        let counted = self.vm.look(kernel, census).await;
        counted.map_err(|error| Error::Lacks(format!("objects that can be counted ({error})")))
    }
}
