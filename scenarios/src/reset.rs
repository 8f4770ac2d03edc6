//! Resets against removals and against SR-IOV.
//!
//! A reset holds the device lock of the device. A reset through a hotplug slot also holds pciehp's `reset_lock`, so
//! that pciehp ignores that the link goes down (`drivers/pci/hotplug/pciehp_hpc.c`, `pciehp_reset_slot()`).

use guest_protocol::{Ask, Sched, Step};
use harness::guest::{Ending, Error, Guest, Halt, ResetMethod, WAITS_FOR_OWNER, judged, must};
use harness::notes::{Cycled, Note};
use harness::scenario::Scenario;
use harness::trigger::Trigger;
use harness::verdict::Verdict;
use kernels::FailureKind;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "reset::function_reset_while_vfs_are_enabled",
        about: "A PF is reset repeatedly while its VFs are enabled. The write must end.",
        detects: &["cfg-lock-vs-device-lock-reset"],
        ..Scenario::of(|guest| Box::pin(function_reset_while_vfs_are_enabled(guest)))
    },
    Scenario {
        name: "reset::slot_reset_during_unplug",
        about: "A device is reset through its slot while pciehp waits for pci_rescan_remove_lock to remove it. When \
                the lock is free, both must end.",
        detects: &["reset-lock-vs-device-lock"],
        topology: "two-slots",
        triggers: Trigger::PCIEHP,
        ..Scenario::of(|guest| Box::pin(slot_reset_during_unplug(guest)))
    },
    Scenario {
        name: "reset::owner_closes_while_two_slots_unplug",
        about: "One process owns devices in two slots, and both are unplugged. The process closes the device whose \
                removal waits for the removal of the other. The close resets the slot. It must return, so that the \
                process can close the other device.",
        detects: &["reset-lock-rescan-vfio-3way"],
        topology: "two-slots",
        triggers: &[Trigger::DeviceDel],
        ..Scenario::of(|guest| Box::pin(owner_closes_while_two_slots_unplug(guest)))
    },
    Scenario {
        name: "reset::port_is_locked",
        about: "A device that is reset by its bus is reset through sysfs, opened through vfio, reset by its owner, and \
                closed. The port must be locked each time, so that nobody else uses it in a reset.",
        detects: &["vfio-reset-without-port-lock"],
        ..Scenario::of(|guest| Box::pin(judged(port_is_locked(guest))))
    },
];

/// Takes `reset_lock` for a reset (`drivers/pci/hotplug/pciehp_hpc.c`).
const RESET_SLOT: &str = "pciehp_reset_slot";

/// The function in which a write to `sriov_numvfs` waits while config accesses are blocked (`drivers/pci/access.c`).
const CONFIG_LOCK: &str = "pci_wait_cfg";

async fn function_reset_while_vfs_are_enabled(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.reset_by(pf, ResetMethod::Flr).await?;
    let resets = guest.cycle(&[(pf.attribute("reset"), "1")], None).await?;
    let store = guest.write(pf.numvfs(), 2, Sched::default()).await?;
    Ok(match guest.ending(&[&store]).await? {
        Ending::Stuck(stuck) => guest.deadlock(&stuck, &[CONFIG_LOCK]),
        Ending::Done => {
            let resets = guest.stop_cycle(&resets).await?;
            guest.note(Note::Resets(resets));
            none_granted(resets).unwrap_or(Verdict::Pass)
        }
    })
}

/// The failure if the kernel refused every reset: then the scenario has tested nothing.
fn none_granted(resets: Cycled) -> Option<Verdict> {
    let Cycled { rounds, refused } = resets;
    (rounds > 0 && refused >= rounds).then(|| {
        let summary = format!("the kernel refused all {rounds} resets of a PF that is not being removed");
        Verdict::fail(FailureKind::WrongState, "reset", summary)
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
    guest.passes_unless_stuck(&[&reset, hold.holder()], &[RESET_SLOT]).await
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

    // The first removal takes the rescan lock and waits for the owner. The second waits for that lock.
    guest.remove(first).await?;
    guest.task_in(WAITS_FOR_OWNER, guest.prompt()).await?;
    guest.remove(second).await?;
    guest.removal_waits_for_rescan_lock(guest.prompt()).await?;
    owner.go_on(guest).await?;
    guest.passes_unless_stuck(&[owner.operation()], &[RESET_SLOT]).await
}

/// The kernel says this once in its life, of a reset of a bus whose port is not locked (`drivers/pci/pci.c`,
/// `pci_bridge_secondary_bus_reset()`, since 6.10).
const UNLOCKED: &str = "unlocked secondary bus reset via";

async fn port_is_locked(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    guest.bind(pf, "vfio-pci").await?;
    guest.reset_by(pf, ResetMethod::Bus).await?;
    let from = guest.agent().messages().position();
    guest.set(pf.attribute("reset"), 1).await?;
    locked(guest, from, "a reset through sysfs").await?;
    let driver = guest.user_driver(&[]).await?;
    let device = driver.device(pf);
    device.opens().await?;
    locked(guest, from, "the open of the device through vfio").await?;
    device.does(Ask::Reset).await?;
    locked(guest, from, "a reset by the owner of the device").await?;
    device.does(Ask::Close).await?;
    locked(guest, from, "the close of the device").await?;
    driver.end().await
}

/// The kernel must not have said that a port was not locked.
async fn locked(guest: &Guest, from: usize, by: &str) -> Result<(), Halt> {
    guest.agent().log_complete(guest.prompt()).await?;
    let said = guest.said(from, UNLOCKED);
    must(said.is_empty(), "pci_bridge_secondary_bus_reset", || {
        format!("{by} resets the bus below a port that is not locked; the kernel says: {}", said.join("; "))
    })?;
    Ok(guest.heard_all("kmsg", from)?)
}
