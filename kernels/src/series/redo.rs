//! Applies a patch that does not fit as it is, and makes it anew so that it fits: by a 3-way merge, or with less
//! context.

use std::path::Path;

use crate::error::BuildError;
use crate::event::CancelToken;
use crate::job::{Job, JobError};

/// A temporary repository, beside a tree, in which a patch is made anew. It has an index of its own, and may read the
/// objects of the user's repository.
pub(super) struct Redo<'a> {
    pub scratch: &'a Path,
    pub tree: &'a Path,
    /// The objects of the user's repository.
    pub objects: Option<&'a Path>,
}

impl Redo<'_> {
    fn git<const N: usize>(&self, arguments: [&str; N]) -> Job {
        let job = Job::new("git").args(["-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false"]);
        let job = job.args(arguments).within(self.tree).env("GIT_DIR", self.scratch.join("git"));
        let job = job.env("GIT_WORK_TREE", self.tree);
        match self.objects {
            Some(objects) => job.env("GIT_ALTERNATE_OBJECT_DIRECTORIES", objects),
            None => job,
        }
    }

    /// Merges a patch, if the repository has the blobs that its `index` lines name. The patch's file then holds the
    /// result. If the merge fails, the result is `false` and nothing is changed.
    pub(super) fn merge(&self, patch: &Path, cancel: &CancelToken) -> Result<bool, BuildError> {
        Ok(self.take(["--3way"], patch, cancel)?.is_some())
    }

    /// Applies a patch although only `lines` lines of context fit around its hunks. The patch's file then fits exactly.
    /// Returns the places, as FILE:LINE, where the context did not fit. If the patch does not apply in this way either,
    /// the result is `None` and nothing is changed.
    pub(super) fn with_context(
        &self,
        lines: u8,
        patch: &Path,
        cancel: &CancelToken,
    ) -> Result<Option<Vec<String>>, BuildError> {
        let output = self.take(["--verbose", &format!("-C{lines}")], patch, cancel)?;
        Ok(output.map(|output| places(&output)))
    }

    /// Applies a patch with these options. Returns git's output, or `None` if the patch does not apply or changes
    /// nothing.
    fn take<const N: usize>(
        &self,
        options: [&str; N],
        patch: &Path,
        cancel: &CancelToken,
    ) -> Result<Option<String>, BuildError> {
        let failed = || BuildError::job("applying a patch in another way");
        let last = |output: String| output.lines().last().unwrap_or_default().to_owned();
        self.git(["init", "-q"]).run(cancel).map_err(failed())?;
        self.git(["add", "-A", "-f", "."]).run(cancel).map_err(failed())?;
        let before = last(self.git(["write-tree"]).output(cancel).map_err(failed())?);
        let apply = self.git(["apply", "--index", "--whitespace=nowarn"]).args(options).arg(patch);
        let output = match apply.output(cancel) {
            Ok(output) => output,
            Err(JobError::Failed { .. }) => {
                self.git(["read-tree", "--reset", "-u", &before]).run(cancel).map_err(failed())?;
                return Ok(None);
            }
            Err(other) => return Err(failed()(other)),
        };
        let after = last(self.git(["write-tree"]).output(cancel).map_err(failed())?);
        let to = format!("--output={}", patch.display());
        self.git(["diff-tree", "-p", "--full-index", &to, &before, &after]).run(cancel).map_err(failed())?;
        Ok((before != after).then_some(output))
    }
}

/// The places in the output of `git apply --verbose` at which less context was used.
fn places(output: &str) -> Vec<String> {
    let (mut file, mut places) = ("", Vec::new());
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("Checking patch ") {
            file = name.trim_end_matches("...");
        } else if let Some((_, at)) = line.split_once(" to apply fragment at ")
            && line.starts_with("Context reduced to ")
        {
            places.push(format!("{file}:{}", at.trim()));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_with_less_context_are_read() {
        let output = "Checking patch a => b...\nHunk #1 succeeded at 7 (offset 2 lines).\nChecking patch d/f...\n\
            Context reduced to (2/3) to apply fragment at 1484\nApplied patch d/f cleanly.\n";
        assert_eq!(places(output), ["d/f:1484"]);
    }
}
