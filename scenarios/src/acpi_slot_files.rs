//! The files of slots that acpiphp has (`drivers/pci/hotplug/acpiphp_core.c`, `acpiphp_glue.c`). It makes up their
//! values: a slot has power while its devices are enabled, and its latch is open while no card is in it.

use guest_protocol::Message;
use harness::guest::{Guest, Halt, Pf, judged};
use harness::scenario::Scenario;
use harness::trigger::Trigger;

use crate::check::{accepts, lost, passed, reads, refuses, wrong};
use crate::slot_files::address;

/// The metadata that all scenarios of this family share. The trigger makes the machine one with ACPI hotplug.
const BASE: Scenario =
    Scenario { triggers: &[Trigger::DeviceDelAcpi], ..Scenario::of(|guest| Box::pin(judged(power(guest)))) };

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "acpi_slot_files::power",
        about: "An ACPI slot is powered off by its power file, filled again, and emptied by an eject request. The files \
                must say so each time, and writes for an empty slot must change nothing. Then its port is removed, and \
                found again by a rescan.",
        run: |guest| Box::pin(judged(power(guest))),
        ..BASE
    },
    Scenario {
        name: "acpi_slot_files::switch_removed_twice",
        about: "A switch, of whose buses ACPI knows nothing, is removed through sysfs and found by a rescan, twice. \
                Each write must return, and the card behind the switch must come up again.",
        topology: "switch",
        run: |guest| Box::pin(judged(switch_removed_twice(guest))),
        ..BASE
    },
];

/// The folder of all slots.
const SLOTS: &str = "/sys/bus/pci/slots";

/// The folder of the slot of a device. Its name is `_SUN` of the ACPI object, which is no number of the topology.
async fn folder(guest: &Guest, pf: &Pf) -> Result<String, Halt> {
    let of_device = address(&pf.device);
    for name in guest.list(SLOTS).await? {
        let read = guest.read_now(format!("{SLOTS}/{name}/address")).await?;
        if read.shown() == of_device {
            return Ok(format!("{SLOTS}/{name}"));
        }
    }
    Err(wrong("address", format!("no slot has the address {of_device}, where acpiphp has hotplug slots")))
}

async fn power(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let folder = folder(guest, pf).await?;
    let file = format!("{folder}/power");
    shows(guest, &folder, "1", "after boot").await?;
    for id in ["pf1", "pf2"] {
        accepts(guest, &file, 1, "while the slot is on").await?;
        refuses(guest, &file, "2", &["EINVAL"], "while the slot is on").await?;
        shows(guest, &folder, "1", "after writes that change nothing").await?;
        accepts(guest, &file, 0, "while the slot is on").await?;
        empty(guest, pf, &folder, "after 0 was written to power").await?;
        accepts(guest, &file, 0, "while the slot is empty").await?;
        accepts(guest, &file, 1, "while the slot is empty").await?;
        empty(guest, pf, &folder, "after 0 and 1 were written to power of an empty slot").await?;
        let card = guest.plug(&pf.slot, id).await?;
        guest.plugged(&card, guest.prompt()).await?;
        shows(guest, &folder, "1", "after a card was plugged in").await?;
    }
    let ejected = guest.press_button("pf2").await?;
    guest.unplugged(&ejected, guest.prompt()).await?;
    empty(guest, pf, &folder, "after an eject request").await?;
    // If a request for the slot is still counted as a user of the port, the port is never freed.
    accepts(guest, &pf.slot.port.attribute("remove"), 1, "of the port of the empty slot").await?;
    accepts(guest, "/sys/bus/pci/rescan", 1, "after the removal of the port").await?;
    shows(guest, &folder, "0", "after the port was found again").await
}

/// Checks the files of a slot that is empty or has a card with power.
async fn shows(guest: &Guest, folder: &str, occupied: &str, when: &str) -> Result<(), Halt> {
    let latch = if occupied == "1" { "0" } else { "1" };
    for (name, value) in [("power", occupied), ("adapter", occupied), ("latch", latch)] {
        reads(guest, &format!("{folder}/{name}"), value, when).await?;
    }
    Ok(())
}

async fn empty(guest: &Guest, pf: &Pf, folder: &str, when: &str) -> Result<(), Halt> {
    shows(guest, folder, "0", when).await?;
    let name = pf.device.bdf.to_string();
    match guest.list(&pf.slot.port.attribute("")).await?.contains(&name) {
        true => Err(wrong("devices", format!("{when}, {name} is still there"))),
        false => Ok(()),
    }
}

async fn switch_removed_twice(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf_named("pf1")?;
    let upstream = pf.slot.port.parent();
    let above = upstream.as_ref().and_then(|upstream| upstream.parent());
    let (Some(upstream), Some(above)) = (upstream, above) else {
        return Err(harness::guest::Error::Unprepared("the topology has no switch".to_owned()).into());
    };
    for round in 1..=2 {
        let when = format!("in round {round}");
        accepts(guest, &upstream.attribute("remove"), 1, &when).await?;
        let from = guest.agent().messages().position();
        accepts(guest, &above.attribute("rescan"), 1, &when).await?;
        let bound = |message: &Message| match message {
            Message::Uevent { uevent, .. } => (uevent.action == "bind" && uevent.devpath == pf.devpath()).then_some(()),
            _ => None,
        };
        let awaited = format!("the bind uevent of {}", pf.device.bdf);
        if let Err(error) = guest.agent().messages().wait(from, guest.prompt(), &awaited, bound).await {
            if !error.is_deadline() {
                return Err(error.into());
            }
            return Err(lost("bind", format!("{when}, the card behind the switch did not come up: {error}")));
        }
        passed(guest.agreement().await?)?;
    }
    Ok(())
}
