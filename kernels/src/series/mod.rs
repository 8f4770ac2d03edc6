//! A posted series: from the mails of a list archive or of `b4` to patches in their order.
//!
//! [`Series::read`] reads an mbox, a maildir, a folder of patches or a single file. [`Series::of_bytes`] reads what
//! came through a pipe. Both apply and write nothing: a patch that is damaged, missing, or changes files outside of the
//! tree is an error before anything else happens.

mod again;
mod assemble;
mod diff;
mod error;
pub(crate) mod fit;
mod letter;
mod mail;
mod mbox;
mod misfit;
mod reach;
mod redo;
mod subject;
#[cfg(test)]
mod tests;
mod version;

use std::io;
use std::path::{Path, PathBuf};

pub use diff::{Diff, FileDiff, Hunk};
pub use error::SeriesError;
pub use fit::{Fate, Fit, Manner};
pub use misfit::Misfit;
pub use version::{NoVersion, Version};

/// A series of patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Its title: that of its cover letter, or of its first patch.
    pub subject: String,
    /// Its version.
    pub version: Version,
    /// The patches, in the order in which they apply.
    pub patches: Vec<SeriesPatch>,
    /// The commit in its `base-commit:` line.
    pub base_commit: Option<String>,
    /// Mails and patches that were left out, with the reason. One line each.
    pub notes: Vec<String>,
}

/// One patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesPatch {
    /// Its number, from 1, without gaps.
    pub number: usize,
    /// Its title.
    pub subject: String,
    /// Its author.
    pub author: String,
    /// The message id of its mail.
    pub message_id: Option<String>,
    /// Its changes.
    pub diff: Diff,
}

impl Series {
    /// Reads a series from an mbox, a mail, a patch, a folder of patches or a maildir. With `inline`, diffs in replies
    /// are taken as well, as patches after those of the series.
    ///
    /// # Errors
    /// [`SeriesError`].
    pub fn read(path: &Path, inline: bool) -> Result<Series, SeriesError> {
        assemble::series(&mbox::read(path)?, path, inline)
    }

    /// Reads a series from bytes. Errors call them `name`.
    ///
    /// # Errors
    /// [`SeriesError`].
    pub fn of_bytes(bytes: &[u8], name: &str, inline: bool) -> Result<Series, SeriesError> {
        let path = Path::new(name);
        assemble::series(&mbox::split(bytes, path)?, path, inline)
    }

    /// Checks that the series touches code that scenarios exercise.
    ///
    /// # Errors
    /// [`SeriesError::Elsewhere`] if it does not.
    pub fn within_reach(&self) -> Result<(), SeriesError> {
        reach::check(self.patches.iter().flat_map(|patch| patch.diff.paths()))
    }

    /// Writes each patch to a file in a folder, in the form of `git format-patch`. Returns the files.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(folder)?;
        self.patches.iter().map(|patch| patch.write(folder, self.patches.len())).collect()
    }
}

impl SeriesPatch {
    /// The patch in a file of the project, with the name of the file as its title.
    ///
    /// # Errors
    /// The file cannot be read, or has no diff, or one that is damaged or unsafe.
    pub fn of_file(path: &Path) -> Result<SeriesPatch, SeriesError> {
        let text = std::fs::read(path).map_err(|source| SeriesError::Read { path: path.to_owned(), source })?;
        let subject = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let found = Diff::find(&text).map_err(|objection| objection.at(path.display().to_string(), &subject))?;
        let diff = found.ok_or_else(|| SeriesError::Damaged {
            place: path.display().to_string(),
            subject: subject.clone(),
            why: "it has no diff".to_owned(),
        })?;
        Ok(SeriesPatch { number: 1, subject, author: String::new(), message_id: None, diff })
    }

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
