//! What apt knows: the versions of packages, and the archives that they come from.

mod policy;
mod sources;
mod targets;

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

pub(super) use policy::Offers;
#[cfg(test)]
pub(super) use policy::parse as parse_policy;
pub(super) use sources::{Entry, NewSource};
pub(super) use targets::Target;
#[cfg(test)]
pub(super) use targets::parse as parse_targets;

use super::command::{self, CommandError};

/// apt reads its lists in half a second. A machine under load may need more.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why a query of apt failed.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// One of its commands failed.
    #[error("cannot query apt")]
    Command(#[from] CommandError),
    /// The output is not in apt's format.
    #[error("cannot parse the output of `apt-get indextargets`: {0}")]
    Targets(String),
}

/// What apt knows, as far as it is relevant here.
#[derive(Clone, Debug, Default)]
pub(super) struct Apt {
    /// The packages of the query that apt knows.
    pub offers: Offers,
    /// The indexes that it has downloaded.
    pub targets: Vec<Target>,
    /// The entries of its sources, whether their indexes are downloaded or not.
    pub entries: Vec<Entry>,
    /// The time since its lists were last updated. None if they never were.
    pub lists_age: Option<Duration>,
}

impl Apt {
    /// Asks apt about packages. Needs no privileges and no network.
    pub fn look(packages: &[String]) -> Result<Apt, AptError> {
        let mut list_indexes = Command::new("apt-get");
        list_indexes.args(["indextargets", "Created-By: Packages"]);
        let targets = targets::parse(&command::stdout_of(&mut list_indexes, DEADLINE)?).map_err(AptError::Targets)?;
        let lists_age = if targets.is_empty() { None } else { lists_age() };
        Ok(Apt { offers: offers(packages)?, targets, entries: sources::of_this_machine(), lists_age })
    }
}

/// The versions that apt offers of packages. Packages that it does not know are left out.
pub(super) fn offers(packages: &[String]) -> Result<Offers, AptError> {
    if packages.is_empty() {
        return Ok(Offers::default());
    }
    let policy = command::stdout_of(Command::new("apt-cache").arg("policy").args(packages), DEADLINE)?;
    Ok(policy::parse(&policy))
}

/// The time since the lists were updated. The lists themselves have the dates of the archive, but each update changes
/// the folder into which they are downloaded.
fn lists_age() -> Option<Duration> {
    ["/var/lib/apt/lists", "/var/lib/apt/lists/partial"]
        .iter()
        .filter_map(|folder| fs::metadata(folder).and_then(|found| found.modified()).ok())
        .max()
        .map(|updated| SystemTime::now().duration_since(updated).unwrap_or_default())
}

/// Parses a file of apt's sources, for tests outside this module.
#[cfg(test)]
pub(super) fn parse_source(file: &str, text: &str) -> Vec<Entry> {
    sources::parse(file.as_ref(), text)
}
