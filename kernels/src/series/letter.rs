//! A mail with what it means for a series: which patch it has, when it was sent, and whether it answers another one.

use super::diff::{Diff, Objection};
use super::mail::Mail;
use super::version::Version;
use super::{SeriesError, SeriesPatch};

/// A mail, and its diff if it has one.
pub(super) struct Letter {
    pub mail: Mail,
    pub diff: Result<Option<Diff>, Objection>,
    /// Its place among the mails.
    pub at: usize,
}

/// Which of several mails with the same patch was sent last. Greater is later.
pub(super) type Order = (Version, bool, i64, usize);

impl Letter {
    pub(super) fn has_diff(&self) -> bool {
        self.diff != Ok(None)
    }

    pub(super) fn order(&self) -> Order {
        let Mail { subject, date, .. } = &self.mail;
        (subject.version, subject.resend, *date, self.at)
    }

    /// Whether the brackets of this mail say that it comes after another one.
    pub(super) fn is_marked_newer(&self, than: &Letter) -> bool {
        let marks = |letter: &Letter| (letter.mail.subject.version, letter.mail.subject.resend);
        marks(self) > marks(than)
    }

    /// Whether two mails have the same patch, perhaps in two versions.
    pub(super) fn is_same_patch(&self, other: &Letter) -> bool {
        self.has_title_of(other) || (self.mail.author == other.mail.author && self.shares_file_with(other))
    }

    pub(super) fn has_title_of(&self, other: &Letter) -> bool {
        self.mail.subject.plain_title() == other.mail.subject.plain_title()
    }

    fn shares_file_with(&self, other: &Letter) -> bool {
        match (&self.diff, &other.diff) {
            (Ok(Some(one)), Ok(Some(two))) => one.paths().intersection(&two.paths()).next().is_some(),
            _ => false,
        }
    }

    /// Whether this is a reply, though its subject does not begin with "Re:": it answers a mail with the same subject,
    /// and has no diff or is from somebody else. A numbered mail without a diff is a reply too, if another one has that
    /// patch.
    pub(super) fn is_bare_reply(&self, letters: &[Letter]) -> bool {
        let subject = &self.mail.subject;
        let same_subject = |other: &&Letter| other.at != self.at && other.mail.subject == *subject;
        let mut others = letters.iter().filter(same_subject);
        let answers = |other: &Letter| other.mail.message_id.as_ref().is_some_and(|id| self.mail.answers.contains(id));
        let is_patch = |number: (u32, u32)| number.0 > 0;
        others.any(|other| match answers(other) {
            true => !self.has_diff() || self.mail.sender != other.mail.sender,
            false => !self.has_diff() && other.has_diff() && subject.number.is_some_and(is_patch),
        })
    }

    /// How it was sent: "version 2", "the resend of version 2".
    pub(super) fn sent_as(&self) -> String {
        let resend = if self.mail.subject.resend { "the resend of " } else { "" };
        format!("{resend}version {}", self.mail.subject.version)
    }

    /// Its title and its message id, or its place.
    pub(super) fn described(&self) -> String {
        match &self.mail.message_id {
            Some(id) => format!("{} <{id}>", self.mail.title()),
            None => format!("{} ({})", self.mail.title(), self.mail.place),
        }
    }

    pub(super) fn patch(&self, number: usize) -> Result<SeriesPatch, SeriesError> {
        let place = self.mail.place.clone();
        let subject = self.mail.title().to_owned();
        let diff = match &self.diff {
            _ if self.mail.html => return Err(SeriesError::Html { place, subject }),
            Ok(Some(diff)) => diff.clone(),
            Ok(None) => {
                let why = "it has no diff in its text, and none attached as .patch or .diff".to_owned();
                return Err(SeriesError::Damaged { place, subject, why });
            }
            Err(objection) => return Err(objection.clone().at(place, &subject)),
        };
        let Mail { author, message_id, .. } = self.mail.clone();
        Ok(SeriesPatch { number, subject, author, message_id, diff })
    }

    /// `base-commit: ID`, as `git format-patch --base` writes it.
    pub(super) fn base_commit(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.mail.text);
        let id = text.lines().find_map(|line| line.strip_prefix("base-commit:"))?.trim().to_owned();
        let is_id = id.len() >= 7 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some(id)
    }
}
