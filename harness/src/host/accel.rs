//! Which accelerator to use. `/dev/kvm` may exist and open, and still not run a stock kernel. Only a guest that has
//! booted under KVM proves that it works. The cache keeps the answer until something that it depends on changes.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kernels::cache::{Cache, CacheError, Key, KeyMaker};
use serde::{Deserialize, Serialize};

use crate::host::Qemu;
use crate::trigger::Hotplug;
use crate::vm::argv::{Accel, MEMORY_MIB, Machine};
use crate::vm::clock::Clock;
use crate::vm::process;
use crate::vm::topology::Topology;
use crate::vm::{Recorders, Vm};

/// The accelerator that the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// KVM if a guest has booted under it, else TCG.
    #[default]
    Auto,
    /// Force KVM.
    Kvm,
    /// Force TCG.
    Tcg,
}

/// The accelerator that is used, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The accelerator.
    pub accel: Accel,
    /// The reason, for people.
    pub why: String,
    /// It was decided in this process, and does not come from the cache.
    #[serde(skip)]
    pub fresh: bool,
}

impl Decision {
    /// A decision that is made in this process.
    pub fn now(accel: Accel, why: impl Into<String>) -> Decision {
        Decision { accel, why: why.into(), fresh: true }
    }
}

/// Under a KVM that works, a guest boots in well under a second. A busy host may need more.
const BOOT_DEADLINE: Duration = Duration::from_secs(15);

/// The shelf of the cache that keeps answers.
const SHELF: &str = "accel";

/// Decides on the accelerator. Boots a guest under KVM if that has not been tried yet with this QEMU and host. Calls
/// `trying` before that, as it can take some seconds.
///
/// # Errors
/// Those of the cache.
pub async fn decide(
    choice: Choice,
    cache: &Cache,
    qemu: &Qemu,
    kernel: &Path,
    initrd: &Path,
    trying: impl FnOnce(),
) -> Result<Decision, CacheError> {
    match choice {
        Choice::Kvm => return Ok(Decision::now(Accel::Kvm, "asked for")),
        Choice::Tcg => return Ok(Decision::now(Accel::Tcg, "asked for")),
        Choice::Auto => {}
    }
    if let Err(error) = fs::File::options().read(true).write(true).open("/dev/kvm") {
        return Ok(Decision::now(Accel::Tcg, format!("/dev/kvm cannot be opened: {error}")));
    }
    let key = key(&qemu.banner);
    if let Some(decision) = remembered(cache, &key) {
        return Ok(decision);
    }
    trying();
    let decision = match try_kvm(&qemu.binary, kernel, initrd).await {
        Ok(()) => Decision::now(Accel::Kvm, "a guest booted under KVM"),
        Err(why) => Decision::now(Accel::Tcg, format!("/dev/kvm opens, but no guest boots under KVM: {why}")),
    };
    cache.entry(SHELF, &key, || {}, |folder| write(folder, &decision))?;
    Ok(decision)
}

/// The cached answer for this host, if there is one.
pub fn last(cache: &Cache) -> Option<Decision> {
    remembered(cache, &key(&process::banner(&process::program())))
}

fn remembered(cache: &Cache, key: &Key) -> Option<Decision> {
    let text = fs::read_to_string(cache.find(SHELF, key)?.join(ANSWER)).ok()?;
    serde_json::from_str(&text).ok()
}

const ANSWER: &str = "decision.json";

fn write(folder: &Path, decision: &Decision) -> Result<(), CacheError> {
    let path = folder.join(ANSWER);
    let text = serde_json::to_vec(decision).unwrap_or_default();
    fs::write(&path, text).map_err(|source| CacheError::Io { action: "write", path, source })
}

/// A hash of everything that the answer depends on: QEMU, the host's kernel, its KVM modules and its CPU.
fn key(banner: &str) -> Key {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu: String = cpu.lines().take_while(|line| !line.is_empty()).filter(|line| !line.contains("MHz")).collect();
    KeyMaker::new()
        .with("qemu", banner)
        .with("kernel", fs::read("/proc/version").unwrap_or_default())
        .with("kvm", kvm_modules())
        .with("cpu", cpu)
        .finish()
}

/// The modules that implement `/dev/kvm`: `kvm_intel`, `kvm_amd`, or others that provide the same device.
fn kvm_modules() -> String {
    let names = fs::read_dir("/sys/module").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("kvm"));
    names.sort();
    names.join(" ")
}

async fn try_kvm(qemu: &OsStr, kernel: &Path, initrd: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| format!("cannot create a temporary folder: {error}"))?;
    let ignore = Arc::new(|_, _: &str| {});
    let recorders =
        Recorders { console: folder.path().join("console.log"), qmp: ignore.clone(), agent: ignore.clone() };
    let machine = Machine {
        qemu: qemu.to_owned(),
        topology: Topology::igb(),
        hotplug: Hotplug::Native,
        accel: Accel::Kvm,
        clock: Clock::Host,
        memory_mib: MEMORY_MIB,
        kernel: kernel.to_owned(),
        initrd: initrd.to_owned(),
        append: Vec::new(),
        traced: None,
        monitor: None,
    };
    match Vm::boot(machine, recorders, BOOT_DEADLINE).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
