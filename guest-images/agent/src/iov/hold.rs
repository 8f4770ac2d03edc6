//! `iov hold`: keeps locks of the kernel held for as long as a script needs them.
//!
//! A user of vfio delays the release of its device while the kernel waits for it with locks held
//! (`drivers/vfio/vfio_main.c`, `vfio_unregister_group_dev()`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::own;
use super::{Ended, Words};
use crate::error::{AgentError, doing};
use crate::op::bind;
use crate::program;
use crate::vfio::{self, Devices};

/// The word by which the process in the background is started.
pub const HOLDER: &str = "hold-in-background";

/// The locks that can be held: `pci_rescan_remove_lock`, and those of a write of 0 to `sriov_numvfs`.
const LOCKS: [&str; 2] = ["rescan-lock", "vf-disable"];

/// What a hold needs: a device with a user, and a write that waits for this user.
struct Hold {
    bdf: String,
    attribute: PathBuf,
    data: &'static str,
}

/// `iov hold LOCK DEV`: starts the process that has the device open, and returns when the locks are held.
pub fn hold(mut words: Words) -> Ended {
    let (lock, bdf) = named(&mut words)?;
    own::in_background(HOLDER, vec![lock, bdf])
}

/// The process in the background. It keeps its device until it is killed.
pub fn holder(mut words: Words) -> Ended {
    let (lock, bdf) = named(&mut words)?;
    let hold = Hold::of(&lock, bdf)?;
    doing("name the process", || program::name_process("iov-hold"))?;
    bind::bind(&hold.bdf, own::DRIVER)?;
    let mut open = Devices::default();
    open.open(&hold.bdf, None)?;
    let writer = doing("start a process for the write", || hold.write())?;
    // The write ends first only if the kernel refuses it.
    thread::spawn(move || ended_early(writer));
    vfio::wait_for_request(&open)?;
    doing("tell that the locks are held", own::tell)?;
    loop {
        nix::unistd::pause();
    }
}

/// The words after `hold`.
fn named(words: &mut Words) -> Result<(String, String), AgentError> {
    let lock = words.one(&format!("a lock ({})", LOCKS.join(", ")))?;
    if !LOCKS.contains(&lock.as_str()) {
        let why = format!("there is no lock `{lock}` to hold; these are: {}", LOCKS.join(", "));
        return Err(AgentError::Refused(why));
    }
    let bdf = words.one("the address of a device")?;
    match words.next()? {
        None => Ok((lock, bdf)),
        Some(next) => Err(next.unknown("hold")),
    }
}

impl Hold {
    fn of(lock: &str, bdf: String) -> Result<Hold, AgentError> {
        let device = Path::new("/sys/bus/pci/devices").join(&bdf);
        if !device.exists() {
            return Err(AgentError::Refused(format!("there is no device {bdf}")));
        }
        if lock == LOCKS[0] {
            return Ok(Hold { attribute: device.join("remove"), bdf, data: "1" });
        }
        // The link is gone once the VF is.
        let pf = fs::canonicalize(device.join("physfn"))
            .map_err(|_| AgentError::Refused(format!("{bdf} is no VF: `iov vf 0` names one")))?;
        Ok(Hold { attribute: pf.join("sriov_numvfs"), bdf, data: "0" })
    }

    /// Starts the write in a process of its own, which ends when the device has been released.
    fn write(&self) -> std::io::Result<Child> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo \"$1\" >\"$2\"", "iov-hold", self.data]).arg(&self.attribute);
        // Standard input is the way back to whoever waits for the locks, and standard output may be a pipe of the script.
        shell.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
    }
}

/// Ends the holder with the write. After a write that has waited for the locks, nobody listens any more.
fn ended_early(mut writer: Child) -> ! {
    match writer.wait() {
        Ok(status) => eprintln!("iov hold: the write ended before the kernel asked for the device: {status}"),
        Err(error) => eprintln!("iov hold: cannot wait for the write: {error}"),
    }
    std::process::exit(super::WRONG.into());
}
