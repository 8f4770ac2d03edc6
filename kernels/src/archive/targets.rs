//! The output of `apt-get indextargets`: the indexes that apt has downloaded, and the origin of their archives.

use std::path::PathBuf;

use deb822_fast::{Deb822, Paragraph};

use super::error::ArchiveError;
use super::{CancelToken, DEADLINE, Job};

/// A downloaded index of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The file of apt's sources that names it.
    pub file: PathBuf,
    /// The archive's address in that file, with a slash added at the end if it has none.
    pub uri: String,
    /// The suite in that file: a codename, or an alias such as `stable`.
    pub release: String,
    /// The archive's codename of the release.
    pub codename: String,
    /// The archive's alias of the release.
    pub suite: String,
    /// The owner of the archive, as the archive states it.
    pub origin: String,
    /// The name of the archive among those of its owner.
    pub label: String,
}

impl Target {
    /// Whether this is Debian's own archive of a release. Its updates, its security archive, and another vendor's
    /// archive *for* that release do not count, although they often have the same name.
    pub fn is_debian_release(&self, codename: &str) -> bool {
        self.is_debian() && self.codename == codename && (self.release == codename || self.release == self.suite)
    }

    /// Whether this is from Debian's own archive. The security archive does not count.
    pub fn is_debian(&self) -> bool {
        self.origin == "Debian" && self.label == "Debian"
    }
}

/// The indexes of packages that this machine's apt has downloaded. Needs no privileges and no network.
///
/// # Errors
/// apt cannot be run, or its output is not in its format.
pub fn of_this_machine(cancel: &CancelToken) -> Result<Vec<Target>, ArchiveError> {
    let job = Job::new("apt-get").args(["indextargets", "Created-By: Packages"]).deadline(DEADLINE);
    let output = job.output(cancel)?;
    // A job's output includes stderr.
    let is_notice = |line: &&str| ["W: ", "N: ", "E: "].iter().any(|mark| line.starts_with(mark));
    let stanzas: Vec<_> = output.lines().filter(|line| !is_notice(line)).collect();
    parse(&stanzas.join("\n")).map_err(ArchiveError::Targets)
}

/// Parses the output of `apt-get indextargets` (see `acquire-additional-files.md` in apt's documentation).
///
/// # Errors
/// What is wrong with the format.
pub fn parse(text: &str) -> Result<Vec<Target>, String> {
    let stanzas: Deb822 = text.parse().map_err(|error: deb822_fast::Error| error.to_string())?;
    Ok(stanzas.iter().map(read_target).collect())
}

fn read_target(stanza: &Paragraph) -> Target {
    let field = |name| stanza.get(name).unwrap_or_default().to_owned();
    let entry = field("Sourcesentry");
    Target {
        // "FILE:NUMBER", where the number counts lines or stanzas.
        file: entry.rsplit_once(':').map_or(entry.as_str(), |(file, _number)| file).into(),
        uri: field("Repo-URI"),
        release: field("Release"),
        codename: field("Codename"),
        suite: field("Suite"),
        origin: field("Origin"),
        label: field("Label"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
MetaKey: main/binary-amd64/Packages
ShortDesc: Packages
Codename: bookworm
Label: Debian
Origin: Debian
Suite: oldstable
Release: bookworm
Repo-URI: http://mirror.example.org/debian/
Fallback-Of: 
Sourcesentry: /etc/apt/sources.list.d/debian.sources:1
Target-Of: deb

MetaKey: main/binary-amd64/Packages
Codename: bookworm-security
Label: Debian-Security
Origin: Debian
Suite: oldstable-security
Release: bookworm-security
Repo-URI: http://mirror.example.org/debian-security/
Sourcesentry: /etc/apt/sources.list.d/debian.sources:2

MetaKey: main/binary-amd64/Packages
Codename: bookworm
Label: vendor-debian-bookworm-prod bookworm
Origin: vendor-debian-bookworm-prod bookworm
Suite: bookworm
Release: bookworm
Repo-URI: https://packages.example.org/debian/12/prod/
Sourcesentry: /etc/apt/sources.list.d/vendor.list:1
";

    #[test]
    fn debians_archive_is_recognized_by_origin_and_label() {
        let targets = parse(TARGETS).unwrap();
        assert_eq!(targets.len(), 3);
        let own: Vec<_> = targets.iter().filter(|target| target.is_debian_release("bookworm")).collect();
        assert_eq!(own, [&targets[0]]);
        assert_eq!(own[0].file, PathBuf::from("/etc/apt/sources.list.d/debian.sources"));
        assert_eq!(own[0].uri, "http://mirror.example.org/debian/");
        assert!(!targets.iter().any(|target| target.is_debian_release("trixie")));
    }

    #[test]
    fn a_source_may_name_a_release_by_its_alias() {
        let targets = parse(&TARGETS.replacen("Release: bookworm\n", "Release: oldstable\n", 1)).unwrap();
        assert!(targets[0].is_debian_release("bookworm"));
    }

    #[test]
    fn empty_output_has_no_targets() {
        assert_eq!(parse("").unwrap(), []);
    }
}
