//! `pci_rescan_remove_lock` against the device lock.
//!
//! Since a5338e365c45 `sriov_numvfs_store()` holds the PF's device lock when it takes `pci_rescan_remove_lock`. Every
//! removal takes the two the other way round. Nor does the opposite order help: the store then waits for the rescan lock
//! while it is in the attribute, and a removal, which has that lock, waits for it to leave.

use std::time::{Duration, Instant};

use guest_protocol::{Sched, Step};
use harness::guest::{Ending, Error, Guest, RESCAN_LOCK, Stuck};
use harness::notes::Note;
use harness::scenario::Scenario;
use harness::text::duration;
use harness::trigger::Trigger;
use harness::verdict::Verdict;
use kernels::FailureKind;

/// What most scenarios of this family have in common.
const BASE: Scenario = Scenario {
    name: "",
    about: "",
    detects: &[],
    topology: "two-slots",
    also: &[],
    triggers: &[],
    append: &[],
    run: |guest| Box::pin(store_during_removal(guest)),
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "rescan_lock::store_during_sysfs_removal",
        about: "VFs are enabled while a removal of the PF through sysfs waits for pci_rescan_remove_lock; when the lock \
                is free, both must end.",
        detects: &["numvfs-store-vs-sysfs-remove", "numvfs-store-vs-remove-kernfs"],
        triggers: &[Trigger::SysfsRemove],
        ..BASE
    },
    Scenario {
        name: "rescan_lock::store_during_unplug",
        about: "VFs are enabled while a removal of the PF from its slot waits for pci_rescan_remove_lock; when the lock \
                is free, both must end.",
        detects: &["numvfs-store-vs-hotplug", "numvfs-store-vs-remove-kernfs"],
        triggers: Trigger::UNPLUG,
        ..BASE
    },
    Scenario {
        name: "rescan_lock::store_during_surprise_removal",
        about: "The same, of a PF that is gone when VFs are enabled.",
        detects: &["numvfs-store-vs-surprise-removal", "numvfs-store-vs-remove-kernfs"],
        triggers: Trigger::SURPRISE,
        ..BASE
    },
    Scenario {
        name: "rescan_lock::store_on_sibling_during_unplug",
        about: "The slot of two functions is unplugged; while the removal waits for the vfio user of one, VFs of the other \
                are enabled. When the user lets go, all must end.",
        detects: &["numvfs-store-vs-hotplug", "numvfs-store-vs-remove-kernfs"],
        topology: "two-functions",
        triggers: Trigger::UNPLUG,
        run: |guest| Box::pin(store_on_sibling(guest)),
        ..BASE
    },
    Scenario {
        name: "rescan_lock::store_on_sibling_during_surprise_removal",
        about: "The same, of a card that is gone when VFs are enabled.",
        detects: &["numvfs-store-vs-surprise-removal", "numvfs-store-vs-remove-kernfs"],
        topology: "two-functions",
        triggers: Trigger::SURPRISE,
        run: |guest| Box::pin(store_on_sibling(guest)),
        ..BASE
    },
    Scenario {
        name: "rescan_lock::remove_pf_with_vfs",
        about: "A PF that has VFs is removed; it and they must go.",
        detects: &["rescan-lock-recursive-pf-remove"],
        topology: "igb",
        triggers: Trigger::ALL,
        run: |guest| Box::pin(remove_pf_with_vfs(guest)),
        ..BASE
    },
    Scenario {
        name: "rescan_lock::unrelated_removal_during_busy_disable",
        about: "VFs are being disabled, which waits for the vfio user of one; a removal from another slot must not wait \
                for that user.",
        detects: &["vf-busy-holds-global-rescan-lock"],
        triggers: Trigger::ALL,
        run: |guest| Box::pin(unrelated_removal(guest)),
        ..BASE
    },
];

/// Where the removal of an attribute waits for those who are in it (`fs/kernfs/dir.c`).
const DRAIN: &str = "kernfs_drain";

/// How long a store may take to get to where it waits, if it waits.
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
    Ok(ended(guest, guest.ending(&[&store, hold.holder()]).await?))
}

/// The functions of a slot are removed last first, so that the removal waits for the second with the first still there.
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
    Ok(ended(guest, guest.ending(&[&store]).await?))
}

async fn remove_pf_with_vfs(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.enable_vfs(pf, 2).await?;
    guest.remove(pf).await?;
    Ok(ended(guest, guest.ending(&[]).await?))
}

/// A removal that waits in `kernfs_drain()` has the locks; one that does not waits for them.
fn ended(guest: &Guest, ending: Ending) -> Verdict {
    match ending {
        Ending::Done => Verdict::Pass,
        Ending::Stuck(stuck) => guest.deadlock(&stuck, &[DRAIN, RESCAN_LOCK]),
    }
}

async fn unrelated_removal(guest: &Guest) -> Result<Verdict, Error> {
    let (pf, other) = (guest.pf_named("pf0")?, guest.pf_named("pf1")?);
    let vfs = guest.enable_vfs_for_vfio(pf, 1).await?;
    let hold = guest.hold_disable(pf, &vfs[0]).await?;
    guest.remove(other).await?;
    let began = Instant::now();
    let during = guest.ending(&[]).await?;
    let within = began.elapsed();
    hold.release(guest).await?;
    let after = guest.ending(&[hold.holder()]).await?;
    Ok(match (during, after) {
        (_, after @ Ending::Stuck(_)) => ended(guest, after),
        (Ending::Done, Ending::Done) => Verdict::Pass,
        (Ending::Stuck(stuck), Ending::Done) => blocked(guest, &stuck, within),
    })
}

/// The removal was stuck while the owner of a VF, of another card, took its time, and is over now.
fn blocked(guest: &Guest, stuck: &[Stuck], within: Duration) -> Verdict {
    let tasks: Vec<_> = stuck.iter().map(|stuck| stuck.task.clone()).collect();
    guest.note_tasks(Note::Stuck, &tasks);
    let waiter = stuck.iter().find(|stuck| stuck.function == RESCAN_LOCK).or(stuck.first());
    let (who, function) = waiter.map_or(("nobody", ""), |stuck| (stuck.task.comm.as_str(), stuck.function.as_str()));
    let summary = format!(
        "{who}, which removes a card, in D state in {function} for {}, until the owner of another card's VF let go",
        duration(within)
    );
    Verdict::fail(FailureKind::Blocked, function, summary)
}
