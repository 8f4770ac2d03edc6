//! This machine: what a run needs of it, whether it is installed, and how to install it.
//!
//! [`checks`] changes nothing. [`setup`](fn@setup) installs, through apt, what the checks find missing. Without apt it
//! says what to install.

pub mod accel;
mod apt;
mod archive;
pub mod clock;
mod command;
mod elsewhere;
mod newest;
mod os;
mod plan;
pub mod plugin;
mod probe;
mod qemu;
mod setup;
mod shelf;

use std::path::Path;

use kernels::Package;

pub use command::CommandError;
pub use newest::{NewestQemu, NewestQemuError, newest_qemu};
pub use os::{Installer, OsRelease};
pub use plan::PlanError;
pub use qemu::{Qemu, QemuError};
pub use setup::{AptOutput, Outcome, SetupError, setup};
pub use shelf::shelf_check;

/// What to check in addition to the needs of every run.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The folder of the cache; it need not exist yet.
    pub cache: &'a Path,
    /// The Debian packages of kernel sources that must be downloaded, such as `linux-source-6.12`. Bases that are in
    /// the cache already, or that come from a `path`, need no package.
    pub kernel_sources: &'a [Package],
    /// The same packages for bases that this run does not use. Other runs are possible without them.
    pub other_sources: &'a [Package],
    /// The cached result of booting a guest under KVM, if that was tried on this machine.
    pub accelerator: Option<&'a str>,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// The result.
    pub status: Status,
    /// The Debian packages to install. Empty if nothing is missing, or if no package helps. A check that only warns has
    /// packages if some cells need them.
    pub packages: Vec<String>,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing is missing. The text is for people.
    Ok(String),
    /// Runs are possible, with a limitation.
    Warn {
        /// The limitation.
        what: String,
        /// What to do about it.
        fix: String,
    },
    /// No run is possible.
    Missing {
        /// What is wrong.
        what: String,
        /// What to do about it.
        fix: String,
    },
}

impl Check {
    /// Whether `setup` has something to do about it.
    fn wants_setup(&self) -> bool {
        self.is_missing() || !self.packages.is_empty()
    }

    /// Whether no run is possible until this is fixed.
    pub fn is_missing(&self) -> bool {
        matches!(self.status, Status::Missing { .. })
    }

    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Check {
        Check { name: name.into(), status: Status::Ok(detail.into()), packages: Vec::new() }
    }

    fn warn(name: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Check {
        let status = Status::Warn { what: what.into(), fix: fix.into() };
        Check { name: name.into(), status, packages: Vec::new() }
    }

    fn missing(name: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Check {
        let status = Status::Missing { what: what.into(), fix: fix.into() };
        Check { name: name.into(), status, packages: Vec::new() }
    }

    /// Missing, and a package provides it.
    fn packaged(os: &OsRelease, name: impl Into<String>, what: impl Into<String>, package: &str) -> Check {
        let fix = elsewhere::how_to_install(os, &[package.to_owned()]);
        Check { packages: vec![package.to_owned()], ..Check::missing(name, what, fix) }
    }
}

/// One line for a terminal: `ok`, `warn` or `MISSING`, what was checked, the result and what to do.
impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.status {
            Status::Ok(detail) => write!(f, "ok       {:<18} {detail}", self.name),
            Status::Warn { what, fix } => write!(f, "warn     {:<18} {what}; {fix}", self.name),
            Status::Missing { what, fix } => write!(f, "MISSING  {:<18} {what}; {fix}", self.name),
        }
    }
}

/// Checks everything that a run needs of this machine, and changes nothing. Takes well under a second. Asks apt only if
/// kernel sources must be downloaded.
pub fn checks(wanted: &Wanted<'_>) -> Vec<Check> {
    let os = OsRelease::of_this_machine();
    let mut checks = probe::qemu(&os);
    let tools = kernels::requirements().iter().chain([&probe::SETPRIV]);
    checks.extend(tools.filter_map(|requirement| probe::tool(&os, requirement)));
    checks.extend(kernels::selftest_requirements().iter().map(|requirement| probe::for_some_cells(&os, requirement)));
    checks.push(probe::static_libc(&os));
    checks.extend(probe::kernel_sources(&os, wanted.kernel_sources, wanted.other_sources));
    checks.extend(archive::keyring(&os, wanted.kernel_sources, wanted.other_sources));
    checks.push(probe::disk(wanted.cache));
    checks.push(probe::accelerator(wanted.accelerator));
    checks
}

/// Checks whether Debian's archive has the kernel sources that name a suite of it. Asks over the network: one second for
/// each, and at most 15. [`setup`](fn@setup) can do nothing about the result.
pub fn archive_checks(wanted: &Wanted<'_>) -> Vec<Check> {
    archive::packages(&OsRelease::of_this_machine(), wanted.kernel_sources, wanted.other_sources)
}

/// The QEMU that runs guests. Takes a tenth of a second.
///
/// # Errors
/// The checks that failed, if no guest can run on this machine: there is no usable QEMU, or no `setpriv` to start it.
pub fn for_guests() -> Result<Qemu, Vec<Check>> {
    let os = OsRelease::of_this_machine();
    let setpriv = probe::tool(&os, &probe::SETPRIV).filter(Check::is_missing);
    match (probe::find_qemu(&os), setpriv) {
        (Ok(qemu), None) => Ok(qemu),
        (qemu, setpriv) => Err(qemu.err().into_iter().chain(setpriv).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_wrong_and_what_to_do() {
        insta::assert_snapshot!(
            [
                Check::ok("QEMU", "10.0.2"),
                Check::warn("KVM", "no /dev/kvm", "guests run under TCG"),
                Check::missing("bison", "not found", "apt-get install bison"),
            ]
            .map(|check| check.to_string())
            .join("\n"),
            @r"
        ok       QEMU               10.0.2
        warn     KVM                no /dev/kvm; guests run under TCG
        MISSING  bison              not found; apt-get install bison
        "
        );
    }

    #[test]
    fn checks_do_not_change_the_machine() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("not/there/yet");
        let found = checks(&Wanted { cache: &folder, kernel_sources: &[], other_sources: &[], accelerator: None });
        assert!(!folder.exists());
        for name in ["QEMU", "gcc", "static libc", "disk space", "KVM"] {
            assert!(found.iter().any(|check| check.name == name), "no check of {name} in {found:#?}");
        }
        for check in &found {
            let is_met = matches!(check.status, Status::Ok(_));
            assert!(!is_met || check.packages.is_empty(), "{check:?} asks for packages and nothing is missing");
        }
    }
}
