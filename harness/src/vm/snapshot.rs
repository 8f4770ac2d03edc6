//! Saving a booted guest to a folder, and starting other guests from it.
//!
//! The saved guest has its memory in a file from the start, and QEMU's migration to a file leaves that memory out
//! (capability `x-ignore-shared`; `migrate_ram_is_ignored()` in QEMU's `migration/ram.c`). Restored guests map the file
//! privately: a page is read only when it is used, and pages that a guest does not write are shared with all other
//! guests through the page cache. The capability leaves out only shared memory that is backed by a named file; the
//! restored guest may map that memory privately (QEMU commit b17fbbe55cba). The saved guest must end, as it would
//! continue to write to the file.
//!
//! A guest is saved while it has no VFs, and after the agent has sent the whole log of the boot; otherwise each restored
//! guest would send it again.
//!
//! QEMU 10.0.0 to 10.0.3 restores a wrong state of SR-IOV devices (CVE-2025-54566, CVE-2025-54567), unless the
//! distribution mended it, as Debian did in its 10.0.2. There, also a guest without VFs restores wrongly: NumVFs is
//! read-only until VFs were disabled once (`register_vfs()` in `hw/pci/pcie_sriov.c`). `--verify-snapshots` shows whether
//! any verdict depends on that.

use std::fs;
use std::path::Path;
use std::time::Duration;

use guest_protocol::{Command, Progress};
use qapi::qmp;

use super::agent::AgentError;
use super::argv::{self, Machine};
use super::drive::{DriveError, Driver, Turn};
use super::event_log::WaitError;
use super::gate::Gate;
use super::qmp::{Qmp, QmpError, QmpEvent};
use super::{BootError, Connected, KillError, Recorders, Vm};

/// How long QEMU may take to write or read the state of its devices (half a megabyte). Also the deadline of its end.
const TRANSFER: Duration = Duration::from_secs(60);

/// How long QEMU may take to take a command. If that is too short, the guest is not saved.
const TAKEN: Duration = Duration::from_millis(100);

/// The guest's memory, in a snapshot's folder.
const MEMORY: &str = "memory";
/// QEMU's state of all devices and CPUs.
const STATE: &str = "state";
/// The messages of the agent until then, one on each line.
const MESSAGES: &str = "agent.jsonl";

/// The first number of operations of restored guests. Operations before the save are numbered from 1.
const RESTORED: u64 = 1001;

/// A guest could not be saved, or not be restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The guest did not boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A QMP command failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The migration did not end in time, or QEMU ended first.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// A request to the agent failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// QEMU reported that the migration failed. It gives no reason.
    #[error("QEMU could not {0} the guest's state")]
    Failed(&'static str),
    /// The guest could not be driven to the point where it is saved.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The guest ran past the point where it is saved.
    #[error("QEMU stopped the guest too late")]
    Passed,
    /// QEMU did not quit normally.
    #[error(transparent)]
    End(#[from] KillError),
    /// The messages of the guest could not be written to the folder.
    #[error("cannot write the guest's messages: {0}")]
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
        let qmp = vm.qmp();
        prepare_migration(qmp).await?;
        match vm.gate() {
            None => {
                vm.agent().log_complete(within).await?;
                qmp.execute(qmp::stop {}).await?;
            }
            Some(gate) => stop_held(&vm, gate, within).await?,
        }
        let from = qmp.events().position();
        let uri = Some(uri(folder));
        qmp.execute(qmp::migrate { uri, channels: None, detach: None, resume: None }).await?;
        transferred(qmp, from, "save").await?;
        let said = vm.agent().messages().collect(0, |message| guest_protocol::encode(message).ok());
        fs::write(folder.join(MESSAGES), said.concat()).map_err(SnapshotError::Said)?;
        Ok(vm.kill(TRANSFER).await?)
    }

    /// Starts QEMU with the state of a saved guest, and waits until its agent answers. The machine must have the same
    /// configuration as the saved one.
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
        let hello = match &connected.gate {
            None => hello.await,
            Some(gate) => {
                *gate.turn().await = Turn::restored();
                let driver = Driver { gate, agent: &connected.agent, qmp: &connected.qmp };
                driver.run(hello).await.map_err(|error| BootError::Qemu(error.to_string()))?
            }
        };
        connected.steps.restore = Some(connected.since_last_step());
        connected.with_hello(hello)
    }
}

/// Stops a held guest for a save. It executes a marker, a system call and a marker for that. QEMU stops virtual CPUs at
/// the end of a block of instructions, so they must run. They stop behind the first marker, and at the second one each
/// restored guest stands before anything else has happened.
async fn stop_held(vm: &Vm, gate: &Gate, within: Duration) -> Result<(), SnapshotError> {
    let save = async {
        vm.agent().log_complete(within).await?;
        // The thread of alarms is part of the snapshot then.
        vm.agent().call(Command::Alarm { at: 0 }, within).await?;
        let save = vm.agent().start(Command::Save).await?;
        let saving = |progress: &Progress| (*progress == Progress::Saving).then_some(());
        save.progress(within, "the guest to be ready for a save", saving).await
    };
    vm.drive(save).await??;
    let stops = gate.stops();
    let go = async {
        // QEMU does not answer before the virtual CPUs have stopped, so nothing tells when it has taken the command.
        tokio::time::sleep(TAKEN).await;
        gate.go().await
    };
    let (stopped, gone) = tokio::join!(vm.qmp().execute(qmp::stop {}), go);
    stopped?;
    gone.map_err(DriveError::from)?;
    if gate.stops() == stops { Ok(()) } else { Err(SnapshotError::Passed) }
}

/// The messages of a guest from before the save, one on each line, for the transcript of a restored guest.
///
/// # Errors
/// Those of the file system.
pub fn said(folder: &Path) -> std::io::Result<String> {
    fs::read_to_string(folder.join(MESSAGES))
}

/// QEMU's arguments for memory in a file of this folder: shared (`share` is `on`), or private with copy-on-write
/// (`off`).
fn memory(machine: &Machine, folder: &Path, share: &str) -> [String; 4] {
    let path = argv::text(&folder.join(MEMORY));
    let size = machine.memory_mib;
    let object = format!("memory-backend-file,id=memory,size={size}M,mem-path={path},share={share}");
    ["-object".to_owned(), object, "-machine".to_owned(), "memory-backend=memory".to_owned()]
}

async fn incoming(qmp: &Qmp, folder: &Path) -> Result<(), SnapshotError> {
    prepare_migration(qmp).await?;
    // After a migration QEMU announces the guest's network cards, with packets at times of the host's real clock
    // (`net/announce.c`). Such a timer also ends the turns of virtual CPUs early (`icount_get_limit()` in
    // `accel/tcg/tcg-accel-ops-icount.c`).
    let quiet = qmp::MigrateSetParameters { announce_rounds: Some(0), ..Default::default() };
    qmp.execute(qmp::migrate_set_parameters(quiet)).await?;
    let from = qmp.events().position();
    let uri = Some(uri(folder));
    qmp.execute(qmp::migrate_incoming { uri, channels: None, exit_on_error: None }).await?;
    transferred(qmp, from, "restore").await?;
    // The guest was saved in stopped state, and is restored in that state.
    qmp.execute(qmp::cont {}).await?;
    Ok(())
}

/// Makes QEMU leave out the memory, and send an event for each step of a migration, so that the harness need not poll.
async fn prepare_migration(qmp: &Qmp) -> Result<(), QmpError> {
    use qmp::MigrationCapability::{events, x_ignore_shared};
    let on = |capability| qmp::MigrationCapabilityStatus { capability, state: true };
    qmp.execute(qmp::migrate_set_capabilities { capabilities: vec![on(events), on(x_ignore_shared)] }).await?;
    Ok(())
}

async fn transferred(qmp: &Qmp, from: usize, what: &'static str) -> Result<(), SnapshotError> {
    let ended = |event: &QmpEvent| match event {
        QmpEvent::Sent(qmp::Event::MIGRATION { data, .. }) => match data.status {
            qmp::MigrationStatus::completed => Some(true),
            qmp::MigrationStatus::failed | qmp::MigrationStatus::cancelled => Some(false),
            _ => None,
        },
        _ => None,
    };
    let awaited = format!("QEMU to {what} the guest's state");
    let host = qmp.events().time().of_host();
    let completed = qmp.events().wait_by(&host, from, TRANSFER, &awaited, ended).await?;
    if completed { Ok(()) } else { Err(SnapshotError::Failed(what)) }
}

fn uri(folder: &Path) -> String {
    format!("file:{}", folder.join(STATE).display())
}
