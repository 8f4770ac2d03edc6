//! The QEMU of this machine, its version, and whether it has the devices that scenarios plug and unplug.

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

/// The name of the program in distributions.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// The devices that most topologies use. A build of QEMU may lack any of them.
const DEVICES: [&str; 3] = [Model::Igb.row().device, Iommu::Intel.row().device, ROOT_PORT];

/// QEMU prints its version or its devices in a tenth of a second. A machine under load may need more.
const DEADLINE: Duration = Duration::from_secs(20);

/// A QEMU that can run guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The name or path with which to start it.
    pub binary: OsString,
    /// Its version.
    pub version: Version,
    /// The whole output of `--version`.
    pub banner: String,
    /// The whole output of `-device help`.
    pub devices: String,
}

/// Why a QEMU cannot run guests.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// It does not run.
    #[error(transparent)]
    Run(#[from] CommandError),
    /// Its `--version` does not print what QEMU prints.
    #[error("`{} --version` does not print a version of QEMU: {first_line}", binary.display())]
    NotQemu {
        /// The program.
        binary: OsString,
        /// The first line of its output.
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
    /// It was built without some of the devices.
    #[error("`{}` (QEMU {version}) was built without {}", binary.display(), devices.join(", "))]
    Devices {
        /// The program.
        binary: OsString,
        /// Its version.
        version: Version,
        /// The devices that it lacks.
        devices: Vec<&'static str>,
    },
}

impl Qemu {
    /// The QEMU that runs guests ([`process::program`]).
    ///
    /// # Errors
    /// If it does not run, is too old, or lacks a device that most topologies use.
    pub fn find() -> Result<Qemu, QemuError> {
        Qemu::at(&process::program())
    }

    /// Asks a program for its version and its devices. Uses `-device help` instead of QMP's `qom-list-types`: it needs
    /// no machine, no socket and no handshake, and it includes devices that QEMU loads from modules.
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

    /// The first line of `--version`, which includes the version of the distribution's package.
    pub fn first_line(&self) -> &str {
        self.banner.lines().next().unwrap_or("unknown")
    }
}

/// Whether the output of `-device help` lists a device (`qdev_print_devinfo()` in QEMU's `system/qdev-monitor.c`).
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

    /// A program that prints what QEMU prints.
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
    fn an_unusable_qemu_is_refused_with_the_reason() {
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
