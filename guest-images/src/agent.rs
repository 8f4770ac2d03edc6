//! Runs cargo to build the agent as a static program, and checks the result.

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

/// The name of the crate and of its program.
const PACKAGE: &str = "guest-agent";

/// The target of the build. If the target is named, cargo does not use crt-static for build scripts and procedural
/// macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How often the cancel token is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Prefixes of environment variables that are not passed on. Cargo has set them for the program that runs now, or they
/// would change the build. Settings of registries and of the network are passed on.
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

/// Builds the agent, unless it is up to date. Returns the path of the program.
pub fn build(cancel: &CancelToken, progress: impl FnMut(&str) + Send) -> Result<PathBuf, ImageError> {
    run(command(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))), cancel, progress)
}

fn command(workspace: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace)
        .args(["build", "--locked", "--package", PACKAGE, "--profile", "guest", "--target", TARGET])
        .args(["--message-format", "json", "--color", "never"])
        // Use another target folder, because the flags differ. Also, the outer cargo may hold the lock of its target
        // folder while it waits for this build.
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
    // A process group of its own, so that cargo can be killed together with the compilers that it has started.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(source) => return Err(failed(source)),
    };
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let group = Pid::from_child(&child);
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

/// Kills a process group when the build is cancelled. Returns when the other end of the channel is dropped. That
/// happens before the leader of the group is reaped, so no other process group has the same id.
fn kill_if_cancelled(group: Pid, cancel: &CancelToken, ended: &Receiver<()>) {
    while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
        if cancel.is_cancelled() {
            let _ = kill_process_group(group, Signal::KILL);
            return;
        }
    }
}

/// Passes the output of cargo on to `progress`, and returns it.
fn follow(stderr: impl Read, mut progress: impl FnMut(&str)) -> String {
    let mut said = String::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let line = line.trim();
        // Cargo prints this line at the end of each build, even if there was nothing to do.
        if !line.starts_with("Finished ") {
            progress(line);
        }
        said.push_str(line);
        said.push('\n');
    }
    said
}

/// The result of a build.
#[derive(Debug, Default, PartialEq, Eq)]
struct Built {
    program: Option<PathBuf>,
    first_error: Option<String>,
}

/// A line of cargo's JSON output ("External tools" in the Cargo book), with the fields that are used here.
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

/// Checks that a program is for x86-64 and static, so that it runs without any other file.
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

    /// A cargo package with the name of the agent.
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
    fn the_first_error_of_the_compiler_is_reported() {
        let folder = package("fn main() {\n    let _: u32 = \"text\";\n    let _: u32 = true;\n}\n");
        let result = run(command(folder.path()), &CancelToken::new(), |_| {});
        let Err(ImageError::Build { first_error, .. }) = result else { panic!("it built") };
        assert!(first_error.contains("src/main.rs:2:18") && !first_error.contains("main.rs:3"), "{first_error}");
    }

    /// Waits until a condition is true.
    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "waited 60 s until {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_cancelled_build_is_killed_with_its_child_processes() {
        let folder = package("fn main() {}\n");
        let script = "fn main() {
            std::fs::write(\"new\", std::process::id().to_string()).unwrap();
            std::fs::rename(\"new\", \"pid\").unwrap();
            loop { std::thread::sleep(std::time::Duration::from_secs(1)) }
        }";
        fs::write(folder.path().join("build.rs"), script).unwrap();
        let pid = folder.path().join("pid");
        let cancel = CancelToken::new();
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                wait_until("the build script runs", || pid.exists());
                cancel.cancel();
            });
            run(command(folder.path()), &cancel, |_| {}).unwrap_err()
        });
        assert!(matches!(error, ImageError::Cancelled), "{error}");
        // The process may be a zombie that is not reaped yet. A zombie has an empty command line.
        let command_line = format!("/proc/{}/cmdline", fs::read_to_string(pid).unwrap());
        wait_until("the build script is gone", || fs::read(&command_line).unwrap_or_default().is_empty());
    }

    #[test]
    fn the_output_of_cargo_is_reported_if_the_compiler_was_not_started() {
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
    fn variables_of_the_outer_cargo_are_not_passed_on() {
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
