//! How long guests take to come up: booted, and from a snapshot, by turns.

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
use crate::vm::{BootError, Recorders, Vm};

/// How long QEMU may take to quit, on a machine with KVM, in seconds.
const QUIT: f64 = 5.0;

/// A guest could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It did not come up.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Its QEMU did not end as it was told.
    #[error("after a guest was measured: {0}")]
    End(String),
    /// There is no room for its console.
    #[error("cannot make a folder for consoles")]
    Folder(#[from] std::io::Error),
    /// A guest that should have come from a snapshot booted.
    #[error("no guest came from a snapshot: saving or restoring fails here")]
    NoSnapshot,
}

/// A start, as measured.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Its steps.
    pub steps: Steps,
    /// QEMU's CPU time, until it had ended.
    pub cpu: f64,
}

/// Starts guests on one machine, one after the other.
pub struct Starter {
    machine: Machine,
    folder: TempDir,
    snapshots: Snapshots,
}

impl Starter {
    /// Guests on a machine, with snapshots of its own, which go with it. `qemu` is what QEMU says of its version.
    ///
    /// # Errors
    /// If no temporary folder can be made.
    pub fn new(machine: Machine, qemu: String) -> Result<Starter, StartError> {
        let folder = tempfile::tempdir()?;
        let snapshots = Snapshots::new(Cache::at(folder.path().join("cache")), qemu);
        Ok(Starter { machine, folder, snapshots })
    }

    /// What the guests are made of.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Another kernel for those to come.
    pub fn use_kernel(&mut self, kernel: PathBuf) {
        self.machine.kernel = kernel;
    }

    /// Boots a guest, and ends it.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn boot(&self) -> Result<Start, StartError> {
        self.measured(Vm::boot(self.machine.clone(), self.recorders(), self.within())).await
    }

    /// Starts a guest from a snapshot, and ends it. The first boots, and takes the snapshot.
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

/// Boots and restores guests by turns, this many of each.
///
/// # Errors
/// [`StartError`].
pub async fn measure(starter: &Starter, count: usize, measurement: &mut Measurement) -> Result<(), StartError> {
    // Takes the snapshot, and brings kernel and QEMU into the host's memory.
    starter.restore().await?;
    let (mut booted, mut restored) = (Vec::new(), Vec::new());
    for _ in 0..count {
        booted.push(starter.boot().await?);
        restored.push(starter.restore().await?);
    }
    if restored.iter().any(|start| start.steps.restore.is_none()) {
        return Err(StartError::NoSnapshot);
    }
    tell("cold boot", &booted, measurement);
    tell("restored start", &restored, measurement);
    let over = |of: fn(&Start) -> f64| {
        median(booted.iter().zip(&restored).map(|(booted, restored)| of(restored) / of(booted))).unwrap_or(f64::NAN)
    };
    measurement.add("restored start / cold boot, median of pairs", over(|start| start.steps.total()), Unit::Ratio);
    measurement.add("the same in CPU time of QEMU", over(|start| start.cpu), Unit::Ratio);
    Ok(())
}

/// One step of a start.
type Of = fn(&Steps) -> Option<f64>;

/// The medians of some starts and of their steps.
fn tell(name: &str, starts: &[Start], measurement: &mut Measurement) {
    let steps: [(&str, Of); 5] = [
        ("", |steps| Some(steps.total())),
        (": qemu, until it greets", |steps| steps.qemu),
        (": kernel, until its first words", |steps| steps.kernel),
        (": agent, until its hello", |steps| steps.agent),
        (": restore, until its answer", |steps| steps.restore),
    ];
    for (step, of) in steps {
        if let Some(seconds) = median(starts.iter().filter_map(|start| of(&start.steps))) {
            measurement.add(format!("{name}{step}"), seconds, Unit::Seconds);
        }
    }
    if let Some(cpu) = median(starts.iter().map(|start| start.cpu)) {
        measurement.add(format!("{name}: QEMU's CPU time until it has ended"), cpu, Unit::CpuSeconds);
    }
}
