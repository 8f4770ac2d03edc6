//! The machine itself: what a run needs of it, whether that is there, and how to mend it.
//!
//! [`checks`] only looks. [`setup`](fn@setup) mends, through apt, what the checks find missing; where there is no apt
//! it says what to install.

pub mod accel;
mod apt;
mod command;
mod elsewhere;
mod os;
mod plan;
mod probe;
mod qemu;
mod setup;

use std::path::Path;

pub use apt::AptError;
pub use command::CommandError;
pub use os::{Installer, OsRelease};
pub use plan::PlanError;
pub use qemu::{Qemu, QemuError};
pub use setup::{AptOutput, Outcome, SetupError, setup};

/// What is to be looked at, beyond what every run needs.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The folder of the cache; it need not exist yet.
    pub cache: &'a Path,
    /// The Debian packages of kernel sources that have yet to be downloaded, such as `linux-source-6.12`. Bases that
    /// are in the cache already, or that come from a `path`, need not be named.
    pub kernel_sources: &'a [String],
    /// The same of bases that are not to be run now: without them other runs are possible.
    pub other_sources: &'a [String],
    /// What is remembered from booting a guest under KVM, if that was ever tried here.
    pub accelerator: Option<&'a str>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What was found.
    pub status: Status,
    /// The Debian packages that mend it; none if it is fine, or if no package does.
    pub packages: Vec<String>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is fine; details for people.
    Ok(String),
    /// Runs are possible, though not as good as they could be.
    Warn {
        /// What is not as it could be.
        what: String,
        /// What to do about it.
        fix: String,
    },
    /// No run is possible without it.
    Missing {
        /// What is wrong.
        what: String,
        /// What to do about it.
        fix: String,
    },
}

impl Check {
    /// Whether no run is possible until this is mended.
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

    /// Missing, and to be had from a package.
    fn packaged(os: &OsRelease, name: impl Into<String>, what: impl Into<String>, package: &str) -> Check {
        let fix = elsewhere::how_to_install(os, &[package.to_owned()]);
        Check { packages: vec![package.to_owned()], ..Check::missing(name, what, fix) }
    }
}

/// One line for a terminal: `ok`, `warn` or `MISSING`, what was looked at, what was found and what to do.
impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.status {
            Status::Ok(detail) => write!(f, "ok       {:<18} {detail}", self.name),
            Status::Warn { what, fix } => write!(f, "warn     {:<18} {what}; {fix}", self.name),
            Status::Missing { what, fix } => write!(f, "MISSING  {:<18} {what}; {fix}", self.name),
        }
    }
}

/// Looks at everything that a run needs of this machine, and changes nothing. Takes well under a second; asks apt only
/// where kernel sources have yet to be downloaded.
pub fn checks(wanted: &Wanted<'_>) -> Vec<Check> {
    let os = OsRelease::of_this_machine();
    let mut checks = vec![probe::qemu(&os)];
    let tools = kernels::requirements().iter().chain([&probe::SETPRIV]);
    checks.extend(tools.filter_map(|requirement| probe::tool(&os, requirement)));
    checks.push(probe::static_libc(&os));
    checks.extend(probe::kernel_sources(&os, wanted.kernel_sources, wanted.other_sources));
    checks.push(probe::disk(wanted.cache));
    checks.push(probe::accelerator(wanted.accelerator));
    checks
}

/// The QEMU that guests will run in. A tenth of a second.
///
/// # Errors
/// What is missing on this machine for any guest to run: a usable QEMU, and what starts it.
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
    fn a_line_says_what_and_how_to_mend_it() {
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
    fn a_machine_is_looked_at_without_being_changed() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("not/there/yet");
        let found = checks(&Wanted { cache: &folder, kernel_sources: &[], other_sources: &[], accelerator: None });
        assert!(!folder.exists());
        for name in ["QEMU", "gcc", "static libc", "disk space", "KVM"] {
            assert!(found.iter().any(|check| check.name == name), "no check of {name} in {found:#?}");
        }
        for check in &found {
            assert!(check.is_missing() || check.packages.is_empty(), "{check:?} asks for packages and is not missing");
        }
    }
}
