//! Where make is at work: a source tree, an output tree, and the log of what is done there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::compile::{Run, Trees, about};
use crate::config::Symbols;
use crate::error::BuildError;
use crate::event::{BuildEvent, Step};
use crate::job::Job;

/// Two trees, and one build in them.
pub(crate) struct Site<'a> {
    pub trees: Trees,
    pub run: Run<'a>,
    log: File,
}

impl<'a> Site<'a> {
    /// Begins the log.
    pub(crate) fn new(trees: Trees, run: Run<'a>) -> Result<Site<'a>, BuildError> {
        let log = File::create(run.log).map_err(BuildError::io("create", run.log))?;
        Ok(Site { trees, run, log })
    }

    /// Says what comes next.
    pub(crate) fn step(&self, step: Step, what: &str) {
        self.run.observer.event(BuildEvent::Step { step, what: what.to_owned() });
    }

    /// The log.
    pub(crate) fn log(&self) -> &Path {
        self.run.log
    }

    /// Writes a configuration in which all is off but what is wanted, for [`Site::configure`] to complete.
    pub(crate) fn want(&mut self, wanted: &Symbols) -> Result<(), BuildError> {
        self.make(["tinyconfig"])?;
        let config = self.config();
        let tiny = fs::read_to_string(&config).map_err(BuildError::io("read", &config))?;
        fs::write(&config, wanted.merged_into(&tiny)).map_err(BuildError::io("write", &config))
    }

    /// Lets the kernel complete its configuration, and returns what became of it.
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

    /// Compiles. The number of commands that it takes is kept in a file, for the next build's progress.
    pub(crate) fn compile(&mut self, what: &str, counter: &Path, otherwise: usize) -> Result<(), BuildError> {
        self.step(Step::Compile, what);
        let commands = self.trees.compile(&self.run, about(counter, otherwise), &mut self.log)?;
        // Only for the next build's progress: not worth an error.
        let _ = fs::write(counter, commands.to_string());
        Ok(())
    }

    /// What `uname -r` says in the kernel of an output tree.
    pub(crate) fn release(output: &Path) -> Result<String, BuildError> {
        let path = output.join("include/config/kernel.release");
        let release = fs::read_to_string(&path).map_err(BuildError::io("read", &path))?;
        Ok(release.trim().to_owned())
    }

    /// Writes a kernel without symbols and line tables. The notes stay: one says where QEMU enters it.
    pub(crate) fn strip(&self, vmlinux: &Path, to: &Path) -> Result<(), BuildError> {
        let job = Job::new("objcopy").arg("--strip-all").arg(vmlinux).arg(to);
        job.run(self.run.cancel).map_err(BuildError::job("stripping the kernel"))
    }

    /// What is loaded into memory of a kernel: without line tables, which change when a comment moves a line, and without
    /// the build id, which is a hash of them too. (Lines that BUG() and pr_debug() remember are code here: a comment that
    /// moves one passes for a change.)
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

/// Whether a file of the kernel's source has a say in what the configuration becomes: Kconfig files, and the scripts that
/// they ask about the compiler.
pub(crate) fn configures(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("Kconfig") || name == "Makefile" || file.starts_with("scripts")
}
