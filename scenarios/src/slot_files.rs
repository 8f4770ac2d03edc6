//! The files of slots that pciehp has (`Documentation/ABI/testing/sysfs-bus-pci`; `drivers/pci/hotplug/pci_hotplug_core.c`,
//! `pciehp_core.c`), against the registers of the slot's port.

use guest_protocol::Sched;
use harness::guest::{Device, Ending, Error, Guest, Halt, Slot, judged, register};
use harness::scenario::Scenario;

use crate::check::{accepts, passed, reads, refuses, wrong};
use crate::slot_state::{AFTER_BUTTON, BEGINS, State, WILL_GO, comes_up, empties, idle};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "slot_files::power",
        about: "A slot is powered off by its power file, and filled again, twice. The files and the registers of its \
                port must say so as soon as a write returns. What the slot is already, and values that mean nothing, \
                must be refused.",
        ..Scenario::of(|guest| Box::pin(judged(power(guest))))
    },
    Scenario {
        name: "slot_files::power_off_with_vfs",
        about: "A slot is powered off by its power file while its card has VFs. They must go with the card, and all of \
                them must be freed.",
        detects: &["unplugged-pf-not-freed"],
        ..Scenario::of(|guest| Box::pin(judged(power_off_with_vfs(guest))))
    },
    Scenario {
        name: "slot_files::attention",
        about: "The attention file of a slot is written. The file and Slot Control must have what was written, and the \
                power indicator must stay.",
        ..Scenario::of(|guest| Box::pin(judged(attention(guest))))
    },
    Scenario {
        name: "slot_files::several_writers",
        about: "Several processes write to the power file of a slot at once. All writes must return, one of them must \
                have powered the slot off, and of an empty slot all must be refused.",
        ..Scenario::of(|guest| Box::pin(judged(several_writers(guest))))
    },
    Scenario {
        name: "slot_files::power_after_button",
        about: "The power file is written within five seconds after the attention button was pressed. 1 must be \
                refused, 0 must power the slot off at once, and the press must have no effect on the next card.",
        ..Scenario::of(|guest| Box::pin(judged(power_after_button(guest))))
    },
    Scenario {
        name: "slot_files::pulled_after_button",
        about: "A card is pulled within five seconds after the attention button was pressed. The slot must be off at \
                once, and the press must have no effect on the next card.",
        ..Scenario::of(|guest| Box::pin(judged(pulled_after_button(guest))))
    },
    Scenario {
        name: "slot_files::surprise_removals",
        about: "A card is pulled and another one plugged in, twice. The files and the registers of the port must say \
                so, and the power file must refuse what the slot is already.",
        ..Scenario::of(|guest| Box::pin(judged(surprise_removals(guest))))
    },
    Scenario {
        name: "slot_files::failed_power_on",
        about: "A card is pulled before pciehp has enumerated it. The slot must be off with the attention indicator \
                on. The next card must come up and turn the indicator off.",
        topology: "empty-slot",
        ..Scenario::of(|guest| Box::pin(judged(failed_power_on(guest))))
    },
];

/// The error of the power file for what a slot is already, and for an empty slot (`pciehp_sysfs_enable_slot()`,
/// `pciehp_sysfs_disable_slot()`).
const ALREADY: &[&str] = &["ENODEV"];

/// What the files and registers of a slot must say. The indicators are as in [`register::POWER_INDICATOR`].
#[derive(Clone, Copy)]
pub struct Shows {
    power: &'static str,
    adapter: &'static str,
    attention: &'static str,
    power_indicator: u32,
    attention_indicator: u32,
}

/// An occupied slot that has power.
pub const ON: Shows = Shows { power: "1", adapter: "1", attention: "0", power_indicator: 1, attention_indicator: 3 };
/// A slot whose card was there at boot. QEMU starts with the power indicator off, and pciehp leaves it as it is.
pub const COLD: Shows = Shows { power_indicator: 3, ..ON };
/// An empty slot. Without power QEMU ejects a card (`hw/pci/pcie.c`, `pcie_cap_slot_write_config()`).
pub const EMPTY: Shows = Shows { power: "0", adapter: "0", attention: "0", power_indicator: 3, attention_indicator: 3 };
/// An empty slot whose last power-on failed (`drivers/pci/hotplug/pciehp_ctrl.c`, `set_slot_off()`).
const FAILED: Shows = Shows { attention: "1", attention_indicator: 1, ..EMPTY };

/// Checks that the files of a slot, the registers of its port, and the devices below it agree.
pub async fn shows(guest: &Guest, slot: &Slot, expected: Shows, when: &str) -> Result<(), Halt> {
    for (file, value) in [("power", expected.power), ("adapter", expected.adapter), ("attention", expected.attention)] {
        reads(guest, &slot.attribute(file), value, when).await?;
    }
    let port = guest.registers(&slot.port).await?;
    let off = u32::from(expected.power == "0");
    for (field, value) in [
        (register::POWER_CONTROLLER, off),
        (register::POWER_INDICATOR, expected.power_indicator),
        (register::ATTENTION_INDICATOR, expected.attention_indicator),
        (register::PRESENCE, u32::from(expected.adapter == "1")),
    ] {
        let is = port.field(field)?;
        if is != value {
            let name = field.name;
            return Err(wrong(field.of.name, format!("{when}, {name} of the port is {is}, and must be {value}")));
        }
    }
    let devices = State::of(guest, slot).await?.devices;
    match (expected.adapter, devices.as_slice()) {
        ("0", [_, ..]) => Err(wrong("devices", format!("{when}, the slot still has {}", devices.join(", ")))),
        ("1", []) => Err(wrong("devices", format!("{when}, the slot has no device"))),
        _ => Ok(()),
    }
}

/// Plugs a card in, waits until all is done for it, and checks the slot.
pub async fn filled(guest: &Guest, slot: &Slot, id: &str, when: &str) -> Result<(), Halt> {
    passed(comes_up(guest, slot, id).await?)?;
    idle(guest).await?;
    shows(guest, slot, ON, when).await
}

/// Waits until a slot is empty and idle, and checks it.
pub async fn emptied(guest: &Guest, slot: &Slot, expected: Shows, when: &str) -> Result<(), Halt> {
    passed(empties(guest, slot, guest.prompt()).await?)?;
    shows(guest, slot, expected, when).await
}

async fn power(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let (slot, file) = (&pf.slot, pf.slot.attribute("power"));
    reads(guest, &slot.attribute("address"), &address(&pf.device), "after boot").await?;
    let mut on = COLD;
    shows(guest, slot, on, "after boot").await?;
    for id in ["pf1", "pf2"] {
        refuses(guest, &file, "1", ALREADY, "while the slot is on").await?;
        refuses(guest, &file, "2", &["EINVAL"], "while the slot is on").await?;
        shows(guest, slot, on, "after refused writes").await?;
        accepts(guest, &file, 0, "while the slot is on").await?;
        shows(guest, slot, EMPTY, "after 0 was written to power").await?;
        refuses(guest, &file, "0", ALREADY, "while the slot is empty").await?;
        refuses(guest, &file, "1", ALREADY, "while the slot is empty").await?;
        shows(guest, slot, EMPTY, "after refused writes").await?;
        filled(guest, slot, id, "after a card was plugged in").await?;
        on = ON;
    }
    Ok(())
}

/// VFs of the card that is powered off.
const VFS: u16 = 2;

async fn power_off_with_vfs(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    guest.enable_vfs(pf, VFS).await?;
    accepts(guest, &pf.slot.attribute("power"), 0, "while the card has VFs").await?;
    shows(guest, &pf.slot, EMPTY, "after 0 was written to power").await
}

/// What the `address` file of a device's slot must have: the address without the function (`drivers/pci/slot.c`,
/// `address_read_file()`).
pub fn address(device: &Device) -> String {
    let bdf = device.bdf.to_string();
    bdf.split_once('.').map_or(bdf.clone(), |(slot, _)| slot.to_owned())
}

async fn attention(guest: &Guest) -> Result<(), Halt> {
    let slot = &guest.pf()?.slot;
    let file = slot.attribute("attention");
    // The file has 0 for off, and Slot Control 3 (PCI Express 5.0, section 7.5.3.10).
    for (data, attention, attention_indicator) in
        [("1", "1", 1), ("2", "2", 2), ("0", "0", 3), ("2", "2", 2), ("3", "0", 3), ("1", "1", 1), ("0", "0", 3)]
    {
        let when = format!("after {data} was written to attention");
        accepts(guest, &file, data, "while the slot is on").await?;
        shows(guest, slot, Shows { attention, attention_indicator, ..COLD }, &when).await?;
    }
    Ok(())
}

/// How many processes write at once.
const WRITERS: usize = 3;

async fn several_writers(guest: &Guest) -> Result<(), Halt> {
    let slot = &guest.pf()?.slot;
    let off = at_once(guest, slot, "0").await?;
    if off.iter().all(|answer| answer != SUCCESS) || off.iter().any(|answer| answer != SUCCESS && answer != "ENODEV") {
        let answers = off.join(", ");
        return Err(wrong("power", format!("{WRITERS} writes of 0 to power at once return {answers}")));
    }
    shows(guest, slot, EMPTY, "after several processes wrote 0 to power").await?;
    let on = at_once(guest, slot, "1").await?;
    if on.iter().any(|answer| answer != "ENODEV") {
        let answers = on.join(", ");
        return Err(wrong("power", format!("{WRITERS} writes of 1 to power of an empty slot return {answers}")));
    }
    filled(guest, slot, "pf1", "after a card was plugged in").await
}

const SUCCESS: &str = "success";

/// Has several processes write to the power file. Returns their answers.
async fn at_once(guest: &Guest, slot: &Slot, data: &str) -> Result<Vec<String>, Halt> {
    let mut writes = Vec::new();
    for _ in 0..WRITERS {
        writes.push(guest.write(slot.attribute("power"), data, Sched::default()).await?);
    }
    if let Ending::Stuck(stuck) = guest.ending(&writes.iter().collect::<Vec<_>>()).await? {
        return Err(Halt::Failed(guest.deadlock(&stuck, &[])));
    }
    let mut answers = Vec::new();
    for write in &writes {
        let access = write.accessed(guest.prompt()).await?;
        answers.push(access.value.map_or_else(|errno| errno.name, |_| SUCCESS.to_owned()));
    }
    Ok(answers)
}

/// Presses the attention button of a slot, and waits until pciehp has taken that for a request to power off.
pub async fn pressed(guest: &Guest, id: &str) -> Result<(), Error> {
    let from = guest.agent().messages().position();
    guest.press_button(id).await?;
    guest.says_one_of(from, &WILL_GO, guest.prompt()).await?;
    Ok(())
}

async fn power_after_button(guest: &Guest) -> Result<(), Halt> {
    let slot = &guest.pf()?.slot;
    let file = slot.attribute("power");
    let mut id = "pf0";
    for next in ["pf1", "pf2"] {
        pressed(guest, id).await?;
        shows(guest, slot, Shows { power_indicator: 2, ..ON }, "after a press of the button").await?;
        refuses(guest, &file, "1", ALREADY, "after a press of the button").await?;
        accepts(guest, &file, 0, "within five seconds after a press of the button").await?;
        shows(guest, slot, EMPTY, "after 0 was written to power").await?;
        filled(guest, slot, next, "after a card was plugged in").await?;
        // Nothing must happen, so there is nothing to wait for.
        guest.vm().time().pause(AFTER_BUTTON).await;
        shows(guest, slot, ON, "more than five seconds after the button was pressed for the card before").await?;
        id = next;
    }
    Ok(())
}

async fn pulled_after_button(guest: &Guest) -> Result<(), Halt> {
    let slot = &guest.pf()?.slot;
    pressed(guest, "pf0").await?;
    guest.yank(slot).await?;
    emptied(guest, slot, EMPTY, "after the card was pulled").await?;
    refuses(guest, &slot.attribute("power"), "0", ALREADY, "after the card was pulled").await?;
    filled(guest, slot, "pf1", "after a card was plugged in").await?;
    guest.vm().time().pause(AFTER_BUTTON).await;
    shows(guest, slot, ON, "more than five seconds after the button was pressed for the card before").await
}

async fn surprise_removals(guest: &Guest) -> Result<(), Halt> {
    let slot = &guest.pf()?.slot;
    let file = slot.attribute("power");
    for id in ["pf1", "pf2"] {
        guest.yank(slot).await?;
        emptied(guest, slot, EMPTY, "after the card was pulled").await?;
        for data in ["0", "1"] {
            refuses(guest, &file, data, ALREADY, "after the card was pulled").await?;
        }
        shows(guest, slot, EMPTY, "after refused writes").await?;
        filled(guest, slot, id, "after a card was plugged in").await?;
    }
    accepts(guest, &file, 0, "after surprise removals").await?;
    shows(guest, slot, EMPTY, "after 0 was written to power").await
}

async fn failed_power_on(guest: &Guest) -> Result<(), Halt> {
    let slot = guest.slot("rp0")?;
    let from = guest.agent().messages().position();
    guest.plug(slot, "pf0").await?;
    guest.says(from, BEGINS, guest.prompt()).await?;
    guest.yank(slot).await?;
    emptied(guest, slot, FAILED, "after the power-on failed").await?;
    for (data, answer) in [("1", ALREADY), ("0", ALREADY)] {
        refuses(guest, &slot.attribute("power"), data, answer, "after the power-on failed").await?;
    }
    filled(guest, slot, "pf1", "after a card was plugged in").await
}
