//! The output of `apt-cache policy`: the versions of packages, and which of them apt would install.

use std::collections::BTreeMap;

use super::error::ArchiveError;
use super::{CancelToken, DEADLINE, Job};

/// Packages, and the versions that apt offers of them.
pub type Offers = BTreeMap<String, Offer>;

/// The versions that apt offers of one package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The version that a plain `apt-get install` takes, by version and by the pins of this machine.
    pub candidate: Option<String>,
    /// All versions.
    pub versions: Vec<Version>,
}

/// A version of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The version.
    pub version: String,
    /// The suites that have it. Empty if it is installed and in no suite.
    pub suites: Vec<String>,
}

impl Offer {
    /// The versions from a suite.
    pub fn versions_in<'a>(&'a self, suite: &'a str) -> impl Iterator<Item = &'a str> {
        self.versions
            .iter()
            .filter(move |version| version.suites.iter().any(|other| other == suite))
            .map(|version| version.version.as_str())
    }
}

/// The versions that this machine's apt offers of packages. Packages that it does not know are left out. Needs no
/// privileges and no network.
///
/// # Errors
/// apt cannot be run.
pub fn of_this_machine(packages: &[String], cancel: &CancelToken) -> Result<Offers, ArchiveError> {
    ask(Job::new("apt-cache"), packages, cancel)
}

/// The same with an `apt-cache` that has other options already.
pub(super) fn ask(apt_cache: Job, packages: &[String], cancel: &CancelToken) -> Result<Offers, ArchiveError> {
    if packages.is_empty() {
        return Ok(Offers::default());
    }
    let job = apt_cache.arg("policy").args(packages).deadline(DEADLINE);
    Ok(parse(&job.output(cancel)?))
}

/// Parses the output of `apt-cache policy PACKAGE...` under `LC_ALL=C` (`DoPolicy()` in apt's sources):
///
/// ```text
/// gcc:
///   Installed: (none)
///   Candidate: 4:12.2.0-3
///   Version table:
///      4:12.2.0-3 500
///         500 http://mirror.example.org/debian bookworm/main amd64 Packages
/// ```
pub fn parse(text: &str) -> Offers {
    let mut offers = Offers::new();
    let mut package = None;
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            package = Some(name);
        } else if let Some(name) = package {
            read_detail(offers.entry(name.to_owned()).or_default(), line);
        }
    }
    offers.retain(|_, offer| offer.candidate.is_some());
    offers
}

fn read_detail(offer: &mut Offer, line: &str) {
    if let Some(candidate) = line.strip_prefix("  Candidate: ") {
        offer.candidate = (candidate != "(none)").then(|| candidate.to_owned());
    } else if let Some(source) = line.strip_prefix("        ") {
        // Priority, address, suite and component, architecture, kind.
        let suite = source.split_whitespace().nth(2).and_then(|place| place.rsplit_once('/'));
        if let (Some(version), Some((suite, _component))) = (offer.versions.last_mut(), suite) {
            version.suites.push(suite.to_owned());
        }
    } else if let Some(version) = line.strip_prefix("     ").or_else(|| line.strip_prefix(" *** ")) {
        let version = version.split_whitespace().next().unwrap_or_default().to_owned();
        offer.versions.push(Version { version, suites: Vec::new() });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: &str = "\
qemu-system-x86:
  Installed: 1:10.0.2+ds-2+deb13u1~bpo12+1
  Candidate: 1:10.0.2+ds-2+deb13u1~bpo12+1
  Version table:
 *** 1:10.0.2+ds-2+deb13u1~bpo12+1 100
        100 http://mirror.example.org/debian bookworm-backports/main amd64 Packages
        100 /var/lib/dpkg/status
     1:7.2+dfsg-7+deb12u18+b3 500
        500 http://mirror.example.org/debian bookworm/main amd64 Packages
     1:7.2+dfsg-7+deb12u15 500
        500 http://mirror.example.org/debian-security bookworm-security/main amd64 Packages
linux-source:
  Installed: (none)
  Candidate: 6.1.192-2
  Version table:
     6.1.192-2 500
        500 http://mirror.example.org/debian-security bookworm-security/main amd64 Packages
pinned-away:
  Installed: (none)
  Candidate: (none)
  Version table:
";

    #[test]
    fn versions_and_their_suites_are_read() {
        let offers = parse(POLICY);
        assert_eq!(offers.keys().collect::<Vec<_>>(), ["linux-source", "qemu-system-x86"]);
        let qemu = &offers["qemu-system-x86"];
        assert_eq!(qemu.candidate.as_deref(), Some("1:10.0.2+ds-2+deb13u1~bpo12+1"));
        assert_eq!(qemu.versions.len(), 3);
        assert_eq!(qemu.versions_in("bookworm").collect::<Vec<_>>(), ["1:7.2+dfsg-7+deb12u18+b3"]);
        assert_eq!(qemu.versions_in("bookworm-backports").collect::<Vec<_>>(), ["1:10.0.2+ds-2+deb13u1~bpo12+1"]);
        assert_eq!(offers["linux-source"].versions_in("bookworm").count(), 0);
    }

    proptest! {
        #[test]
        fn anything_parses(text in "(?s).*") {
            parse(&text);
        }
    }
}
