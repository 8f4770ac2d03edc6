//! `iov own`: a user of vfio with a single thread, and with its reaction to the kernel's request.

use std::fs::{self, File};
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use super::{Ended, Next, Words, missing};
use crate::error::{AgentError, doing};
use crate::op::bind;
use crate::program;
use crate::vfio::{self, Device, Devices};

/// The word by which the process in the background is started.
pub const OWNER: &str = "own-in-background";

/// The driver of devices with a user of vfio.
pub const DRIVER: &str = "vfio-pci";

/// What a process in the background writes when it has what it was started for.
const READY: &str = "ready\n";

/// `iov own`: starts the process, and returns when its devices are open.
pub fn own(mut words: Words) -> Ended {
    in_background(OWNER, words.rest()?)
}

/// Starts a process in the background by a word, and returns when it is ready. Standard input is the way back from it.
pub fn in_background(word: &str, arguments: Vec<String>) -> Ended {
    let (mut back, writer) = doing("make a pipe", io::pipe)?;
    let mut command = Command::new(program::SELF);
    command.arg0(super::NAME).arg(word).args(arguments).stdin(Stdio::from(OwnedFd::from(writer)));
    // A shell that takes the pid with `$(iov own ...)` waits until nobody has that output open any more.
    let output = doing("duplicate standard error", || io::stderr().as_fd().try_clone_to_owned())?;
    command.stdout(Stdio::from(output));
    let child = doing("start a process in the background", || command.spawn())?;
    drop(command);
    let mut said = String::new();
    doing("wait for the process in the background", || back.read_to_string(&mut said))?;
    if said == READY {
        println!("{}", child.id());
        return Ok(ExitCode::SUCCESS);
    }
    // It has said why on standard error.
    Ok(ExitCode::from(super::WRONG))
}

/// The process in the background.
pub fn owner(mut words: Words) -> Ended {
    let (mut devices, mut commands, mut release) = (Vec::new(), Vec::new(), false);
    while let Some(next) = words.next()? {
        match next {
            Next::Word(bdf) => devices.push(bdf),
            Next::Option(name) if name == "on-request" => commands.push(words.value(&name)?),
            Next::Option(name) if name == "release" => release = true,
            other => return Err(other.unknown("own")),
        }
    }
    if devices.is_empty() {
        return Err(missing("the address of a device"));
    }
    doing("name the process", || program::name_process("iov-own"))?;
    let mut open = Devices::default();
    for bdf in &devices {
        bind::bind(bdf, DRIVER)?;
        open.open(bdf, None)?;
    }
    doing("tell that the devices are open", tell)?;
    if commands.is_empty() && !release {
        loop {
            nix::unistd::pause();
        }
    }
    while !open.is_empty() {
        let bdf = vfio::wait_for_request(&open)?;
        commands.iter().try_for_each(|command| react(command, &bdf, &open))?;
        if release {
            open.close_all();
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the process that has started this one, and ends the way back.
pub fn tell() -> io::Result<()> {
    PipeWriter::from(io::stdin().as_fd().try_clone_to_owned()?).write_all(READY.as_bytes())?;
    let nothing = File::open("/dev/null")?;
    Ok(nix::unistd::dup2_stdin(nothing)?)
}

/// Runs a command. It has the devices open, too, as any program has that such an application starts.
fn react(command: &str, bdf: &str, open: &Devices) -> Result<(), AgentError> {
    open.iter().try_for_each(Device::inherit)?;
    let sysfs = fs::canonicalize(format!("/sys/bus/pci/devices/{bdf}")).unwrap_or_default();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).env("BDF", bdf).env("SYSFS", sysfs).stdin(Stdio::null());
    let status = doing(&format!("run `{command}`"), || shell.status())?;
    if !status.success() {
        eprintln!("iov own: `{command}` ended with {status}");
    }
    Ok(())
}
