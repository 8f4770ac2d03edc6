//! The test bed of a trial: a folder with a fake QEMU, and checks of its process.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use harness::text::duration;
use harness::trigger::Hotplug;
use harness::vm::Recorders;
use harness::vm::argv::{Accel, MEMORY_MIB, Machine};
use harness::vm::clock::Clock;
use harness::vm::topology::Topology;
use harness::vm::transcript::Recorder;
use libtest_mimic::Failed;
use tempfile::TempDir;

use crate::fake;

/// How soon QEMU must have ended after its owner.
const GONE: Duration = Duration::from_secs(2);

/// How long a process may take to start on a busy host.
pub const START: Duration = Duration::from_secs(15);

/// The polling interval for conditions that cause no event.
const POLL: Duration = Duration::from_millis(10);

/// A folder with a fake QEMU. One process of it runs at a time.
pub struct Bed {
    folder: TempDir,
    program: PathBuf,
}

impl Bed {
    /// A folder with a fake QEMU that shows this behaviour.
    pub fn new(behaviour: &str) -> Result<Bed, Failed> {
        let folder = tempfile::Builder::new().prefix("bad-luck-").tempdir()?;
        let program = folder.path().join(format!("{}{behaviour}", fake::PREFIX));
        if behaviour != "is-missing" {
            // A link rather than a script: a script that another thread's fork has open for writing cannot be executed.
            symlink(std::env::current_exe()?, &program)?;
        }
        Ok(Bed { folder, program })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of the fake QEMU.
    pub fn program(&self) -> OsString {
        self.program.clone().into()
    }

    /// A machine that the fake QEMU runs.
    pub fn machine(&self) -> Machine {
        machine(self.program())
    }

    /// Recorders that keep only the console.
    pub fn recorders(&self) -> Recorders {
        recorders(self.path(), Arc::new(|_, _| {}))
    }

    /// Waits until the process has started.
    pub async fn started(&self) -> Result<(), Failed> {
        let started = || self.path().join("pid").exists();
        until(START, "the fake QEMU to start", started).await
    }

    /// Waits until the process has ended and the folder of its sockets is removed. A process must have been started.
    pub async fn gone(&self) -> Result<(), Failed> {
        self.dead().await?;
        let sockets = self.sockets()?;
        until(GONE, &format!("{} to be removed", sockets.display()), || !sockets.exists()).await
    }

    /// Waits until the process has ended. A process must have been started.
    pub async fn dead(&self) -> Result<(), Failed> {
        let pid: u32 = fs::read_to_string(self.path().join("pid"))?.parse()?;
        until(GONE, &format!("process {pid} to end"), || is_dead(pid)).await
    }

    /// Checks that QEMU was started this many times.
    pub fn was_started(&self, times: usize) -> Result<(), Failed> {
        let counted = fs::read_to_string(self.path().join("starts"))?;
        if counted == times.to_string() {
            Ok(())
        } else {
            Err(format!("QEMU was started {counted} times, not {times}").into())
        }
    }

    fn sockets(&self) -> Result<PathBuf, Failed> {
        let argv = fs::read_to_string(self.path().join("argv"))?;
        let argv: Vec<_> = argv.lines().map(str::to_owned).collect();
        Ok(fake::path_of(&argv, "qmp").parent().ok_or("no folder of sockets")?.to_owned())
    }
}

/// A machine that this QEMU runs.
pub fn machine(qemu: OsString) -> Machine {
    let (topology, hotplug, accel) = (Topology::igb(), Hotplug::Native, Accel::Tcg);
    let (kernel, initrd) = ("vmlinux".into(), "initramfs".into());
    let (memory_mib, append) = (MEMORY_MIB, Vec::new());
    let clock = Clock::Host;
    Machine { qemu, topology, hotplug, accel, clock, memory_mib, kernel, initrd, append, traced: None, monitor: None }
}

/// Recorders for the console in a folder, and for QMP.
pub fn recorders(folder: &Path, qmp: Recorder) -> Recorders {
    Recorders { console: folder.join("console.log"), qmp, agent: Arc::new(|_, _| {}) }
}

/// Whether a process has ended. It may be a zombie until its parent waits for it.
fn is_dead(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_none_or(|state| "ZX".contains(state))
}

async fn until(within: Duration, awaited: &str, mut is_so: impl FnMut() -> bool) -> Result<(), Failed> {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(within, wait).await.map_err(|_| format!("waited {} for {awaited}", duration(within)).into())
}
