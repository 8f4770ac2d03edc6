//! One build: a source tree, an output tree, the log, and the make targets that run there.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::compile::{Run, Trees, about};
use crate::config::Symbols;
use crate::error::BuildError;
use crate::event::{BuildEvent, Step};
use crate::job::Job;

/// A build in a source tree and an output tree.
pub(crate) struct Site<'a> {
    pub trees: Trees,
    pub run: Run<'a>,
    log: File,
}

impl<'a> Site<'a> {
    /// A build in these trees. Creates its log.
    pub(crate) fn new(trees: Trees, run: Run<'a>) -> Result<Site<'a>, BuildError> {
        let log = File::create(run.log).map_err(BuildError::io("create", run.log))?;
        Ok(Site { trees, run, log })
    }

    /// Tells the observer which step comes next.
    pub(crate) fn step(&self, step: Step, what: &str) {
        self.run.observer.event(BuildEvent::Step { step, what: what.to_owned() });
    }

    /// The path of the log.
    pub(crate) fn log(&self) -> &Path {
        self.run.log
    }

    /// Writes a line to the log.
    pub(crate) fn say(&self, line: &str) {
        // If the log cannot be written (disk full), the build itself may still succeed.
        let _ = writeln!(&self.log, "{line}");
    }

    /// Prepares a build as far as one object needs it, and compiles that object. kbuild records the command.
    pub(crate) fn object(&mut self, object: &str) -> Result<(), BuildError> {
        self.make([object])
    }

    /// Writes a configuration with the wanted symbols on top of tinyconfig. [`Site::configure`] completes it.
    pub(crate) fn want(&mut self, wanted: &Symbols) -> Result<(), BuildError> {
        self.make(["tinyconfig"])?;
        self.add(wanted)
    }

    /// Writes symbols into the configuration that is there. [`Site::configure`] completes it.
    pub(crate) fn add(&self, symbols: &Symbols) -> Result<(), BuildError> {
        let config = self.config();
        let before = fs::read_to_string(&config).map_err(BuildError::io("read", &config))?;
        fs::write(&config, symbols.merged_into(&before)).map_err(BuildError::io("write", &config))
    }

    /// Completes the configuration (`make olddefconfig`), and returns the result.
    pub(crate) fn configure(&mut self) -> Result<Symbols, BuildError> {
        self.make(["olddefconfig"])?;
        let config = self.config();
        let text = fs::read_to_string(&config).map_err(BuildError::io("read", &config))?;
        Ok(Symbols::of_config(&text))
    }

    /// The output tree's `.config`.
    pub(crate) fn config(&self) -> PathBuf {
        self.trees.output.join(".config")
    }

    /// Compiles the kernel. Writes the number of commands to the file `counter`, for the progress of the next build.
    /// `otherwise` is the number if there is no such file yet.
    pub(crate) fn compile(&mut self, what: &str, counter: &Path, otherwise: usize) -> Result<(), BuildError> {
        self.step(Step::Compile, what);
        let commands = self.trees.compile(&self.run, about(counter, otherwise), &mut self.log)?;
        // If this fails, only the progress of the next build is less exact.
        let _ = fs::write(counter, commands.to_string());
        Ok(())
    }

    /// The release of the kernel in an output tree, as `uname -r` prints it.
    pub(crate) fn release(output: &Path) -> Result<String, BuildError> {
        let path = output.join("include/config/kernel.release");
        let release = fs::read_to_string(&path).map_err(BuildError::io("read", &path))?;
        Ok(release.trim().to_owned())
    }

    /// Writes a kernel without symbols and line tables. The notes stay, because the PVH note tells QEMU the entry
    /// point.
    pub(crate) fn strip(&self, vmlinux: &Path, to: &Path) -> Result<(), BuildError> {
        let job = Job::new("objcopy").arg("--strip-all").arg(vmlinux).arg(to);
        job.run(self.run.cancel).map_err(BuildError::job("stripping the kernel"))
    }

    /// The parts of a kernel that are loaded into memory, to compare kernels. The line tables are left out, because
    /// they change when a comment moves a line. The build id is left out, because it is a hash that includes them.
    /// BUG() and pr_debug() store line numbers in the code: a comment that moves one of them counts as a change.
    pub(crate) fn code(&self, vmlinux: &Path, scratch: &Path) -> Result<Vec<u8>, BuildError> {
        let sections = ["--strip-all", "-R", ".comment", "-R", ".notes", "-R", ".note*"];
        let job = Job::new("objcopy").args(sections).arg(vmlinux).arg(scratch);
        job.run(self.run.cancel).map_err(BuildError::job("comparing kernels"))?;
        fs::read(scratch).map_err(BuildError::io("read", scratch))
    }

    fn make<const N: usize>(&mut self, targets: [&str; N]) -> Result<(), BuildError> {
        let job = self.trees.make().args(targets);
        let what = format!("make {}", targets.join(" "));
        job.logged(self.run.cancel, &mut self.log, |_| {}).map_err(BuildError::job(what))
    }
}

/// Whether the configuration depends on a file of the kernel's source: Kconfig files, Makefiles, and the scripts that
/// Kconfig files call to test the compiler.
pub(crate) fn configures(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("Kconfig") || name == "Makefile" || file.starts_with("scripts")
}
