//! AER recovery: a port reports an error while the devices below it change.

use guest_protocol::{Ask, Sched};
use harness::guest::{AerError, ENABLES_VFS, Ending, Error, Guest, Halt, Slot, judged};
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use harness::vm::agent::Operation;

use crate::registers::MSIX;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "aer::error_while_vfs_are_added",
        about: "The port of a PF reports a non-fatal error while VFs of the PF are being enabled. Recovery and the \
                write must both end.",
        detects: &["aer-bus-sem-vs-numvfs"],
        ..Scenario::of(|guest| Box::pin(error_while_vfs_are_added(guest)))
    },
    Scenario {
        name: "aer::fatal_error_during_bring_up",
        about: "A port reports a fatal error, and recovery resets its slot, while pciehp brings up a new card. Both \
                must end, and the driver must bind to the card.",
        detects: &["slot-mutex-vs-reset-lock"],
        topology: "empty-slot",
        ..Scenario::of(|guest| Box::pin(fatal_error_during_bring_up(guest)))
    },
    Scenario {
        name: "aer::error_after_interrupts_and_reset",
        about: "An owner sets up MSI-X, then resets its PF with the bus, then the port reports a non-fatal error. Each \
                step ends before the next begins, so each must end. With a profile that has lockdep, lockdep has then \
                seen every order in which vfio-pci takes its locks.",
        detects: &["vfio-igate-memlock-bussem"],
        ..Scenario::of(|guest| Box::pin(judged(error_after_interrupts_and_reset(guest))))
    },
];

/// igb logs this when it begins to enable VFs, with the device lock held. Before it adds them, it restarts its own
/// function and waits 100 ms for the VFs: about 400 ms in all (`drivers/net/ethernet/intel/igb/igb_main.c`,
/// `igb_enable_sriov()`). In 6.1 it logs this only when the VFs exist. There the store is first seen in a function that
/// enables VFs.
const ENABLING: &str = "VFs allocated";

/// pciehp logs this when it begins to bring up a card, with `reset_lock` held. It enumerates the card more than 100 ms
/// later (`drivers/pci/hotplug/pciehp_hpc.c`, `pciehp_check_link_status()`).
const BRING_UP: &str = "Link Up";

/// Part of the last message of every recovery, "successful" or "failed" (`drivers/pci/pcie/err.c`,
/// `pcie_do_recovery()`).
pub const RECOVERED: &str = "device recovery";

async fn error_while_vfs_are_added(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let from = guest.agent().messages().position();
    let store = guest.write(pf.numvfs(), 7, Sched::default()).await?;
    tokio::select! {
        said = guest.says(from, ENABLING, guest.prompt()) => drop(said?),
        place = guest.waits_in(&store, ENABLES_VFS, guest.prompt()) => drop(place?),
    }
    let ending = report(guest, &pf.slot, AerError::CompletionTimeout, &[&store]).await?;
    Ok(guest.verdict_on(&ending, &["pcie_do_recovery"]))
}

async fn fatal_error_during_bring_up(guest: &Guest) -> Result<Verdict, Error> {
    let slot = guest.slot("rp0")?;
    let from = guest.agent().messages().position();
    let card = guest.plug(slot, "pf0").await?;
    guest.says(from, BRING_UP, guest.prompt()).await?;
    Ok(match report(guest, slot, AerError::DataLinkProtocol, &[]).await? {
        Ending::Stuck(stuck) => guest.deadlock(&stuck, &["pci_dev_assign_slot"]),
        Ending::Done => {
            guest.plugged(&card, guest.prompt()).await?;
            Verdict::Pass
        }
    })
}

/// In `drivers/vfio/pci/vfio_pci_core.c`, `SET_IRQS` takes `memory_lock` with `igate` held, and a hot reset takes
/// `pci_bus_sem` with `memory_lock` held. Recovery calls vfio-pci with `pci_bus_sem` held; vfio-pci must not take
/// `igate` there. The recovery comes last, so that lockdep reports the cycle there.
async fn error_after_interrupts_and_reset(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    guest.bind(pf, "vfio-pci").await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    device.does(Ask::Arm { index: MSIX, count: 1 }).await?;
    device.does(Ask::HotReset { groups: vec![device.bdf().to_owned()] }).await?;
    match report(guest, &pf.slot, AerError::CompletionTimeout, &[]).await? {
        Ending::Stuck(stuck) => Err(Halt::Failed(guest.deadlock(&stuck, &["pcie_do_recovery"]))),
        Ending::Done => driver.end().await,
    }
}

/// Makes a port report an error. Waits until recovery and these operations have ended, or are stuck.
async fn report(guest: &Guest, slot: &Slot, error: AerError, operations: &[&Operation]) -> Result<Ending, Error> {
    let from = guest.agent().messages().position();
    guest.inject(slot, error).await?;
    guest.ending_with(operations, async |within| guest.says(from, RECOVERED, within).await.map(drop)).await
}
