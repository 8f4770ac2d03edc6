//! What this machine's own apt knows: the versions of packages, and the archives that they come from.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kernels::archive::policy::{self, Offers};
use kernels::archive::sources::{self, Entry};
use kernels::archive::targets::{self, Target};
use kernels::{ArchiveError, CancelToken};

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

/// A file to add to apt's sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewSource {
    /// Its path.
    pub path: PathBuf,
    /// Its content.
    pub content: String,
}

impl Apt {
    /// Asks apt about packages. Needs no privileges and no network.
    pub fn look(packages: &[String]) -> Result<Apt, ArchiveError> {
        let cancel = CancelToken::new();
        let targets = targets::of_this_machine(&cancel)?;
        let lists_age = if targets.is_empty() { None } else { lists_age() };
        let offers = policy::of_this_machine(packages, &cancel)?;
        Ok(Apt { offers, targets, entries: sources::of_this_machine(), lists_age })
    }

    /// A new source for another suite of the archive that a downloaded index comes from. None if no entry of the
    /// sources names that index.
    pub fn source_for(&self, suite: &str, target: &Target) -> Option<NewSource> {
        let entry = self.entries.iter().find(|entry| entry.is_behind(target))?;
        let (extension, text) = entry.for_suite(suite, &target.uri);
        let note = format!("# Made by `cargo xtask setup` of iov-regress from {}.\n", entry.file().display());
        let path = format!("/etc/apt/sources.list.d/iov-regress-backports.{extension}").into();
        Some(NewSource { path, content: note + &text })
    }
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
