//! `pci_rescan_remove_lock` against the device lock.
//!
//! Since a5338e365c45 `sriov_numvfs_store()` holds the PF's device lock when it takes `pci_rescan_remove_lock`. Every
//! removal takes the two the other way round.

use std::time::Duration;

use guest_protocol::Sched;
use harness::ending::Ending;
use harness::error::Error;
use harness::guest::Guest;
use harness::scenario::Scenario;
use harness::trigger::Trigger;
use harness::verdict::Verdict;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "rescan_lock::store_during_sysfs_removal",
        about: "VFs are enabled while a removal of the PF through sysfs waits for pci_rescan_remove_lock; when the lock \
                is free, both must end.",
        detects: &["numvfs-store-vs-sysfs-remove"],
        topology: "two-slots",
        triggers: &[Trigger::SysfsRemove],
        append: &[],
        run: |guest| Box::pin(store_during_removal(guest)),
    },
    Scenario {
        name: "rescan_lock::store_during_unplug",
        about: "VFs are enabled while pciehp waits for pci_rescan_remove_lock to remove the PF; when the lock is free, \
                both must end.",
        detects: &["numvfs-store-vs-hotplug"],
        topology: "two-slots",
        triggers: &[Trigger::DeviceDel, Trigger::Yank],
        append: &[],
        run: |guest| Box::pin(store_during_removal(guest)),
    },
];

/// Takes `pci_rescan_remove_lock` (`drivers/pci/probe.c`).
const LOCK: &str = "pci_lock_rescan_remove";

/// How long a store may take to get to where it waits, if it waits.
const PATIENCE: Duration = Duration::from_secs(3);

async fn store_during_removal(guest: &Guest) -> Result<Verdict, Error> {
    let (pf, other) = (guest.pf_named("pf0")?, guest.pf_named("pf1")?);
    let hold = guest.hold_rescan_lock(other).await?;
    guest.remove(pf).await?;
    guest.task_in(&[LOCK], guest.prompt()).await?;
    let store = guest.write(pf.numvfs(), 2, Sched::default()).await?;
    let place = guest.waits_in(&store, &[LOCK], PATIENCE).await?;
    guest.note("store", format!("{place:?}"));
    hold.release(guest).await?;
    Ok(match guest.ending(&[&store, hold.holder()]).await? {
        Ending::Done => Verdict::Pass,
        Ending::Stuck(stuck) => guest.deadlock(&stuck, &[LOCK]),
    })
}
