//! Kernel sources from suites of Debian's archive that this machine's own apt does not use.

use std::time::Duration;

use kernels::archive::{KEYRING_PACKAGE, Mirror, Patience, PrivateApt, has_keyring};
use kernels::{ArchiveError, CancelToken, Package};

use super::Check;
use super::os::{Installer, OsRelease};
use super::probe::chain;

/// The lists of one suite take a second. After this time the checks go on without them.
const PATIENCE: Patience = Patience::Brief(Duration::from_secs(15));

/// Whether the keys of the archive are installed, if any package needs them.
pub(super) fn keyring(os: &OsRelease, needed: &[Package], others: &[Package]) -> Option<Check> {
    let name = "Debian's keys";
    let of_suites = |packages: &[Package]| -> Vec<String> {
        packages.iter().filter(|package| package.suite.is_some()).map(ToString::to_string).collect()
    };
    let (needed, others) = (of_suites(needed), of_suites(others));
    if os.installer() != Installer::Apt || (needed.is_empty() && others.is_empty()) {
        return None;
    }
    Some(if has_keyring() {
        Check::ok(name, "found")
    } else if needed.is_empty() {
        let what = format!("not found, needed to verify {}", others.join(", "));
        Check::warn(name, what, format!("only kernels of that base need them: install {KEYRING_PACKAGE}"))
    } else {
        Check::packaged(os, name, format!("not found, needed to verify {}", needed.join(", ")), KEYRING_PACKAGE)
    })
}

/// Whether the archive has the packages. Asks it over the network, for each package that names a suite.
pub(super) fn packages(os: &OsRelease, needed: &[Package], others: &[Package]) -> Vec<Check> {
    // Without apt or without keys, the checks of this machine say what to do.
    if os.installer() != Installer::Apt || !has_keyring() {
        return Vec::new();
    }
    let with_need = needed.iter().map(|package| (package, true)).chain(others.iter().map(|package| (package, false)));
    let check = |(package, needed): (&Package, bool)| {
        let suite = package.suite.as_deref()?;
        Some(answer(package, needed, ask(&package.name, suite)))
    };
    with_need.filter_map(check).collect()
}

/// A version that can be downloaded.
struct Found {
    version: String,
    mirror: String,
}

fn ask(package: &str, suite: &str) -> Result<Found, ArchiveError> {
    let cancel = CancelToken::new();
    let lists = tempfile::tempdir().map_err(|source| ArchiveError::Write { path: std::env::temp_dir(), source })?;
    let mirror = Mirror::of_this_machine(&cancel)?;
    let apt = PrivateApt::fetch(lists.path(), mirror, &[suite], PATIENCE, &cancel)?;
    let offers = apt.offers(&[package.to_owned()], &cancel)?;
    match offers.get(package).and_then(|offer| offer.candidate.clone()) {
        Some(version) => Ok(Found { version, mirror: apt.mirror().uri.clone() }),
        None => Err(apt.gone(package, &cancel)?),
    }
}

fn answer(package: &Package, needed: bool, answer: Result<Found, ArchiveError>) -> Check {
    let suite = package.suite.as_deref().unwrap_or_default();
    let error = match answer {
        Ok(Found { version, mirror }) => {
            return Check::ok(&package.name, format!("{version} of {suite} can be downloaded from {mirror}"));
        }
        Err(error) => error,
    };
    // The errors have several lines, and a check has one.
    let why = chain(&error).split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
    let why = why.trim_end_matches('.').to_owned();
    let uses = if needed { "this run needs it" } else { "only kernels of that base need it" };
    match error {
        ArchiveError::Gone { .. } | ArchiveError::NoSuite { .. } | ArchiveError::NotSigned { .. } if needed => {
            Check::missing(&package.name, why, uses)
        }
        ArchiveError::Gone { .. } | ArchiveError::NoSuite { .. } | ArchiveError::NotSigned { .. } => {
            Check::warn(&package.name, why, uses)
        }
        _ => Check::warn(&package.name, format!("could not ask whether {suite} has it: {why}"), uses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> Package {
        Package { name: "linux-source-7.3".to_owned(), suite: Some("trixie-backports".to_owned()) }
    }

    fn gone() -> ArchiveError {
        ArchiveError::Gone {
            package: "linux-source-7.3".to_owned(),
            suite: "trixie-backports".to_owned(),
            mirror: "http://m/debian".to_owned(),
            offered: vec![("linux-source-7.4".to_owned(), "7.4.1-1~bpo13+1".to_owned())],
        }
    }

    #[test]
    fn an_answer_of_the_archive_is_one_line() {
        let found = Ok(Found { version: "7.3.4-1~bpo13+1".to_owned(), mirror: "http://m/debian".to_owned() });
        let late = Err(ArchiveError::Late { mirror: "http://m/debian".to_owned(), deadline: Duration::from_secs(15) });
        insta::assert_snapshot!(
            [answer(&package(), false, found), answer(&package(), true, Err(gone())), answer(&package(), true, late)]
                .map(|check| check.to_string())
                .join("\n"),
            @r"
        ok       linux-source-7.3   7.3.4-1~bpo13+1 of trixie-backports can be downloaded from http://m/debian
        MISSING  linux-source-7.3   trixie-backports has no package linux-source-7.3 (any more); http://m/debian was asked. It has linux-source-7.4 (7.4.1-1~bpo13+1). Put one of these into `package` of the base in kernels/kernels.toml, or another `suite`. Or give the base the `path` of a kernel tarball or tree instead of `package` and `suite`; this run needs it
        warn     linux-source-7.3   could not ask whether trixie-backports has it: http://m/debian did not answer within 15 s; this run needs it
        "
        );
    }

    #[test]
    fn a_package_that_has_gone_is_missing_only_if_it_is_needed() {
        assert!(answer(&package(), true, Err(gone())).is_missing());
        assert!(!answer(&package(), false, Err(gone())).is_missing());
    }

    #[test]
    fn only_apt_has_keys() {
        let os = |id: &str| OsRelease { id: id.to_owned(), ..OsRelease::default() };
        assert_eq!(keyring(&os("fedora"), &[package()], &[]), None);
        assert_eq!(keyring(&os("debian"), &[Package::default()], &[]), None);
        let check = keyring(&os("ubuntu"), &[package()], &[]).unwrap();
        assert_eq!(check.is_missing(), !has_keyring());
    }
}
