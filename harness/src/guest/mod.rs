//! A guest with the operations that scenarios use: its PFs and VFs, their owners, removals, and the notes taken.

mod aftermath;
mod again;
mod agreement;
mod at;
mod calls;
mod census;
mod check;
mod cpus;
mod death;
mod device;
mod ending;
mod error;
mod ever;
mod find;
mod gadget;
mod grant;
mod hardware;
mod holder;
mod hotplug;
mod left;
mod noting;
mod owner;
mod place;
mod program;
mod proof;
mod registers;
mod removal;
mod reset;
mod restored;
mod script;
mod selftest;
mod sriov;
mod stuck;
mod sweep;
mod terminal;
mod words;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guest_protocol::{Command, Progress, Sched, Source};
use kernels::{KnownReport, Selftests, SourceLines};

pub use aftermath::Back;
pub use at::Stopping;
pub use calls::{OpenDevice, UserDriver};
pub use check::{Halt, judged, must};
pub use cpus::RUNNING;
pub use device::{Device, Pf, Slot};
pub use ending::Ending;
pub use error::Error;
pub(crate) use find::Hardware;
pub use gadget::{Hold, RESCAN_LOCK};
pub use hardware::{Field, Register, Registers, register};
pub use hotplug::{AerError, Plugged, Pressed};
pub use owner::Owner;
pub use program::{Program, Ran};
pub use reset::ResetMethod;
pub use sriov::ENABLES_VFS;
pub use stuck::{Came, Stuck, WAITS_FOR_OWNER};
pub use sweep::Sweeping;

use removal::Removal;

use crate::classify::{self, Splat};
use crate::notes::Cycled;
use crate::notes::Notes;
use crate::script::{Script, Terminal};
use crate::trigger::Trigger;
use crate::vm::Vm;
use crate::vm::agent::{Agent, Operation};
use crate::vm::scale::Scale;
use crate::waits::{Graph, Kernel};

/// The guest that a scenario runs on.
pub struct Guest {
    vm: Arc<Vm>,
    scale: Scale,
    trigger: Option<Trigger>,
    /// Kernel reports that the profile knows: they make no cell fail.
    known: Vec<KnownReport>,
    hardware: Hardware,
    removals: tokio::sync::Mutex<Vec<Removal>>,
    /// Cards plugged in so far.
    plugs: AtomicUsize,
    notes: Mutex<Notes>,
    of_kernel: OfKernel,
    /// The hardware before the scenario.
    before: Mutex<Vec<restored::Before>>,
    /// Who waited for whom when a deadlock was last proven.
    proven: Mutex<Option<Graph>>,
    /// Which repeat of the cell this is, from 1.
    repeat: u32,
    /// The script that is the scenario, if it is one.
    script: Option<&'static Script>,
    /// A terminal for its shell.
    terminal: Option<&'static Terminal>,
}

/// What is known of the kernel of a guest.
#[derive(Clone, Default)]
pub struct OfKernel {
    /// Its vfio selftests, if the scenario needs them.
    pub selftests: Option<Selftests>,
    /// What looks at its guests need. Without it there are no looks.
    pub looks: Option<Arc<Kernel>>,
    /// Its source lines, if it has any.
    pub lines: Option<Arc<SourceLines>>,
}

/// The deadline of an operation that has nothing to wait for, on a machine with KVM, in seconds. It is long, as it only
/// limits how long the harness waits before it gives up.
const PROMPT: f64 = 20.0;

const SIGKILL: i32 = 9;

/// Longer than any cell.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

impl Guest {
    /// A booted guest with this hardware, as [`Hardware::find`] finds it.
    pub(crate) fn new(
        vm: Arc<Vm>,
        hardware: Hardware,
        trigger: Option<Trigger>,
        scale: Scale,
        known: &[KnownReport],
        of_kernel: OfKernel,
        repeat: u32,
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
            of_kernel,
            before: Mutex::default(),
            proven: Mutex::default(),
            repeat,
            script: None,
            terminal: None,
        }
    }

    /// The same guest, with the script that [`Guest::script`] runs, and a terminal for its shell.
    pub(crate) fn with(self, script: Option<&'static Script>, terminal: Option<&'static Terminal>) -> Guest {
        Guest { script, terminal, ..self }
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

    /// The agent, for commands that have no method here.
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

    /// The deadline of operations that have nothing to wait for.
    pub fn prompt(&self) -> Duration {
        self.scale.seconds(PROMPT)
    }

    /// Starts to read an attribute in a separate process.
    ///
    /// # Errors
    /// The agent's.
    pub async fn read(&self, path: String) -> Result<Operation, Error> {
        Ok(self.agent().start(Command::Read { path }).await?)
    }

    /// Starts to write an attribute in a separate process.
    ///
    /// # Errors
    /// The agent's.
    pub async fn write(&self, path: String, data: impl ToString, sched: Sched) -> Result<Operation, Error> {
        Ok(self.agent().start(Command::Write { path, data: data.to_string(), at: 0, sched }).await?)
    }

    /// Starts to write at an offset of a file in a separate process.
    ///
    /// # Errors
    /// The agent's.
    pub async fn write_at(&self, path: String, at: u64, data: &str, sched: Sched) -> Result<Operation, Error> {
        Ok(self.agent().start(Command::Write { path, data: data.to_owned(), at, sched }).await?)
    }

    /// Starts to write into the configuration space of a device in a separate process. The write waits while the kernel
    /// blocks access to that space (`drivers/pci/access.c`, `pci_wait_cfg()`).
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
        self.write_at(device.as_ref().attribute("config"), at, data, sched).await
    }

    /// Starts an event-driven reader. Returns when it is armed: from then on it misses no event.
    ///
    /// # Errors
    /// The agent's.
    pub async fn watch(&self, source: Source, read: Vec<String>, sched: Sched) -> Result<Operation, Error> {
        let operation = self.agent().start(Command::Watch { source, read, sched }).await?;
        let watching = |progress: &Progress| matches!(progress, Progress::Watching).then_some(());
        operation.progress(self.prompt(), "the reader to be armed", watching).await?;
        Ok(operation)
    }

    /// Stops an event-driven reader, and waits until it has reported all events.
    ///
    /// # Errors
    /// The agent's.
    pub async fn stop(&self, operation: &Operation) -> Result<(), Error> {
        self.agent().call(Command::Stop { target: operation.id() }, self.prompt()).await?;
        operation.done(self.prompt()).await?;
        Ok(())
    }

    /// Stops a cycle of writes at the end of its current round.
    ///
    /// # Errors
    /// The agent's.
    pub async fn stop_cycle(&self, cycle: &Operation) -> Result<Cycled, Error> {
        self.agent().call(Command::Stop { target: cycle.id() }, self.prompt()).await?;
        Ok(cycle.cycled(self.prompt()).await?)
    }

    /// Kills the process of an operation. It ends when it leaves the kernel, which may be never.
    ///
    /// # Errors
    /// The agent's.
    pub async fn kill(&self, operation: &Operation) -> Result<(), Error> {
        self.agent().call(Command::Kill { target: operation.id(), signal: SIGKILL }, self.prompt()).await?;
        Ok(())
    }

    /// Removes a PF by the cell's trigger. The proof that the removal took the trigger's path is asked for at the end
    /// of the cell.
    ///
    /// # Errors
    /// QMP's or the agent's; [`Error::Unprepared`] if the cell has no trigger.
    pub async fn remove(&self, pf: &Pf) -> Result<(), Error> {
        self.remove_by(pf, self.trigger()?).await
    }

    /// Removes a PF by a trigger that the scenario chooses. The proof that the removal took the trigger's path is asked
    /// for at the end of the cell.
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

    /// The PF that was removed first, and its trigger.
    pub(crate) async fn first_removed(&self) -> Option<(Pf, Trigger)> {
        self.removals.lock().await.first().map(|removal| (removal.pf().clone(), removal.trigger()))
    }

    /// Proof of the path that each removal took.
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

    /// The first fatal kernel report so far, from `/dev/kmsg`. It serves to stop early. The verdict is drawn from the
    /// console, which loses fewer messages.
    pub fn complaint(&self) -> Option<Splat> {
        let log = self.said(0, "").join("\n");
        classify::classify_knowing(&log, &self.known).into_iter().find(Splat::is_fatal)
    }

    /// The kernel's messages of level "error" and above since a position, in the form of [`classify::errors`], each once.
    /// What the agent has sent by now counts: the checks after a scenario take longer than a message.
    ///
    /// # Errors
    /// [`Error::Lost`] if messages were lost.
    pub(crate) fn errors(&self, from: usize) -> Result<Vec<String>, Error> {
        self.heard_all("kmsg", from)?;
        Ok(classify::errors::distinct(self.agent().messages().collect(from, classify::errors::error)))
    }

    /// Checks that no message of a stream was lost since this position. Only then the absence of a message proves that
    /// the event did not happen.
    ///
    /// # Errors
    /// [`Error::Lost`] if messages of the stream were lost.
    pub fn heard_all(&self, stream: &str, from: usize) -> Result<(), Error> {
        Ok(self.agent().heard_all(stream, from)?)
    }
}
