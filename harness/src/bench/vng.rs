//! Cold boots of iov-regress and of virtme-ng, alternating, with the same kernel image.
//!
//! virtme-ng boots without an initramfs. Its root is the host's over 9p or virtiofs, and its init runs a command. Its
//! guest is ready when that command prints its line. A guest of iov-regress is ready when the agent has sent its hello.

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

/// The name of the kernel that both can boot. It is in no matrix.
pub const KERNEL: &str = "vng";

/// A manifest with one more kernel: the first base, with the configuration that virtme-ng's guest needs added.
pub fn with_kernel(mut manifest: Manifest) -> Manifest {
    let Some(base) = manifest.bases.first() else { return manifest };
    let fragment = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("kernels").join("config/vng.config");
    let config = base.config.iter().cloned().chain([fragment]).collect();
    let base = Base { name: format!("{}-vng", base.name), config, ..base.clone() };
    let plain = Variant::unknown(KERNEL, "a kernel that virtme-ng can boot too", &base.name, Vec::new());
    manifest.variants.push(Variant { bugs: base.bugs.clone(), known: true, ..plain });
    manifest.bases.push(base);
    manifest
}

/// The line that the command in virtme-ng's guest prints.
const READY: &str = "iov-regress-is-ready";

/// A run of virtme-ng failed.
#[derive(Debug, thiserror::Error)]
pub enum VngError {
    /// It cannot be started.
    #[error(
        "cannot run {}: {why}; virtme-ng is a Python program: `python3 -m venv vng && vng/bin/pip install virtme-ng`, \
         then `--vng vng/bin/vng`",
        program.display()
    )]
    Absent {
        /// The program.
        program: PathBuf,
        /// The cause.
        why: std::io::Error,
    },
    /// The guest did not run the command, or virtme-ng failed.
    #[error("`{command}` {what}; its stderr: {said}")]
    Failed {
        /// The command line.
        command: String,
        /// How it failed.
        what: String,
        /// The last lines of its stderr.
        said: String,
    },
    /// The guest of iov-regress could not be measured.
    #[error(transparent)]
    Own(#[from] StartError),
}

/// A virtme-ng, and what it boots.
#[derive(Clone, Debug)]
pub struct Vng {
    /// The path of `vng`.
    pub program: PathBuf,
    /// The QEMU that it uses.
    pub qemu: OsString,
    /// The kernel.
    pub kernel: PathBuf,
    /// The accelerator.
    pub accel: Accel,
}

/// One run of virtme-ng.
#[derive(Clone, Copy, Debug)]
struct VngRun {
    /// The time until the command's line, in seconds.
    ready: f64,
    /// The time until `vng` exits, in seconds.
    end: f64,
    /// CPU time of all its processes, in seconds.
    cpu: f64,
}

impl Vng {
    /// Checks whether this `vng` can be started, before a kernel is built for it.
    ///
    /// # Errors
    /// [`VngError::Absent`].
    pub fn look(program: &Path) -> Result<(), VngError> {
        let version = std::process::Command::new(program).arg("--version").output();
        version.map(drop).map_err(|why| VngError::Absent { program: program.to_owned(), why })
    }

    /// The command line. It sets CPUs, memory, QEMU and accelerator to those of iov-regress. Everything else is
    /// virtme-ng's default.
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
        // The root is not on a block device. A kernel without block devices needs this option then
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
            (Ok(Ok(status)), _) => Err(failed(format!("ended ({status}) before its guest printed `{READY}`"), &said)),
            (Ok(Err(error)), _) => Err(failed(format!("has no exit status: {error}"), &said)),
            (Err(_), _) => Err(failed(format!("did not end within {}", duration(within)), &said)),
        }
    }

    /// `PATH` with the folder of `vng` first: `vng` starts other programs of virtme-ng by name, and they are in that
    /// folder.
    fn path(&self) -> OsString {
        let beside = self.program.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned);
        let rest = std::env::var_os("PATH").unwrap_or_default();
        std::env::join_paths(beside.into_iter().chain(std::env::split_paths(&rest))).unwrap_or(rest)
    }
}

/// The path of a program on `PATH`.
fn on_path(program: &OsStr) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn last(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" | ")
}

/// Boots guests of iov-regress and of virtme-ng alternately, `count` of each. One more of each at the beginning does
/// not count.
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
    measurement.setup.push(format!("virtme-ng: {}", vng.shown()));
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
    add("iov-regress: until the agent's hello", Unit::Seconds, |(own, _)| own.steps.total());
    add("virtme-ng: until the command's line", Unit::Seconds, |(_, vng)| vng.ready);
    add("virtme-ng: until vng exits", Unit::Seconds, |(_, vng)| vng.end);
    add("iov-regress: CPU time until QEMU exits", Unit::CpuSeconds, |(own, _)| own.cpu);
    add("virtme-ng: CPU time of all processes", Unit::CpuSeconds, |(_, vng)| vng.cpu);
    add("iov-regress until hello / virtme-ng until the line", Unit::Ratio, |(own, vng)| own.steps.total() / vng.ready);
    add("iov-regress until hello / virtme-ng until exit", Unit::Ratio, |(own, vng)| own.steps.total() / vng.end);
    add("CPU time, iov-regress / virtme-ng", Unit::Ratio, |(own, vng)| own.cpu / vng.cpu);
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
    async fn the_error_for_a_missing_vng_says_how_to_install_it() {
        let error = vng("/nonexistent/vng".into()).run(Duration::from_secs(5)).await.unwrap_err().to_string();
        assert!(error.contains("pip install virtme-ng"), "{error}");
    }

    #[tokio::test]
    async fn only_a_guest_that_ran_the_command_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let within = Duration::from_secs(10);
        // Runs the command of --exec, as a guest does.
        let ready = script(folder.path(), "while [ $# -gt 1 ]; do shift; done; eval \"$1\"");
        let run = vng(ready).run(within).await.unwrap();
        assert!(run.ready <= run.end, "{run:?}");
        let silent = vng(script(folder.path(), "echo no pty >&2")).run(within).await.unwrap_err().to_string();
        assert!(silent.contains("before its guest printed `iov-regress-is-ready`; its stderr: no pty"), "{silent}");
        let stuck = vng(script(folder.path(), "exec sleep 60"));
        let stuck = stuck.run(Duration::from_millis(200)).await.unwrap_err().to_string();
        assert!(stuck.contains("did not end within 200 ms"), "{stuck}");
    }
}
