//! Why something is no series that can be tried.

use std::io;
use std::path::{Path, PathBuf};

/// Why something is no series that can be tried. Nothing has been applied, built or written by then.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no mail in it.
    #[error("{} holds {what}", path.display())]
    Nothing {
        /// The file or folder.
        path: PathBuf,
        /// What it holds instead.
        what: String,
    },
    /// It is a compressed file.
    #[error(
        "{0} is compressed: unpack it first, as in `zcat {0} | cargo xtask series -`",
        path.display()
    )]
    Compressed {
        /// The file.
        path: PathBuf,
    },
    /// A mail that cannot be read as one.
    #[error("{place} cannot be read as a mail: {why}")]
    Mail {
        /// Which mail.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A patch that came as HTML.
    #[error(
        "{place} ({subject}) is HTML only, in which no patch comes through unharmed: take it from a list archive, as in \
         `b4 am MESSAGE-ID`, or ask for it as plain text"
    )]
    Html {
        /// Which mail.
        place: String,
        /// Its subject.
        subject: String,
    },
    /// Mails, but no patch among them.
    #[error("no patch in {mails} mail{}{hint}", if *mails == 1 { "" } else { "s" })]
    NoPatch {
        /// How many mails there are.
        mails: usize,
        /// What else may help.
        hint: String,
    },
    /// Patches are missing.
    #[error("the series \"{subject}\" is not complete: there is no patch {missing} of {of}")]
    Missing {
        /// Its subject.
        subject: String,
        /// How many patches it has.
        of: u32,
        /// The numbers of those that are not there.
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
    /// A patch whose text was damaged.
    #[error("the patch in {place} ({subject}) is damaged: {why}")]
    Damaged {
        /// Which mail.
        place: String,
        /// Its subject.
        subject: String,
        /// Where, and how.
        why: String,
    },
    /// A patch that reaches for files outside of the tree.
    #[error("the patch in {place} ({subject}) is refused: {why}")]
    Unsafe {
        /// Which mail.
        place: String,
        /// Its subject.
        subject: String,
        /// What it does.
        why: String,
    },
    /// A series that no scenario can tell anything of.
    #[error(
        "nothing that the scenarios exercise is touched by this series: it changes {files}. They are about {about}. \
         --force runs them all the same"
    )]
    Elsewhere {
        /// What it changes.
        files: String,
        /// What the scenarios are about.
        about: String,
    },
}

impl SeriesError {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> SeriesError {
        let path = path.to_owned();
        move |source| SeriesError::Read { path, source }
    }
}
