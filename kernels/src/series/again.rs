//! Patches that were sent more than once: which mail counts, and what is said of the others.

use std::collections::BTreeMap;

use super::SeriesError;
use super::letter::Letter;

/// Mails that were left out because their patches were sent again.
#[derive(Default)]
pub(super) struct Replaced {
    /// The patches, by how they were sent and by what replaces them.
    patches: BTreeMap<(String, String), Vec<String>>,
}

impl Replaced {
    /// Notes that `new` replaces `old`, a mail with the patch that is called `patch`.
    pub(super) fn add(&mut self, patch: &str, old: &Letter, new: &Letter) {
        let by = match old.sent_as() == new.sent_as() {
            true => "a later mail".to_owned(),
            false => new.sent_as(),
        };
        let patches = self.patches.entry((old.sent_as(), by)).or_default();
        if !patches.iter().any(|known| known == patch) {
            patches.push(patch.to_owned());
        }
    }

    /// A line for each kind of replacement.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.patches.iter().map(|((old, new), patches)| {
            let patch = if patches.len() == 1 { "patch" } else { "patches" };
            format!("left out: {patch} {} of {old}, which {new} replaces", patches.join(", "))
        })
    }
}

/// The mail that counts of those with one number. A mail that only a later date distinguishes from another one counts
/// only if it has the same title: otherwise nothing says that it replaces it.
pub(super) fn last<'a>(
    (number, of): (u32, u32),
    letters: &[&'a Letter],
    replaced: &mut Replaced,
) -> Result<Option<&'a Letter>, SeriesError> {
    let Some(&last) = letters.iter().max_by_key(|letter| letter.order()) else { return Ok(None) };
    for &other in letters.iter().filter(|other| other.at != last.at) {
        let marked = last.is_marked_newer(other);
        if other.diff == last.diff && !marked {
            continue;
        }
        let from_one = last.mail.author == other.mail.author;
        let is_replaced = if marked { last.is_same_patch(other) } else { last.has_title_of(other) && from_one };
        if !is_replaced {
            return Err(SeriesError::Twice { number, of, first: other.described(), second: last.described() });
        }
        replaced.add(&number.to_string(), other, last);
    }
    Ok(Some(last))
}

/// Patches without numbers, without those that another one of them replaces: one with the same title, or a later
/// version with another title that touches the same file.
pub(super) fn unnumbered<'a>(letters: &[&'a Letter], replaced: &mut Replaced) -> Vec<&'a Letter> {
    let replaces = |new: &Letter, old: &Letter| {
        let same = match new.mail.subject.patch && old.mail.subject.patch {
            true if new.mail.subject.version > old.mail.subject.version => new.is_same_patch(old),
            tagged => tagged && new.has_title_of(old) && new.mail.author == old.mail.author,
        };
        same && new.order() > old.order()
    };
    let mut kept = Vec::new();
    for &old in letters {
        match letters.iter().filter(|new| replaces(new, old)).max_by_key(|new| new.order()) {
            Some(new) => replaced.add(&format!("\"{}\"", old.mail.title()), old, new),
            None => kept.push(old),
        }
    }
    kept
}
