//! Why a patch does not apply, and what the tree has at that place.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use similar::{ChangeTag, TextDiff};

use super::{Hunk, SeriesPatch};
use crate::error::PatchError;

/// A patch that does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Why it does not apply.
    pub why: String,
    /// The lines that the patch expects (`-`), and those that the tree has at that place (`+`). Empty if the reason is
    /// not a hunk.
    pub lines: Vec<String>,
}

impl Misfit {
    /// A reason that is not a hunk.
    pub(super) fn because(why: impl Into<String>) -> Misfit {
        Misfit { why: why.into(), lines: Vec::new() }
    }

    /// Explains the error of a patch that was tried on a tree.
    pub(super) fn of(tree: &Path, one: &SeriesPatch, error: &PatchError) -> Misfit {
        match error {
            PatchError::Hunk { file, hunk, line, .. } => {
                let why = format!("{hunk} does not fit {file}");
                let changed = one.diff.files.iter().find(|changed| changed.old.as_deref() == Some(file.as_str()));
                let hunk = changed.and_then(|changed| changed.hunks.iter().find(|hunk| hunk.start == *line));
                let there = fs::read(tree.join(file)).unwrap_or_default();
                Misfit { why, lines: hunk.map(|hunk| beside(hunk, &there)).unwrap_or_default() }
            }
            PatchError::Refused { reason, .. } => Misfit::because(reason.clone()),
            other => Misfit::because(other.to_string()),
        }
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
