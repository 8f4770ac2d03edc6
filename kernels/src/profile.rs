//! Profiles: the same kernels, configured to say more, and what that costs and brings.

use std::path::PathBuf;

use serde::Deserialize;

/// A way to configure all kernels of the manifest, and what comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for, in one line.
    pub about: String,
    /// Configuration fragments, absolute, that apply after those of a base.
    pub config: Vec<PathBuf>,
    /// Memory that a guest needs, in MiB; none if it needs no more than others.
    pub memory_mib: Option<u32>,
    /// How many times longer a guest takes to do things.
    pub slower: u32,
    /// What its kernels report although nothing is wrong that a scenario looks for.
    pub known: Vec<KnownReport>,
}

/// A report that a kernel makes of itself and that is held against no cell.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownReport {
    /// Words that are all in it.
    pub says: Vec<String>,
    /// Why it is left out of the verdict.
    pub why: String,
}

impl KnownReport {
    /// Whether a report, as it stands in the log, is this one.
    pub fn is(&self, report: &str) -> bool {
        self.says.iter().all(|words| report.contains(words.as_str()))
    }
}

/// Stands between the name of a kernel and that of its profile. No name has it.
const MARK: char = '+';

/// What a kernel is called under a profile.
pub(crate) fn name_under(variant: &str, profile: &str) -> String {
    format!("{variant}{MARK}{profile}")
}

/// The name of a kernel without its profile, and that of the profile, if it has one.
pub fn split_profile(name: &str) -> (&str, Option<&str>) {
    match name.split_once(MARK) {
        Some((variant, profile)) => (variant, Some(profile)),
        None => (name, None),
    }
}
