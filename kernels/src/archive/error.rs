//! Why Debian's archive, or a package of it, cannot be used.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mirror::{self, Mirror};
use crate::job::JobError;

/// Why Debian's archive, or a package of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The machine does not have the keys of Debian's archive.
    #[error(
        "the keys of Debian's archive are not installed, so nothing of it can be verified: install the package \
         debian-archive-keyring (Debian and Ubuntu have it; `cargo xtask setup` installs it)"
    )]
    NoKeyring,
    /// Neither apt's sources nor the environment name a mirror of the archive.
    #[error(
        "none of apt's sources is Debian's archive, so no mirror of it is known: set {} to the address of one \
         (https://www.debian.org/mirror/list has all of them)",
        mirror::VARIABLE
    )]
    NoMirror,
    /// The archive does not have the suite.
    #[error(
        "{mirror} has no suite {}: correct the suite (for a kernel: `suite` of the base in kernels/kernels.toml); or this \
         mirror does not have all of Debian's suites, and another one is needed in apt's sources", suites.join(" or ")
    )]
    NoSuite {
        /// The address of the archive.
        mirror: String,
        /// The suites, one of which does not exist.
        suites: Vec<String>,
    },
    /// The signature of the archive is missing, or is not made with the expected keys.
    #[error(
        "apt refuses {mirror}, because it is not signed with the keys in {keyring}:\n{said}\n\
         Update the package debian-archive-keyring, or install it again if that file is damaged. If they are right, \
         something between this machine and the archive changes what is downloaded."
    )]
    NotSigned {
        /// The address of the archive.
        mirror: String,
        /// The file with the keys, in words.
        keyring: String,
        /// apt's own words.
        said: String,
    },
    /// The archive does not answer.
    #[error(
        "cannot download from {mirror}:\n{said}\n\
         Check the network, and the proxy if one is needed (`http_proxy`, or `Acquire::http::Proxy` of apt.conf)."
    )]
    Unreachable {
        /// The address of the archive.
        mirror: String,
        /// apt's own words.
        said: String,
    },
    /// The archive did not answer in time.
    #[error("{mirror} did not answer within {} s", deadline.as_secs())]
    Late {
        /// The address of the archive.
        mirror: String,
        /// The time limit.
        deadline: Duration,
    },
    /// The suite does not have the package, or no longer has it.
    #[error(
        "{suite} has no package {package} (any more); {mirror} was asked.\n{}\n\
         Put one of these into `package` of the base in kernels/kernels.toml, or another `suite`. Or give the base \
         the `path` of a kernel tarball or tree instead of `package` and `suite`.",
        list(offered)
    )]
    Gone {
        /// The package.
        package: String,
        /// The suite.
        suite: String,
        /// The address of the archive.
        mirror: String,
        /// The kernel source packages that the suite has, and their versions.
        offered: Vec<(String, String)>,
    },
    /// The output of apt is not in its format.
    #[error("cannot parse the output of `apt-get indextargets`: {0}")]
    Targets(String),
    /// A file of the private apt could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// apt failed in another way.
    #[error(transparent)]
    Job(#[from] JobError),
}

fn list(offered: &[(String, String)]) -> String {
    if offered.is_empty() {
        return "It has no kernel source package at all.".to_owned();
    }
    let names: Vec<_> = offered.iter().map(|(name, version)| format!("{name} ({version})")).collect();
    format!("It has {}.", names.join(", "))
}

impl ArchiveError {
    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
        let path = path.to_owned();
        move |source| ArchiveError::Write { path, source }
    }

    /// The error for an apt that failed to fetch from a mirror. It depends on apt's messages, which have been the same
    /// for years, and are in English because jobs run in the C locale.
    pub(super) fn of_fetch(error: JobError, mirror: &Mirror, suites: &[String]) -> ArchiveError {
        let uri = mirror.uri.clone();
        let tail = match error {
            JobError::Late { deadline, .. } => return ArchiveError::Late { mirror: uri, deadline },
            JobError::Failed { ref tail, .. } => tail,
            other => return ArchiveError::Job(other),
        };
        let says = |texts: &[&str]| texts.iter().any(|text| tail.contains(text));
        if says(&["is not signed", "NO_PUBKEY", "BADSIG", "EXPKEYSIG", "Missing key"]) {
            let keyring = mirror.keyring().map_or("apt's sources".to_owned(), |path| path.display().to_string());
            return ArchiveError::NotSigned { mirror: uri, keyring, said: complaints(tail) };
        }
        if says(&["does not have a Release file", "no longer has a Release file"]) {
            return ArchiveError::NoSuite { mirror: uri, suites: suites.to_vec() };
        }
        if says(&["Failed to fetch"]) {
            return ArchiveError::Unreachable { mirror: uri, said: complaints(tail) };
        }
        ArchiveError::Job(error)
    }
}

/// The errors and warnings among the lines of apt's output, without those that only follow from others.
fn complaints(tail: &str) -> String {
    let follows = |line: &str| line.contains("Some index files failed") || line.contains("performed unsandboxed");
    let words = tail.lines().filter(|line| !follows(line));
    let words = words.filter_map(|line| line.strip_prefix("E: ").or_else(|| line.strip_prefix("W: ")));
    words.map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn of(tail: &str) -> String {
        let mirror = Mirror {
            uri: "http://mirror.example.org/debian".to_owned(),
            signed_by: "/usr/share/keyrings/debian-archive-keyring.gpg".to_owned(),
        };
        let status = std::process::ExitStatus::from_raw(100 << 8);
        let error = JobError::Failed { program: "apt-get".to_owned(), status, tail: tail.to_owned() };
        ArchiveError::of_fetch(error, &mirror, &["trixie-backports".to_owned()]).to_string()
    }

    #[test]
    fn an_unknown_suite_is_named() {
        let tail = "Err:2 http://mirror.example.org/debian trixie-backports Release\n  404  Not Found\n\
                    E: The repository 'http://mirror.example.org/debian trixie-backports Release' does not have a \
                    Release file.";
        insta::assert_snapshot!(of(tail), @"http://mirror.example.org/debian has no suite trixie-backports: correct the suite (for a kernel: `suite` of the base in kernels/kernels.toml); or this mirror does not have all of Debian's suites, and another one is needed in apt's sources");
    }

    #[test]
    fn a_wrong_signature_names_the_keyring() {
        let old = "W: GPG error: http://mirror.example.org/debian trixie-backports InRelease: The following signatures \
                   couldn't be verified because the public key is not available: NO_PUBKEY 6ED0E7B82643E131\n\
                   E: The repository 'http://mirror.example.org/debian trixie-backports InRelease' is not signed.";
        insta::assert_snapshot!(of(old), @r"
        apt refuses http://mirror.example.org/debian, because it is not signed with the keys in /usr/share/keyrings/debian-archive-keyring.gpg:
          GPG error: http://mirror.example.org/debian trixie-backports InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 6ED0E7B82643E131
          The repository 'http://mirror.example.org/debian trixie-backports InRelease' is not signed.
        Update the package debian-archive-keyring, or install it again if that file is damaged. If they are right, something between this machine and the archive changes what is downloaded.
        ");
        // Debian 13's apt verifies with sqv.
        let new = "W: OpenPGP signature verification failed: http://mirror.example.org/debian trixie-backports \
                   InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key \
                   A1B2, which is needed to verify signature.";
        assert!(of(new).contains("not signed with the keys"), "{}", of(new));
    }

    #[test]
    fn an_archive_that_cannot_be_reached_is_named_with_the_reason() {
        let tail = "Ign:1 http://mirror.example.org/debian trixie-backports InRelease\n\
                    E: Failed to fetch http://mirror.example.org/debian/dists/trixie-backports/InRelease  Could not \
                    resolve 'mirror.example.org'\n\
                    E: Some index files failed to download. They have been ignored, or old ones used instead.";
        insta::assert_snapshot!(of(tail), @r"
        cannot download from http://mirror.example.org/debian:
          Failed to fetch http://mirror.example.org/debian/dists/trixie-backports/InRelease  Could not resolve 'mirror.example.org'
        Check the network, and the proxy if one is needed (`http_proxy`, or `Acquire::http::Proxy` of apt.conf).
        ");
    }

    #[test]
    fn another_failure_shows_all_that_apt_says() {
        assert!(of("E: Unable to read x").ends_with("E: Unable to read x"), "{}", of("E: Unable to read x"));
    }

    #[test]
    fn a_package_that_has_gone_is_replaced_by_what_the_suite_has() {
        let gone = |offered: &[(&str, &str)]| ArchiveError::Gone {
            package: "linux-source-7.3".to_owned(),
            suite: "trixie-backports".to_owned(),
            mirror: "http://mirror.example.org/debian".to_owned(),
            offered: offered.iter().map(|&(name, version)| (name.to_owned(), version.to_owned())).collect(),
        };
        let two = [("linux-source-7.4", "7.4.2-1~bpo13+1"), ("linux-source-7.5", "7.5.1-1~bpo13+1")];
        insta::assert_snapshot!(gone(&two), @r"
        trixie-backports has no package linux-source-7.3 (any more); http://mirror.example.org/debian was asked.
        It has linux-source-7.4 (7.4.2-1~bpo13+1), linux-source-7.5 (7.5.1-1~bpo13+1).
        Put one of these into `package` of the base in kernels/kernels.toml, or another `suite`. Or give the base the `path` of a kernel tarball or tree instead of `package` and `suite`.
        ");
        assert!(gone(&[]).to_string().contains("no kernel source package at all"));
    }
}
