//! Tries whether the patches of a series apply, before anything is built. If one does not, finds what the tree has at
//! that place.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use similar::{ChangeTag, TextDiff};

use super::{Hunk, SeriesPatch};
use crate::error::{BuildError, PatchError};
use crate::event::CancelToken;
use crate::job::{Job, JobError};
use crate::patch;
use crate::tree::Revision;

/// How many patches of a series apply to a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// How many of its patches apply, counted from the first.
    pub applied: usize,
    /// The numbers, from 1, of the applied patches that had to be merged.
    pub merged: Vec<usize>,
    /// Why the next patch does not apply. `None` if all patches apply.
    pub misfit: Option<Misfit>,
}

/// A patch that does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Why it does not apply.
    pub why: String,
    /// The lines that the patch expects (`-`), and those that the tree has at that place (`+`). Empty if the reason is
    /// not a hunk.
    pub lines: Vec<String>,
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
/// written to. With `merge`, a patch that does not apply to a revision is merged, and its file then holds the result of
/// the merge.
///
/// # Errors
/// [`BuildError`] of the host. A patch that does not apply is not an error: the result says so.
pub(crate) fn fit(
    origin: Origin<'_>,
    patches: &[SeriesPatch],
    files: &[PathBuf],
    merge: bool,
    cancel: &CancelToken,
) -> Result<Fit, BuildError> {
    let scratch = tempfile::tempdir().map_err(BuildError::io("make a folder in", &std::env::temp_dir()))?;
    let trial = scratch.path().join("tree");
    fs::create_dir(&trial).map_err(BuildError::io("create", &trial))?;
    let touched: BTreeSet<&str> = patches.iter().flat_map(|one| one.diff.paths()).collect();
    let objects = match origin {
        Origin::Tree(tree) => {
            touched.iter().try_for_each(|path| copy(tree, &trial, path))?;
            None
        }
        Origin::Revision(Revision { tree, commit, .. }) => {
            tree.export(commit, &touched, &trial, cancel)?;
            merge.then(|| tree.objects())
        }
    };
    let mut merged = Vec::new();
    for (applied, (one, file)) in patches.iter().zip(files).enumerate() {
        match patch::apply(&trial, std::slice::from_ref(file), cancel) {
            // A patch that only changes the mode of a file counts as empty there, but it applies.
            Ok(_) | Err(BuildError::Patch(PatchError::Empty { .. })) => {}
            Err(BuildError::Patch(error)) => {
                let merging =
                    objects.as_deref().map(|objects| Merge { scratch: scratch.path(), trial: &trial, objects });
                if let Some(merging) = merging
                    && merging.merge(file, cancel)?
                {
                    merged.push(applied + 1);
                    continue;
                }
                let misfit = Some(explain(&trial, one, file, &error, cancel));
                return Ok(Fit { applied, merged, misfit });
            }
            Err(other) => return Err(other),
        }
    }
    Ok(Fit { applied: patches.len(), merged, misfit: None })
}

/// A temporary repository in which a patch is merged. It has an index of its own, and reads the objects of the user's
/// repository.
struct Merge<'a> {
    scratch: &'a Path,
    trial: &'a Path,
    objects: &'a Path,
}

impl Merge<'_> {
    fn git<const N: usize>(&self, arguments: [&str; N]) -> Job {
        let job = Job::new("git").args(["-c", "core.hooksPath=/dev/null"]).args(arguments).within(self.trial);
        job.env("GIT_DIR", self.scratch.join("git"))
            .env("GIT_WORK_TREE", self.trial)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.objects)
    }

    /// Merges a patch, if the repository has the blobs that its `index` lines name. The patch's file then holds the
    /// result. If the merge fails, the result is `false` and nothing is changed.
    fn merge(&self, patch: &Path, cancel: &CancelToken) -> Result<bool, BuildError> {
        let failed = || BuildError::job("merging a patch");
        let last = |output: String| output.lines().last().unwrap_or_default().to_owned();
        self.git(["init", "-q"]).run(cancel).map_err(failed())?;
        self.git(["add", "-A", "-f", "."]).run(cancel).map_err(failed())?;
        let before = last(self.git(["write-tree"]).output(cancel).map_err(failed())?);
        let apply = self.git(["apply", "--3way", "--whitespace=nowarn"]).arg(patch);
        match apply.run(cancel) {
            Ok(()) => {}
            Err(JobError::Failed { .. }) => {
                self.git(["read-tree", "--reset", "-u", &before]).run(cancel).map_err(failed())?;
                return Ok(false);
            }
            Err(other) => return Err(failed()(other)),
        }
        let after = last(self.git(["write-tree"]).output(cancel).map_err(failed())?);
        let output = format!("--output={}", patch.display());
        self.git(["diff-tree", "-p", "--full-index", &output, &before, &after]).run(cancel).map_err(failed())?;
        Ok(before != after)
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

fn explain(trial: &Path, one: &SeriesPatch, file: &Path, error: &PatchError, cancel: &CancelToken) -> Misfit {
    let reverse = Job::new("git").args(["apply", "--check", "--reverse"]).arg(file).within(trial);
    if reverse.env("GIT_CEILING_DIRECTORIES", trial.parent().unwrap_or(trial)).run(cancel).is_ok() {
        return Misfit { why: "the tree has this change already".to_owned(), lines: Vec::new() };
    }
    match error {
        PatchError::Hunk { file, hunk, line, .. } => {
            let why = format!("{hunk} does not fit {file}");
            let changed = one.diff.files.iter().find(|changed| changed.old.as_deref() == Some(file.as_str()));
            let hunk = changed.and_then(|changed| changed.hunks.iter().find(|hunk| hunk.start == *line));
            let there = fs::read(trial.join(file)).unwrap_or_default();
            Misfit { why, lines: hunk.map(|hunk| beside(hunk, &there)).unwrap_or_default() }
        }
        PatchError::Refused { reason, .. } => Misfit { why: reason.clone(), lines: Vec::new() },
        other => Misfit { why: other.to_string(), lines: Vec::new() },
    }
}

/// The lines that a hunk expects, compared with the lines at the most similar place of the file.
fn beside(hunk: &Hunk, file: &[u8]) -> Vec<String> {
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    let wants: Vec<String> = hunk.wants.iter().map(|line| text(line)).collect();
    let has: Vec<String> = file.split(|&byte| byte == b'\n').map(text).collect();
    let (first, last) = most_similar(hunk.start, &wants, &has);
    let has = &has[first..last];
    let (old, new): (Vec<&str>, Vec<&str>) =
        (wants.iter().map(String::as_str).collect(), has.iter().map(String::as_str).collect());
    let mut lines = vec![format!("the patch expects (-), and from line {} on the tree has (+):", first + 1)];
    lines.extend(TextDiff::from_slices(&old, &new).iter_all_changes().map(|change| {
        let mark = match change.tag() {
            ChangeTag::Equal => ' ',
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
        };
        format!("{mark}{}", change.value())
    }));
    lines
}

/// The range of lines of a file that has most of the expected lines. If there are several, the one nearest to line
/// `start`.
fn most_similar(start: usize, wants: &[String], has: &[String]) -> (usize, usize) {
    let wanted: BTreeSet<&str> = wants.iter().map(|line| line.trim()).filter(|line| line.len() > 1).collect();
    let length = wants.len().min(has.len());
    let shared = |first: usize| {
        let found: BTreeSet<&str> = has[first..first + length].iter().map(|line| line.trim()).collect();
        wanted.intersection(&found).count()
    };
    let claimed = start.saturating_sub(1);
    let nearest = |first: &usize| (shared(*first), std::cmp::Reverse(first.abs_diff(claimed)));
    let first = (0..=has.len() - length).max_by_key(nearest).unwrap_or(0);
    (first, first + length)
}
