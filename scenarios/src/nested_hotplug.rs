//! Hotplug ports below hotplug ports.
//!
//! Whoever removes a port holds `pci_rescan_remove_lock` and waits for the port's own thread, or for those who use its
//! slot's attributes. That thread waits for the same lock if it has something to remove itself
//! (`drivers/pci/hotplug/pciehp_pci.c`, `pciehp_unconfigure_device()`).

use guest_protocol::Sched;
use harness::guest::{Device, Error, Guest, Hold, RESCAN_LOCK, Slot};
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use harness::vm::agent::Operation;

/// What every scenario of this family has in common.
const BASE: Scenario = Scenario {
    name: "",
    about: "",
    detects: &["nested-pciehp-subtree"],
    topology: "switch",
    also: &[],
    triggers: &[],
    append: &[],
    run: |guest| Box::pin(button_below_removed_port(guest)),
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "nested_hotplug::button_below_removed_port",
        about: "A switch is removed through sysfs while the button of a slot behind it was pressed; the removal must end.",
        run: |guest| Box::pin(button_below_removed_port(guest)),
        ..BASE
    },
    Scenario {
        name: "nested_hotplug::button_below_unplugged_port",
        about: "The buttons of a slot with a switch and of a slot behind that switch are pressed; the switch must be \
                released.",
        run: |guest| Box::pin(button_below_unplugged_port(guest)),
        ..BASE
    },
    Scenario {
        name: "nested_hotplug::power_off_below_removed_port",
        about: "A switch is removed through sysfs while a slot behind it is powered off through sysfs; both must end.",
        run: |guest| Box::pin(power_off_below_removed_port(guest)),
        ..BASE
    },
];

/// Where a removal through sysfs waits for `pci_rescan_remove_lock`, held by others: the second is there also where the first
/// is on no stack (`drivers/pci/remove.c`).
const WAITS: &[&str] = &[RESCAN_LOCK, "pci_stop_and_remove_bus_device_locked"];

/// Where a port's thread removes what is in its slot: first of all it wants `pci_rescan_remove_lock`.
const REMOVES: &str = "pciehp_unconfigure_device";

/// The parts of the topology.
struct Parts<'a> {
    /// The switch, as its upstream port.
    upstream: Device,
    /// The slot behind it.
    nested: &'a Slot,
    /// `pci_rescan_remove_lock`, held by way of a PF elsewhere.
    hold: Hold,
}

async fn parts(guest: &Guest) -> Result<Parts<'_>, Error> {
    let nested = &guest.pf_named("pf1")?.slot;
    let upstream = nested.port.parent().ok_or_else(|| Error::Unprepared("there is no switch".to_owned()))?;
    let hold = guest.hold_rescan_lock(guest.pf_named("pf0")?).await?;
    Ok(Parts { upstream, nested, hold })
}

impl Parts<'_> {
    /// Has somebody remove the switch, who waits for the lock.
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
