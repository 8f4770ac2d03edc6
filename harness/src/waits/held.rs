//! Locks that somebody holds. When all work is done, nobody must hold any of them.

use super::error::LookError;
use super::locks::{FLAGS, READ_FAIL, READER_SHIFT, WRITER_LOCKED};
use super::scene::Scene;
use super::{irq, names};

/// Global mutexes that PCI, hotplug, vfio and network devices take. A kernel may lack some of them.
const MUTEXES: &[&str] = &[
    "pci_rescan_remove_lock", // drivers/pci/probe.c
    "pci_slot_mutex",         // drivers/pci/slot.c
    "bridge_mutex",           // drivers/pci/hotplug/acpiphp_glue.c
    "acpi_hp_context_lock",   // drivers/acpi/scan.c
    "acpi_scan_lock",
    "aspm_lock",                // drivers/pci/pcie/aspm.c
    "vfio_pci_sriov_pfs_mutex", // drivers/vfio/pci/vfio_pci_core.c
    "iommu_probe_device_lock",  // drivers/iommu/iommu.c
    "device_links_lock",        // drivers/base/core.c
    "rtnl_mutex",               // net/core/rtnetlink.c
];

/// Global rwsems.
const RWSEMS: &[&str] = &["pci_bus_sem"]; // drivers/pci/search.c

/// A lock that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The lock's name: `pci_bus_sem`, `device_lock of 0000:01:00.0`.
    pub lock: String,
    /// Who holds it: `sh (pid 71)`, `2 readers`, `a task that has ended`.
    pub holder: String,
}

/// The locks that somebody holds: some global ones, the `device_lock` of those of these devices that are in sysfs, and the
/// locks of pciehp's slots.
pub(super) fn held(scene: &Scene<'_>, devices: &[u64]) -> Result<Vec<Held>, LookError> {
    let kernel = scene.kernel();
    let mut found = Vec::new();
    let address = |name: &&str| kernel.symbols.address(name);
    for lock in MUTEXES.iter().filter_map(address) {
        found.extend(mutex(scene, lock)?);
    }
    for lock in RWSEMS.iter().filter_map(address) {
        found.extend(rwsem(scene, lock)?);
    }
    for device in devices {
        let is_freed = scene.view.u32(device.wrapping_add(kernel.offset("device", "kobj.kref")?))? == 0;
        if !is_freed && scene.view.member(*device, "device", "kobj.sd")? != 0 {
            found.extend(mutex(scene, device.wrapping_add(kernel.offset("device", "mutex")?))?);
        }
    }
    for controller in irq::controllers(scene) {
        found.extend(mutex(scene, controller.wrapping_add(kernel.offset("controller", "state_lock")?))?);
        found.extend(rwsem(scene, controller.wrapping_add(kernel.offset("controller", "reset_lock")?))?);
    }
    Ok(found)
}

fn mutex(scene: &Scene<'_>, lock: u64) -> Result<Option<Held>, LookError> {
    let owner = scene.view.member(lock, "mutex", "owner")? & !FLAGS;
    let held = || Held { lock: names::mutex(scene, lock), holder: holder(scene, owner) };
    Ok((owner != 0).then(held))
}

fn rwsem(scene: &Scene<'_>, lock: u64) -> Result<Option<Held>, LookError> {
    let count = scene.view.member(lock, "rw_semaphore", "count")?;
    let owner = scene.view.member(lock, "rw_semaphore", "owner")? & !FLAGS;
    let holder = match (count & !READ_FAIL) >> READER_SHIFT {
        _ if count & WRITER_LOCKED != 0 => holder(scene, owner),
        0 => return Ok(None),
        1 => "a reader".to_owned(),
        readers => format!("{readers} readers"),
    };
    Ok(Some(Held { lock: names::rwsem(scene, lock), holder }))
}

fn holder(scene: &Scene<'_>, task: u64) -> String {
    let known = scene.task_at(task).map(|index| &scene.tasks[index]);
    known.map_or_else(|| "a task that has ended".to_owned(), |task| format!("{} (pid {})", task.comm, task.pid))
}
