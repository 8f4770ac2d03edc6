//! Versions of QEMU.

use std::fmt;

/// A version of QEMU, without the micro version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The major version: a new one each year.
    pub major: u32,
    /// The minor version: three for each major version.
    pub minor: u32,
}

impl Version {
    /// Parses the output of `--version`.
    pub fn of_banner(banner: &str) -> Option<Version> {
        Version::leading(banner.strip_prefix("QEMU emulator version ")?)
    }

    /// Parses the version of a Debian package, with or without its epoch.
    pub fn of_package(version: &str) -> Option<Version> {
        Version::leading(version.split_once(':').map_or(version, |(_epoch, rest)| rest))
    }

    fn leading(text: &str) -> Option<Version> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut parts = text[..end].split('.');
        Some(Version { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed() {
        let version = |major, minor| Some(Version { major, minor });
        for (banner, expected) in [
            ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright (c)", version(10, 0)),
            ("QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u15)", version(7, 2)),
            ("QEMU emulator version 9.1.50 (v9.1.0-1234-gabcdef)", version(9, 1)),
            ("QEMU emulator version ", None),
            ("qemu-img version 10.0.2", None),
            ("", None),
        ] {
            assert_eq!(Version::of_banner(banner), expected, "{banner}");
        }
        assert_eq!(Version::of_package("1:7.2+dfsg-7+deb12u18+b3"), version(7, 2));
        assert_eq!(Version::of_package("8.2.2-0ubuntu1"), version(8, 2));
        assert_eq!(Version::of_package("(none)"), None);
        assert!(version(7, 2) < version(8, 0) && version(10, 0) > version(8, 0));
    }
}
