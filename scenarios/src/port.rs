//! Hotplug ports that lose their driver and get it back (`drivers/pci/pcie/portdrv.c`; `drivers/pci/hotplug/pciehp_core.c`,
//! `pciehp_probe()`, `pciehp_remove()`).

use harness::guest::{Guest, Halt, Slot, judged};
use harness::scenario::Scenario;

use crate::check::{accepts, passed};
use crate::slot_files::{COLD, EMPTY, ON, emptied, filled, pressed, shows};
use crate::slot_state::{AFTER_BUTTON, idle};

/// The metadata that all scenarios of this family share.
const BASE: Scenario = Scenario {
    // Without this, freed memory keeps its contents, and a use after free goes unnoticed.
    append: &["init_on_free=1"],
    ..Scenario::of(|guest| Box::pin(judged(unbound_after_button(guest))))
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "port::unbound_after_button",
        about: "A port loses its driver within five seconds after the attention button of its slot was pressed. \
                Nothing must happen after that time. Bound again, the port must serve its slot.",
        run: |guest| Box::pin(judged(unbound_after_button(guest))),
        ..BASE
    },
    Scenario {
        name: "port::rounds",
        about: "A port is unbound from its driver and bound again, several times. Its card must stay, and its slot \
                must work afterwards.",
        run: |guest| Box::pin(judged(rounds(guest))),
        ..BASE
    },
    Scenario {
        name: "port::card_pulled_while_unbound",
        about: "A card is pulled while its port has no driver. When the port is bound again, the card must be removed, \
                and the next one must come up.",
        detects: &["pciehp-bind-keeps-gone-card"],
        run: |guest| Box::pin(judged(card_pulled_while_unbound(guest))),
        ..BASE
    },
    Scenario {
        name: "port::card_plugged_while_unbound",
        about: "A card is plugged in while the port has no driver. When the port is bound again, the card must come up.",
        topology: "empty-slot",
        run: |guest| Box::pin(judged(card_plugged_while_unbound(guest))),
        ..BASE
    },
];

/// The folder of the driver of ports.
const DRIVER: &str = "/sys/bus/pci/drivers/pcieport";

/// How often a port is unbound and bound.
const ROUNDS: usize = 3;

/// Unbinds the port of a slot from its driver.
pub async fn unbind(guest: &Guest, slot: &Slot) -> Result<(), Halt> {
    let unbound = format!("{DRIVER}/unbind");
    accepts(guest, &unbound, slot.port.bdf, "while the port is bound").await.map(drop)
}

/// Binds the port of a slot to its driver, and waits until all is done that pciehp then does.
pub async fn bind(guest: &Guest, slot: &Slot) -> Result<(), Halt> {
    let bound = format!("{DRIVER}/bind");
    accepts(guest, &bound, slot.port.bdf, "while the port is unbound").await?;
    Ok(idle(guest).await?)
}

async fn unbound_after_button(guest: &Guest) -> Result<(), Halt> {
    let slot = &guest.pf()?.slot;
    pressed(guest, "pf0").await?;
    unbind(guest, slot).await?;
    // Nothing must happen, so there is nothing to wait for.
    guest.vm().time().pause(AFTER_BUTTON).await;
    bind(guest, slot).await?;
    works(guest, slot, "pf1").await
}

/// Empties a slot by its power file, and fills it.
async fn works(guest: &Guest, slot: &Slot, id: &str) -> Result<(), Halt> {
    accepts(guest, &slot.attribute("power"), 0, "after the port was bound again").await?;
    shows(guest, slot, EMPTY, "after 0 was written to power").await?;
    filled(guest, slot, id, "after a card was plugged in").await
}

async fn rounds(guest: &Guest) -> Result<(), Halt> {
    let slot = &guest.pf()?.slot;
    for _ in 0..ROUNDS {
        unbind(guest, slot).await?;
        bind(guest, slot).await?;
        shows(guest, slot, COLD, "after the port was bound again").await?;
        passed(guest.agreement().await?)?;
    }
    works(guest, slot, "pf1").await?;
    guest.yank(slot).await?;
    emptied(guest, slot, EMPTY, "after the card was pulled").await
}

async fn card_pulled_while_unbound(guest: &Guest) -> Result<(), Halt> {
    let slot = &guest.pf()?.slot;
    unbind(guest, slot).await?;
    guest.yank(slot).await?;
    bind(guest, slot).await?;
    emptied(guest, slot, EMPTY, "after the port of a card that was pulled was bound again").await?;
    filled(guest, slot, "pf1", "after a card was plugged in").await
}

async fn card_plugged_while_unbound(guest: &Guest) -> Result<(), Halt> {
    let slot = guest.slot("rp0")?;
    unbind(guest, slot).await?;
    let card = guest.plug(slot, "pf0").await?;
    bind(guest, slot).await?;
    guest.plugged(&card, guest.prompt()).await?;
    idle(guest).await?;
    shows(guest, slot, ON, "after the port of a card that was plugged in was bound again").await?;
    works(guest, slot, "pf1").await
}
