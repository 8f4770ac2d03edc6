//! Hotplug ports below hotplug ports.
//!
//! A task that removes a port holds `pci_rescan_remove_lock`, and waits for the port's interrupt thread or for tasks in
//! the attributes of its slot. If the thread has something to remove itself, it waits for the same lock
//! (`drivers/pci/hotplug/pciehp_pci.c`, `pciehp_unconfigure_device()`).

use guest_protocol::Sched;
use harness::guest::{Device, Error, Guest, Hold, RESCAN_LOCK, Slot};
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use harness::vm::agent::Operation;

/// The metadata that all scenarios of this family share.
const BASE: Scenario = Scenario {
    detects: &["nested-pciehp-subtree"],
    topology: "switch",
    ..Scenario::of(|guest| Box::pin(button_below_removed_port(guest)))
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "nested_hotplug::button_below_removed_port",
        about: "A switch is removed through sysfs while the attention button of a slot behind it is pressed. The \
                removal must end.",
        run: |guest| Box::pin(button_below_removed_port(guest)),
        ..BASE
    },
    Scenario {
        name: "nested_hotplug::button_below_unplugged_port",
        about: "The attention buttons of a slot with a switch and of a slot behind that switch are pressed. The guest \
                must release the switch.",
        run: |guest| Box::pin(button_below_unplugged_port(guest)),
        ..BASE
    },
    Scenario {
        name: "nested_hotplug::power_off_below_removed_port",
        about: "A switch is removed through sysfs while a slot behind it is powered off through sysfs. Both must end.",
        run: |guest| Box::pin(power_off_below_removed_port(guest)),
        ..BASE
    },
];

/// Functions in which a removal through sysfs waits for `pci_rescan_remove_lock`. On some kernels the first is not on
/// the stack, but the second is (`drivers/pci/remove.c`).
const WAITS: &[&str] = &[RESCAN_LOCK, "pci_stop_and_remove_bus_device_locked"];

/// The function in which a port's thread removes the card in its slot. It first takes `pci_rescan_remove_lock`.
const REMOVES: &str = "pciehp_unconfigure_device";

/// The parts of the topology that the scenarios use.
struct Parts<'a> {
    /// The upstream port of the switch.
    upstream: Device,
    /// The slot behind it.
    nested: &'a Slot,
    /// `pci_rescan_remove_lock`, held by the removal of a PF in another slot.
    hold: Hold,
}

async fn parts(guest: &Guest) -> Result<Parts<'_>, Error> {
    let nested = &guest.pf_named("pf1")?.slot;
    let upstream = nested.port.parent().ok_or_else(|| Error::Unprepared("the topology has no switch".to_owned()))?;
    let hold = guest.hold_rescan_lock(guest.pf_named("pf0")?).await?;
    Ok(Parts { upstream, nested, hold })
}

impl Parts<'_> {
    /// Starts a removal of the switch, and waits until it waits for the lock.
    async fn remove(&self, guest: &Guest) -> Result<Operation, Error> {
        let removal = guest.write(self.upstream.attribute("remove"), 1, Sched::default()).await?;
        guest.waits_in(&removal, WAITS, guest.prompt()).await?;
        Ok(removal)
    }
}

async fn button_below_removed_port(guest: &Guest) -> Result<Verdict, Error> {
    let parts = parts(guest).await?;
    let removal = parts.remove(guest).await?;
    guest.press_button("pf1").await?;
    guest.task_in(&[REMOVES], guest.prompt()).await?;
    parts.hold.release(guest).await?;
    guest.passes_unless_stuck(&[parts.hold.holder(), &removal], &[RESCAN_LOCK]).await
}

async fn button_below_unplugged_port(guest: &Guest) -> Result<Verdict, Error> {
    let parts = parts(guest).await?;
    let switch = guest.press_button("up0").await?;
    guest.tasks_in(&[REMOVES], 1, guest.prompt()).await?;
    guest.press_button("pf1").await?;
    guest.tasks_in(&[REMOVES], 2, guest.prompt()).await?;
    parts.hold.release(guest).await?;
    let unplugged = async |within| guest.unplugged(&switch, within).await;
    let ending = guest.ending_with(&[parts.hold.holder()], unplugged).await?;
    Ok(guest.verdict_on(&ending, &[RESCAN_LOCK]))
}

async fn power_off_below_removed_port(guest: &Guest) -> Result<Verdict, Error> {
    let parts = parts(guest).await?;
    let removal = parts.remove(guest).await?;
    let power_off = guest.write(parts.nested.attribute("power"), 0, Sched::default()).await?;
    guest.task_in(&[REMOVES], guest.prompt()).await?;
    parts.hold.release(guest).await?;
    guest.passes_unless_stuck(&[parts.hold.holder(), &removal, &power_off], &[RESCAN_LOCK]).await
}
