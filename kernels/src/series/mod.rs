//! A posted series: from mails as a list archive or `b4` has them to patches in their order.
//!
//! [`Series::read`] takes an mbox, a maildir, a folder of patches or a single file; [`Series::of_bytes`] what came
//! through a pipe. Nothing is applied or written by that: what is damaged, incomplete or reaches out of the tree is told
//! of before anything happens.

mod assemble;
mod diff;
mod error;
pub(crate) mod fit;
mod mail;
mod mbox;
mod reach;
mod subject;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use diff::{Diff, FileDiff, Hunk};
pub use error::SeriesError;
pub use fit::{Fit, Misfit};

/// A series of patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// What it is called: the title of its cover letter, or of its first patch.
    pub subject: String,
    /// Its version, from 1.
    pub version: u32,
    /// The patches, in the order in which they apply.
    pub patches: Vec<SeriesPatch>,
    /// The commit that it says it is based on.
    pub base_commit: Option<String>,
    /// What was found beside it and left out, and why. A line each.
    pub notes: Vec<String>,
}

/// One patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesPatch {
    /// Which, from 1, without gaps.
    pub number: usize,
    /// Its title.
    pub subject: String,
    /// Who wrote it.
    pub author: String,
    /// The id of its mail.
    pub message_id: Option<String>,
    /// What it changes.
    pub diff: Diff,
}

impl Series {
    /// Reads a series from an mbox, a mail, a patch, a folder of patches or a maildir. With `inline`, diffs in replies are
    /// patches too, and come after those of the series.
    ///
    /// # Errors
    /// [`SeriesError`].
    pub fn read(path: &Path, inline: bool) -> Result<Series, SeriesError> {
        assemble::series(&mbox::read(path)?, path, inline)
    }

    /// The same of bytes that are called `name`.
    ///
    /// # Errors
    /// [`SeriesError`].
    pub fn of_bytes(bytes: &[u8], name: &str, inline: bool) -> Result<Series, SeriesError> {
        let path = Path::new(name);
        assemble::series(&mbox::split(bytes, path)?, path, inline)
    }

    /// Whether scenarios can tell anything of it.
    ///
    /// # Errors
    /// [`SeriesError::Elsewhere`] if it touches nothing that they exercise.
    pub fn within_reach(&self) -> Result<(), SeriesError> {
        reach::check(self.patches.iter().flat_map(|patch| patch.diff.paths()))
    }

    /// Writes each patch into a folder as git would, and says where.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(folder)?;
        self.patches.iter().map(|patch| patch.write(folder, self.patches.len())).collect()
    }
}

impl SeriesPatch {
    fn write(&self, folder: &Path, of: usize) -> io::Result<PathBuf> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '-' };
        let words: String = self.subject.chars().map(plain).collect();
        let words: Vec<_> = words.split('-').filter(|word| !word.is_empty()).collect();
        let mut name: String = words.join("-").chars().take(52).collect();
        name.truncate(name.trim_end_matches(['-', '.']).len());
        let path = folder.join(format!("{:04}-{name}.patch", self.number));
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut head = format!("From: {}\n", one_line(&self.author));
        head += &format!("Subject: [PATCH {}/{of}] {}\n", self.number, one_line(&self.subject));
        if let Some(id) = &self.message_id {
            head += &format!("Message-ID: <{}>\n", one_line(id));
        }
        std::fs::write(&path, [head.as_bytes(), b"\n---\n", &self.diff.text].concat())?;
        Ok(path)
    }
}
