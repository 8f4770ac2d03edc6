//! Saving a booted guest to a file, and starting others from it.
//!
//! QEMU's migration to and from a file does it (`docs/devel/migration/main.rst`). A snapshot is taken of a guest whose
//! agent has said hello and that has no VFs: QEMU before mid-2025 gets the state of SR-IOV devices wrong when VFs are
//! enabled (CVE-2025-54566, CVE-2025-54567).

use std::path::Path;
use std::time::Duration;

use guest_protocol::Command;
use qapi::qmp;

use super::argv::Machine;
use super::event_log::WaitError;
use super::qmp::{Qmp, QmpError};
use super::{BootError, Connected, Recorders, Vm};

/// How long QEMU may take to write or read some 30 MB.
const TRANSFER: Duration = Duration::from_secs(60);

/// A guest could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// QEMU refused.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU did not get to the end of it.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// QEMU says that it failed, and not why.
    #[error("QEMU could not {0} the guest's state")]
    Failed(&'static str),
}

impl Vm {
    /// Saves the guest to a file, and lets it go on.
    ///
    /// # Errors
    /// [`SnapshotError`]. The guest may stand still then.
    pub async fn save(&self, file: &Path) -> Result<(), SnapshotError> {
        let qmp = self.qmp();
        report_migration(qmp).await?;
        qmp.execute(qmp::stop {}).await?;
        let from = qmp.events().position();
        let (channels, detach, resume) = Default::default();
        qmp.execute(qmp::migrate { channels, detach, resume, uri: Some(uri(file)) }).await?;
        transferred(qmp, from, "save").await?;
        qmp.execute(qmp::cont {}).await?;
        Ok(())
    }

    /// Starts QEMU with the state of a guest that was saved, and waits until its agent answers. The machine must be the
    /// one that was saved.
    ///
    /// # Errors
    /// [`BootError`].
    pub async fn restore(
        machine: Machine,
        recorders: Recorders,
        file: &Path,
        within: Duration,
    ) -> Result<Vm, BootError> {
        let mut connected = Connected::start(machine, recorders, &["-incoming", "defer"], within).await?;
        incoming(&connected.qmp, file).await.map_err(|error| BootError::Qemu(error.to_string()))?;
        let hello = async {
            connected.agent.call(Command::Hello, within).await?;
            connected.agent.hello(within).await
        };
        let hello = hello.await;
        connected.steps.restore = Some(connected.since_last_step());
        connected.heard(hello)
    }
}

async fn incoming(qmp: &Qmp, file: &Path) -> Result<(), SnapshotError> {
    report_migration(qmp).await?;
    let from = qmp.events().position();
    let (channels, exit_on_error) = Default::default();
    qmp.execute(qmp::migrate_incoming { channels, exit_on_error, uri: Some(uri(file)) }).await?;
    transferred(qmp, from, "restore").await?;
    // It was saved standing still, and comes back so.
    qmp.execute(qmp::cont {}).await?;
    Ok(())
}

/// Has QEMU send an event for each step of a migration: nothing has to poll for its end.
async fn report_migration(qmp: &Qmp) -> Result<(), QmpError> {
    let events = qmp::MigrationCapabilityStatus { capability: qmp::MigrationCapability::events, state: true };
    qmp.execute(qmp::migrate_set_capabilities { capabilities: vec![events] }).await?;
    Ok(())
}

async fn transferred(qmp: &Qmp, from: usize, what: &'static str) -> Result<(), SnapshotError> {
    let ended = |event: &qmp::Event| match event {
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

fn uri(file: &Path) -> String {
    format!("file:{}", file.display())
}
