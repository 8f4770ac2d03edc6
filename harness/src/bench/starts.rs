//! How long guests take to start, alternating between boots and restores from a snapshot.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kernels::cache::Cache;
use tempfile::TempDir;

use super::{Measurement, Unit, cpu_of_children, median};
use crate::lab::snapshots::Snapshots;
use crate::matrix::judge;
use crate::notes::Steps;
use crate::vm::argv::Machine;
use crate::vm::scale::Scale;
use crate::vm::{BootError, KillError, Recorders, Vm};

/// How long QEMU may take to quit, on a machine with KVM, in seconds.
const QUIT: f64 = 5.0;

/// Why a guest could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It did not boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Its QEMU did not quit on request.
    #[error("after a guest was measured: {0}")]
    End(KillError),
    /// The folder for its console could not be created.
    #[error("cannot create a folder for consoles")]
    Folder(#[from] std::io::Error),
    /// A guest that should have been restored from a snapshot booted.
    #[error("a guest booted instead of being restored: saving or restoring a snapshot fails on this machine")]
    NoSnapshot,
}

/// The measurement of one start.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// How long each step took.
    pub steps: Steps,
    /// QEMU's CPU time until it exited, in seconds.
    pub cpu: f64,
}

/// Starts guests on one machine, one after the other.
pub struct Starter {
    machine: Machine,
    folder: TempDir,
    snapshots: Snapshots,
}

impl Starter {
    /// A starter for guests on a machine. It has its own snapshots, which are deleted with it. `qemu` is the version
    /// that QEMU prints.
    ///
    /// # Errors
    /// If no temporary folder can be made.
    pub fn new(machine: Machine, qemu: String) -> Result<Starter, StartError> {
        let folder = tempfile::tempdir()?;
        let snapshots = Snapshots::new(Cache::at(folder.path().join("cache")), qemu);
        Ok(Starter { machine, folder, snapshots })
    }

    /// The machine of the guests.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Sets the kernel of the guests that start after this.
    pub fn use_kernel(&mut self, kernel: PathBuf) {
        self.machine.kernel = kernel;
    }

    /// Boots a guest and ends it.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn boot(&self) -> Result<Start, StartError> {
        self.measured(Vm::boot(self.machine.clone(), self.recorders(), self.within())).await
    }

    /// Starts a guest from a snapshot and ends it. The first call boots a guest and takes the snapshot.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn restore(&self) -> Result<Start, StartError> {
        self.measured(self.snapshots.start(self.machine.clone(), self.recorders(), self.within())).await
    }

    async fn measured(&self, start: impl Future<Output = Result<Vm, BootError>>) -> Result<Start, StartError> {
        let before = cpu_of_children();
        let vm = start.await?;
        let steps = vm.steps();
        let quit = Scale::of(self.machine.accel).seconds(QUIT);
        vm.kill(quit).await.map_err(StartError::End)?;
        Ok(Start { steps, cpu: cpu_of_children() - before })
    }

    fn within(&self) -> Duration {
        Scale::of(self.machine.accel).seconds(judge::BOOT)
    }

    fn recorders(&self) -> Recorders {
        Recorders {
            console: self.folder.path().join("console.log"),
            qmp: Arc::new(|_, _| {}),
            agent: Arc::new(|_, _| {}),
        }
    }
}

/// Boots and restores guests alternately, `count` of each.
///
/// # Errors
/// [`StartError`].
pub async fn measure(starter: &Starter, count: usize, measurement: &mut Measurement) -> Result<(), StartError> {
    // Takes the snapshot, and brings kernel and QEMU into the host's page cache.
    starter.restore().await?;
    let (mut booted, mut restored) = (Vec::new(), Vec::new());
    for _ in 0..count {
        booted.push(starter.boot().await?);
        restored.push(starter.restore().await?);
    }
    if restored.iter().any(|start| start.steps.restore.is_none()) {
        return Err(StartError::NoSnapshot);
    }
    add_medians("cold boot", &booted, measurement);
    add_medians("restored start", &restored, measurement);
    let over = |of: fn(&Start) -> f64| {
        median(booted.iter().zip(&restored).map(|(booted, restored)| of(restored) / of(booted))).unwrap_or(f64::NAN)
    };
    measurement.add("restored start / cold boot, median of pairs", over(|start| start.steps.total()), Unit::Ratio);
    measurement.add(
        "CPU time of QEMU, restored start / cold boot, median of pairs",
        over(|start| start.cpu),
        Unit::Ratio,
    );
    Ok(())
}

/// The time of one step of a start, in seconds.
type Of = fn(&Steps) -> Option<f64>;

/// Adds the medians of some starts and of their steps.
fn add_medians(name: &str, starts: &[Start], measurement: &mut Measurement) {
    let steps: [(&str, Of); 5] = [
        ("", |steps| Some(steps.total())),
        (": qemu, until the QMP greeting", |steps| steps.qemu),
        (": kernel, until the first byte on the console", |steps| steps.kernel),
        (": agent, until its hello", |steps| steps.agent),
        (": restore, until the agent answers", |steps| steps.restore),
    ];
    for (step, of) in steps {
        if let Some(seconds) = median(starts.iter().filter_map(|start| of(&start.steps))) {
            measurement.add(format!("{name}{step}"), seconds, Unit::Seconds);
        }
    }
    if let Some(cpu) = median(starts.iter().map(|start| start.cpu)) {
        measurement.add(format!("{name}: CPU time of QEMU until its exit"), cpu, Unit::CpuSeconds);
    }
}
