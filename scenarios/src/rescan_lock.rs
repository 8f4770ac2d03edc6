//! `pci_rescan_remove_lock` against the device lock.
//!
//! Since a5338e365c45 `sriov_numvfs_store()` holds the PF's device lock when it takes `pci_rescan_remove_lock`. Every
//! removal takes these two locks in the opposite order. Taking the rescan lock first in the store does not help either:
//! the store then waits for the rescan lock inside the attribute, and a removal that holds the lock waits for the
//! attribute.

use std::time::Duration;

use guest_protocol::{Sched, Step};
use harness::guest::{Ending, Error, Guest, RESCAN_LOCK, Stuck};
use harness::notes::Note;
use harness::scenario::Scenario;
use harness::text::duration;
use harness::trigger::Trigger;
use harness::verdict::Verdict;
use kernels::FailureKind;

/// The metadata that most scenarios of this family share.
const BASE: Scenario =
    Scenario { topology: "two-slots", ..Scenario::of(|guest| Box::pin(store_during_removal(guest))) };

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "rescan_lock::store_during_sysfs_removal",
        about: "VFs are enabled while a removal of the PF through sysfs waits for pci_rescan_remove_lock. When the \
                lock is free, both must end.",
        detects: &["numvfs-store-vs-sysfs-remove", "numvfs-store-vs-remove-kernfs"],
        triggers: &[Trigger::SysfsRemove],
        ..BASE
    },
    Scenario {
        name: "rescan_lock::store_during_unplug",
        about: "VFs are enabled while an unplug of the PF waits for pci_rescan_remove_lock. When the lock is free, \
                both must end.",
        detects: &["numvfs-store-vs-hotplug", "numvfs-store-vs-remove-kernfs"],
        triggers: Trigger::UNPLUG,
        ..BASE
    },
    Scenario {
        name: "rescan_lock::store_during_surprise_removal",
        about: "VFs are enabled on a PF that was yanked, while its removal waits for pci_rescan_remove_lock. When the \
                lock is free, both must end.",
        detects: &["numvfs-store-vs-surprise-removal", "numvfs-store-vs-remove-kernfs"],
        triggers: Trigger::SURPRISE,
        ..BASE
    },
    Scenario {
        name: "rescan_lock::store_on_sibling_during_unplug",
        about: "A card with two functions is unplugged. While the removal waits for the vfio user of one function, VFs \
                of the other are enabled. When the user releases its function, all must end.",
        detects: &["numvfs-store-vs-hotplug", "numvfs-store-vs-remove-kernfs"],
        topology: "two-functions",
        triggers: Trigger::UNPLUG,
        run: |guest| Box::pin(store_on_sibling(guest)),
        ..BASE
    },
    Scenario {
        name: "rescan_lock::store_on_sibling_during_surprise_removal",
        about: "A card with two functions is yanked. While the removal waits for the vfio user of one function, VFs of \
                the other are enabled. When the user releases its function, all must end.",
        detects: &["numvfs-store-vs-surprise-removal", "numvfs-store-vs-remove-kernfs"],
        topology: "two-functions",
        triggers: Trigger::SURPRISE,
        run: |guest| Box::pin(store_on_sibling(guest)),
        ..BASE
    },
    Scenario {
        name: "rescan_lock::remove_pf_with_vfs",
        about: "A PF with VFs is removed. The PF and its VFs must be removed.",
        detects: &["rescan-lock-recursive-pf-remove"],
        topology: "igb",
        triggers: &[Trigger::DeviceDelAcpi, Trigger::SysfsRemove],
        run: |guest| Box::pin(remove_pf_with_vfs(guest)),
        ..BASE
    },
    Scenario {
        name: "rescan_lock::unplug_pf_with_vfs",
        about: "A PF with VFs is removed by pciehp, which removes the VFs before their PF. All must be removed and freed.",
        detects: &["rescan-lock-recursive-pf-remove", "unplugged-pf-not-freed"],
        topology: "igb",
        triggers: Trigger::PCIEHP,
        run: |guest| Box::pin(remove_pf_with_vfs(guest)),
        ..BASE
    },
    Scenario {
        name: "rescan_lock::unrelated_removal_during_busy_disable",
        about: "VFs are being disabled, which waits for the vfio user of one VF. A removal from another slot must not \
                wait for that user.",
        detects: &["vf-busy-holds-global-rescan-lock"],
        triggers: Trigger::ALL,
        run: |guest| Box::pin(unrelated_removal(guest)),
        ..BASE
    },
];

/// The function in which the removal of an attribute waits for tasks inside the attribute (`fs/kernfs/dir.c`).
const DRAIN: &str = "kernfs_drain";

/// Functions at which a deadlock is reported. A removal in `kernfs_drain()` holds the locks; another one waits for
/// them.
const LOCKS: &[&str] = &[DRAIN, RESCAN_LOCK];

/// How long a store may take to reach the function in which it waits, if it waits.
const PATIENCE: Duration = Duration::from_secs(3);

async fn store_during_removal(guest: &Guest) -> Result<Verdict, Error> {
    let (pf, other) = (guest.pf_named("pf0")?, guest.pf_named("pf1")?);
    let hold = guest.hold_rescan_lock(other).await?;
    guest.remove(pf).await?;
    guest.removal_waits_for_rescan_lock(guest.prompt()).await?;
    let store = guest.write(pf.numvfs(), 2, Sched::default()).await?;
    let place = guest.waits_in(&store, &[RESCAN_LOCK], PATIENCE).await?;
    guest.note(Note::Store(place));
    hold.release(guest).await?;
    guest.passes_unless_stuck(&[&store, hold.holder()], LOCKS).await
}

/// The functions of a slot are removed from the last to the first. So the first still exists while the removal waits
/// for the second.
async fn store_on_sibling(guest: &Guest) -> Result<Verdict, Error> {
    let (pf, sibling) = (guest.pf_named("pf0")?, guest.pf_named("pf1")?);
    guest.bind(sibling, "vfio-pci").await?;
    let owner = guest.own(sibling, vec![Step::Hold, Step::Release]).await?;
    guest.remove(pf).await?;
    owner.holding(guest.prompt()).await?;
    let store = guest.write(pf.numvfs(), 2, Sched::default()).await?;
    let place = guest.waits_in(&store, &[RESCAN_LOCK], PATIENCE).await?;
    guest.note(Note::Store(place));
    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    guest.passes_unless_stuck(&[&store], LOCKS).await
}

async fn remove_pf_with_vfs(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.enable_vfs(pf, 2).await?;
    guest.remove(pf).await?;
    guest.passes_unless_stuck(&[], LOCKS).await
}

async fn unrelated_removal(guest: &Guest) -> Result<Verdict, Error> {
    let (pf, other) = (guest.pf_named("pf0")?, guest.pf_named("pf1")?);
    let vfs = guest.enable_vfs_for_vfio(pf, 1).await?;
    let hold = guest.hold_disable(pf, &vfs[0]).await?;
    guest.remove(other).await?;
    let (time, began) = (guest.vm().time(), guest.vm().time().now());
    let during = guest.ending(&[]).await?;
    let within = time.now() - began;
    hold.release(guest).await?;
    let after = guest.ending(&[hold.holder()]).await?;
    Ok(match (during, after) {
        (_, after @ Ending::Stuck(_)) => guest.verdict_on(&after, LOCKS),
        (Ending::Done, Ending::Done) => Verdict::Pass,
        (Ending::Stuck(stuck), Ending::Done) => blocked(guest, &stuck, within),
    })
}

/// The removal was stuck until the owner of a VF of another card released it. Now it has ended.
fn blocked(guest: &Guest, stuck: &[Stuck], within: Duration) -> Verdict {
    let tasks: Vec<_> = stuck.iter().map(|stuck| stuck.task.clone()).collect();
    guest.note_tasks(Note::Stuck, &tasks);
    let waiter = stuck.iter().find(|stuck| stuck.function == RESCAN_LOCK).or(stuck.first());
    let (who, function) = waiter.map_or(("no task", ""), |stuck| (stuck.task.comm.as_str(), stuck.function.as_str()));
    let summary = format!(
        "{who}, which removes a card, in D state in {function} for {}, until the owner of another card's VF released it",
        duration(within)
    );
    Verdict::fail(FailureKind::Blocked, function, summary)
}
