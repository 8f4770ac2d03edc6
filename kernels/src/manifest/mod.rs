//! The manifest, `kernels.toml`: bases, variants, bugs and profiles. It says which bugs each variant has; what a cell
//! should show follows from that.

mod read;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::archive::Package;
use crate::bug::Bug;
use crate::near::Unknown;
use crate::profile::{self, Profile};
use crate::ready::ReadyKernel;
use crate::tree::Revision;

/// The name of the manifest in its folder.
pub const MANIFEST: &str = "kernels.toml";

/// The content of `kernels.toml`. All references in it are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The unchanged kernels.
    pub bases: Vec<Base>,
    /// The kernels under test, in the order of the file.
    pub variants: Vec<Variant>,
    /// The bugs that variants have.
    pub bugs: Vec<Bug>,
    /// All profiles.
    pub profiles: Vec<Profile>,
    /// The profile of these kernels, if [`Manifest::under`] has set one.
    pub profile: Option<Profile>,
    /// The configuration of a user's own kernel, if the manifest has one.
    pub own: Option<OwnConfig>,
    /// The name of the base whose vfio selftests test the kernels whose own source has none.
    pub selftests: Option<String>,
}

/// The configuration of a user's own kernel, of any version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnConfig {
    /// Configuration fragments, as absolute paths in the order in which they apply.
    pub config: Vec<PathBuf>,
    /// The symbols among them that the kernel must have.
    pub needs: Vec<Need>,
}

/// Symbols that cells need.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The symbols, without `CONFIG_`.
    pub symbols: Vec<String>,
    /// What cells need them for.
    pub why: String,
    /// Whether a kernel that does not know these symbols has the code anyway.
    #[serde(default)]
    pub implied: bool,
}

/// An unchanged kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its name.
    pub name: String,
    /// Where its source comes from.
    pub source: Source,
    /// Configuration fragments, as absolute paths in the order in which they apply.
    pub config: Vec<PathBuf>,
    /// Fragments of the user's, as absolute paths. They apply after all others.
    pub asked: Vec<PathBuf>,
    /// Ids of the bugs that it has. A variant of it has these bugs too, unless it fixes them.
    pub bugs: Vec<String>,
    /// Ids of the bugs that a variant of it never has, even if its patches add them on other bases: other code of this
    /// base keeps them from showing.
    pub immune: Vec<String>,
}

/// Where a kernel's source comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Debian source package such as `linux-source-6.12`, fetched and verified by apt.
    Package(Package),
    /// A tarball or a tree, as an absolute path.
    Path(PathBuf),
    /// A revision of a user's tree. [`Manifest::own`] is the configuration of such a base.
    Git(Box<Revision>),
    /// No source: the kernel was built elsewhere. It cannot be patched or configured.
    Ready(ReadyKernel),
}

/// A kernel under test: a base with patches, and with configuration of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
    /// The name of its base.
    pub base: String,
    /// Patches, as absolute paths in the order in which they apply. Empty for the base without patches.
    pub patches: Vec<PathBuf>,
    /// Configuration fragments beside those of its base, as absolute paths. They apply after these.
    pub config: Vec<PathBuf>,
    /// Ids of the bugs that it has: first those of its base that its patches do not fix, then those that its patches
    /// add.
    pub bugs: Vec<String>,
    /// Ids of the bugs that its patches fix or add.
    pub concerns: Vec<String>,
    /// Whether its bugs are known. They are not known for a user's own kernel, so no result is expected of it.
    pub known: bool,
}

impl Variant {
    /// Whether it is its base as it is.
    pub fn is_plain(&self) -> bool {
        self.patches.is_empty() && self.config.is_empty()
    }

    /// A variant that is not in the manifest: a base with patches of the user's, or without any.
    pub fn unknown(name: &str, about: &str, base: &str, patches: Vec<PathBuf>) -> Variant {
        Variant {
            name: name.to_owned(),
            about: about.to_owned(),
            base: base.to_owned(),
            patches,
            config: Vec::new(),
            bugs: Vec::new(),
            concerns: Vec::new(),
            known: false,
        }
    }
}

/// Why the manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// Its path.
        path: PathBuf,
        /// Line of the first error, from 1.
        line: usize,
        /// Column of the first error, in characters from 1.
        column: usize,
        /// What is wrong, and what is allowed instead.
        message: String,
    },
}

impl Manifest {
    /// Reads the manifest of this project, which is in the folder of this crate.
    ///
    /// # Errors
    /// Those of [`Manifest::load`].
    pub fn of_project() -> Result<Manifest, ManifestError> {
        Manifest::load(Path::new(env!("CARGO_MANIFEST_DIR")))
    }

    /// Reads `kernels.toml` in a folder. The paths in it are relative to that folder.
    ///
    /// # Errors
    /// [`ManifestError`]: the file cannot be read, is not TOML, has unknown keys, names something twice, refers to a
    /// base, a bug or a file that does not exist, or fixes a bug that is not there.
    pub fn load(folder: &Path) -> Result<Manifest, ManifestError> {
        let path = folder.join(MANIFEST);
        let text = fs::read_to_string(&path).map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        read::manifest(&text, folder).map_err(|wrong| wrong.at(&path, &text))
    }

    /// The same kernels under a profile: its fragments apply after those of each base, and `+NAME` is added to the
    /// names of variants.
    ///
    /// # Errors
    /// [`Unknown`], with the most similar name.
    pub fn under(mut self, name: &str) -> Result<Manifest, Unknown> {
        let profile = find("profile", name, &self.profiles, |profile| &profile.name)?.clone();
        self.bases.iter_mut().for_each(|base| base.config.extend_from_slice(&profile.config));
        self.variants.iter_mut().for_each(|variant| variant.name = profile::name_under(&variant.name, name));
        Ok(Manifest { profile: Some(profile), ..self })
    }

    /// Adds a revision of a user's tree: as a base with this name and with fragments of the user's, and as a variant
    /// with the same name and no patches. Its bugs are not known. Must be called before [`Manifest::under`].
    pub fn add_revision(&mut self, name: &str, revision: Revision, asked: &[PathBuf]) {
        let config = self.own.as_ref().map(|own| own.config.clone()).unwrap_or_default();
        let about = format!("{} of {}: {}", revision.describe, revision.tree.path().display(), revision.commit.subject);
        let source = Source::Git(Box::new(revision));
        self.bases.push(Base {
            name: name.to_owned(),
            source,
            config,
            asked: asked.to_vec(),
            bugs: Vec::new(),
            immune: Vec::new(),
        });
        self.variants.push(Variant::unknown(name, &about, name, Vec::new()));
    }

    /// Adds a kernel that was built elsewhere, under this name. Its bugs are not known.
    pub fn add_ready(&mut self, name: &str, ready: ReadyKernel) {
        let about = format!("{}, as it is", ready.path.display());
        self.bases.push(Base {
            name: name.to_owned(),
            source: Source::Ready(ready),
            config: Vec::new(),
            asked: Vec::new(),
            bugs: Vec::new(),
            immune: Vec::new(),
        });
        self.variants.push(Variant::unknown(name, &about, name, Vec::new()));
    }

    /// The command-line options that select a variant, if it is a user's own kernel without patches. Empty for all
    /// others.
    pub fn own_options(&self, variant: &str) -> Vec<String> {
        let plain = self.variant(variant).ok().filter(|variant| variant.is_plain());
        let Some(base) = plain.and_then(|variant| self.base(&variant.base).ok()) else { return Vec::new() };
        let option = |name: &str, value: &Path| [name.to_owned(), value.display().to_string()];
        let mut words = Vec::new();
        match &base.source {
            Source::Git(revision) => {
                words.extend(option("--tree", revision.tree.path()));
                words.extend(option("--rev", Path::new(&revision.commit.id)));
                words.extend(base.asked.iter().flat_map(|file| option("--config", file)));
            }
            Source::Ready(ready) => {
                words.extend(option("--kernel-image", &ready.path));
                words.extend(ready.modules.iter().flat_map(|modules| option("--modules", modules)));
            }
            Source::Package(_) | Source::Path(_) => {}
        }
        words
    }

    /// A variant by name.
    ///
    /// # Errors
    /// [`Unknown`], with the most similar name.
    pub fn variant(&self, name: &str) -> Result<&Variant, Unknown> {
        find("kernel", name, &self.variants, |variant| &variant.name)
    }

    /// A base by name.
    ///
    /// # Errors
    /// [`Unknown`], with the most similar name.
    pub fn base(&self, name: &str) -> Result<&Base, Unknown> {
        find("base", name, &self.bases, |base| &base.name)
    }

    /// A bug by id.
    ///
    /// # Errors
    /// [`Unknown`], with the most similar id.
    pub fn bug(&self, id: &str) -> Result<&Bug, Unknown> {
        find("bug", id, &self.bugs, |bug| &bug.id)
    }
}

fn find<'a, T>(kind: &'static str, wanted: &str, all: &'a [T], name: fn(&T) -> &String) -> Result<&'a T, Unknown> {
    all.iter()
        .find(|one| name(one) == wanted)
        .ok_or_else(|| Unknown::new(kind, wanted, all.iter().map(|one| name(one).as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_of_the_project_loads_and_each_bug_is_in_some_variants_only() {
        let manifest = Manifest::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let names: Vec<_> = manifest.variants.iter().map(|variant| variant.name.as_str()).collect();
        for name in ["stock", "revert-only", "v2-series", "early-num-vfs", "sriov-mutex"] {
            assert!(names.contains(&name) && names.contains(&format!("{name}-6.1").as_str()), "{name}: {names:?}");
        }
        assert!(manifest.variant("stock").unwrap().is_plain());
        for bug in &manifest.bugs {
            let has = manifest.variants.iter().filter(|variant| variant.bugs.contains(&bug.id)).count();
            assert!(has > 0, "no variant has {}", bug.id);
            assert!(has < names.len(), "every variant has {}: nothing shows that it can be absent", bug.id);
        }
    }

    #[test]
    fn every_deadlock_of_the_project_says_which_cycle_proves_it_or_why_none_does() {
        let manifest = Manifest::of_project().unwrap();
        let silent = |bug: &&Bug| bug.deadlocks() && bug.cycles.is_empty() && bug.unproven.is_none();
        let silent: Vec<_> = manifest.bugs.iter().filter(silent).map(|bug| &bug.id).collect();
        assert!(silent.is_empty(), "{silent:?}");
        for wait in manifest.bugs.iter().flat_map(|bug| &bug.cycles).flatten() {
            assert!(wait.split(" waits in ").nth(1).is_some_and(|rest| rest.contains(" for ")), "{wait}");
        }
    }

    #[test]
    fn every_patch_of_the_project_has_a_licence_and_a_subject() {
        let manifest = Manifest::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        for patch in manifest.variants.iter().flat_map(|variant| &variant.patches) {
            let text = fs::read_to_string(patch).unwrap();
            assert!(text.starts_with("SPDX-License-Identifier: GPL-2.0-only\nSubject: "), "{}", patch.display());
        }
    }
}
