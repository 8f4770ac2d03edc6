//! The version of a series, as it stands in the brackets of a subject: `v2`, or `v3.1`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The version of a series. Single patches are sometimes sent again with a minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Version {
    /// The 3 of `v3.1`. From 1: a series without a version is version 1.
    pub major: u32,
    /// The 1 of `v3.1`. 0 if there is none.
    pub minor: u32,
}

impl Version {
    /// The first version.
    pub const FIRST: Version = Version::of(1);

    /// A version without a minor number.
    pub const fn of(major: u32) -> Version {
        Version { major, minor: 0 }
    }
}

impl Default for Version {
    fn default() -> Version {
        Version::FIRST
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            0 => write!(f, "{}", self.major),
            minor => write!(f, "{}.{minor}", self.major),
        }
    }
}

/// The text is no version.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no version of a series: that is a number, or two numbers with a dot between them")]
pub struct NoVersion(String);

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Version, NoVersion> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let both = digits(major).zip(digits(minor));
        both.map(|(major, minor)| Version { major, minor }).ok_or_else(|| NoVersion(text.to_owned()))
    }
}

/// How it is written to files: a number, or a text if it has a minor number.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u32),
    Text(String),
}

impl From<Version> for Written {
    fn from(version: Version) -> Written {
        if version.minor == 0 { Written::Number(version.major) } else { Written::Text(version.to_string()) }
    }
}

impl TryFrom<Written> for Version {
    type Error = NoVersion;

    fn try_from(written: Written) -> Result<Version, NoVersion> {
        match written {
            Written::Number(major) => Ok(Version::of(major)),
            Written::Text(text) => text.parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_back_from_a_file() {
        for (version, written) in [(Version::of(2), "2"), (Version { major: 3, minor: 1 }, "\"3.1\"")] {
            assert_eq!(serde_json::to_string(&version).unwrap(), written);
            assert_eq!(serde_json::from_str::<Version>(written).unwrap(), version);
        }
        assert!(serde_json::from_str::<Version>("\"3.x\"").is_err());
    }

    #[test]
    fn versions_are_compared_by_number() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("3") < version("3.1") && version("3.9") < version("3.10") && version("3.10") < version("4"));
        for text in ["", "3.", ".1", "+3", "3.1.2", "3a"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
