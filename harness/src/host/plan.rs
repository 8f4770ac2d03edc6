//! The steps that install what is missing, as data. Nothing here changes the machine.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::apt::{Apt, NewSource};
use super::elsewhere;
use super::os::OsRelease;
use super::probe::QEMU_PACKAGE;
use super::qemu::OLDEST;
use crate::vm::version::Version;

/// Lists that are older than this may name packages that the archive has removed since.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// The input of a plan.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The distribution.
    pub os: OsRelease,
    /// The Debian packages that checks found missing.
    pub packages: Vec<String>,
    /// The packages that apt must know, but that are not installed.
    pub to_know: Vec<String>,
    /// What apt knows about all of these packages. None without apt.
    pub apt: Option<Apt>,
    /// Whether this set-up has updated apt's lists, or tried to.
    pub updated: bool,
}

/// One step, which needs root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Fetch apt's lists.
    Update,
    /// Add a file to apt's sources.
    AddSource {
        /// The file.
        source: NewSource,
        /// The reason.
        why: String,
    },
    /// Install packages.
    Install {
        /// Their names.
        packages: Vec<String>,
        /// The suite to prefer for them and their dependencies. None: the pins of this machine decide.
        from: Option<String>,
    },
}

/// Why apt cannot install what is missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The distribution uses another package manager.
    #[error("packages are installed through apt only, and this is {os}: {how}")]
    NotApt {
        /// The distribution.
        os: String,
        /// What to do by hand.
        how: String,
    },
    /// The distribution's QEMU is too old, and apt offers no newer one.
    #[error(
        "the newest QEMU that apt offers on {os} is {newest}, and {OLDEST} or newer is needed: use a newer release of \
         the distribution, or set IOV_REGRESS_QEMU to another QEMU"
    )]
    QemuTooOld {
        /// The distribution.
        os: String,
        /// The version of the package.
        newest: String,
    },
    /// Backports are needed, and none of apt's sources is Debian's own archive.
    #[error(
        "the backports of {codename} are needed, but none of apt's sources is Debian's own archive of {codename}: add \
         {codename}-backports by hand, then run this again"
    )]
    NoArchive {
        /// The codename of the release.
        codename: String,
    },
    /// The distribution has no such packages.
    #[error("apt does not know {}: check whether `apt-get update` succeeds, and which sources apt has", packages.join(", "))]
    Unknown {
        /// Their names.
        packages: Vec<String>,
    },
}

/// The next steps to install what is missing. Empty if nothing (more) can be done. After these steps, gather the facts
/// and plan again; do so after each update too.
pub(super) fn plan(facts: &Facts) -> Result<Vec<Step>, PlanError> {
    let Some(apt) = facts.apt.as_ref() else { return plan_without_apt(facts) };
    let unknown = |names: &[String]| -> Vec<String> {
        names.iter().filter(|name| !apt.offers.contains_key(*name)).cloned().collect()
    };
    let (no_packages, no_sources) = (unknown(&facts.packages), unknown(&facts.to_know));
    if facts.packages.is_empty() && no_sources.is_empty() {
        return Ok(Vec::new());
    }
    let stale = apt.lists_age.is_none_or(|age| age > STALE);
    if !facts.updated && (stale || !no_packages.is_empty()) {
        return Ok(vec![Step::Update]);
    }
    if !no_packages.is_empty() {
        return Err(PlanError::Unknown { packages: no_packages });
    }
    if !no_sources.is_empty()
        && let Some(steps) = learn_from_backports(facts, apt, &no_sources)?
    {
        return Ok(steps);
    }
    install(facts, apt)
}

/// Without apt, no step is possible. The error says what to install.
fn plan_without_apt(facts: &Facts) -> Result<Vec<Step>, PlanError> {
    if facts.packages.is_empty() {
        return Ok(Vec::new());
    }
    let how = elsewhere::how_to_install(&facts.os, &facts.packages);
    Err(PlanError::NotApt { os: facts.os.name().to_owned(), how })
}

/// The steps after which apt may know these packages. None if no such steps are left.
fn learn_from_backports(facts: &Facts, apt: &Apt, unknown: &[String]) -> Result<Option<Vec<Step>>, PlanError> {
    // Only Debian's releases have backports with newer kernels.
    let Some(codename) = facts.os.codename.as_ref().filter(|_| facts.os.is_debian()) else { return Ok(None) };
    if has_backports(apt, codename) {
        return Ok((!facts.updated).then(|| vec![Step::Update]));
    }
    add_backports(apt, codename, format!("the release has no {}", unknown.join(", "))).map(Some)
}

fn install(facts: &Facts, apt: &Apt) -> Result<Vec<Step>, PlanError> {
    let (qemu, mut others): (Vec<_>, Vec<_>) = facts.packages.iter().cloned().partition(|name| name == QEMU_PACKAGE);
    others.sort();
    others.dedup();
    let mut steps = Vec::new();
    if !qemu.is_empty() {
        match place_of_qemu(facts, apt)? {
            Place::Release => others.push(QEMU_PACKAGE.to_owned()),
            Place::Backports(suite) => {
                steps.push(Step::Install { packages: vec![QEMU_PACKAGE.to_owned()], from: Some(suite) });
            }
            Place::FirstDo(steps) => return Ok(steps),
        }
    }
    if !others.is_empty() {
        steps.insert(0, Step::Install { packages: others, from: None });
    }
    Ok(steps)
}

/// Where to get a QEMU that is new enough.
enum Place {
    /// The suites that all other packages come from.
    Release,
    /// The backports suite of this name.
    Backports(String),
    /// Not known until these steps are done.
    FirstDo(Vec<Step>),
}

fn place_of_qemu(facts: &Facts, apt: &Apt) -> Result<Place, PlanError> {
    let is_new_enough = |version: &str| Version::of_package(version).is_some_and(|version| version >= OLDEST);
    let offer = &apt.offers[QEMU_PACKAGE];
    let candidate = offer.candidate.as_deref().unwrap_or_default();
    if is_new_enough(candidate) {
        return Ok(Place::Release);
    }
    let too_old = || PlanError::QemuTooOld { os: facts.os.name().to_owned(), newest: candidate.to_owned() };
    let codename = facts.os.codename.as_ref().filter(|_| facts.os.is_debian()).ok_or_else(too_old)?;
    let suite = backports_of(codename);
    if offer.versions_in(&suite).any(is_new_enough) {
        return Ok(Place::Backports(suite));
    }
    if !has_backports(apt, codename) {
        let why = format!("the release's QEMU is {candidate}, and {OLDEST} or newer is needed");
        return add_backports(apt, codename, why).map(Place::FirstDo);
    }
    if facts.updated { Err(too_old()) } else { Ok(Place::FirstDo(vec![Step::Update])) }
}

fn backports_of(codename: &str) -> String {
    format!("{codename}-backports")
}

fn has_backports(apt: &Apt, codename: &str) -> bool {
    apt.entries.iter().any(|entry| entry.has_suite(&backports_of(codename)))
}

/// Adds the backports of a release, from the archive that the release itself comes from. apt installs packages of
/// backports only on request, because the archive sets `NotAutomatic: yes`. So no pin is needed.
fn add_backports(apt: &Apt, codename: &str, why: String) -> Result<Vec<Step>, PlanError> {
    let mut own = apt.targets.iter().filter(|target| target.is_debian_release(codename));
    let source = own
        .find_map(|target| apt.source_for(&backports_of(codename), target))
        .ok_or_else(|| PlanError::NoArchive { codename: codename.to_owned() })?;
    Ok(vec![Step::AddSource { source, why }, Step::Update])
}

impl Step {
    /// The command of this step, to be run as root. `staged` is the file with the content of a new source.
    pub fn argv(&self, staged: &Path) -> Vec<OsString> {
        let apt_get = |args: &[&str]| {
            // Waits for a lock that another apt holds. Answers questions by keeping the existing files.
            let common = ["env", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"];
            let options = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"];
            common.iter().chain(&options).chain(args).map(OsString::from).collect::<Vec<_>>()
        };
        match self {
            Step::Update => apt_get(&["update"]),
            Step::AddSource { source, .. } => {
                let mut argv: Vec<OsString> = ["install", "-m", "644", "-T"].map(OsString::from).into();
                argv.extend([staged.into(), source.path.clone().into()]);
                argv
            }
            Step::Install { packages, from } => {
                let mut args = vec!["install", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"];
                if let Some(suite) = from {
                    args.extend(["-t", suite]);
                }
                args.extend(packages.iter().map(String::as_str));
                apt_get(&args)
            }
        }
    }
}

/// The step in words, for a progress line.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Update => f.write_str("update apt's lists"),
            Step::AddSource { source, why } => write!(f, "add {} ({why})", source.path.display()),
            Step::Install { packages, from: None } => write!(f, "install {}", packages.join(" ")),
            Step::Install { packages, from: Some(suite) } => write!(f, "install {} from {suite}", packages.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests;
