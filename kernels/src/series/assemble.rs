//! Assembles a series from mails: finds its patches and their order, and notes what was left out.

use std::collections::BTreeMap;
use std::path::Path;

use super::again::{self, Replaced};
use super::diff::{Diff, Objection};
use super::letter::{Letter, Order};
use super::mail::Mail;
use super::mbox::Raw;
use super::version::Version;
use super::{Series, SeriesError};

/// One version of a series, with the patches of it that were found.
struct Candidate<'a> {
    version: u32,
    of: u32,
    cover: Option<&'a Letter>,
    /// All mails with patches, by the patch's number.
    patches: BTreeMap<u32, Vec<&'a Letter>>,
}

pub(super) fn series(raws: &[Raw], path: &Path, inline: bool) -> Result<Series, SeriesError> {
    let letters = letters(raws)?;
    let is_reply = |one: &&Letter| one.mail.subject.reply || one.is_bare_reply(&letters);
    let (replies, mails): (Vec<&Letter>, Vec<&Letter>) = letters.iter().partition(is_reply);
    let is_numbered = |one: &Letter| one.mail.subject.patch && one.mail.subject.number.is_some();
    let (numbered, others): (Vec<_>, Vec<_>) = mails.into_iter().partition(|one| is_numbered(one));
    let mut notes = Vec::new();
    let mut replaced = Replaced::default();
    let (mut chosen, cover) = match numbered.is_empty() {
        true => (unnumbered(&others, &mut replaced, &mut notes), None),
        false => {
            let mut newest = newest(&numbered, &letters, &mut notes)?;
            let is_patch = |one: &&Letter| one.mail.subject.patch && one.has_diff();
            for beside in others.into_iter().filter(is_patch).filter(|one| !newest.takes_without_number(one)) {
                notes.push(format!("left out: \"{}\", a patch beside the series", beside.mail.title()));
            }
            (newest.in_order(&mut replaced)?, newest.cover)
        }
    };
    notes.extend(replaced.notes());
    let of_replies = of_replies(&replies, inline, &mut notes);
    if inline {
        chosen.extend(&of_replies);
    }
    let Some(first) = cover.or(chosen.first().copied()) else {
        return Err(no_patch(&letters, path, !of_replies.is_empty()));
    };
    let subject = first.mail.title().to_owned();
    // A series without a cover letter has the version of the patches that were not sent again.
    let oldest = || chosen.iter().map(|one| one.mail.subject.version).min();
    let version = cover.map(|cover| cover.mail.subject.version).or_else(oldest).unwrap_or(Version::FIRST);
    let base_commit = cover.into_iter().chain(chosen.iter().copied()).find_map(Letter::base_commit);
    let patches = chosen.iter().enumerate().map(|(index, one)| one.patch(index + 1)).collect::<Result<_, _>>()?;
    Ok(Series { subject, version, patches, base_commit, notes })
}

/// All mails, without copies: each list that a mail was sent to delivers a copy.
fn letters(raws: &[Raw]) -> Result<Vec<Letter>, SeriesError> {
    let mut letters: Vec<Letter> = Vec::new();
    for raw in raws {
        let mail = Mail::parse(raw)?;
        let known = letters.iter().any(|one| mail.message_id.is_some() && one.mail.message_id == mail.message_id);
        if !known {
            letters.push(Letter { diff: Diff::find(&mail.text), mail, at: letters.len() });
        }
    }
    Ok(letters)
}

/// The patches without numbers, in the order in which they were found. `git am` uses this order too.
fn unnumbered<'a>(letters: &[&'a Letter], replaced: &mut Replaced, notes: &mut Vec<String>) -> Vec<&'a Letter> {
    let is_patch = |one: &Letter| one.has_diff() || (one.mail.html && one.mail.subject.patch);
    let (tagged, others): (Vec<_>, Vec<_>) =
        letters.iter().copied().filter(|one| is_patch(one)).partition(|one| one.mail.subject.patch);
    if tagged.is_empty() {
        return others;
    }
    let left_out = |one: &&Letter| format!("left out: \"{}\", which does not call itself a patch", one.mail.title());
    notes.extend(others.iter().map(left_out));
    again::unnumbered(&tagged, replaced)
}

/// The newest version that has all its patches, with those of its patches that were sent again alone.
fn newest<'a>(letters: &[&'a Letter], all: &[Letter], notes: &mut Vec<String>) -> Result<Candidate<'a>, SeriesError> {
    let mut candidates: BTreeMap<(u32, u32), Candidate<'a>> = BTreeMap::new();
    for &letter in letters {
        let Some((number, of)) = letter.mail.subject.number else { continue };
        let version = letter.mail.subject.version.major;
        let new = || Candidate { version, of, cover: None, patches: BTreeMap::new() };
        candidates.entry((version, of)).or_insert_with(new).add(number, letter);
    }
    let mut candidates: Vec<_> = candidates.into_values().collect();
    candidates.sort_by_key(|one| std::cmp::Reverse((one.version, one.last_mail())));
    let chosen = candidates.iter().position(|one| one.missing().is_empty());
    // If no version is complete, report what the newest one lacks.
    let mut chosen = candidates.remove(chosen.unwrap_or(0));
    let missing = chosen.missing();
    if !missing.is_empty() {
        return Err(SeriesError::Missing { subject: chosen.title(), of: chosen.of, missing: missing.join(", ") });
    }
    let (again, others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|one| chosen.was_sent_again(one, all));
    notes.extend(others.iter().map(|one| one.left_out(chosen.version)));
    for (number, letters) in again.into_iter().flat_map(|one| one.patches) {
        chosen.patches.entry(number).or_default().extend(letters);
    }
    Ok(chosen)
}

/// The replies that have a diff of their own.
fn of_replies<'a>(replies: &[&'a Letter], inline: bool, notes: &mut Vec<String>) -> Vec<&'a Letter> {
    let mut found = Vec::new();
    for &letter in replies {
        let author = &letter.mail.author;
        match &letter.diff {
            Ok(None) => {}
            Ok(Some(_)) if inline => found.push(letter),
            Ok(Some(_)) => {
                notes.push(format!("left out: a diff in a reply by {author} (--inline takes it)"));
                found.push(letter);
            }
            Err(Objection::Damaged(why)) if inline => {
                notes.push(format!("left out: a diff in a reply by {author}, which is damaged: {why}"));
            }
            Err(Objection::Unsafe(_)) if inline => found.push(letter),
            Err(_) => {}
        }
    }
    found
}

fn no_patch(letters: &[Letter], path: &Path, in_replies: bool) -> SeriesError {
    if letters.iter().all(|letter| letter.mail.text.trim_ascii().is_empty() && !letter.mail.html) {
        return SeriesError::Nothing { path: path.to_owned(), what: "mails without any text".to_owned() };
    }
    let hint = match in_replies {
        true => "; there are diffs in replies: --inline takes those",
        false => ": a patch has a diff in its plain text, or attached as .patch or .diff",
    };
    SeriesError::NoPatch { mails: letters.len(), hint: hint.to_owned() }
}

impl<'a> Candidate<'a> {
    fn add(&mut self, number: u32, letter: &'a Letter) {
        match number {
            0 if self.cover.is_some_and(|cover| !letter.is_marked_newer(cover)) => {}
            0 => self.cover = Some(letter),
            _ => self.patches.entry(number).or_default().push(letter),
        }
    }

    /// Whether another candidate is only some patches of this series, sent again with a newer version: it has no cover
    /// letter, and its mails answer mails of the thread, or answer none and have the titles of the patches.
    fn was_sent_again(&self, other: &Candidate<'_>, all: &[Letter]) -> bool {
        if other.version <= self.version || other.of != self.of || other.cover.is_some() {
            return false;
        }
        let is_of_other = |letter: &Letter| other.patches.values().flatten().any(|one| one.at == letter.at);
        let in_thread =
            |id: &String| all.iter().any(|one| one.mail.message_id.as_ref() == Some(id) && !is_of_other(one));
        other.patches.iter().all(|(number, letters)| {
            let ours = self.patches.get(number).map(Vec::as_slice).unwrap_or_default();
            letters.iter().all(|letter| match letter.mail.answers.as_slice() {
                [] => ours.iter().any(|one| letter.has_title_of(one)),
                answers => answers.iter().any(in_thread) && ours.iter().any(|one| letter.is_same_patch(one)),
            })
        })
    }

    /// Takes a patch without a number that was sent in place of one of the series. The result is `false` if it is none.
    fn takes_without_number(&mut self, letter: &'a Letter) -> bool {
        let is_newer = |old: &&Letter| letter.has_title_of(old) && letter.is_marked_newer(old);
        let place = self.patches.values_mut().find(|letters| letters.iter().any(is_newer));
        place.map(|letters| letters.push(letter)).is_some()
    }

    fn last_mail(&self) -> Option<Order> {
        self.cover.into_iter().chain(self.patches.values().flatten().copied()).map(Letter::order).max()
    }

    fn title(&self) -> String {
        let any = self.cover.or_else(|| self.patches.values().flatten().next().copied());
        any.map(|letter| letter.mail.title().to_owned()).unwrap_or_default()
    }

    /// The numbers of the missing patches.
    fn missing(&self) -> Vec<String> {
        (1..=self.of).filter(|number| !self.patches.contains_key(number)).map(|number| number.to_string()).collect()
    }

    fn left_out(&self, chosen: u32) -> String {
        let version = self.version;
        let missing = self.missing();
        match missing.is_empty() {
            true if version < chosen => format!("left out: version {version}, which version {chosen} replaces"),
            true => format!("left out: \"{}\", another series of version {version}", self.title()),
            false => format!("left out: version {version}, without its patch {} of {}", missing.join(", "), self.of),
        }
    }

    /// The mail that counts for each number.
    fn in_order(&self, replaced: &mut Replaced) -> Result<Vec<&'a Letter>, SeriesError> {
        let mut chosen = Vec::new();
        for (&number, letters) in &self.patches {
            chosen.extend(again::last((number, self.of), letters, replaced)?);
        }
        Ok(chosen)
    }
}
