//! Why a series cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// Why a series cannot be used. Nothing has been applied, built or written when this is returned.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file or folder has no mail.
    #[error("{} holds {what}", path.display())]
    Nothing {
        /// The file or folder.
        path: PathBuf,
        /// What it has instead.
        what: String,
    },
    /// The file is compressed.
    #[error(
        "{0} is compressed: unpack it first, as in `zcat {0} | cargo xtask series -`",
        path.display()
    )]
    Compressed {
        /// The file.
        path: PathBuf,
    },
    /// A mail cannot be parsed.
    #[error("{place} cannot be read as a mail: {why}")]
    Mail {
        /// Which mail.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A patch was sent as HTML.
    #[error(
        "{place} ({subject}) is HTML only, and HTML damages patches: take it from a list archive, as in \
         `b4 am MESSAGE-ID`, or ask for it as plain text"
    )]
    Html {
        /// Which mail.
        place: String,
        /// Its subject.
        subject: String,
    },
    /// None of the mails has a patch.
    #[error("no patch in {mails} mail{}{hint}", if *mails == 1 { "" } else { "s" })]
    NoPatch {
        /// How many mails there are.
        mails: usize,
        /// What the user can do.
        hint: String,
    },
    /// Patches are missing.
    #[error("the series \"{subject}\" is not complete: there is no patch {missing} of {of}")]
    Missing {
        /// Its subject.
        subject: String,
        /// How many patches it has.
        of: u32,
        /// The numbers of the missing patches.
        missing: String,
    },
    /// Two different patches have the same number.
    #[error("two different patches are number {number} of {of}: \"{first}\" and \"{second}\"; leave one of them out")]
    Twice {
        /// The number.
        number: u32,
        /// Of how many.
        of: u32,
        /// One of them, with its message id.
        first: String,
        /// The other.
        second: String,
    },
    /// The text of a patch was damaged.
    #[error("the patch in {place} ({subject}) is damaged: {why}")]
    Damaged {
        /// Which mail.
        place: String,
        /// Its subject.
        subject: String,
        /// Where, and how.
        why: String,
    },
    /// A patch changes files outside of the tree, or something other than text files.
    #[error("the patch in {place} ({subject}) is refused: {why}")]
    Unsafe {
        /// Which mail.
        place: String,
        /// Its subject.
        subject: String,
        /// What it changes.
        why: String,
    },
    /// The series touches nothing that scenarios exercise.
    #[error(
        "this series touches nothing that the scenarios exercise: it changes {files}. The scenarios exercise {about}. \
         --force runs them anyway"
    )]
    Elsewhere {
        /// What it changes.
        files: String,
        /// What the scenarios exercise.
        about: String,
    },
}

impl SeriesError {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> SeriesError {
        let path = path.to_owned();
        move |source| SeriesError::Read { path, source }
    }
}
