//! The manifest, `kernels.toml`: bases, variants, and the bugs that variants have.

mod read;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::bug::Bug;
use crate::near::Unknown;
use crate::profile::{self, Profile};
use crate::ready::ReadyKernel;
use crate::tree::Revision;

/// The name of the manifest in its folder.
pub const MANIFEST: &str = "kernels.toml";

/// What `kernels.toml` says, checked: every reference in it leads somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The unchanged kernels.
    pub bases: Vec<Base>,
    /// The kernels under test, in the order of the file.
    pub variants: Vec<Variant>,
    /// The bugs that variants have.
    pub bugs: Vec<Bug>,
    /// The profiles that there are.
    pub profiles: Vec<Profile>,
    /// The profile that these kernels have, if any ([`Manifest::under`]).
    pub profile: Option<Profile>,
    /// How a user's own kernel is configured, if the manifest says so.
    pub own: Option<OwnConfig>,
}

/// How a user's own kernel is configured, whatever its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnConfig {
    /// Configuration fragments, absolute, in the order in which they apply.
    pub config: Vec<PathBuf>,
    /// What of it the kernel must have.
    pub needs: Vec<Need>,
}

/// Symbols that cells cannot do without.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The symbols, without `CONFIG_`.
    pub symbols: Vec<String>,
    /// What for.
    pub why: String,
    /// Whether a kernel that does not know the symbols has the code all the same.
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
    /// Configuration fragments, absolute, in the order in which they apply.
    pub config: Vec<PathBuf>,
    /// Fragments that a user asked for, absolute, on top of all others.
    pub asked: Vec<PathBuf>,
    /// Ids of the bugs it has, and with it each of its variants that does not fix them.
    pub bugs: Vec<String>,
    /// Ids of the bugs that no patch brings to it: something else here keeps them from showing.
    pub immune: Vec<String>,
}

/// Where a kernel's source comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Debian source package such as `linux-source-6.12`, fetched and verified by apt.
    Package(String),
    /// A tarball or a tree, absolute.
    Path(PathBuf),
    /// A revision of a user's tree. Such a base is configured as [`Manifest::own`] says.
    Git(Box<Revision>),
    /// It needs none: the kernel is built already. Patches and configuration have no say in it.
    Ready(ReadyKernel),
}

/// A kernel under test: a base with patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
    /// The name of its base.
    pub base: String,
    /// Patches, absolute, in the order in which they apply. None for the base as it is.
    pub patches: Vec<PathBuf>,
    /// Ids of the bugs it has: those of its base that its patches do not fix, then those that they add.
    pub bugs: Vec<String>,
    /// Ids of the bugs that its patches fix or add: what it is there to show.
    pub concerns: Vec<String>,
    /// Whether it is known which bugs it has. A user's own kernel passes or fails as it comes; nothing is expected of it.
    pub known: bool,
}

impl Variant {
    /// Whether it is its base as it is.
    pub fn is_plain(&self) -> bool {
        self.patches.is_empty()
    }

    /// A kernel that the manifest knows nothing of: patches of a user's own, or none, on a base.
    pub fn unknown(name: &str, about: &str, base: &str, patches: Vec<PathBuf>) -> Variant {
        let (name, about, base) = (name.to_owned(), about.to_owned(), base.to_owned());
        Variant { name, about, base, patches, bugs: Vec::new(), concerns: Vec::new(), known: false }
    }
}

/// What is wrong with the manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it says is not right.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// Its path.
        path: PathBuf,
        /// Line of the first wrong thing, from 1.
        line: usize,
        /// Column of the first wrong thing in characters, from 1.
        column: usize,
        /// What is wrong with it and what is allowed.
        message: String,
    },
}

impl Manifest {
    /// Reads the manifest of this project: the one beside this crate's sources.
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

    /// The same kernels under a profile: with its configuration on top of their base's, and `+NAME` after their names.
    ///
    /// # Errors
    /// [`Unknown`], with the nearest name.
    pub fn under(mut self, name: &str) -> Result<Manifest, Unknown> {
        let profile = find("profile", name, &self.profiles, |profile| &profile.name)?.clone();
        self.bases.iter_mut().for_each(|base| base.config.extend_from_slice(&profile.config));
        self.variants.iter_mut().for_each(|variant| variant.name = profile::name_under(&variant.name, name));
        Ok(Manifest { profile: Some(profile), ..self })
    }

    /// Adds a revision of a user's tree as a base of this name, with fragments of the user's own, and the base as it is as a
    /// variant of the same name. Nothing is known of it. To be called before [`Manifest::under`].
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

    /// Adds a kernel that is built already, under this name. Nothing is known of it.
    pub fn add_ready(&mut self, name: &str, ready: ReadyKernel) {
        let about = format!("{}, as it is", ready.path.display());
        let source = Source::Ready(ready);
        let (config, asked) = (Vec::new(), Vec::new());
        self.bases.push(Base { name: name.to_owned(), source, config, asked, bugs: Vec::new(), immune: Vec::new() });
        self.variants.push(Variant::unknown(name, &about, name, Vec::new()));
    }

    /// The options that name a variant on a command line, if it is a kernel of a user's own as it is; else none.
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
    /// [`Unknown`], with the nearest name.
    pub fn variant(&self, name: &str) -> Result<&Variant, Unknown> {
        find("kernel", name, &self.variants, |variant| &variant.name)
    }

    /// A base by name.
    ///
    /// # Errors
    /// [`Unknown`], with the nearest name.
    pub fn base(&self, name: &str) -> Result<&Base, Unknown> {
        find("base", name, &self.bases, |base| &base.name)
    }

    /// A bug by id.
    ///
    /// # Errors
    /// [`Unknown`], with the nearest id.
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
    fn the_manifest_of_the_project_is_right() {
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
    fn every_patch_of_the_project_says_what_it_does_and_under_which_licence() {
        let manifest = Manifest::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        for patch in manifest.variants.iter().flat_map(|variant| &variant.patches) {
            let text = fs::read_to_string(patch).unwrap();
            assert!(text.starts_with("SPDX-License-Identifier: GPL-2.0-only\nSubject: "), "{}", patch.display());
        }
    }
}
