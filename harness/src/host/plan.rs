//! What to do so that nothing is missing any more, as data: nothing here touches the machine.

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

/// Lists that are older than this may name packages that the archive has dropped since.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a plan follows from.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The distribution.
    pub os: OsRelease,
    /// The Debian packages that checks found missing.
    pub packages: Vec<String>,
    /// The packages that need not be installed, but must be known to apt.
    pub to_know: Vec<String>,
    /// What apt knows of all of these; nothing where there is no apt.
    pub apt: Option<Apt>,
    /// Whether apt's lists were updated, or that was tried, since we began.
    pub updated: bool,
}

/// One thing to do, as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Fetch apt's lists.
    Update,
    /// Add a file to apt's sources.
    AddSource {
        /// The file.
        source: NewSource,
        /// What for.
        why: String,
    },
    /// Install packages.
    Install {
        /// Their names.
        packages: Vec<String>,
        /// The suite to prefer for them and what they depend on, if it is not for the pins to choose.
        from: Option<String>,
    },
}

/// Why apt cannot bring what is missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Another distribution's package manager would have to.
    #[error("packages are installed through apt only, and this is {os}: {how}")]
    NotApt {
        /// What this is.
        os: String,
        /// What to do by hand.
        how: String,
    },
    /// The distribution's QEMU is too old, and no newer one is to be had.
    #[error(
        "the newest QEMU that apt can get on {os} is {newest}, and {OLDEST} or newer is needed: use a newer release of \
         the distribution, or name a QEMU of your own in IOV_REGRESS_QEMU"
    )]
    QemuTooOld {
        /// What this is.
        os: String,
        /// The version of the package.
        newest: String,
    },
    /// Backports are needed, and nobody knows where this machine gets its Debian from.
    #[error(
        "the backports of {codename} are needed, but none of apt's sources is Debian's own archive of {codename}: add \
         {codename}-backports by hand, then run this again"
    )]
    NoArchive {
        /// The release.
        codename: String,
    },
    /// The distribution has no such packages.
    #[error("apt does not know {}: see whether `apt-get update` succeeds, and which sources apt has", packages.join(", "))]
    Unknown {
        /// Their names.
        packages: Vec<String>,
    },
}

/// The next steps towards nothing missing; none if there is nothing (more) that can be done. After them, and always
/// after an update, facts are to be gathered and a plan to be made anew.
pub(super) fn plan(facts: &Facts) -> Result<Vec<Step>, PlanError> {
    let Some(apt) = facts.apt.as_ref() else { return elsewhere_plan(facts) };
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

/// Where there is no apt, all that can be done is to say what to install.
fn elsewhere_plan(facts: &Facts) -> Result<Vec<Step>, PlanError> {
    if facts.packages.is_empty() {
        return Ok(Vec::new());
    }
    let how = elsewhere::how_to_install(&facts.os, &facts.packages);
    Err(PlanError::NotApt { os: facts.os.name().to_owned(), how })
}

/// The steps that may teach apt packages which it does not know; nothing if there are none left.
fn learn_from_backports(facts: &Facts, apt: &Apt, unknown: &[String]) -> Result<Option<Vec<Step>>, PlanError> {
    // Debian's releases have newer kernels in their backports. Other distributions have them nowhere.
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

/// Where to get a QEMU from that is new enough.
enum Place {
    /// Where all else comes from.
    Release,
    /// The backports suite of this name.
    Backports(String),
    /// Not known before these steps.
    FirstDo(Vec<Step>),
}

fn place_of_qemu(facts: &Facts, apt: &Apt) -> Result<Place, PlanError> {
    let will_do = |version: &str| Version::of_package(version).is_some_and(|version| version >= OLDEST);
    let offer = &apt.offers[QEMU_PACKAGE];
    let candidate = offer.candidate.as_deref().unwrap_or_default();
    if will_do(candidate) {
        return Ok(Place::Release);
    }
    let too_old = || PlanError::QemuTooOld { os: facts.os.name().to_owned(), newest: candidate.to_owned() };
    let codename = facts.os.codename.as_ref().filter(|_| facts.os.is_debian()).ok_or_else(too_old)?;
    let suite = backports_of(codename);
    if offer.versions_in(&suite).any(will_do) {
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

/// Adds the backports of a release from where the release itself comes from. Their packages are installed only when
/// asked for: the archive says so itself (`NotAutomatic: yes`), no pin is needed.
fn add_backports(apt: &Apt, codename: &str, why: String) -> Result<Vec<Step>, PlanError> {
    let own = apt.targets.iter().filter(|target| target.is_debian_release(codename));
    let source = own
        .filter_map(|target| Some((apt.entries.iter().find(|entry| entry.is_behind(target))?, target)))
        .map(|(entry, target)| entry.for_suite(&backports_of(codename), target))
        .next()
        .ok_or_else(|| PlanError::NoArchive { codename: codename.to_owned() })?;
    Ok(vec![Step::AddSource { source, why }, Step::Update])
}

impl Step {
    /// The command that does it, to be run as root. `staged` is where the content of a new source has been written to.
    pub fn argv(&self, staged: &Path) -> Vec<OsString> {
        let apt_get = |args: &[&str]| {
            // A lock that another apt holds is waited for; a question is answered by keeping what is there.
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

/// What it does, for a progress line.
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
