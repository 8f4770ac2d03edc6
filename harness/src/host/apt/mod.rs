//! What apt knows: which versions there are of a package, and where they come from.

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

/// Reading its lists takes apt half a second; a machine under load may need more.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why apt could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// One of its commands failed.
    #[error("apt could not be asked what it knows")]
    Command(#[from] CommandError),
    /// What it printed is not what apt prints.
    #[error("`apt-get indextargets` printed what cannot be read: {0}")]
    Targets(String),
}

/// What apt knows, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub(super) struct Apt {
    /// The packages that were asked for, as far as apt knows them.
    pub offers: Offers,
    /// The indexes that it has downloaded.
    pub targets: Vec<Target>,
    /// The entries of its sources, downloaded or not.
    pub entries: Vec<Entry>,
    /// When its lists were last updated; nothing if never.
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

/// Which versions apt offers of packages. Those that it does not know are left out.
pub(super) fn offers(packages: &[String]) -> Result<Offers, AptError> {
    if packages.is_empty() {
        return Ok(Offers::default());
    }
    let policy = command::stdout_of(Command::new("apt-cache").arg("policy").args(packages), DEADLINE)?;
    Ok(policy::parse(&policy))
}

/// How long ago the lists were updated. The lists themselves carry the archive's dates; the folder into which they are
/// downloaded changes with every update.
fn lists_age() -> Option<Duration> {
    ["/var/lib/apt/lists", "/var/lib/apt/lists/partial"]
        .iter()
        .filter_map(|folder| fs::metadata(folder).and_then(|found| found.modified()).ok())
        .max()
        .map(|updated| SystemTime::now().duration_since(updated).unwrap_or_default())
}

/// Reads a file of apt's sources, for tests of what follows from it.
#[cfg(test)]
pub(super) fn parse_source(file: &str, text: &str) -> Vec<Entry> {
    sources::parse(file.as_ref(), text)
}
