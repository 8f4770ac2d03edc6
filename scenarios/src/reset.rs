//! Resets against removals and against SR-IOV.
//!
//! A reset holds the device lock of what it resets. A reset of what is in a hotplug slot holds pciehp's `reset_lock` too,
//! so that pciehp overlooks the link that goes down (`drivers/pci/hotplug/pciehp_hpc.c`, `pciehp_reset_slot()`).

use guest_protocol::{Sched, Step};
use harness::guest::{Ending, Error, Guest, ResetMethod, WAITS_FOR_OWNER};
use harness::notes::Note;
use harness::scenario::Scenario;
use harness::trigger::Trigger;
use harness::verdict::Verdict;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "reset::function_reset_while_vfs_are_enabled",
        about: "A PF is reset over and over while its VFs are enabled; the write must end.",
        detects: &["cfg-lock-vs-device-lock-reset"],
        topology: "igb",
        also: &[],
        triggers: &[],
        append: &[],
        run: |guest| Box::pin(function_reset_while_vfs_are_enabled(guest)),
    },
    Scenario {
        name: "reset::slot_reset_during_unplug",
        about: "A device is reset through its slot while pciehp waits for pci_rescan_remove_lock to remove it; when the \
                lock is free, both must end.",
        detects: &["reset-lock-vs-device-lock"],
        topology: "two-slots",
        also: &[],
        triggers: Trigger::PCIEHP,
        append: &[],
        run: |guest| Box::pin(slot_reset_during_unplug(guest)),
    },
    Scenario {
        name: "reset::owner_closes_while_two_slots_unplug",
        about: "One process owns devices in two slots; both are unplugged, and it closes the one whose removal waits for \
                the other's. Closing it resets its slot; that must return, so that the process can close the other.",
        detects: &["reset-lock-rescan-vfio-3way"],
        topology: "two-slots",
        also: &[],
        triggers: &[Trigger::DeviceDel],
        append: &[],
        run: |guest| Box::pin(owner_closes_while_two_slots_unplug(guest)),
    },
];

/// Takes `reset_lock` for a reset (`drivers/pci/hotplug/pciehp_hpc.c`).
const RESET_SLOT: &str = "pciehp_reset_slot";

/// Where a write to `sriov_numvfs` waits for whoever has locked config accesses (`drivers/pci/access.c`).
const CONFIG_LOCK: &str = "pci_wait_cfg";

async fn function_reset_while_vfs_are_enabled(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.reset_by(pf, ResetMethod::Flr).await?;
    let resets = guest.cycle(&[(pf.attribute("reset"), "1")], None).await?;
    let store = guest.write(pf.numvfs(), 2, Sched::default()).await?;
    Ok(match guest.ending(&[&store]).await? {
        Ending::Stuck(stuck) => guest.deadlock(&stuck, &[CONFIG_LOCK]),
        Ending::Done => {
            guest.note(Note::Resets(guest.stop_cycle(&resets).await?));
            Verdict::Pass
        }
    })
}

async fn slot_reset_during_unplug(guest: &Guest) -> Result<Verdict, Error> {
    let (pf, other) = (guest.pf_named("pf0")?, guest.pf_named("pf1")?);
    guest.bind(pf, "vfio-pci").await?;
    guest.reset_by(pf, ResetMethod::Bus).await?;
    let hold = guest.hold_rescan_lock(other).await?;
    guest.remove(pf).await?;
    guest.removal_waits_for_rescan_lock(guest.prompt()).await?;
    let reset = guest.write(pf.attribute("reset"), 1, Sched::default()).await?;
    let place = guest.waits_in(&reset, &[RESET_SLOT], guest.prompt()).await?;
    guest.note(Note::Reset(place));
    hold.release(guest).await?;
    Ok(match guest.ending(&[&reset, hold.holder()]).await? {
        Ending::Done => Verdict::Pass,
        Ending::Stuck(stuck) => guest.deadlock(&stuck, &[RESET_SLOT]),
    })
}

async fn owner_closes_while_two_slots_unplug(guest: &Guest) -> Result<Verdict, Error> {
    let (first, second) = (guest.pf_named("pf1")?, guest.pf_named("pf0")?);
    for pf in [first, second] {
        guest.bind(pf, "vfio-pci").await?;
    }
    guest.reset_by(second, ResetMethod::Bus).await?;
    let close = vec![Step::Hold, Step::Close { bdf: second.device.bdf.to_string() }, Step::Release];
    let owner = guest.open(&[&first.device, &second.device], close).await?;
    owner.holding(guest.prompt()).await?;

    // The first removal takes the rescan lock and waits for the owner; the second waits for that lock.
    guest.remove(first).await?;
    guest.task_in(WAITS_FOR_OWNER, guest.prompt()).await?;
    guest.remove(second).await?;
    guest.removal_waits_for_rescan_lock(guest.prompt()).await?;
    owner.go_on(guest).await?;
    Ok(match guest.ending(&[owner.operation()]).await? {
        Ending::Done => Verdict::Pass,
        Ending::Stuck(stuck) => guest.deadlock(&stuck, &[RESET_SLOT]),
    })
}
