//! Taking a device away, and proving from the guest's own log which way it went.

use std::time::Duration;

use guest_protocol::{Command, Message, Sched, TaskState};
use qapi::qmp;

use super::grant::granted;
use super::{Error, Pf};
use crate::classify::stack;
use crate::trigger::Trigger;
use crate::vm::Vm;
use crate::vm::agent::Operation;
use crate::vm::event_log::WaitError;
use crate::vm::slot;

/// A removal that has been set off.
pub struct Removal {
    trigger: Trigger,
    pf: Pf,
    messages: usize,
    events: usize,
    /// The write to `remove`, for that trigger.
    write: Option<Operation>,
}

/// What the guest's log says if a device goes one way, and what if it goes another.
struct Path {
    /// A kernel message that this path alone prints.
    proof: Option<Words>,
    /// Messages of the other paths.
    others: &'static [Words],
}

/// What kernels say of the same thing, each in its own words.
type Words = &'static [&'static str];

/// `drivers/pci/hotplug/pciehp_ctrl.c`, `pciehp_handle_button_press()`, of 6.12 and of 6.1.
const BUTTON: Words = &["Button press: will power off in 5 sec", "Powering off due to button press"];
/// `drivers/pci/hotplug/pciehp_ctrl.c`, `pciehp_handle_presence_or_link_change()`.
const PRESENCE: Words = &["Card not present"];
/// `drivers/pci/hotplug/acpiphp_glue.c`, `hotplug_event()`; at debug level.
const EJECT: Words = &["Eject request in"];

/// acpiphp at work on such a request (the same file), whatever of it the compiler leaves on a stack.
const EJECTS: &[&str] = &["acpiphp_disable_and_eject_slot", "hotplug_event", "acpiphp_hotplug_notify"];

/// Where kernels are told what to say at debug level; not there without `CONFIG_DYNAMIC_DEBUG`
/// (`lib/dynamic_debug.c`).
const DYNAMIC_DEBUG: &str = "dynamic_debug";

fn path(trigger: Trigger) -> Path {
    match trigger {
        Trigger::DeviceDel => Path { proof: Some(BUTTON), others: &[EJECT] },
        Trigger::DeviceDelAcpi => Path { proof: Some(EJECT), others: &[BUTTON, PRESENCE] },
        Trigger::Yank => Path { proof: Some(PRESENCE), others: &[BUTTON, EJECT] },
        Trigger::SysfsRemove => Path { proof: None, others: &[BUTTON, PRESENCE, EJECT] },
    }
}

impl Removal {
    /// Sets a removal off. Nothing is awaited but that it was accepted.
    ///
    /// # Errors
    /// QMP's or the agent's.
    pub async fn start(vm: &Vm, pf: &Pf, trigger: Trigger) -> Result<Removal, Error> {
        let messages = vm.agent().messages().position();
        let events = vm.qmp().events().position();
        let mut write = None;
        match trigger {
            Trigger::DeviceDel | Trigger::DeviceDelAcpi => {
                vm.qmp().execute(qmp::device_del { id: pf.function.id.clone() }).await?;
            }
            Trigger::Yank => slot::yank(vm.qmp(), &pf.slot.port.bdf).await?,
            Trigger::SysfsRemove => {
                let path = pf.attribute("remove");
                let command = Command::Write { path, data: "1".to_owned(), at: 0, sched: Sched::default() };
                write = Some(vm.agent().start(command).await?);
            }
        }
        Ok(Removal { trigger, pf: pf.clone(), messages, events, write })
    }

    /// What is removed.
    pub fn pf(&self) -> &Pf {
        &self.pf
    }

    /// How.
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// Waits until the guest has removed the device, as far as each trigger tells: the PF's `remove` uevent always; QEMU's
    /// `DEVICE_DELETED` where the guest has to let go of the slot first; the end of the write to `remove`.
    ///
    /// # Errors
    /// [`WaitError`] of the first that does not come; [`Error::Refused`].
    pub async fn completed(&self, vm: &Vm, within: Duration) -> Result<(), Error> {
        let devpath = self.pf.devpath();
        let removed = |message: &Message| match message {
            Message::Uevent { uevent, .. } => (uevent.action == "remove" && uevent.devpath == devpath).then_some(()),
            _ => None,
        };
        let awaited = format!("the remove uevent of {}", self.pf.device.bdf);
        vm.agent().messages().wait(self.messages, within, &awaited, removed).await?;
        match self.trigger {
            Trigger::DeviceDel | Trigger::DeviceDelAcpi => {
                vm.qmp().device_deleted(self.events, &self.pf.function.id, within).await?;
            }
            // QEMU sent the event when the power was cut: it says nothing about the guest.
            Trigger::Yank => {}
            Trigger::SysfsRemove => {
                if let Some(write) = &self.write {
                    granted(write, within).await?;
                }
            }
        }
        Ok(())
    }

    /// Which way the removal went, in the guest's own words.
    ///
    /// # Errors
    /// [`Error::WrongPath`] if it went another way than the trigger claims, or gave no sign of any.
    pub async fn proof(&self, vm: &Vm, within: Duration) -> Result<String, Error> {
        let path = path(self.trigger);
        let slot = format!("Slot({})", self.pf.slot.number);
        let text = |message: &Message, words: Words| match message {
            // pciehp names the slot; acpiphp does not.
            Message::Kmsg { text, .. }
                if words.iter().any(|one| text.contains(one)) && (words == EJECT || text.contains(&slot)) =>
            {
                Some(text.clone())
            }
            _ => None,
        };
        let log = vm.agent().messages();
        let is_mute = path.proof == Some(EJECT) && !is_told_at_debug_level(vm, within).await?;
        let proof = match path.proof {
            Some(_) if is_mute => self.eject_proof(vm, within).await?,
            Some(words) => {
                let said = words.join("\" or \"");
                let awaited = format!("the kernel message \"{said}\", which proves {}", self.trigger);
                log.wait(self.messages, within, &awaited, |message| text(message, words)).await
            }
            None => self.sysfs_proof(vm, within).await,
        };
        let wrong = |why| Error::WrongPath { trigger: self.trigger, why };
        let proof = proof.map_err(|error| wrong(error.to_string()))?;
        for other in path.others {
            if let Some(line) = log.collect(self.messages, |message| text(message, other)).first() {
                return Err(wrong(format!("the kernel also said \"{line}\"")));
            }
        }
        // That it said nothing else is known only if nothing was lost on the way.
        vm.agent().heard_all("kmsg", self.messages)?;
        Ok(proof)
    }

    /// The proof of an ACPI request to eject where the kernel cannot tell of it: the task that removes the card, by its stack;
    /// or, when it has done so, QEMU's word that the card has gone. In a machine whose slots are ACPI's nothing but the guest's
    /// write to ACPI's own register takes a card out of one (QEMU `hw/acpi/pcihp.c`, `acpi_pcihp_eject_slot()`).
    async fn eject_proof(&self, vm: &Vm, within: Duration) -> Result<Result<String, WaitError>, Error> {
        let tasks = vm.agent().tasks(EJECTS, within).await?;
        if let Some(proof) = tasks.iter().find_map(ejecting) {
            return Ok(Ok(proof));
        }
        let id = &self.pf.function.id;
        let deleted = vm.qmp().device_deleted(self.events, id, within).await;
        Ok(deleted.map(|()| format!("QEMU took {id} out of a slot that is ACPI's, on the guest's request")))
    }

    /// No kernel message tells of a removal through sysfs: the process that writes to `remove` is the proof.
    async fn sysfs_proof(&self, vm: &Vm, within: Duration) -> Result<String, WaitError> {
        let Some(write) = &self.write else { return Ok(String::new()) };
        let started = |message: &Message| match message {
            Message::Started { id, pid, .. } if *id == write.id() => Some(*pid),
            _ => None,
        };
        let pid =
            vm.agent().messages().wait(self.messages, within, "the process that writes to remove", started).await?;
        Ok(format!("process {pid} wrote 1 to {}", self.pf.attribute("remove")))
    }
}

/// Whether this kernel says what it is told to say at debug level.
async fn is_told_at_debug_level(vm: &Vm, within: Duration) -> Result<bool, Error> {
    Ok(vm.agent().list("/proc", within).await?.iter().any(|name| name == DYNAMIC_DEBUG))
}

/// What a task's stack proves of a request to eject.
fn ejecting(task: &TaskState) -> Option<String> {
    let function = EJECTS.iter().find(|function| stack::is_in(task, function))?;
    Some(format!("task {} (pid {}) is in {function}", task.comm, task.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_ejects_is_told_by_its_stack() {
        let task = |frames: &[&str]| {
            let stack = frames.iter().map(|&frame| frame.to_owned()).collect();
            let (comm, wchan) = ("kworker/u4:1".to_owned(), String::new());
            TaskState { pid: 39, tid: 39, comm, state: 'D', wchan, stack }
        };
        let waits = ["vfio_unregister_group_dev", "vfio_pci_remove", "pci_stop_and_remove_bus_device"];
        let acpi = ["acpiphp_disable_and_eject_slot", "hotplug_event", "acpi_device_hotplug", "acpi_hotplug_work_fn"];
        let proof = ejecting(&task(&[&waits[..], &acpi].concat()));
        assert_eq!(proof.as_deref(), Some("task kworker/u4:1 (pid 39) is in acpiphp_disable_and_eject_slot"));
        // pciehp, and a hot-added CPU, which ACPI handles too.
        assert_eq!(ejecting(&task(&[&waits[..], &["pciehp_unconfigure_device", "pciehp_ist"]].concat())), None);
        assert_eq!(ejecting(&task(&acpi[2..])), None);
    }
}
