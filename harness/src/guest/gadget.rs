//! Gadgets: holding a kernel lock for as long as a scenario likes, on an unmodified kernel.
//!
//! Each rests on a vfio user that takes its time to release a device while the kernel waits for it with locks held
//! (`drivers/vfio/vfio_main.c`, `vfio_unregister_group_dev()`).

use guest_protocol::{Sched, Step};

use super::{Device, Guest, Owner, Pf};
use crate::error::Error;
use crate::vm::agent::Operation;

/// Locks that are held until [`Hold::release`].
pub struct Hold {
    owner: Owner,
    holder: Operation,
}

impl Guest {
    /// Holds `pci_rescan_remove_lock`, and the PF's device lock: the PF, under vfio and open, is being removed through
    /// sysfs (`drivers/pci/remove.c`, `pci_stop_and_remove_bus_device_locked()`). The PF is gone afterwards.
    ///
    /// # Errors
    /// The agent's.
    pub async fn hold_rescan_lock(&self, pf: &Pf) -> Result<Hold, Error> {
        self.bind(pf, "vfio-pci").await?;
        self.hold(&pf.device, pf.attribute("remove"), "1").await
    }

    /// Holds the device lock of a device under vfio, and nothing else: it is open, and is being unbound from vfio-pci
    /// (`drivers/base/dd.c`, `device_release_driver_internal()`). It has no driver afterwards.
    ///
    /// # Errors
    /// The agent's.
    pub async fn hold_device_lock(&self, device: &Device) -> Result<Hold, Error> {
        self.hold(device, device.attribute("driver/unbind"), device.bdf).await
    }

    /// Holds what a kernel holds while it disables VFs: a VF under vfio is open, and its PF's `sriov_numvfs` is set to 0.
    /// The VFs are gone afterwards.
    ///
    /// # Errors
    /// The agent's.
    pub async fn hold_disable(&self, pf: &Pf, vf: &Device) -> Result<Hold, Error> {
        self.hold(vf, pf.numvfs(), "0").await
    }

    /// Opens a device under vfio and writes an attribute whose write then waits for the owner.
    async fn hold(&self, device: &Device, path: String, data: impl ToString) -> Result<Hold, Error> {
        let owner = self.own(device, vec![Step::Hold, Step::Release]).await?;
        let holder = self.write(path, data, Sched::default()).await?;
        owner.holding(self.prompt()).await?;
        Ok(Hold { owner, holder })
    }
}

impl Hold {
    /// Whoever has the device open.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The operation that holds the locks.
    pub fn holder(&self) -> &Operation {
        &self.holder
    }

    /// Has the owner release its device. The holder's operation goes on, and ends if nothing else keeps it.
    ///
    /// # Errors
    /// The agent's.
    pub async fn release(&self, guest: &Guest) -> Result<(), Error> {
        self.owner.go_on(guest).await?;
        self.owner.released(guest.prompt()).await?;
        Ok(())
    }
}
