//! The reference of `run-matrix --against`: a kernel, a revision of the user's tree, or a kernel of an earlier run.

use std::path::Path;

use anyhow::{Context, Result, bail};
use harness::evidence::{AgainstNote, EarlierKernel};
use harness::report::{Earlier, EarlierError};
use kernels::tree::TreeError;
use kernels::{BuildError, CancelToken, Manifest, Source, Variant};

use crate::own::OwnTree;

/// Prefix with which a word names a kernel of the manifest and nothing else: `kernel:stock`.
const KERNEL: &str = "kernel:";

/// What kernels are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A kernel of the manifest, by its name without a profile. It runs the same cells as the others.
    Kernel(String),
    /// A kernel of an earlier run, with its recorded results.
    Earlier(String, EarlierKernel),
}

/// The possible meanings of the argument of `--against`.
#[derive(Default)]
struct Meanings {
    found: Vec<Meaning>,
    /// Why it does not have another meaning, one line each.
    tried: Vec<String>,
}

/// One meaning, with an unambiguous way to write it, and a description.
struct Meaning {
    reference: Found,
    say: String,
    about: String,
}

enum Found {
    Kernel(String),
    Revision,
    Earlier(Earlier, Option<String>),
}

impl Reference {
    /// Finds what the argument of `--against` names. A revision is added to the manifest. The manifest must already
    /// have the user's own kernels.
    ///
    /// # Errors
    /// The word has no meaning (the error lists what was tried) or several. The results cannot be read, or have several
    /// kernels. Errors of git.
    pub fn find(word: &str, tree: &OwnTree, manifest: &mut Manifest) -> Result<Reference> {
        let meanings = Meanings::of(word, tree, manifest)?;
        let mut found = meanings.found;
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => match one.reference {
                Found::Kernel(name) => Ok(Reference::Kernel(name)),
                Found::Earlier(earlier, kernel) => {
                    let (name, kernel) = earlier.kernel(kernel.as_deref())?;
                    Ok(Reference::Earlier(name, kernel))
                }
                Found::Revision => {
                    let added = tree.add_to(manifest, &[word])?.into_iter().next();
                    Ok(Reference::Kernel(added.context("the revision was not added")?))
                }
            },
            (Some(last), false) => {
                found.push(last);
                let line = |Meaning { say, about, .. }: &Meaning| format!("\n  --against {say}  for {about}");
                bail!("--against {word} is ambiguous; use one of these:{}", found.iter().map(line).collect::<String>())
            }
            (None, _) => {
                let lines: String = meanings.tried.iter().map(|line| format!("\n  {line}")).collect();
                bail!("--against {word} names no kernel, no revision and no results of a run:{lines}")
            }
        }
    }

    /// The note about the reference for the folder of a run. The manifest must be under the profile of the run already.
    pub fn note(&self, asked: &str, manifest: &Manifest) -> Result<AgainstNote> {
        let (kernel, earlier) = match self {
            Reference::Kernel(name) => (variant(manifest, name)?.name.clone(), None),
            Reference::Earlier(name, kernel) => (name.clone(), Some(kernel.clone())),
        };
        Ok(AgainstNote { asked: asked.to_owned(), kernel, earlier })
    }
}

/// Finds a kernel by its name without a profile.
///
/// # Errors
/// No kernel has this name.
pub fn variant<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Variant> {
    let found = manifest.variants.iter().find(|variant| kernels::split_profile(&variant.name).0 == name);
    found.with_context(|| format!("there is no kernel `{name}`"))
}

impl Meanings {
    fn of(word: &str, tree: &OwnTree, manifest: &Manifest) -> Result<Meanings> {
        let mut meanings = Meanings::default();
        if let Some(name) = word.strip_prefix(KERNEL) {
            meanings.kernel(manifest.variant(name)?);
            return Ok(meanings);
        }
        meanings.results(word)?;
        match manifest.variant(word) {
            Ok(variant) => meanings.kernel(variant),
            Err(unknown) => meanings.tried.push(unknown.to_string()),
        }
        meanings.revision(word, tree, manifest)?;
        Ok(meanings)
    }

    fn kernel(&mut self, variant: &Variant) {
        self.found.push(Meaning {
            reference: Found::Kernel(variant.name.clone()),
            say: format!("{KERNEL}{}", variant.name),
            about: format!("the kernel {} ({})", variant.name, variant.about),
        });
    }

    fn has_kernel(&self, name: &str) -> bool {
        self.found.iter().any(|known| matches!(&known.reference, Found::Kernel(kernel) if kernel == name))
    }

    /// Looks for results of a run: at the path `word`, or at the part of it before the last colon.
    fn results(&mut self, word: &str) -> Result<()> {
        let whole = (word, None);
        let parted = word.rsplit_once(':').map(|(path, kernel)| (path, Some(kernel.to_owned())));
        let there = std::iter::once(whole).chain(parted).find(|(path, _)| Path::new(path).exists());
        let Some((path, kernel)) = there else {
            self.tried.push(format!("there is no file and no folder {word}"));
            return Ok(());
        };
        match Earlier::read(Path::new(path)) {
            Ok(earlier) => {
                let say = if path.contains('/') { word.to_owned() } else { format!("./{word}") };
                let about = format!("the results of a run in {path}");
                self.found.push(Meaning { reference: Found::Earlier(earlier, kernel), say, about });
            }
            // A folder may have the same name as a branch.
            Err(EarlierError::Folder { .. } | EarlierError::Other { .. }) if !is_path(path) => {
                self.tried.push(format!("{path} exists, but has no results of a run"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Looks for a revision of the tree, unless the manifest has its kernel already.
    fn revision(&mut self, word: &str, tree: &OwnTree, manifest: &Manifest) -> Result<()> {
        let Some(tree) = tree.open()? else {
            self.tried.push("it cannot be a revision, as there is no --tree PATH".to_owned());
            return Ok(());
        };
        let revision = match tree.revision(word, &CancelToken::new()) {
            Ok(revision) => revision,
            Err(BuildError::Tree(error @ TreeError::Revision { .. })) => {
                self.tried.push(error.to_string());
                return Ok(());
            }
            // The word has another meaning already.
            Err(BuildError::Tree(TreeError::NotLinux { .. })) if !self.found.is_empty() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let is_it = |base: &&kernels::Base| match &base.source {
            Source::Git(known) => known.commit.id == revision.commit.id,
            _ => false,
        };
        match manifest.bases.iter().find(is_it) {
            Some(base) if self.has_kernel(&base.name) => {}
            Some(base) => self.kernel(manifest.variant(&base.name)?),
            None => self.found.push(Meaning {
                say: revision.commit.short.clone(),
                about: format!("the revision of {} ({})", tree.path().display(), revision.commit.subject),
                reference: Found::Revision,
            }),
        }
        Ok(())
    }
}

/// Whether a word can only be a path.
fn is_path(word: &str) -> bool {
    word.starts_with(['.', '/']) || word.ends_with(".json")
}
