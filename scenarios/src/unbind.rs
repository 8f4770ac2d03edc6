//! Taking a PF's driver away while its VFs are in use.

use guest_protocol::{Sched, Step};
use harness::guest::{Ending, Error, Guest};
use harness::notes::Note;
use harness::scenario::Scenario;
use harness::trigger::Trigger;
use harness::verdict::Verdict;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "unbind::unplug_during_unbind",
    about: "A PF is unbound, which waits for the vfio user of a VF, and its slot loses the card; when the user lets go, \
            both must end, and each VF be removed once.",
    detects: &["pf-unbind-vs-slot-unplug-double-del"],
    topology: "igb",
    also: &[],
    triggers: Trigger::PCIEHP,
    append: &[],
    run: |guest| Box::pin(unplug_during_unbind(guest)),
}];

/// Where the removal waits: for the VF's device lock, which the unbind has (`drivers/base/dd.c`; the compiler may inline each
/// of the first into the next; 7.3 comes as far as to `device_del()`, as it stops no device twice); or, on a kernel that
/// locks more, for `pci_rescan_remove_lock` (`drivers/pci/probe.c`).
const WAITS: &[&str] = &[
    "__device_driver_lock",
    "device_release_driver_internal",
    "device_release_driver",
    "device_del",
    "pci_lock_rescan_remove",
];

/// The slot's removal takes the devices of its bus one by one, VFs like any other. The unbind has the VF's device lock and
/// its removal is half done; so is the slot's, once it has got that lock.
///
/// Not with the other triggers: a removal through sysfs begins with the PF, and one by ACPI takes device 0 alone, and either
/// waits for the PF's device lock first.
async fn unplug_during_unbind(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let vfs = guest.enable_vfs_for_vfio(pf, 2).await?;
    let owner = guest.own(&vfs[0], vec![Step::Hold, Step::Release]).await?;
    let unbind = guest.write(pf.attribute("driver/unbind"), pf.device.bdf, Sched::default()).await?;
    owner.holding(guest.prompt()).await?;
    guest.remove(pf).await?;
    let waits = guest.task_at(WAITS, guest.prompt()).await?;
    guest.note_tasks(Note::Remover, &[waits]);
    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    Ok(match guest.ending(&[&unbind]).await? {
        Ending::Done => Verdict::Pass,
        Ending::Stuck(stuck) => guest.deadlock(&stuck, &[]),
    })
}
