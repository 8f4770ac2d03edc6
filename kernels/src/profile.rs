//! Profiles: the same kernels with another configuration, for example with lockdep and KASAN.

use std::path::PathBuf;

use serde::Deserialize;

/// A configuration for all kernels of the manifest, and what cells on such kernels need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Its purpose, in one line.
    pub about: String,
    /// Configuration fragments, as absolute paths. They apply after those of a base.
    pub config: Vec<PathBuf>,
    /// Memory that a guest needs, in MiB. None if it needs no more than without the profile.
    pub memory_mib: Option<u32>,
    /// By which factor a guest is slower than without the profile.
    pub slower: u32,
    /// Reports of its kernels that make no cell fail.
    pub known: Vec<KnownReport>,
}

/// A report in the kernel's log that makes no cell fail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownReport {
    /// Texts that the report contains, all of them.
    pub says: Vec<String>,
    /// Why it does not count.
    pub why: String,
}

impl KnownReport {
    /// Whether a report from the log is this one.
    pub fn is(&self, report: &str) -> bool {
        self.says.iter().all(|words| report.contains(words.as_str()))
    }
}

/// Separates the name of a kernel from that of its profile. No name contains it.
const MARK: char = '+';

/// The name of a kernel under a profile.
pub(crate) fn name_under(variant: &str, profile: &str) -> String {
    format!("{variant}{MARK}{profile}")
}

/// Splits a name into that of the kernel and that of its profile, if it has one.
pub fn split_profile(name: &str) -> (&str, Option<&str>) {
    match name.split_once(MARK) {
        Some((variant, profile)) => (variant, Some(profile)),
        None => (name, None),
    }
}
