//! The agent, built by cargo as a static program.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use kernels::CancelToken;
use object::Endianness;
use object::elf::{EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use crate::error::ImageError;

/// Crate and program.
const PACKAGE: &str = "guest-agent";

/// What guests run. Naming the target keeps crt-static away from build scripts and procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How soon a cancelled build is killed.
const POLL: Duration = Duration::from_millis(100);

/// Variables that the cargo which started us sets for us, or that would make this build another one; settings of
/// registries and of the network stay.
const FOREIGN: [&str; 14] = [
    "CARGO_BIN_",
    "CARGO_BUILD_",
    "CARGO_CRATE_NAME",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_MAKEFLAGS",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "MAKEFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
];

/// Has cargo build the agent, unless it is up to date, and says where it is.
pub fn build(cancel: &CancelToken, progress: impl FnMut(&str) + Send) -> Result<PathBuf, ImageError> {
    run(command(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))), cancel, progress)
}

fn command(workspace: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace)
        .args(["build", "--locked", "--package", PACKAGE, "--profile", "guest", "--target", TARGET])
        .args(["--message-format", "json", "--color", "never"])
        // A folder of its own: the flags differ, and it must not wait for a build that waits for it.
        .arg("--target-dir")
        .arg(workspace.join("target/guest"));
    for (name, _) in env::vars_os().filter(|(name, _)| is_foreign(name)) {
        command.env_remove(name);
    }
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    command
}

fn is_foreign(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| FOREIGN.iter().any(|prefix| name.starts_with(prefix)))
}

fn run(mut command: Command, cancel: &CancelToken, progress: impl FnMut(&str) + Send) -> Result<PathBuf, ImageError> {
    let cargo = PathBuf::from(command.get_program());
    let failed = |source| ImageError::NoCargo { cargo, source };
    // A process group of its own, so that cargo goes together with the compilers that it has started.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(source) => return Err(failed(source)),
    };
    let (stdout, stderr, group) = (child.stdout.take(), child.stderr.take(), Pid::from_child(&child));
    let (built, said) = thread::scope(|scope| {
        let (running, ended) = mpsc::channel();
        scope.spawn(move || kill_if_cancelled(group, cancel, &ended));
        let said = scope.spawn(|| stderr.map(|stderr| follow(stderr, progress)).unwrap_or_default());
        let results = (stdout.map(read_messages).unwrap_or_default(), said.join().unwrap_or_default());
        drop(running);
        results
    });
    let status = child.wait().map_err(failed)?;
    match built {
        Built { program: Some(program), first_error: None } if status.success() => Ok(program),
        _ if cancel.is_cancelled() => Err(ImageError::Cancelled),
        Built { first_error, .. } => {
            Err(ImageError::Build { command: format!("{command:?}"), first_error: first_error.unwrap_or(said) })
        }
    }
}

/// Kills a process group when it is cancelled. It ends with the other end of the channel, before the group's leader is
/// reaped: until then the group's number is its own.
fn kill_if_cancelled(group: Pid, cancel: &CancelToken, ended: &Receiver<()>) {
    while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
        if cancel.is_cancelled() {
            let _ = kill_process_group(group, Signal::KILL);
            return;
        }
    }
}

/// Passes on what cargo says, and keeps it.
fn follow(stderr: impl Read, mut progress: impl FnMut(&str)) -> String {
    let mut said = String::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let line = line.trim();
        // That is said of every build that has nothing to do, and of every other right after its last line.
        if !line.starts_with("Finished ") {
            progress(line);
        }
        said.push_str(line);
        said.push('\n');
    }
    said
}

/// What came of a build.
#[derive(Debug, Default, PartialEq, Eq)]
struct Built {
    program: Option<PathBuf>,
    first_error: Option<String>,
}

/// One line of cargo's JSON ("External tools" in the Cargo book), with what is of use here.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Line {
    CompilerArtifact {
        target: Target,
        executable: Option<PathBuf>,
    },
    CompilerMessage {
        message: Diagnostic,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    rendered: Option<String>,
}

fn read_messages(stdout: impl Read) -> Built {
    let mut built = Built::default();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Line::CompilerArtifact { target, executable: Some(program) }) if target.name == PACKAGE => {
                built.program = Some(program);
            }
            Ok(Line::CompilerMessage { message }) if message.level == "error" && built.first_error.is_none() => {
                built.first_error = message.rendered;
            }
            _ => {}
        }
    }
    built
}

/// Checks that a program runs where there is nothing but a kernel.
pub fn check(path: &Path, program: &[u8]) -> Result<(), ImageError> {
    let not = |reason: String| ImageError::NotAProgram { path: path.to_owned(), reason };
    let headers = || {
        let header = FileHeader64::<Endianness>::parse(program)?;
        let endian = header.endian()?;
        Ok((endian, header.e_machine(endian), header.program_headers(endian, program)?))
    };
    let (endian, machine, segments) = headers().map_err(|error: object::Error| not(error.to_string()))?;
    if machine != EM_X86_64 {
        return Err(not(format!("it is for ELF machine {machine}")));
    }
    match segments.iter().find(|segment| segment.p_type(endian) == PT_INTERP) {
        None => Ok(()),
        Some(segment) => {
            let name = segment.data(endian, program).unwrap_or_default();
            let interpreter = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
            Err(ImageError::NotStatic { path: path.to_owned(), interpreter })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    /// A package of the agent's name.
    fn package(main: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        let package = "[package]\nname = \"guest-agent\"\nedition = \"2024\"\n";
        write("Cargo.toml", &format!("{package}[workspace]\n[profile.guest]\ninherits = \"dev\"\n"));
        write("Cargo.lock", "version = 4\n[[package]]\nname = \"guest-agent\"\nversion = \"0.0.0\"\n");
        write("src/main.rs", main);
        folder
    }

    #[test]
    fn the_compilers_first_error_is_told() {
        let folder = package("fn main() {\n    let _: u32 = \"text\";\n    let _: u32 = true;\n}\n");
        let result = run(command(folder.path()), &CancelToken::new(), |_| {});
        let Err(ImageError::Build { first_error, .. }) = result else { panic!("it built") };
        assert!(first_error.contains("src/main.rs:2:18") && !first_error.contains("main.rs:3"), "{first_error}");
    }

    /// Waits for something that will be so, on a machine that may be busy.
    fn wait_until(what: &str, so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !so() {
            assert!(Instant::now() < deadline, "waited for ever: {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_cancelled_build_ends_with_all_that_it_started() {
        let folder = package("fn main() {}\n");
        let script = "fn main() {
            std::fs::write(\"new\", std::process::id().to_string()).unwrap();
            std::fs::rename(\"new\", \"pid\").unwrap();
            loop { std::thread::sleep(std::time::Duration::from_secs(1)) }
        }";
        fs::write(folder.path().join("build.rs"), script).unwrap();
        let (pid, cancel) = (folder.path().join("pid"), CancelToken::new());
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                wait_until("the build script runs", || pid.exists());
                cancel.cancel();
            });
            run(command(folder.path()), &cancel, |_| {}).unwrap_err()
        });
        assert!(matches!(error, ImageError::Cancelled), "{error}");
        // Gone, or dead and not reaped yet by whoever inherited it: a dead process has no command line.
        let command_line = format!("/proc/{}/cmdline", fs::read_to_string(pid).unwrap());
        wait_until("the build script is gone", || fs::read(&command_line).unwrap_or_default().is_empty());
    }

    #[test]
    fn what_cargo_says_is_told_if_it_comes_to_no_compiler() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(command(folder.path()), &CancelToken::new(), |_| {}).unwrap_err().to_string();
        assert!(error.contains("could not find `Cargo.toml`"), "{error}");
    }

    #[test]
    fn a_program_that_needs_a_dynamic_linker_is_refused() {
        let path = env::current_exe().unwrap();
        let error = check(&path, &fs::read(&path).unwrap()).unwrap_err().to_string();
        assert!(error.contains("its interpreter is /lib64/ld-linux-x86-64.so.2"), "{error}");
        let error = check(&path, b"#!/bin/sh\n").unwrap_err().to_string();
        assert!(error.contains("is not an x86-64 program"), "{error}");
    }

    #[test]
    fn settings_of_the_outer_cargo_do_not_reach_the_inner_one() {
        for (name, foreign) in [
            ("CARGO_PKG_NAME", true),
            ("CARGO_ENCODED_RUSTFLAGS", true),
            ("RUSTFLAGS", true),
            ("CARGO_TARGET_DIR", true),
            ("CARGO_HOME", false),
            ("CARGO_HTTP_PROXY", false),
            ("CARGO_REGISTRIES_X_INDEX", false),
            ("CARGO_NET_OFFLINE", false),
            ("PATH", false),
        ] {
            assert_eq!(is_foreign(OsStr::new(name)), foreign, "{name}");
        }
    }
}
