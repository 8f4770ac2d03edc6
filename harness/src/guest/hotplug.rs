//! Events on slots: cards are plugged in, buttons are pressed, errors are injected.

use std::sync::atomic::Ordering;
use std::time::Duration;

use guest_protocol::Message;
use qapi::qmp;

use super::{Device, Error, Guest, Pf, Slot};
use crate::vm::devices::{self, Part};
use crate::vm::model::Model;
use crate::vm::qmp::QmpError;
use crate::vm::slot;
use crate::vm::topology::{Function, Holds, Port};

/// A card that was plugged into a slot, or that a rescan is to find.
pub struct Plugged {
    slot: Slot,
    function: Function,
    messages: usize,
}

impl Plugged {
    /// Its slot.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}

/// A request to the guest to release a card: its slot's attention button was pressed.
pub struct Pressed {
    id: String,
    events: usize,
}

/// An error that a port reports (PCI Express 5.0, section 6.2.2), by QEMU's name (`hw/pci/pcie_aer.c`,
/// `pcie_aer_error_list`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AerError {
    /// Bad TLP: correctable, it needs no recovery.
    BadTlp,
    /// Completion timeout: non-fatal, recovery walks the bus below the port.
    CompletionTimeout,
    /// Data link protocol error: fatal, recovery resets the link.
    DataLinkProtocol,
}

/// Time between two attempts at a command that QEMU refuses for some time.
const RETRY: Duration = Duration::from_millis(200);

/// The object whose children are the devices that have an id (QEMU `system/qdev-monitor.c`, `qdev_set_id()`).
const PERIPHERAL: &str = "/machine/peripheral";

impl Guest {
    /// Plugs a card with one function into an empty slot, without waiting for the guest. The model is the one that the
    /// topology has in that slot; igb if the topology has the slot empty.
    ///
    /// # Errors
    /// QMP's; [`Error::Unprepared`] if the topology has no such slot.
    pub async fn plug(&self, slot: &Slot, id: &str) -> Result<Plugged, Error> {
        let model = self.port(slot)?.models().first().copied().unwrap_or(Model::Igb);
        self.plug_model(slot, id, model).await
    }

    /// As [`Guest::plug`], with another model.
    ///
    /// # Errors
    /// As [`Guest::plug`].
    pub async fn plug_model(&self, slot: &Slot, id: &str, model: Model) -> Result<Plugged, Error> {
        let port = self.port(slot)?;
        let function = Function { id: id.to_owned(), model };
        let messages = self.agent().messages().position();
        self.plugs.fetch_add(1, Ordering::Relaxed);
        for device in self.missing_of(devices::card(port, 0, &function)).await? {
            let arguments = device.properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let (bus, id, driver) = (Some(port.id.clone()), Some(device.id), device.driver.to_owned());
            self.vm().qmp().execute(qmp::device_add { bus, id, driver, arguments }).await?;
        }
        Ok(Plugged { slot: slot.clone(), function, messages })
    }

    /// The port of a slot.
    fn port(&self, slot: &Slot) -> Result<&Port, Error> {
        let found = port(&self.vm().machine().topology.ports, &slot.id);
        found.ok_or_else(|| Error::Unprepared(format!("there is no port {}", slot.id)))
    }

    /// The devices of a card without the VFs that QEMU still has. When a guest ejects a card through ACPI, QEMU leaves the
    /// VFs that it did not make by itself, and the next PF of the same id has them again (`hw/acpi/pcihp.c`,
    /// `acpi_pcihp_pc_no_hotplug()`; `hw/pci/pcie_sriov.c`, `pcie_sriov_pf_exit()`).
    async fn missing_of(&self, mut card: Vec<Part>) -> Result<Vec<Part>, Error> {
        let Some(function) = card.pop() else { return Ok(card) };
        if !card.is_empty() {
            let there = self.vm().qmp().execute(qmp::qom_list { path: PERIPHERAL.to_owned() }).await?;
            card.retain(|vf| !there.iter().any(|child| child.name == vf.id));
        }
        card.push(function);
        Ok(card)
    }

    /// Whether any card has been plugged in.
    pub(crate) fn has_plugged(&self) -> bool {
        self.plugs.load(Ordering::Relaxed) > 0
    }

    /// Makes the guest rescan the bus, to find a card that was removed through sysfs and is still in its slot.
    ///
    /// # Errors
    /// The agent's; [`Error::Refused`].
    pub async fn rescan(&self, pf: &Pf) -> Result<Plugged, Error> {
        let messages = self.agent().messages().position();
        self.plugs.fetch_add(1, Ordering::Relaxed);
        self.set(pf.slot.port.attribute("rescan"), 1).await?;
        Ok(Plugged { slot: pf.slot.clone(), function: pf.function.clone(), messages })
    }

    /// Waits until a plugged card has its driver, and returns its PF.
    ///
    /// # Errors
    /// [`crate::vm::event_log::WaitError`].
    pub async fn plugged(&self, card: &Plugged, within: Duration) -> Result<Pf, Error> {
        let below = format!("{}/", card.slot.port.devpath);
        let awaited = format!("the bind uevent of {} in slot {}", card.function.id, card.slot.number);
        let bound = |message: &Message| match message {
            Message::Uevent { uevent, .. } if uevent.action == "bind" => {
                uevent.devpath.strip_prefix(&below)?.parse().ok()
            }
            _ => None,
        };
        let bdf = self.agent().messages().wait(card.messages, within, &awaited, bound).await?;
        let device = Device::below(&card.slot.port.devpath, bdf);
        Ok(Pf { slot: card.slot.clone(), function: card.function.clone(), device })
    }

    /// Presses the attention button of a device's slot, without waiting for the guest. To remove a PF use
    /// [`Guest::remove_by`].
    ///
    /// # Errors
    /// QMP's.
    pub async fn press_button(&self, id: &str) -> Result<Pressed, Error> {
        let events = self.vm().qmp().events().position();
        self.vm().qmp().execute(qmp::device_del { id: id.to_owned() }).await?;
        Ok(Pressed { id: id.to_owned(), events })
    }

    /// Presses the attention button of a slot again, while its power indicator still blinks because the button was
    /// pressed for another function.
    ///
    /// # Errors
    /// QMP's.
    pub async fn press_button_again(&self, slot: &Slot, id: &str) -> Result<(), Error> {
        Ok(slot::press_while_blinking(self.vm(), &slot.port.bdf, id).await?)
    }

    /// Presses the attention button again for a device that the guest did not release. QEMU refuses that during the
    /// five seconds in which the guest may still release the device, and sends no event at their end
    /// (`system/qdev-monitor.c`, `qdev_unplug()`).
    ///
    /// # Errors
    /// QMP's, also if QEMU still refuses at the deadline.
    pub async fn press_button_when_taken(&self, id: &str) -> Result<Pressed, Error> {
        let patience = self.vm().time().patience(self.prompt());
        loop {
            match self.press_button(id).await {
                Err(_) if patience.is_over().is_none() => self.vm().time().pause(RETRY).await,
                pressed => return pressed,
            }
        }
    }

    /// Waits until the guest has released the card and QEMU has unplugged it.
    ///
    /// # Errors
    /// [`crate::vm::event_log::WaitError`].
    pub async fn unplugged(&self, pressed: &Pressed, within: Duration) -> Result<(), Error> {
        Ok(self.vm().qmp().device_deleted(pressed.events, &pressed.id, within).await?)
    }

    /// Removes the card from a slot by surprise, while the guest is stopped. To remove a PF use [`Guest::remove_by`].
    ///
    /// # Errors
    /// QMP's.
    pub async fn yank(&self, slot: &Slot) -> Result<(), Error> {
        Ok(slot::yank(self.vm(), &slot.port.bdf).await?)
    }

    /// Waits for a kernel message that contains this text, from a position of the messages on.
    ///
    /// # Errors
    /// [`crate::vm::event_log::WaitError`].
    pub async fn says(&self, from: usize, text: &str, within: Duration) -> Result<String, Error> {
        self.says_one_of(from, &[text], within).await
    }

    /// Waits for one of several texts, as kernel versions differ in their messages.
    ///
    /// # Errors
    /// [`crate::vm::event_log::WaitError`].
    pub async fn says_one_of(&self, from: usize, texts: &[&str], within: Duration) -> Result<String, Error> {
        let said = |message: &Message| match message {
            Message::Kmsg { text, .. } if texts.iter().any(|one| text.contains(one)) => Some(text.clone()),
            _ => None,
        };
        let awaited = format!("the kernel message \"{}\"", texts.join("\" or \""));
        Ok(self.agent().messages().wait(from, within, &awaited, said).await?)
    }

    /// All kernel messages so far that contain this text, from a position on.
    pub fn said(&self, from: usize, text: &str) -> Vec<String> {
        let said = |message: &Message| match message {
            Message::Kmsg { text: said, .. } if said.contains(text) => Some(said.clone()),
            _ => None,
        };
        self.agent().messages().collect(from, said)
    }

    /// Makes a port report an error, as hardware would.
    ///
    /// # Errors
    /// QMP's, or an unexpected answer of the monitor.
    pub async fn inject(&self, slot: &Slot, error: AerError) -> Result<(), Error> {
        let name = match error {
            AerError::BadTlp => "BAD_TLP",
            AerError::CompletionTimeout => "COMP_TIME",
            AerError::DataLinkProtocol => "DLP",
        };
        let command = format!("pcie_aer_inject_error {} {name}", slot.id);
        let answer = self.vm().qmp().monitor(&command).await?;
        // On success: "OK id: rp0 root bus: ..." (QEMU `hw/pci/pci-hmp-cmds.c`).
        if answer.starts_with("OK ") {
            return Ok(());
        }
        Err(QmpError::Monitor { command, answer, expected: "OK" }.into())
    }
}

fn port<'a>(ports: &'a [Port], id: &str) -> Option<&'a Port> {
    ports.iter().find_map(|candidate| match &candidate.holds {
        _ if candidate.id == id => Some(candidate),
        Holds::Switch { ports, .. } => port(ports, id),
        Holds::Functions(_) | Holds::Room(_) => None,
    })
}
