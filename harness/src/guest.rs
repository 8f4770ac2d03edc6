//! A guest in the words of scenarios: its PF, the PF's owner, removals, and what was noted on the way.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guest_protocol::{Access, Command, Progress, Sched, Source, Step};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::removal::Removal;
use crate::scale::Scale;
use crate::trigger::Trigger;
use crate::vm::Vm;
use crate::vm::agent::{Agent, AgentError, Operation};
use crate::vm::topology::{Function, RootPort};

/// A physical function of the topology, as the guest knows it.
#[derive(Clone, Debug)]
pub struct Pf {
    /// The port that it is behind.
    pub port: RootPort,
    /// The device.
    pub function: Function,
    /// Its address in the guest.
    pub bdf: String,
}

impl Pf {
    /// The PFs of a booted guest.
    ///
    /// # Errors
    /// [`Error::Unprepared`] if one is not where the topology puts it.
    pub async fn find(vm: &Vm, scale: Scale) -> Result<Vec<Pf>, Error> {
        let mut pfs = Vec::new();
        for port in &vm.machine().topology.ports {
            let mut found = vm.agent().list(&port.sysfs(), scale.seconds(PROMPT)).await?;
            found.retain(|name| is_bdf(name));
            for (number, function) in port.functions.iter().enumerate() {
                let suffix = format!(".{number}");
                let bdf = found.iter().find(|name| name.ends_with(&suffix)).cloned().ok_or_else(|| {
                    Error::Unprepared(format!(
                        "{} is not in the guest: below {} are {found:?}",
                        function.id,
                        port.sysfs()
                    ))
                })?;
                pfs.push(Pf { port: port.clone(), function: function.clone(), bdf });
            }
        }
        Ok(pfs)
    }

    /// `DEVPATH` of its uevents.
    pub fn devpath(&self) -> String {
        format!("/devices/pci0000:00/{}/{}", self.port.bdf(), self.bdf)
    }

    /// Path of one of its attributes.
    pub fn attribute(&self, name: &str) -> String {
        format!("/sys{}/{name}", self.devpath())
    }
}

/// A guest that a scenario works on.
pub struct Guest {
    vm: Vm,
    scale: Scale,
    trigger: Option<Trigger>,
    pfs: Vec<Pf>,
    removals: tokio::sync::Mutex<Vec<Removal>>,
    notes: Mutex<Map<String, Value>>,
}

/// How long an operation may take that has nothing to wait for, on a machine with KVM, in seconds. Generous, as nothing
/// but the harness's own patience depends on it.
const PROMPT: f64 = 20.0;

impl Guest {
    /// A booted guest with these PFs, as [`Pf::find`] finds them.
    pub fn new(vm: Vm, pfs: Vec<Pf>, scale: Scale, trigger: Option<Trigger>) -> Guest {
        let (removals, notes) = Default::default();
        Guest { vm, scale, trigger, pfs, removals, notes }
    }

    /// The first PF.
    ///
    /// # Errors
    /// [`Error::Unprepared`] if the topology has none.
    pub fn pf(&self) -> Result<&Pf, Error> {
        self.pfs.first().ok_or_else(|| Error::Unprepared("the topology has no PF".to_owned()))
    }

    /// The agent, for what has no word here.
    pub fn agent(&self) -> &Agent {
        self.vm.agent()
    }

    /// The virtual machine.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// A deadline that is `seconds` on a machine with KVM.
    pub fn seconds(&self, seconds: f64) -> Duration {
        self.scale.seconds(seconds)
    }

    /// The deadline of what has nothing to wait for.
    pub fn prompt(&self) -> Duration {
        self.scale.seconds(PROMPT)
    }

    /// Gives a PF to a driver.
    ///
    /// # Errors
    /// The agent's.
    pub async fn bind(&self, pf: &Pf, driver: &str) -> Result<(), Error> {
        let command = Command::Bind { bdf: pf.bdf.clone(), driver: driver.to_owned() };
        self.agent().call(command, self.prompt()).await?;
        Ok(())
    }

    /// Starts a process that owns a PF through vfio and does these steps when the kernel asks for it. Returns when it has
    /// the device open.
    ///
    /// # Errors
    /// The agent's.
    pub async fn own(&self, pf: &Pf, on_request: Vec<Step>) -> Result<Owner, Error> {
        let operation = self.agent().start(Command::Own { bdf: pf.bdf.clone(), on_request }).await?;
        let opened = |progress: &Progress| matches!(progress, Progress::Opened { .. }).then_some(());
        operation.progress(self.prompt(), "the owner to have the device open", opened).await?;
        Ok(Owner { operation })
    }

    /// Starts to read an attribute from a process of its own.
    ///
    /// # Errors
    /// The agent's.
    pub async fn read(&self, path: String) -> Result<Operation, Error> {
        Ok(self.agent().start(Command::Read { path }).await?)
    }

    /// Starts to write an attribute from a process of its own.
    ///
    /// # Errors
    /// The agent's.
    pub async fn write(&self, path: String, data: impl ToString, sched: Sched) -> Result<Operation, Error> {
        Ok(self.agent().start(Command::Write { path, data: data.to_string(), sched }).await?)
    }

    /// Starts an event-driven reader; returns when no event can be missed any more.
    ///
    /// # Errors
    /// The agent's.
    pub async fn watch(&self, source: Source, read: Vec<String>, sched: Sched) -> Result<Operation, Error> {
        let operation = self.agent().start(Command::Watch { source, read, sched }).await?;
        let watching = |progress: &Progress| matches!(progress, Progress::Watching).then_some(());
        operation.progress(self.prompt(), "the reader to be armed", watching).await?;
        Ok(operation)
    }

    /// Ends an event-driven reader after it has reported all that it saw.
    ///
    /// # Errors
    /// The agent's.
    pub async fn stop(&self, watch: &Operation) -> Result<(), Error> {
        self.agent().call(Command::Stop { target: watch.id() }, self.prompt()).await?;
        watch.done(self.prompt()).await?;
        Ok(())
    }

    /// Removes a PF by the cell's trigger. That it went the way it should is proven when the cell ends.
    ///
    /// # Errors
    /// QMP's or the agent's; [`Error::Unprepared`] if the cell has no trigger.
    pub async fn remove(&self, pf: &Pf) -> Result<(), Error> {
        let trigger = self.trigger.ok_or_else(|| Error::Unprepared("this cell has no trigger".to_owned()))?;
        let removal = Removal::start(&self.vm, pf, trigger).await?;
        self.removals.lock().await.push(removal);
        Ok(())
    }

    /// Waits until all removals are complete.
    ///
    /// # Errors
    /// A deadline, or a guest that ended.
    pub async fn removed(&self) -> Result<(), Error> {
        for removal in self.removals.lock().await.iter() {
            removal.completed(&self.vm, self.prompt()).await?;
        }
        Ok(())
    }

    /// Proof of the way that each removal took.
    ///
    /// # Errors
    /// [`Error::WrongPath`].
    pub async fn proofs(&self) -> Result<Vec<String>, Error> {
        let mut proofs = Vec::new();
        for removal in self.removals.lock().await.iter() {
            proofs.push(removal.proof(&self.vm, self.prompt()).await?);
        }
        Ok(proofs)
    }

    /// Notes something seen, for the reports.
    pub fn note(&self, what: &str, value: impl Into<Value>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.insert(what.to_owned(), value.into());
    }

    /// All that was noted.
    pub fn notes(&self) -> Map<String, Value> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the machine back.
    pub fn into_vm(self) -> Vm {
        self.vm
    }
}

/// A process that has a device open through vfio.
pub struct Owner {
    operation: Operation,
}

impl Owner {
    /// Its operation.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Waits until the kernel asks for the device.
    ///
    /// # Errors
    /// The agent's.
    pub async fn requested(&self, within: Duration) -> Result<(), AgentError> {
        let pick = |progress: &Progress| matches!(progress, Progress::Requested).then_some(());
        self.operation.progress(within, "vfio's removal request to reach the owner", pick).await
    }

    /// Waits until it has read an attribute.
    ///
    /// # Errors
    /// The agent's.
    pub async fn has_read(&self, path: &str, within: Duration) -> Result<Access, AgentError> {
        let pick = |progress: &Progress| match progress {
            Progress::Read(access) if access.path == path => Some(access.clone()),
            _ => None,
        };
        self.operation.progress(within, &format!("the owner to have read {path}"), pick).await
    }

    /// Waits until it holds the device and waits for [`Owner::go_on`].
    ///
    /// # Errors
    /// The agent's.
    pub async fn holding(&self, within: Duration) -> Result<(), AgentError> {
        let pick = |progress: &Progress| matches!(progress, Progress::Holding).then_some(());
        self.operation.progress(within, "the owner to hold the device", pick).await
    }

    /// Lets it go on from a hold.
    ///
    /// # Errors
    /// The agent's.
    pub async fn go_on(&self, guest: &Guest) -> Result<(), AgentError> {
        guest.agent().call(Command::Continue { target: self.operation.id() }, guest.prompt()).await?;
        Ok(())
    }

    /// Waits until it has released the device.
    ///
    /// # Errors
    /// The agent's.
    pub async fn released(&self, within: Duration) -> Result<(), AgentError> {
        let pick = |progress: &Progress| matches!(progress, Progress::Released).then_some(());
        self.operation.progress(within, "the owner to release the device", pick).await
    }
}

/// Whether a name in sysfs is a PCI address, as `0000:01:00.0`.
fn is_bdf(name: &str) -> bool {
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut parts = name.splitn(3, ':');
    let (Some(domain), Some(bus), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let Some((device, function)) = rest.split_once('.') else { return false };
    hex(domain, 4) && hex(bus, 2) && hex(device, 2) && hex(function, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::topology::Topology;

    #[test]
    fn addresses_among_the_names_of_a_port() {
        for (name, is) in [
            ("0000:01:00.0", true),
            ("0000:01:10.7", true),
            ("0000:00:10.0:pcie001", false),
            ("0000:00:10.0:pcie004", false),
            ("pci_bus", false),
            ("0000:01", false),
            ("", false),
        ] {
            assert_eq!(is_bdf(name), is, "{name}");
        }
    }

    #[test]
    fn paths_of_a_pf() {
        let port = Topology::igb().ports[0].clone();
        let pf = Pf { function: port.functions[0].clone(), port, bdf: "0000:01:00.0".to_owned() };
        assert_eq!(pf.attribute("remove"), "/sys/devices/pci0000:00/0000:00:10.0/0000:01:00.0/remove");
    }
}
