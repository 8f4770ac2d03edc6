//! Which QEMU there is, and whether it has the devices that scenarios plug and unplug.

use std::ffi::{OsStr, OsString};
use std::process::Command;
use std::time::Duration;

use super::command::{self, CommandError};
use crate::vm::devices::ROOT_PORT;
use crate::vm::iommu::Iommu;
use crate::vm::model::Model;
use crate::vm::process;
use crate::vm::version::Version;

/// The first QEMU with `igb`, an emulated PF with VFs.
pub const OLDEST: Version = Version { major: 8, minor: 0 };

/// The program, as distributions call it.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// What most topologies are made of. A build of QEMU may leave any of these out.
const DEVICES: [&str; 3] = [Model::Igb.row().device, Iommu::Intel.row().device, ROOT_PORT];

/// Printing a version or a list takes it a tenth of a second; a machine under load may need more.
const DEADLINE: Duration = Duration::from_secs(20);

/// A QEMU that will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The program, as it is to be started.
    pub binary: OsString,
    /// Its version.
    pub version: Version,
    /// All that it prints of its version.
    pub banner: String,
    /// All that it prints of its devices.
    pub devices: String,
}

/// Why a QEMU will not do.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// It does not run.
    #[error(transparent)]
    Run(#[from] CommandError),
    /// It does not say its version in the way that QEMU does.
    #[error("`{} --version` does not look like QEMU's: {first_line}", binary.display())]
    NotQemu {
        /// The program.
        binary: OsString,
        /// What it says.
        first_line: String,
    },
    /// It is older than 8.0, the first with `igb`.
    #[error("`{}` is QEMU {version}; {OLDEST} or newer is needed (for igb)", binary.display())]
    TooOld {
        /// The program.
        binary: OsString,
        /// Its version.
        version: Version,
    },
    /// It was built without a device.
    #[error("`{}` (QEMU {version}) was built without {}", binary.display(), devices.join(", "))]
    Devices {
        /// The program.
        binary: OsString,
        /// Its version.
        version: Version,
        /// What it lacks.
        devices: Vec<&'static str>,
    },
}

impl Qemu {
    /// The QEMU that guests will run in ([`process::program`]).
    ///
    /// # Errors
    /// If it does not run, is too old, or lacks a device that topologies are made of.
    pub fn find() -> Result<Qemu, QemuError> {
        Qemu::at(&process::program())
    }

    /// Asks a program for its version and its devices. `-device help` rather than QMP's `qom-list-types`: it needs no
    /// machine, no socket and no handshake, and it counts what QEMU would load from modules.
    ///
    /// # Errors
    /// As for [`Qemu::find`].
    pub fn at(binary: &OsStr) -> Result<Qemu, QemuError> {
        let ask = |args: &[&str]| command::stdout_of(Command::new(binary).args(args), DEADLINE);
        let binary = binary.to_owned();
        let banner = ask(&["--version"])?;
        let Some(version) = Version::of_banner(&banner) else {
            return Err(QemuError::NotQemu { binary, first_line: banner.lines().next().unwrap_or("").to_owned() });
        };
        if version < OLDEST {
            return Err(QemuError::TooOld { binary, version });
        }
        let help = ask(&["-device", "help"])?;
        let devices: Vec<_> = DEVICES.into_iter().filter(|device| !offers(&help, device)).collect();
        if !devices.is_empty() {
            return Err(QemuError::Devices { binary, version, devices });
        }
        Ok(Qemu { binary, version, banner, devices: help })
    }

    /// Whether it has a device.
    pub fn offers(&self, device: &str) -> bool {
        offers(&self.devices, device)
    }

    /// What it says of its version: with the distribution's own.
    pub fn first_line(&self) -> &str {
        self.banner.lines().next().unwrap_or("unknown")
    }
}

/// Whether a device is in what `-device help` prints (`qdev_print_devinfo()` in QEMU's `system/qdev-monitor.c`).
fn offers(help: &str, device: &str) -> bool {
    help.lines()
        .filter_map(|line| line.strip_prefix("name \"")?.split_once('"'))
        .any(|(name, _bus_and_description)| name == device)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    const HELP: &str = include_str!("fixtures/qemu-10.0-device-help.txt");

    #[test]
    fn devices_are_found_by_their_whole_name() {
        for device in DEVICES {
            assert!(offers(HELP, device), "{device}");
        }
        assert!(!offers(HELP, "intel-iom"));
        assert!(!offers(&HELP.replace("name \"igb\"", "name \"igbvf\""), "igb"));
    }

    /// A program that answers as QEMU does.
    fn fake(folder: &tempfile::TempDir, version: &str, help: &str) -> PathBuf {
        let path = folder.path().join("qemu");
        fs::write(folder.path().join("help"), help).unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version {version}' && exit\ncat {}/help\n",
            folder.path().display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn what_will_not_do_is_refused_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let asked = |version, help| Qemu::at(fake(&folder, version, help).as_os_str());

        assert_eq!(asked("10.0.2", HELP).unwrap().version, Version { major: 10, minor: 0 });
        assert!(matches!(asked("7.2.17", HELP), Err(QemuError::TooOld { .. })));
        let without = HELP.replace("name \"igb\"", "name \"other\"");
        assert!(matches!(asked("8.0.0", &without), Err(QemuError::Devices { devices, .. }) if devices == ["igb"]));
        assert!(matches!(asked("of something else", HELP), Err(QemuError::NotQemu { .. })));
        assert!(matches!(Qemu::at("no-such-qemu".as_ref()), Err(QemuError::Run(CommandError::Start { .. }))));
    }
}
