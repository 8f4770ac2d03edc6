//! A guest in the words of scenarios: its PFs and VFs, their owners, removals, and what was noted on the way.

mod aftermath;
mod agreement;
mod cpus;
mod death;
mod device;
mod ending;
mod error;
mod find;
mod gadget;
mod grant;
mod hotplug;
mod noting;
mod owner;
mod place;
mod removal;
mod reset;
mod sriov;
mod stuck;
mod sweep;

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use guest_protocol::{Command, Progress, Sched, Source};
use kernels::KnownReport;

pub use aftermath::Back;
pub use device::{Device, Pf, Slot};
pub use ending::Ending;
pub use error::Error;
pub(crate) use find::Hardware;
pub use gadget::{Hold, RESCAN_LOCK};
pub use hotplug::{AerError, Plugged, Pressed};
pub use owner::Owner;
pub use reset::ResetMethod;
pub use sriov::ENABLES_VFS;
pub use stuck::{Came, Stuck, WAITS_FOR_OWNER};
pub use sweep::Sweeping;

use removal::Removal;

use crate::classify::{self, Splat};
use crate::notes::Cycled;
use crate::notes::Notes;
use crate::trigger::Trigger;
use crate::vm::Vm;
use crate::vm::agent::{Agent, Operation};
use crate::vm::scale::Scale;

/// A guest that a scenario works on.
pub struct Guest {
    vm: Vm,
    scale: Scale,
    trigger: Option<Trigger>,
    /// Reports of the kernel that are held against nobody.
    known: Vec<KnownReport>,
    hardware: Hardware,
    removals: tokio::sync::Mutex<Vec<Removal>>,
    /// Cards plugged in so far.
    plugs: AtomicUsize,
    notes: Mutex<Notes>,
}

/// How long an operation may take that has nothing to wait for, on a machine with KVM, in seconds. Generous, as nothing
/// but the harness's own patience depends on it.
const PROMPT: f64 = 20.0;

/// Longer than any cell.
const EVER: Duration = Duration::from_secs(24 * 3600);

impl Guest {
    /// A booted guest with this hardware, as [`Hardware::find`] finds it.
    pub(crate) fn new(
        vm: Vm,
        hardware: Hardware,
        trigger: Option<Trigger>,
        scale: Scale,
        known: &[KnownReport],
    ) -> Guest {
        Guest {
            vm,
            scale,
            trigger,
            known: known.to_vec(),
            hardware,
            removals: tokio::sync::Mutex::default(),
            plugs: AtomicUsize::new(0),
            notes: Mutex::default(),
        }
    }

    /// The first PF.
    ///
    /// # Errors
    /// [`Error::Unprepared`] if the topology has none.
    pub fn pf(&self) -> Result<&Pf, Error> {
        self.hardware.pfs.first().ok_or_else(|| Error::Unprepared("the topology has no PF".to_owned()))
    }

    /// The PF of this id.
    ///
    /// # Errors
    /// [`Error::Unprepared`] if the topology has no such PF.
    pub fn pf_named(&self, id: &str) -> Result<&Pf, Error> {
        let found = self.hardware.pfs.iter().find(|pf| pf.function.id == id);
        found.ok_or_else(|| Error::Unprepared(format!("the topology has no PF {id}")))
    }

    /// All PFs of the topology.
    pub fn pfs(&self) -> &[Pf] {
        &self.hardware.pfs
    }

    /// The slot of this id.
    ///
    /// # Errors
    /// [`Error::Unprepared`] if the topology has no such slot.
    pub fn slot(&self, id: &str) -> Result<&Slot, Error> {
        let found = self.hardware.slots.iter().find(|slot| slot.id == id);
        found.ok_or_else(|| Error::Unprepared(format!("the topology has no slot {id}")))
    }

    /// The cell's trigger.
    ///
    /// # Errors
    /// [`Error::Unprepared`] if the cell has none.
    pub fn trigger(&self) -> Result<Trigger, Error> {
        self.trigger.ok_or_else(|| Error::Unprepared("this cell has no trigger".to_owned()))
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
        Ok(self.agent().start(Command::Write { path, data: data.to_string(), at: 0, sched }).await?)
    }

    /// Starts to write into the configuration space of a device, from a process of its own. Where the kernel has locked
    /// that space, it waits (`drivers/pci/access.c`, `pci_wait_cfg()`).
    ///
    /// # Errors
    /// The agent's.
    pub async fn write_config(
        &self,
        device: impl AsRef<Device>,
        at: u64,
        data: &str,
        sched: Sched,
    ) -> Result<Operation, Error> {
        let path = device.as_ref().attribute("config");
        Ok(self.agent().start(Command::Write { path, data: data.to_owned(), at, sched }).await?)
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
    pub async fn stop(&self, operation: &Operation) -> Result<(), Error> {
        self.agent().call(Command::Stop { target: operation.id() }, self.prompt()).await?;
        operation.done(self.prompt()).await?;
        Ok(())
    }

    /// Ends a cycle of writes after its round.
    ///
    /// # Errors
    /// The agent's.
    pub async fn stop_cycle(&self, cycle: &Operation) -> Result<Cycled, Error> {
        self.agent().call(Command::Stop { target: cycle.id() }, self.prompt()).await?;
        Ok(cycle.cycled(self.prompt()).await?)
    }

    /// Removes a PF by the cell's trigger. That it went the way it should is proven when the cell ends.
    ///
    /// # Errors
    /// QMP's or the agent's; [`Error::Unprepared`] if the cell has no trigger.
    pub async fn remove(&self, pf: &Pf) -> Result<(), Error> {
        self.remove_by(pf, self.trigger()?).await
    }

    /// Removes a PF by a trigger of the scenario's own choice. That it went the way it should is proven when the cell ends.
    ///
    /// # Errors
    /// QMP's or the agent's.
    pub async fn remove_by(&self, pf: &Pf, trigger: Trigger) -> Result<(), Error> {
        let removal = Removal::start(&self.vm, pf, trigger).await?;
        self.removals.lock().await.push(removal);
        Ok(())
    }

    /// Waits until all removals are complete, with a deadline for each.
    ///
    /// # Errors
    /// A deadline, or a guest that ended.
    pub(crate) async fn removed_within(&self, within: Duration) -> Result<(), Error> {
        for removal in self.removals.lock().await.iter() {
            removal.completed(&self.vm, within).await?;
        }
        Ok(())
    }

    /// The PF that was removed first, and how.
    pub(crate) async fn first_removed(&self) -> Option<(Pf, Trigger)> {
        self.removals.lock().await.first().map(|removal| (removal.pf().clone(), removal.trigger()))
    }

    /// Proof of the way that each removal took.
    ///
    /// # Errors
    /// [`Error::WrongPath`].
    pub(crate) async fn proofs(&self) -> Result<Vec<String>, Error> {
        let mut proofs = Vec::new();
        for removal in self.removals.lock().await.iter() {
            proofs.push(removal.proof(&self.vm, self.prompt()).await?);
        }
        Ok(proofs)
    }

    /// The first thing that the kernel has complained of so far, by what came through `/dev/kmsg`: to stop early. The
    /// verdict is drawn from the console, which loses less.
    pub fn complaint(&self) -> Option<Splat> {
        let log = self.said(0, "").join("\n");
        classify::classify_knowing(&log, &self.known).into_iter().find(Splat::is_fatal)
    }

    /// Whether the silence of a stream since a position of the agent's messages proves anything.
    ///
    /// # Errors
    /// [`Error::Lost`] if messages of it were lost.
    pub fn heard_all(&self, stream: &str, from: usize) -> Result<(), Error> {
        Ok(self.agent().heard_all(stream, from)?)
    }

    /// Gives the machine back.
    pub(crate) fn into_vm(self) -> Vm {
        self.vm
    }
}
