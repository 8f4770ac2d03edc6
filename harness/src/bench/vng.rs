//! Our cold boots beside virtme-ng's, by turns, of one and the same kernel image.
//!
//! virtme-ng boots without an initramfs, its root is the host's over 9p or virtiofs, and its init runs a command. Its
//! guest is ready when that command prints its line; ours when the agent has said hello.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use kernels::{Base, Manifest, Variant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::starts::{Start, StartError, Starter};
use super::{Measurement, Unit, cpu_of_children, median};
use crate::text::duration;
use crate::vm::argv::{Accel, CPUS, MEMORY_MIB};

/// The name of the kernel that both can boot. No matrix runs it.
pub const KERNEL: &str = "vng";

/// A manifest with one more kernel: the first base, configured with what virtme-ng's guest needs, too.
pub fn with_kernel(mut manifest: Manifest) -> Manifest {
    let Some(base) = manifest.bases.first() else { return manifest };
    let fragment = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("kernels").join("config/vng.config");
    let config = base.config.iter().cloned().chain([fragment]).collect();
    let base = Base { name: format!("{}-vng", base.name), config, ..base.clone() };
    let about = "what virtme-ng can boot, too".to_owned();
    let (name, patches, bugs, concerns) = (KERNEL.to_owned(), Vec::new(), base.bugs.clone(), Vec::new());
    manifest.variants.push(Variant { name, about, base: base.name.clone(), patches, bugs, concerns, known: true });
    manifest.bases.push(base);
    manifest
}

/// What the command in virtme-ng's guest prints.
const READY: &str = "iov-regress-is-ready";

/// A run of virtme-ng failed.
#[derive(Debug, thiserror::Error)]
pub enum VngError {
    /// It is not there.
    #[error(
        "cannot run {}: {why}; virtme-ng is a Python program: `python3 -m venv vng && vng/bin/pip install virtme-ng`, \
         then `--vng vng/bin/vng`",
        program.display()
    )]
    Absent {
        /// The program.
        program: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// It did not get to the command, or not to its end.
    #[error("`{command}` {what}; it said: {said}")]
    Failed {
        /// The command line.
        command: String,
        /// What it did.
        what: String,
        /// The last lines of its stderr.
        said: String,
    },
    /// Ours did not come up.
    #[error(transparent)]
    Own(#[from] StartError),
}

/// A virtme-ng, and what it is to boot.
#[derive(Clone, Debug)]
pub struct Vng {
    /// `vng`.
    pub program: PathBuf,
    /// The QEMU that it is to use.
    pub qemu: OsString,
    /// The kernel.
    pub kernel: PathBuf,
    /// The accelerator.
    pub accel: Accel,
}

/// One run of virtme-ng.
#[derive(Clone, Copy, Debug)]
struct VngRun {
    /// Until the command's line, in seconds.
    ready: f64,
    /// Until `vng` had ended, in seconds.
    end: f64,
    /// CPU time of all its processes, in seconds.
    cpu: f64,
}

impl Vng {
    /// Looks whether this `vng` runs at all, before anything is built for it.
    ///
    /// # Errors
    /// [`VngError::Absent`].
    pub fn look(program: &Path) -> Result<(), VngError> {
        let version = std::process::Command::new(program).arg("--version").output();
        version.map(drop).map_err(|why| VngError::Absent { program: program.to_owned(), why })
    }

    /// The command line. CPUs, memory, QEMU and accelerator are ours, all else is its own.
    pub fn argv(&self) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec!["--run".into(), self.kernel.clone().into()];
        let (cpus, memory) = (CPUS.to_string(), format!("{MEMORY_MIB}M"));
        argv.extend(["--cpus", &cpus, "--memory", &memory].map(OsString::from));
        if let Some(qemu) = on_path(&self.qemu) {
            argv.extend(["--qemu".into(), qemu.into()]);
        }
        if self.accel == Accel::Tcg {
            argv.push("--disable-kvm".into());
        }
        // Its root has no block device, and a kernel without block devices must be told of it
        // (`init/do_mounts.c`, `mount_root()`).
        argv.extend(["--append", "root=/dev/root"].map(OsString::from));
        argv.extend(["--exec".into(), format!("echo {READY}").into()]);
        argv
    }

    fn shown(&self) -> String {
        let words = std::iter::once(self.program.clone().into()).chain(self.argv());
        shell_words::join(words.map(|word: OsString| word.to_string_lossy().into_owned()))
    }

    async fn run(&self, within: Duration) -> Result<VngRun, VngError> {
        let before = cpu_of_children();
        let mut command = Command::new(&self.program);
        command.args(self.argv()).env("PATH", self.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let absent = |why| VngError::Absent { program: self.program.clone(), why };
        let mut child = command.spawn().map_err(absent)?;
        let (stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        let mut said = String::new();
        let mut ready = None;
        let running = async {
            let listen = async {
                let Some(stdout) = stdout else { return };
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.contains(READY) {
                        ready.get_or_insert(began.elapsed().as_secs_f64());
                    }
                }
            };
            let hear = async {
                if let Some(stderr) = &mut stderr {
                    let _ = stderr.read_to_string(&mut said).await;
                }
            };
            tokio::join!(child.wait(), listen, hear).0
        };
        let ended = tokio::time::timeout(within, running).await;
        let end = began.elapsed().as_secs_f64();
        let failed = |what: String, said: &str| VngError::Failed { command: self.shown(), what, said: last(said) };
        match (ended, ready) {
            (Ok(Ok(status)), Some(ready)) if status.success() => {
                Ok(VngRun { ready, end, cpu: cpu_of_children() - before })
            }
            (Ok(Ok(status)), _) => Err(failed(format!("ended ({status}) without a word from its guest"), &said)),
            (Ok(Err(error)), _) => Err(failed(format!("could not be waited for: {error}"), &said)),
            (Err(_), _) => Err(failed(format!("did not end within {}", duration(within)), &said)),
        }
    }

    /// `vng` starts its own other programs by name: they lie beside it.
    fn path(&self) -> OsString {
        let beside = self.program.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned);
        let rest = std::env::var_os("PATH").unwrap_or_default();
        std::env::join_paths(beside.into_iter().chain(std::env::split_paths(&rest))).unwrap_or(rest)
    }
}

/// Where a program is that is named as on a command line.
fn on_path(program: &OsStr) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn last(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" | ")
}

/// Boots ours and theirs by turns, this many times; the first turn is not counted.
///
/// # Errors
/// [`VngError`].
pub async fn measure(
    starter: &Starter,
    vng: &Vng,
    count: usize,
    within: Duration,
    measurement: &mut Measurement,
) -> Result<(), VngError> {
    measurement.setup.push(format!("theirs: {}", vng.shown()));
    vng.run(within).await?;
    starter.boot().await?;
    let mut pairs: Vec<(Start, VngRun)> = Vec::new();
    for _ in 0..count {
        pairs.push((starter.boot().await?, vng.run(within).await?));
    }
    let mut add = |what: &str, unit, of: fn(&(Start, VngRun)) -> f64| {
        if let Some(value) = median(pairs.iter().map(of)) {
            measurement.add(what, value, unit);
        }
    };
    add("ours: until the agent's hello", Unit::Seconds, |(own, _)| own.steps.total());
    add("theirs: until the command's line", Unit::Seconds, |(_, vng)| vng.ready);
    add("theirs: until vng has ended", Unit::Seconds, |(_, vng)| vng.end);
    add("ours: CPU time until QEMU has ended", Unit::CpuSeconds, |(own, _)| own.cpu);
    add("theirs: CPU time of all processes", Unit::CpuSeconds, |(_, vng)| vng.cpu);
    add("ours until hello / theirs until the line", Unit::Ratio, |(own, vng)| own.steps.total() / vng.ready);
    add("ours until hello / theirs until the end", Unit::Ratio, |(own, vng)| own.steps.total() / vng.end);
    add("CPU time, ours / theirs", Unit::Ratio, |(own, vng)| own.cpu / vng.cpu);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn vng(program: PathBuf) -> Vng {
        Vng { program, qemu: "no-such-qemu".into(), kernel: "bzImage".into(), accel: Accel::Tcg }
    }

    fn script(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("vng");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_kernel_for_both_differs_by_one_fragment() {
        let ours = Manifest::of_project().unwrap();
        let manifest = with_kernel(ours.clone());
        let base = manifest.base(&manifest.variant(KERNEL).unwrap().base).unwrap();
        let (last, others) = base.config.split_last().unwrap();
        assert!(last.is_file() && others == ours.bases[0].config, "{base:?}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_with_the_way_to_get_it() {
        let error = vng("/nonexistent/vng".into()).run(Duration::from_secs(5)).await.unwrap_err().to_string();
        assert!(error.contains("pip install virtme-ng"), "{error}");
    }

    #[tokio::test]
    async fn only_a_guest_that_spoke_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let within = Duration::from_secs(10);
        // Runs what --exec asks for, as a guest would.
        let spoke = script(folder.path(), "while [ $# -gt 1 ]; do shift; done; eval \"$1\"");
        let run = vng(spoke).run(within).await.unwrap();
        assert!(run.ready <= run.end, "{run:?}");
        let mute = vng(script(folder.path(), "echo no pty >&2")).run(within).await.unwrap_err().to_string();
        assert!(mute.contains("without a word from its guest; it said: no pty"), "{mute}");
        let stuck = vng(script(folder.path(), "exec sleep 60"));
        let stuck = stuck.run(Duration::from_millis(200)).await.unwrap_err().to_string();
        assert!(stuck.contains("did not end within 200 ms"), "{stuck}");
    }
}
