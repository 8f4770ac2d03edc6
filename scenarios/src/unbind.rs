//! Unbinding a PF from its driver while its VFs are in use.

use guest_protocol::{Sched, Step};
use harness::guest::{Error, Guest};
use harness::notes::Note;
use harness::scenario::{Needs, Scenario};
use harness::trigger::Trigger;
use harness::verdict::Verdict;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "unbind::unplug_during_unbind",
    about: "A PF is unbound, which waits for the vfio user of a VF. Meanwhile its card is removed from the slot. When \
            the user releases the VF, both must end, and each VF must be removed only once.",
    detects: &["pf-unbind-vs-slot-unplug-double-del", "pf-unbind-without-rescan-lock", "unbound-pf-not-freed"],
    topology: "igb",
    also: &["virtio-net"],
    triggers: Trigger::PCIEHP,
    append: &[],
    needs: Needs::NOTHING,
    run: |guest| Box::pin(unplug_during_unbind(guest)),
}];

/// The functions in which a removal waits for a lock that an unbind of VFs holds. It waits for the VF's device lock, which the unbind holds
/// (`drivers/base/dd.c`; the compiler may inline each of the first three into the next). 7.3 gets as far as
/// `device_del()`, as it does not stop a device twice. A kernel that takes more locks waits for
/// `pci_rescan_remove_lock` (`drivers/pci/probe.c`), `give-up-on-removed-port` in a function of its own.
pub const WAITS: &[&str] = &[
    "__device_driver_lock",
    "device_release_driver_internal",
    "device_release_driver",
    "device_del",
    "pci_lock_rescan_remove",
    "pci_lock_rescan_remove_unless",
];

/// The removal of the slot removes the devices of its bus one by one, VFs too. The unbind holds the VF's device lock,
/// and has done half of the VF's removal. When the slot's removal gets that lock, it has done half of it too.
///
/// Other triggers do not reach this: a removal through sysfs begins with the PF, and one by ACPI removes only device 0.
/// Both first wait for the PF's device lock.
async fn unplug_during_unbind(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let vfs = guest.enable_vfs_for_vfio(pf, 2).await?;
    let owner = guest.own(&vfs[0], vec![Step::Hold, Step::Release]).await?;
    let unbind = guest.write(pf.attribute("driver/unbind"), pf.device.bdf, Sched::default()).await?;
    guest.unless_refused(&unbind, owner.holding(guest.prompt())).await?;
    guest.remove(pf).await?;
    let waits = guest.task_at(WAITS, guest.prompt()).await?;
    guest.note_tasks(Note::Remover, &[waits]);
    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    guest.passes_unless_stuck(&[&unbind], &[]).await
}
