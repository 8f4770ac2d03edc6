//! The individual checks.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kernels::archive::policy::{self, Offers};
use kernels::{CancelToken, Package, Requirement};

use super::os::{Installer, OsRelease};
use super::qemu::{self, Qemu, QemuError};
use super::{Check, Status, command, newest};
use crate::vm::process;

/// The Debian package with `qemu-system-x86_64`.
pub(super) const QEMU_PACKAGE: &str = "qemu-system-x86";

/// The space that a first run needs on the file system of the cache, in bytes: two sources (the vfio selftests are from
/// 7.3), output trees and images, with a margin.
const COLD_RUN: u64 = 8 << 30;

/// Below this, even a run with everything in the cache may run out of space. In bytes.
const WARM_RUN: u64 = 1 << 30;

/// The QEMU that runs cells, or a check that says what to do.
pub(super) fn find_qemu(os: &OsRelease) -> Result<Qemu, Check> {
    let name = "QEMU";
    let chosen = process::program() != qemu::PROGRAM;
    let found = Qemu::find().inspect(|qemu| newest::mark_used(&qemu.binary));
    found.map_err(|error| match error {
        error if chosen => {
            Check::missing(name, chain(&error), "correct IOV_REGRESS_QEMU, or unset it to use the distribution's QEMU")
        }
        // The error does not tell: it is "permission denied" if a folder of PATH may not be searched.
        _ if !command::on_path(qemu::PROGRAM) => Check::packaged(os, name, "not installed", QEMU_PACKAGE),
        error @ QemuError::TooOld { .. } => Check::packaged(os, name, chain(&error), QEMU_PACKAGE),
        // The package is installed already, so installing it again does not help.
        error => Check::missing(name, chain(&error), "set IOV_REGRESS_QEMU to a full build of QEMU for x86-64"),
    })
}

/// [`find_qemu`] as a check, and whether there is a newer one.
pub(super) fn qemu(os: &OsRelease) -> Vec<Check> {
    match find_qemu(os) {
        Err(missing) => vec![missing],
        Ok(qemu) => {
            let found = Check::ok("QEMU", format!("{} ({})", qemu.version, qemu.binary.display()));
            std::iter::once(found).chain(newest::check(os, &qemu)).collect()
        }
    }
}

/// A tool or header. Tools that only fetch Debian's packages are required only on distributions with apt.
pub(super) fn tool(os: &OsRelease, requirement: &Requirement) -> Option<Check> {
    let debian_only = ["apt", "dpkg"].contains(&requirement.debian_package);
    if debian_only && os.installer() != Installer::Apt {
        return None;
    }
    Some(if requirement.is_met() {
        Check::ok(requirement.name, "found")
    } else {
        let what = format!("not found, needed {}", requirement.why);
        Check::packaged(os, requirement.name, what, requirement.debian_package)
    })
}

/// A library that only some cells need.
pub(super) fn for_some_cells(os: &OsRelease, requirement: &Requirement) -> Check {
    match tool(os, requirement) {
        Some(Check { name, status: Status::Missing { what, fix }, packages }) => {
            let fix = format!("the cells that need it are skipped; {fix}");
            Check { name, status: Status::Warn { what, fix }, packages }
        }
        found => found.unwrap_or_else(|| Check::ok(requirement.name, "not needed here")),
    }
}

/// The program that starts QEMU, so that QEMU ends together with the harness.
pub(super) const SETPRIV: Requirement = Requirement {
    name: "setpriv",
    why: "to end guests together with the harness",
    probe: kernels::Probe::Program("setpriv"),
    debian_package: "util-linux",
};

/// The static C library. The guest's agent is linked statically, so that it needs no other file in the guest.
pub(super) fn static_libc(os: &OsRelease) -> Check {
    let name = "static libc";
    // gcc prints the bare name when it does not find the file.
    let found = command::stdout_of(Command::new("gcc").arg("-print-file-name=libc.a"), Duration::from_secs(20))
        .is_ok_and(|path| Path::new(path.trim()).is_absolute());
    if found {
        Check::ok(name, "found")
    } else {
        Check::packaged(os, name, "libc.a not found, needed to link the guest's agent", "libc6-dev")
    }
}

/// The kernel sources that must be downloaded, for this run (`needed`) and for other runs: whether apt knows them. apt
/// does not know those of other suites, so here they count only on a machine without apt.
pub(super) fn kernel_sources(os: &OsRelease, needed: &[Package], others: &[Package]) -> Vec<Check> {
    let has_apt = os.installer() == Installer::Apt;
    let packages = needed.iter().chain(others).filter(|package| package.suite.is_none() || !has_apt);
    let packages: Vec<_> = packages.cloned().collect();
    if packages.is_empty() {
        return Vec::new();
    }
    let (offers, unknown) = if has_apt {
        let names: Vec<_> = packages.iter().map(|package| package.name.clone()).collect();
        match policy::of_this_machine(&names, &CancelToken::new()) {
            Ok(offers) => (offers, "apt does not know it".to_owned()),
            Err(error) => (Offers::default(), chain(&error)),
        }
    } else {
        (Offers::default(), format!("a Debian package, which {} does not have", os.name()))
    };
    let path = "set `path` of the base in kernels/kernels.toml to a tarball or tree of that kernel";
    let check = |package: &Package| match offers.get(&package.name).and_then(|offer| offer.candidate.as_ref()) {
        Some(version) => Check::ok(&package.name, format!("{version} can be downloaded")),
        None if !needed.contains(package) => {
            Check::warn(&package.name, unknown.clone(), format!("only kernels of that base need it: for these, {path}"))
        }
        None if os.is_debian() => Check::missing(
            &package.name,
            unknown.clone(),
            format!("run `cargo xtask setup` (updates apt's lists), or {path}"),
        ),
        None => Check::missing(&package.name, unknown.clone(), path),
    };
    packages.iter().map(check).collect()
}

/// Free space for the cache.
pub(super) fn disk(cache: &Path) -> Check {
    let name = "disk space";
    // The folder itself may not exist yet.
    let there = cache.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(there) {
        Ok(found) => found.f_bavail * found.f_frsize,
        Err(error) => {
            let what = format!("cannot read the free space of {}: {error}", there.display());
            return Check::warn(name, what, "set IOV_REGRESS_CACHE to a folder with 6 GiB of free space");
        }
    };
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let what = format!("{} free for {}", gib(free), cache.display());
    let fix = format!(
        "a first run needs {}: free some space, or set IOV_REGRESS_CACHE to a folder with more space",
        gib(COLD_RUN)
    );
    match free {
        COLD_RUN.. => Check::ok(name, what),
        WARM_RUN.. => Check::warn(name, what, fix),
        _ => Check::missing(name, what, fix),
    }
}

/// The state of KVM as far as it shows without booting a guest. This is only a hint: KVM may fail although its device
/// opens.
pub(super) fn accelerator(remembered: Option<&str>) -> Check {
    let name = "KVM";
    if let Some(remembered) = remembered {
        return Check::ok(name, remembered);
    }
    let slow = "guests run under TCG, which is slower and gives the same verdicts";
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Check::ok(name, "/dev/kvm opens; the first guest shows whether KVM works"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::warn(
            name,
            "no permission to open /dev/kvm",
            format!("{slow}; to use KVM, run `sudo usermod -aG kvm $USER`"),
        ),
        Err(_) if fs::exists("/dev/kvm").unwrap_or(false) => Check::warn(name, "cannot open /dev/kvm", slow),
        Err(_) => Check::warn(name, "no /dev/kvm", slow),
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(id: &str) -> OsRelease {
        OsRelease { id: id.to_owned(), pretty_name: format!("{id} 1"), ..OsRelease::default() }
    }

    fn requirement(program: &'static str, debian_package: &'static str) -> Requirement {
        Requirement { name: program, why: "to test", probe: kernels::Probe::Program(program), debian_package }
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let check = tool(&os("fedora"), &requirement("no-such-tool", "xz-utils")).unwrap();
        assert_eq!(check.packages, ["xz-utils"]);
        assert_eq!(
            check.status,
            Status::Missing {
                what: "not found, needed to test".to_owned(),
                fix: "run `sudo dnf install xz`".to_owned()
            }
        );
        assert!(!tool(&os("fedora"), &requirement("sh", "dash")).unwrap().is_missing());
    }

    #[test]
    fn what_only_some_cells_need_is_no_reason_not_to_run() {
        let check = for_some_cells(&os("fedora"), &requirement("no-such-tool", "uuid-dev"));
        assert!(!check.is_missing() && check.wants_setup());
        let line = check.to_string();
        assert!(line.starts_with("warn") && line.contains("skipped; run `sudo dnf install libuuid-devel`"), "{line}");
        assert!(!for_some_cells(&os("fedora"), &requirement("sh", "dash")).wants_setup());
    }

    #[test]
    fn dpkg_is_required_only_on_debian() {
        assert!(tool(&os("fedora"), &requirement("no-such-tool", "dpkg")).is_none());
        assert!(tool(&os("debian"), &requirement("no-such-tool", "dpkg")).unwrap().is_missing());
    }

    #[test]
    fn without_apt_kernel_sources_come_from_a_path() {
        let package = |name: &str| [Package { name: name.to_owned(), suite: None }];
        let found = kernel_sources(&os("fedora"), &package("linux-source-6.12"), &package("linux-source-6.1"));
        assert_eq!(found.len(), 2);
        let other = found[1].to_string();
        assert!(other.starts_with("warn") && other.contains("linux-source-6.1") && other.contains("`path`"), "{other}");
        let line = found[0].to_string();
        assert!(found[0].is_missing() && line.contains("fedora 1") && line.contains("`path`"), "{line}");
        assert_eq!(kernel_sources(&os("fedora"), &[], &[]), []);
        let of_suite = [Package { name: "linux-source-7.3".to_owned(), suite: Some("trixie-backports".to_owned()) }];
        assert!(kernel_sources(&os("fedora"), &of_suite, &[])[0].is_missing());
        assert_eq!(kernel_sources(&os("debian"), &of_suite, &[]), []);
    }

    #[test]
    fn the_cached_result_for_kvm_is_shown() {
        assert_eq!(accelerator(Some("unusable: tried")), Check::ok("KVM", "unusable: tried"));
    }
}
