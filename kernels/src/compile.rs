//! Runs the kernel's own build in a fixed environment, reports its progress, and finds the first error if it fails.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cache::KeyMaker;
use crate::error::{BuildError, CompilerError};
use crate::event::{BuildEvent, CancelToken, Observer};
use crate::job::{Job, JobError, says_disk_full};

/// Where a kernel is built. Both folders have the same names for all kernels of a base, because kbuild writes absolute
/// paths into its dependency files and builds everything again when the paths change.
#[derive(Clone, Debug)]
pub(crate) struct Trees {
    /// The source, with patches.
    pub source: PathBuf,
    /// The output tree.
    pub output: PathBuf,
    /// The compiler. With `None`, make chooses it.
    pub compiler: Option<&'static str>,
    /// How much debug information vmlinux has.
    pub debug: DebugInfo,
}

/// How much debug information vmlinux has. It changes nothing else of the kernel: code, data and addresses are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DebugInfo {
    /// Only line tables, so that an address in a stack can be resolved to file and line. They take little time to build and
    /// 9 MB of vmlinux.
    #[default]
    Lines,
    /// Types and variables, too, for a debugger: 80 MB of vmlinux, and a build takes a third longer.
    Types,
}

impl DebugInfo {
    /// Adds it to the key of what is built with it.
    pub(crate) fn add_to(self, key: KeyMaker) -> KeyMaker {
        match self {
            DebugInfo::Lines => key,
            DebugInfo::Types => key.with("debug", "types"),
        }
    }
}

impl Trees {
    /// Trees in which make chooses the compiler.
    pub(crate) fn new(source: PathBuf, output: PathBuf) -> Trees {
        Trees { source, output, compiler: None, debug: DebugInfo::default() }
    }

    /// make, for this source and output. Host, user, time and folder do not influence the kernel.
    pub(crate) fn make(&self) -> Job {
        let mut flags = OsString::from(match self.debug {
            DebugInfo::Lines => "-g1",
            DebugInfo::Types => "-g -gdwarf-5",
        });
        flags.push(" -fdebug-prefix-map=");
        flags.push(&self.output);
        flags.push("=. -fdebug-prefix-map=");
        flags.push(&self.source);
        flags.push("=.");
        let make = match self.compiler {
            Some(compiler) => Job::new("make").arg(joined("CC=", compiler)),
            None => Job::new("make"),
        };
        make.arg("-C")
            .arg(&self.source)
            .arg(joined("O=", &self.output))
            .arg(joined("KCFLAGS=", flags))
            .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
            .env("KBUILD_BUILD_USER", "iov-regress")
            .env("KBUILD_BUILD_HOST", "iov-regress")
            .env("KBUILD_BUILD_VERSION", "1")
            // Without this, the release of a kernel in a git repository has the distance from a tag in it.
            .env("LOCALVERSION", "")
    }

    /// Compiles the kernel and tells the observer of each object. Returns how many commands make ran.
    pub(crate) fn compile(&self, run: &Run, about: usize, log: &mut File) -> Result<usize, BuildError> {
        let begun = Instant::now();
        let mut done = 0;
        let mut first = FirstError::default();
        let result = self.make().arg(format!("-j{}", run.jobs)).arg("vmlinux").logged(run.cancel, log, |line| {
            first.look_at(line, &self.source);
            if is_command(line) {
                done += 1;
                let elapsed = Duration::from_secs(begun.elapsed().as_secs());
                run.observer.event(BuildEvent::Objects { done, about: about.max(done), elapsed });
            }
        });
        match result {
            Ok(()) => Ok(done),
            Err(JobError::Failed { tail, .. }) => {
                Err(BuildError::Compile { first: first.found(&tail), log: run.log.to_owned() })
            }
            Err(other) => Err(BuildError::job("make")(other)),
        }
    }
}

/// What all steps of one build need.
pub(crate) struct Run<'a> {
    pub observer: &'a dyn Observer,
    pub cancel: &'a CancelToken,
    /// How many commands make runs in parallel.
    pub jobs: usize,
    /// The log. It is kept when the build fails.
    pub log: &'a Path,
}

fn joined(name: &str, value: impl Into<OsString>) -> OsString {
    let mut joined = OsString::from(name);
    joined.push(value.into());
    joined
}

/// Whether a line of kbuild's output announces a command: "  CC      drivers/pci/iov.o".
fn is_command(line: &str) -> bool {
    line.strip_prefix("  ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Finds the first error in the lines of a build. A compiler error is more useful than a linker error, and both are
/// more useful than an error of make, which only says that a command failed. A full disk can cause all of these.
#[derive(Default)]
pub(crate) struct FirstError {
    full: Option<String>,
    compiler: Option<CompilerError>,
    linker: Option<CompilerError>,
    make: Option<CompilerError>,
}

impl FirstError {
    pub(crate) fn look_at(&mut self, line: &str, source: &Path) {
        if self.full.is_none() && says_disk_full(line) {
            self.full = Some(line.to_owned());
        }
        if self.compiler.is_none() {
            self.compiler = compiler_error(line, source);
        }
        if self.linker.is_none()
            && (line.contains("undefined reference to ") || line.contains("multiple definition of "))
        {
            self.linker = Some(CompilerError { file: None, line: None, message: line.trim().to_owned() });
        }
        if self.make.is_none() && line.starts_with("make") && line.contains("*** ") {
            self.make = Some(CompilerError { file: None, line: None, message: line.to_owned() });
        }
    }

    pub(crate) fn found(self, tail: &str) -> CompilerError {
        let without_place = |message: String| CompilerError { file: None, line: None, message };
        self.full
            .map(without_place)
            .or(self.compiler)
            .or(self.linker)
            .or(self.make)
            .unwrap_or_else(|| without_place(format!("make says:\n{tail}")))
    }
}

/// Parses "FILE:LINE:COLUMN: error: MESSAGE". The column may be missing, and "fatal error" or "Error" (gas) may stand
/// for "error".
fn compiler_error(line: &str, source: &Path) -> Option<CompilerError> {
    const MARKS: [&str; 3] = [": error: ", ": fatal error: ", ": Error: "];
    let (place, message) = MARKS.iter().find_map(|mark| line.split_once(mark))?;
    let mut parts = place.splitn(3, ':');
    let file = parts.next().filter(|file| !file.is_empty() && !file.contains(' '))?;
    let number = parts.next().and_then(|number| number.parse().ok())?;
    let file = Path::new(file).strip_prefix(source).unwrap_or(Path::new(file)).to_string_lossy();
    Some(CompilerError { file: Some(file.into_owned()), line: Some(number), message: message.to_owned() })
}

/// How many commands the last build of this kind ran, for the progress of the next one.
pub(crate) fn about(note: &Path, otherwise: usize) -> usize {
    fs::read_to_string(note).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(log: &str) -> String {
        let mut first = FirstError::default();
        log.lines().for_each(|line| first.look_at(line, Path::new("/src")));
        first.found("the end").to_string()
    }

    #[test]
    fn a_compiler_error_comes_before_the_error_of_make() {
        let log = "  CC      drivers/pci/iov.o\n\
            /src/drivers/pci/iov.c: In function 'sriov_numvfs_show':\n\
            /src/drivers/pci/iov.c:399:9: warning: unused variable 'x' [-Wunused-variable]\n\
            /src/drivers/pci/iov.c:401:16: error: 'num_vfs' undeclared (first use in this function)\n\
            /src/drivers/pci/iov.c:402:1: error: another\n\
            make[4]: *** [/src/scripts/Makefile.build:229: drivers/pci/iov.o] Error 1\n";
        insta::assert_snapshot!(first(log), @"drivers/pci/iov.c:401: 'num_vfs' undeclared (first use in this function)");
    }

    #[test]
    fn errors_of_assembler_linker_and_make_are_found() {
        insta::assert_snapshot!(first("/src/a.c:1:10: fatal error: gelf.h: No such file or directory\n"), @"a.c:1: gelf.h: No such file or directory");
        insta::assert_snapshot!(first("arch/x86/a.S:12: Error: no such instruction: `foo'\n"), @"arch/x86/a.S:12: no such instruction: `foo'");
        insta::assert_snapshot!(first("ld: drivers/pci/iov.o: in function `f':\niov.c:(.text+0x1): undefined reference to `g'\nmake[2]: *** [x] Error 1\n"), @"iov.c:(.text+0x1): undefined reference to `g'");
        insta::assert_snapshot!(first("make[3]: *** No rule to make target 'x.o', needed by 'y'.  Stop.\nmake[2]: *** [z] Error 2\n"), @"make[3]: *** No rule to make target 'x.o', needed by 'y'.  Stop.");
        insta::assert_snapshot!(first("words\n"), @r#"
make says:
the end
"#);
    }

    #[test]
    fn a_full_disk_comes_before_the_errors_that_it_causes() {
        let log = "/src/a.c:1:1: error: junk\nfatal error: error writing to /tmp/x.s: No space left on device\n";
        insta::assert_snapshot!(first(log), @"fatal error: error writing to /tmp/x.s: No space left on device");
    }

    #[test]
    fn only_lines_of_commands_are_counted() {
        let lines = ["  CC      a.o", "  GEN     Makefile", "make[1]: Entering directory '/x'", "#", "  a", ""];
        assert_eq!(lines.map(is_command), [true, true, false, false, false, false]);
    }

    #[test]
    fn the_environment_is_fixed_and_a_real_make_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let trees = Trees::new(folder.path().join("s"), folder.path().join("o"));
        fs::create_dir_all(&trees.source).unwrap();
        let makefile =
            "vmlinux:\n\t@echo '  CC      a.o'\n\t@echo \"$(KBUILD_BUILD_USER) $(ARCH)\"\n\t@echo '  LD      b'\n";
        fs::write(trees.source.join("Makefile"), makefile).unwrap();
        let log = folder.path().join("log");
        let cancel = CancelToken::new();
        let events = std::sync::Mutex::new(Vec::new());
        let observer = |event| events.lock().unwrap().push(event);
        let run = Run { observer: &observer, cancel: &cancel, jobs: 1, log: &log };
        assert_eq!(trees.compile(&run, 1, &mut File::create(&log).unwrap()).unwrap(), 2);
        assert!(fs::read_to_string(&log).unwrap().contains("\niov-regress \n"));
        let zero = Duration::ZERO;
        let objects = |done, about| BuildEvent::Objects { done, about, elapsed: zero };
        assert_eq!(events.into_inner().unwrap(), [objects(1, 1), objects(2, 2)]);
    }
}
