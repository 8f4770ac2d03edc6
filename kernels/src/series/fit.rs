//! Tries whether the patches of a series apply, before anything is built.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::SeriesPatch;
use super::misfit::Misfit;
use super::redo::Redo;
use crate::error::{BuildError, PatchError};
use crate::event::CancelToken;
use crate::job::JobError;
use crate::patch;
use crate::tree::Revision;

/// How the patches of a series fit a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// What became of the patches, from the first, as far as they could be tried.
    pub fates: Vec<Fate>,
    /// Why the next patch does not apply. `None` if there is none.
    pub misfit: Option<Misfit>,
}

/// What became of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It applies as it is.
    Applies,
    /// It had to be merged.
    Merged,
    /// It applies only with less context.
    LessContext {
        /// How many lines of context fit, as in `git apply -C2`.
        lines: u8,
        /// Where the context did not fit, as FILE:LINE.
        places: Vec<String>,
    },
    /// The tree has this change already: the reverse of the patch applies.
    Already,
}

/// Ways to take a patch that does not apply as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Merge it (3-way). This needs a revision of a tree with the files that the patch was made on.
    pub merge: bool,
    /// Never apply it with less context.
    pub strict: bool,
}

impl Fit {
    /// How many patches apply, in whatever way, and are not in the tree already.
    pub fn applied(&self) -> usize {
        self.fates.iter().filter(|fate| **fate != Fate::Already).count()
    }

    /// How many patches the tree has already.
    pub fn already(&self) -> usize {
        self.fates.len() - self.applied()
    }
}

/// What the patches are tried on.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// A source tree.
    Tree(&'a Path),
    /// A revision of a user's tree.
    Revision(&'a Revision),
}

/// Tries patches in their order on copies of the files that they touch. `files` are the files that the patches were
/// written to. A patch that the tree has already is left out. The file of a patch that was merged, or applied with less
/// context, then holds a patch that applies as it is.
///
/// # Errors
/// [`BuildError`] of the host. A patch that does not apply is not an error: the result says so.
pub(crate) fn fit(
    origin: Origin<'_>,
    patches: &[SeriesPatch],
    files: &[PathBuf],
    manner: Manner,
    cancel: &CancelToken,
) -> Result<Fit, BuildError> {
    let scratch = tempfile::tempdir().map_err(BuildError::io("make a folder in", &std::env::temp_dir()))?;
    let touched = patches.iter().flat_map(|one| one.diff.paths()).collect();
    let trial = Trial { scratch: scratch.path(), origin, touched, files, manner, cancel };
    let tree = trial.copy("tree")?;
    let (mut fit, mut known) = (Fit::default(), None);
    for (index, one) in patches.iter().enumerate() {
        match trial.take(&tree, index, one, &mut known)? {
            Ok(fate) => fit.fates.push(fate),
            Err(misfit) => {
                fit.misfit = Some(misfit);
                break;
            }
        }
    }
    Ok(fit)
}

struct Trial<'a> {
    scratch: &'a Path,
    origin: Origin<'a>,
    touched: BTreeSet<&'a str>,
    files: &'a [PathBuf],
    manner: Manner,
    cancel: &'a CancelToken,
}

impl Trial<'_> {
    /// Copies the files that the patches touch into a new folder.
    fn copy(&self, name: &str) -> Result<PathBuf, BuildError> {
        let to = self.scratch.join(name);
        fs::create_dir(&to).map_err(BuildError::io("create", &to))?;
        match self.origin {
            Origin::Tree(tree) => self.touched.iter().try_for_each(|path| copy(tree, &to, path))?,
            Origin::Revision(Revision { tree, commit, .. }) => tree.export(commit, &self.touched, &to, self.cancel)?,
        }
        Ok(to)
    }

    /// Applies one patch to a tree that has the patches before it. `already` is filled when it is first needed.
    fn take(
        &self,
        tree: &Path,
        index: usize,
        one: &SeriesPatch,
        already: &mut Option<BTreeSet<usize>>,
    ) -> Result<Result<Fate, Misfit>, BuildError> {
        let file = &self.files[index];
        let error = match patch::apply(tree, std::slice::from_ref(file), self.cancel) {
            // A patch that only changes the mode of a file counts as empty there, but it applies.
            Ok(_) | Err(BuildError::Patch(PatchError::Empty { .. })) => return Ok(Ok(Fate::Applies)),
            Err(BuildError::Patch(error)) => error,
            Err(other) => return Err(other),
        };
        if already.is_none() {
            *already = Some(self.already()?);
        }
        if already.as_ref().is_some_and(|already| already.contains(&index)) {
            return Ok(Ok(Fate::Already));
        }
        if self.can_reverse(tree, file, &["--check"])? {
            return Ok(Err(Misfit::because("the patches before it make this change already")));
        }
        let fate = self.redo(tree, file)?;
        Ok(fate.ok_or_else(|| Misfit::of(tree, one, &error)))
    }

    /// The patches that the tree has already: those that can be removed from it, beginning with the last one, because
    /// a later patch may change what an earlier one has added.
    fn already(&self) -> Result<BTreeSet<usize>, BuildError> {
        let tree = self.copy("without")?;
        let mut already = BTreeSet::new();
        for (index, file) in self.files.iter().enumerate().rev() {
            if self.can_reverse(&tree, file, &[])? {
                already.insert(index);
            }
        }
        Ok(already)
    }

    fn can_reverse(&self, tree: &Path, file: &Path, options: &[&str]) -> Result<bool, BuildError> {
        let job = patch::outside(tree).args(["apply", "--reverse", "--whitespace=nowarn"]).args(options).arg(file);
        match job.run(self.cancel) {
            Ok(()) => Ok(true),
            Err(JobError::Failed { .. }) => Ok(false),
            Err(other) => Err(BuildError::job("git apply --reverse")(other)),
        }
    }

    /// Takes a patch that does not apply as it is, in one of the other ways.
    fn redo(&self, tree: &Path, file: &Path) -> Result<Option<Fate>, BuildError> {
        let objects = match self.origin {
            Origin::Revision(revision) if self.manner.merge => Some(revision.tree.objects()),
            _ => None,
        };
        let redo = Redo { scratch: self.scratch, tree, objects: objects.as_deref() };
        if objects.is_some() && redo.merge(file, self.cancel)? {
            return Ok(Some(Fate::Merged));
        }
        for lines in [2, 1] {
            if self.manner.strict {
                break;
            }
            if let Some(places) = redo.with_context(lines, file, self.cancel)? {
                return Ok(Some(Fate::LessContext { lines, places }));
            }
        }
        Ok(None)
    }
}

fn copy(tree: &Path, trial: &Path, path: &str) -> Result<(), BuildError> {
    let from = tree.join(path);
    let to = trial.join(path);
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(BuildError::io("create", folder))?;
    }
    match fs::copy(&from, &to) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(BuildError::io("copy", &from)(error))
        }
        _ => Ok(()),
    }
}
