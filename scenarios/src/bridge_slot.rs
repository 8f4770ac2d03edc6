//! A bridge is plugged into a slot. It needs a number for the bus behind it, and the firmware has left none.

use harness::guest::{Guest, Halt, judged};
use harness::scenario::Scenario;
use harness::vm::model::Model;

use crate::check::{accepts, passed};
use crate::slot_state::{State, empties, idle};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "bridge_slot::no_bus_number",
    about: "A bridge with a hotplug controller is plugged into a slot that has no bus number left for it. The kernel \
            must refuse the bridge or do without its bus. When the bridge has gone, a card must come up in the slot.",
    detects: &["bridge-without-bus"],
    topology: "room-for-bridge",
    ..Scenario::of(|guest| Box::pin(judged(no_bus_number(guest))))
}];

/// What the kernel logs (`drivers/pci/probe.c`, `pci_hp_add_bridge()`).
const NO_NUMBER: &str = "No bus number available for hot-added bridge";

/// The firmware numbers the buses without gaps, so a port has the number of its own bus and no other.
async fn no_bus_number(guest: &Guest) -> Result<(), Halt> {
    let slot = guest.slot("rp0")?;
    for (bridge, when) in [("bridge0", "after a bridge was plugged in"), ("bridge1", "after a second bridge")] {
        let from = guest.agent().messages().position();
        guest.plug(slot, bridge).await?;
        guest.says(from, NO_NUMBER, guest.prompt()).await?;
        idle(guest).await?;
        accepts(guest, "/sys/bus/pci/rescan", 1, when).await?;
        // pciehp switches a slot off whose card it refuses. Then QEMU ejects the card.
        if !State::of(guest, slot).await?.devices.is_empty() {
            accepts(guest, &slot.attribute("power"), 0, when).await?;
        }
        passed(empties(guest, slot, guest.prompt()).await?)?;
    }
    let card = guest.plug_model(slot, "pf0", Model::Igb).await?;
    guest.plugged(&card, guest.prompt()).await?;
    Ok(())
}
