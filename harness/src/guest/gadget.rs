//! Gadgets: holding a kernel lock for as long as a scenario needs it, on an unmodified kernel.
//!
//! Each uses a vfio user that delays the release of a device while the kernel waits for it with locks held
//! (`drivers/vfio/vfio_main.c`, `vfio_unregister_group_dev()`).

use std::time::Duration;

use guest_protocol::{Sched, Step, TaskState};

use super::place::{found_in, is_at};
use super::{Device, Error, Guest, Owner, Pf};
use crate::vm::agent::Operation;

/// Locks that are held until [`Hold::release`].
pub struct Hold {
    owner: Owner,
    holder: Operation,
}

impl Guest {
    /// Holds `pci_rescan_remove_lock` and the PF's device lock: a process has the PF open through vfio while the PF is
    /// removed through sysfs (`drivers/pci/remove.c`, `pci_stop_and_remove_bus_device_locked()`). The PF is removed
    /// afterwards.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn hold_rescan_lock(&self, pf: &Pf) -> Result<Hold, Error> {
        self.bind(pf, "vfio-pci").await?;
        self.hold(&pf.device, pf.attribute("remove"), "1").await
    }

    /// Holds the locks that a kernel holds while it disables VFs: a process has a VF open through vfio while its PF's
    /// `sriov_numvfs` is set to 0. The VFs are disabled afterwards.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn hold_disable(&self, pf: &Pf, vf: &Device) -> Result<Hold, Error> {
        self.hold(vf, pf.numvfs(), "0").await
    }

    /// Opens a device through vfio and writes an attribute. The write then waits for the owner.
    async fn hold(&self, device: &Device, path: String, data: impl ToString) -> Result<Hold, Error> {
        let owner = self.own(device, vec![Step::Hold, Step::Release]).await?;
        let holder = self.write(path, data, Sched::default()).await?;
        self.unless_refused(&holder, owner.holding(self.prompt())).await?;
        Ok(Hold { owner, holder })
    }
}

/// The function that takes `pci_rescan_remove_lock` (`drivers/pci/probe.c`).
pub const RESCAN_LOCK: &str = "pci_lock_rescan_remove";

/// The removal functions that call [`RESCAN_LOCK`]. That function only takes the lock, so a compiler may make a tail
/// call of it, as in distributions' kernels. Then it is on no stack, and the task waits directly in one of these
/// (`drivers/pci/remove.c`, `drivers/pci/hotplug/pciehp_pci.c`, `drivers/pci/hotplug/acpiphp_glue.c`).
const TAKERS: &[&str] =
    &["pci_stop_and_remove_bus_device_locked", "pciehp_unconfigure_device", "hotplug_event", "acpiphp_hotplug_notify"];

impl Guest {
    /// Waits until a removal is waiting for `pci_rescan_remove_lock`.
    ///
    /// # Errors
    /// As [`Guest::task_in`].
    pub async fn removal_waits_for_rescan_lock(&self, within: Duration) -> Result<TaskState, Error> {
        let functions = [&[RESCAN_LOCK], TAKERS].concat();
        self.some_task(&functions, within, "waiting for a lock in", wants_rescan_lock).await
    }
}

fn wants_rescan_lock(task: &TaskState) -> bool {
    found_in(task, &[RESCAN_LOCK]).is_some() || is_at(task, TAKERS)
}

impl Hold {
    /// The operation that holds the locks.
    pub fn holder(&self) -> &Operation {
        &self.holder
    }

    /// Lets the owner release its device. The holder's operation then continues, and ends unless something else blocks
    /// it.
    ///
    /// # Errors
    /// The agent's.
    pub async fn release(&self, guest: &Guest) -> Result<(), Error> {
        self.owner.go_on(guest).await?;
        self.owner.released(guest.prompt()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_that_waits_for_the_lock_is_told_from_one_that_has_it() {
        let wants = |state, frames: &[&str]| {
            let stack = frames.iter().map(|&frame| frame.to_owned()).collect();
            wants_rescan_lock(&TaskState { pid: 1, tid: 1, comm: "t".to_owned(), state, wchan: String::new(), stack })
        };
        let removal = ["pci_stop_and_remove_bus_device_locked", "remove_store", "kernfs_fop_write_iter"];
        let after = |frames: &[&'static str]| [frames, &removal].concat();
        assert!(wants('D', &after(&["__mutex_lock", "mutex_lock", RESCAN_LOCK])));
        assert!(wants('D', &after(&["__mutex_lock.constprop.0"])));
        // It has the lock, and waits for something else.
        assert!(!wants('D', &after(&["wait_woken", "vfio_del_group_dev", "pci_stop_bus_device"])));
        assert!(!wants('D', &after(&["__mutex_lock", "device_release_driver_internal", "pci_stop_bus_device"])));
        assert!(!wants('R', &removal));
    }
}
