//! Removing a device, and proving from the guest's log which path the removal took.

use std::time::Duration;

use guest_protocol::{Command, Message, Sched, TaskState};
use qapi::qmp;

use super::grant::granted;
use super::{Error, Pf};
use crate::classify::stack;
use crate::trigger::{Act, Of, Proof, Sign, Trigger};
use crate::vm::Vm;
use crate::vm::agent::Operation;
use crate::vm::event_log::WaitError;
use crate::vm::slot;

/// A removal that was started.
#[derive(Clone)]
pub struct Removal {
    trigger: Trigger,
    pf: Pf,
    messages: usize,
    events: usize,
    /// The write to the attribute, for triggers that write one.
    write: Option<Operation>,
}

/// The folder in `/proc` that controls debug messages. It is missing without `CONFIG_DYNAMIC_DEBUG`
/// (`lib/dynamic_debug.c`).
const DYNAMIC_DEBUG: &str = "dynamic_debug";

impl Removal {
    /// Starts a removal. It waits only until QEMU or the agent has accepted the command.
    ///
    /// # Errors
    /// QMP's or the agent's.
    pub async fn start(vm: &Vm, pf: &Pf, trigger: Trigger) -> Result<Removal, Error> {
        let messages = vm.agent().messages().position();
        let events = vm.qmp().events().position();
        let mut write = None;
        match trigger.act() {
            Act::DeviceDel => {
                vm.qmp().execute(qmp::device_del { id: pf.function.id.clone() }).await?;
            }
            Act::CutPower => slot::yank(vm, &pf.slot.port.bdf).await?,
            Act::Write { of, attribute, data } => {
                let path = path(pf, of, attribute);
                let command = Command::Write { path, data: data.to_owned(), at: 0, sched: Sched::default() };
                write = Some(vm.agent().start(command).await?);
            }
        }
        Ok(Removal { trigger, pf: pf.clone(), messages, events, write })
    }

    /// The PF that is removed.
    pub fn pf(&self) -> &Pf {
        &self.pf
    }

    /// The trigger of the removal.
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// Waits until the guest has removed the device. The sign is always the PF's `remove` uevent. In addition it is
    /// QEMU's `DEVICE_DELETED` if the guest has to release the slot, or the end of the write if a write removes the
    /// device.
    ///
    /// # Errors
    /// [`WaitError`] of the first sign that does not come; [`Error::Refused`].
    pub async fn completed(&self, vm: &Vm, within: Duration) -> Result<(), Error> {
        let devpath = self.pf.devpath();
        let removed = |message: &Message| match message {
            Message::Uevent { uevent, .. } => (uevent.action == "remove" && uevent.devpath == devpath).then_some(()),
            _ => None,
        };
        let awaited = format!("the remove uevent of {}", self.pf.device.bdf);
        vm.agent().messages().wait(self.messages, within, &awaited, removed).await?;
        match self.trigger.act() {
            Act::DeviceDel => {
                vm.qmp().device_deleted(self.events, &self.pf.function.id, within).await?;
            }
            // QEMU sent DEVICE_DELETED when the power was cut, so it proves nothing about the guest.
            Act::CutPower => {}
            Act::Write { .. } => {
                if let Some(write) = &self.write {
                    granted(write, within).await?;
                }
            }
        }
        Ok(())
    }

    /// The proof of the path that the removal took: a kernel message, a stack, or a write.
    ///
    /// # Errors
    /// [`Error::WrongPath`] if the removal took another path than the trigger's, or if there is no proof.
    pub async fn proof(&self, vm: &Vm, within: Duration) -> Result<String, Error> {
        let slot = format!("Slot({})", self.pf.slot.number);
        let text = |message: &Message, sign: &Sign| match message {
            Message::Kmsg { text, .. }
                if sign.words.iter().any(|one| text.contains(one)) && (!sign.names_slot || text.contains(&slot)) =>
            {
                Some(text.clone())
            }
            _ => None,
        };
        let log = vm.agent().messages();
        let proof = match self.trigger.proof() {
            Proof::Said(Sign { or_in: functions @ [_, ..], .. }) if !has_dynamic_debug(vm, within).await? => {
                self.proof_without_message(vm, functions, within).await?
            }
            Proof::Said(sign) => {
                let said = sign.words.join("\" or \"");
                let awaited = format!("the kernel message \"{said}\", which proves {}", self.trigger);
                log.wait(self.messages, within, &awaited, |message| text(message, sign)).await
            }
            Proof::Writer => self.writer_proof(vm, within).await?,
        };
        let wrong = |why| Error::WrongPath { trigger: self.trigger, why };
        let proof = proof.map_err(|error| wrong(error.to_string()))?;
        for sign in self.trigger.disproofs() {
            if let Some(line) = log.collect(self.messages, |message| text(message, sign)).first() {
                return Err(wrong(format!("the kernel also logged \"{line}\"")));
            }
        }
        // A message that disproves the path may have been lost.
        vm.agent().heard_all("kmsg", self.messages)?;
        Ok(proof)
    }

    /// The proof of an ejection by a kernel that cannot log it: the stack of the task that removes the card, or, after
    /// the removal, QEMU's `DEVICE_DELETED`. In a machine with ACPI hotplug, a card leaves its slot only when the guest
    /// writes to the ACPI eject register (QEMU `hw/acpi/pcihp.c`, `acpi_pcihp_eject_slot()`).
    async fn proof_without_message(
        &self,
        vm: &Vm,
        functions: &[&str],
        within: Duration,
    ) -> Result<Result<String, WaitError>, Error> {
        let tasks = vm.agent().tasks(functions, within).await?;
        if let Some(proof) = tasks.iter().find_map(|task| removing(task, functions)) {
            return Ok(Ok(proof));
        }
        let id = &self.pf.function.id;
        let deleted = vm.qmp().device_deleted(self.events, id, within).await;
        Ok(deleted.map(|()| format!("QEMU unplugged {id} at the guest's request")))
    }

    /// The proof of a removal through sysfs: the process that writes to the attribute. No kernel message reports such a
    /// removal.
    async fn writer_proof(&self, vm: &Vm, within: Duration) -> Result<Result<String, WaitError>, Error> {
        let (Some(write), Act::Write { of, attribute, data }) = (&self.write, self.trigger.act()) else {
            return Err(Error::WrongPath {
                trigger: self.trigger,
                why: "no process writes to an attribute to remove the device".to_owned(),
            });
        };
        let started = |message: &Message| match message {
            Message::Started { id, pid, .. } if *id == write.id() => Some(*pid),
            _ => None,
        };
        let awaited = format!("the process that writes to {attribute}");
        let pid = vm.agent().messages().wait(self.messages, within, &awaited, started).await;
        Ok(pid.map(|pid| format!("process {pid} wrote {data} to {}", path(&self.pf, of, attribute))))
    }
}

/// The attribute through which a PF is removed.
fn path(pf: &Pf, of: Of, attribute: &str) -> String {
    match of {
        Of::Device => pf.attribute(attribute),
        Of::Slot => pf.slot.attribute(attribute),
    }
}

/// Whether this kernel can log debug messages.
async fn has_dynamic_debug(vm: &Vm, within: Duration) -> Result<bool, Error> {
    Ok(vm.agent().list("/proc", within).await?.iter().any(|name| name == DYNAMIC_DEBUG))
}

/// The proof that a task removes a card in one of these functions, from its stack.
fn removing(task: &TaskState, functions: &[&str]) -> Option<String> {
    let function = functions.iter().find(|function| stack::is_in(task, function))?;
    Some(format!("task {} (pid {}) is in {function}", task.comm, task.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ejecting_task_is_found_by_its_stack() {
        let task = |frames: &[&str]| {
            let stack = frames.iter().map(|&frame| frame.to_owned()).collect();
            let (comm, wchan) = ("kworker/u4:1".to_owned(), String::new());
            TaskState { pid: 39, tid: 39, comm, state: 'D', wchan, stack }
        };
        let waits = ["vfio_unregister_group_dev", "vfio_pci_remove", "pci_stop_and_remove_bus_device"];
        let acpi = ["acpiphp_disable_and_eject_slot", "hotplug_event", "acpi_device_hotplug", "acpi_hotplug_work_fn"];
        let Proof::Said(sign) = Trigger::DeviceDelAcpi.proof() else { panic!("no proof by a message") };
        let proof = |frames: &[&str]| removing(&task(frames), sign.or_in);
        let ejecting = proof(&[&waits[..], &acpi].concat());
        assert_eq!(ejecting.as_deref(), Some("task kworker/u4:1 (pid 39) is in acpiphp_disable_and_eject_slot"));
        // Not ACPI: pciehp. Not a removal: ACPI hot-adds a CPU.
        assert_eq!(proof(&[&waits[..], &["pciehp_unconfigure_device", "pciehp_ist"]].concat()), None);
        assert_eq!(proof(&acpi[2..]), None);
    }
}
