//! Saving a booted guest to a folder, and starting others from it.
//!
//! The guest that is saved has its memory in a file from the start, and QEMU's migration to a file leaves that memory out
//! (capability `x-ignore-shared`; `migrate_ram_is_ignored()` in QEMU's `migration/ram.c`). Guests that are restored map
//! the file as theirs alone: nothing of it is read before it is used, and what a guest does not write it shares with all
//! others through the page cache. The capability leaves out memory that is shared and has a file's name; memory mapped
//! as one's own may take its place at the other end (QEMU commit b17fbbe55cba). So the saved guest ends: it would write on.
//!
//! A guest is saved when it has no VFs: QEMU before mid-2025 gets the state of SR-IOV devices wrong when VFs are enabled
//! (CVE-2025-54566, CVE-2025-54567). And when it has told all of its log of the boot, which would otherwise be told anew
//! by each guest that is restored.

use std::fs;
use std::path::Path;
use std::time::Duration;

use guest_protocol::Command;
use qapi::qmp;

use super::agent::AgentError;
use super::argv::{self, Machine};
use super::event_log::WaitError;
use super::qmp::{Qmp, QmpError, QmpEvent};
use super::{BootError, Connected, KillError, Recorders, Vm};

/// How long QEMU may take to write or read its devices' state, half a megabyte, and to end then.
const TRANSFER: Duration = Duration::from_secs(60);

/// The guest's memory, in a snapshot's folder.
const MEMORY: &str = "memory";
/// QEMU's state of everything else.
const STATE: &str = "state";
/// What the agent had said by then, a message a line.
const SAID: &str = "agent.jsonl";

/// Operations of restored guests are numbered from here on, those before they were saved from 1.
const RESTORED: u64 = 1001;

/// A guest could not be saved, or not be restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It did not come up.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// QEMU refused.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU or the guest did not get to the end of it.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The guest did not do its part.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// QEMU says that it failed, and not why.
    #[error("QEMU could not {0} the guest's state")]
    Failed(&'static str),
    /// QEMU did not end as told.
    #[error(transparent)]
    End(#[from] KillError),
    /// What the guest had said could not be written down.
    #[error("cannot write what the guest said: {0}")]
    Said(#[source] std::io::Error),
}

impl Vm {
    /// Boots a guest, saves it to a folder, and ends it.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub(crate) async fn boot_and_save(
        machine: Machine,
        recorders: Recorders,
        folder: &Path,
        within: Duration,
    ) -> Result<(), SnapshotError> {
        let memory = memory(&machine, folder, "on");
        let vm = Vm::boot_with(&memory.each_ref().map(String::as_str), machine, recorders, within).await?;
        vm.agent().told_all(within).await?;
        let qmp = vm.qmp();
        prepare_migration(qmp).await?;
        qmp.execute(qmp::stop {}).await?;
        let from = qmp.events().position();
        let uri = Some(uri(folder));
        qmp.execute(qmp::migrate { uri, channels: None, detach: None, resume: None }).await?;
        transferred(qmp, from, "save").await?;
        let said = vm.agent().messages().collect(0, |message| guest_protocol::encode(message).ok());
        fs::write(folder.join(SAID), said.concat()).map_err(SnapshotError::Said)?;
        Ok(vm.kill(TRANSFER).await?)
    }

    /// Starts QEMU with the state of a guest that was saved, and waits until its agent answers. The machine must be the
    /// one that was saved.
    ///
    /// # Errors
    /// [`BootError`].
    pub(crate) async fn restore(
        machine: Machine,
        recorders: Recorders,
        folder: &Path,
        within: Duration,
    ) -> Result<Vm, BootError> {
        let memory = memory(&machine, folder, "off");
        let more = [memory.each_ref().map(String::as_str).as_slice(), &["-incoming", "defer"]].concat();
        let mut connected = Connected::start(machine, recorders, &more, within).await?;
        connected.agent.number_from(RESTORED);
        incoming(&connected.qmp, folder).await.map_err(|error| BootError::Qemu(error.to_string()))?;
        let hello = async {
            connected.agent.call(Command::Hello, within).await?;
            connected.agent.hello(within).await
        };
        let hello = hello.await;
        connected.steps.restore = Some(connected.since_last_step());
        connected.heard(hello)
    }
}

/// What a guest had said before it was saved, a line each, for the transcript of one that is restored.
///
/// # Errors
/// Those of the file system.
pub fn said(folder: &Path) -> std::io::Result<String> {
    fs::read_to_string(folder.join(SAID))
}

/// QEMU's arguments for memory in a folder's file: its own (`share` is `on`), or a copy made as it is written to.
fn memory(machine: &Machine, folder: &Path, share: &str) -> [String; 4] {
    let path = argv::text(&folder.join(MEMORY));
    let size = machine.memory_mib;
    let object = format!("memory-backend-file,id=memory,size={size}M,mem-path={path},share={share}");
    ["-object".to_owned(), object, "-machine".to_owned(), "memory-backend=memory".to_owned()]
}

async fn incoming(qmp: &Qmp, folder: &Path) -> Result<(), SnapshotError> {
    prepare_migration(qmp).await?;
    let from = qmp.events().position();
    let uri = Some(uri(folder));
    qmp.execute(qmp::migrate_incoming { uri, channels: None, exit_on_error: None }).await?;
    transferred(qmp, from, "restore").await?;
    // It was saved standing still, and comes back so.
    qmp.execute(qmp::cont {}).await?;
    Ok(())
}

/// Has QEMU leave out the memory, and send an event for each step of a migration: nothing has to poll for its end.
async fn prepare_migration(qmp: &Qmp) -> Result<(), QmpError> {
    use qmp::MigrationCapability::{events, x_ignore_shared};
    let on = |capability| qmp::MigrationCapabilityStatus { capability, state: true };
    qmp.execute(qmp::migrate_set_capabilities { capabilities: vec![on(events), on(x_ignore_shared)] }).await?;
    Ok(())
}

async fn transferred(qmp: &Qmp, from: usize, what: &'static str) -> Result<(), SnapshotError> {
    let ended = |QmpEvent(event): &QmpEvent| match event {
        qmp::Event::MIGRATION { data, .. } => match data.status {
            qmp::MigrationStatus::completed => Some(true),
            qmp::MigrationStatus::failed | qmp::MigrationStatus::cancelled => Some(false),
            _ => None,
        },
        _ => None,
    };
    let awaited = format!("QEMU to {what} the guest's state");
    let completed = qmp.events().wait(from, TRANSFER, &awaited, ended).await?;
    if completed { Ok(()) } else { Err(SnapshotError::Failed(what)) }
}

fn uri(folder: &Path) -> String {
    format!("file:{}", folder.join(STATE).display())
}
