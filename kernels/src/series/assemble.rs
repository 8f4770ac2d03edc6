//! Assembles a series from mails: finds its patches and their order, and notes what was left out.

use std::collections::BTreeMap;
use std::path::Path;

use super::diff::{Diff, Objection};
use super::mail::Mail;
use super::mbox::Raw;
use super::{Series, SeriesError, SeriesPatch};

/// A mail, and its diff if it has one.
struct Letter {
    mail: Mail,
    diff: Result<Option<Diff>, Objection>,
}

/// One version of a series, with the patches of it that were found.
struct Candidate<'a> {
    version: u32,
    of: u32,
    cover: Option<&'a Letter>,
    /// The patches by number. Different patches with the same number are an error.
    patches: BTreeMap<u32, Vec<&'a Letter>>,
}

pub(super) fn series(raws: &[Raw], path: &Path, inline: bool) -> Result<Series, SeriesError> {
    let letters = letters(raws)?;
    let (replies, mails): (Vec<&Letter>, Vec<&Letter>) = letters.iter().partition(|one| one.mail.subject.reply);
    let is_numbered = |one: &Letter| one.mail.subject.patch && one.mail.subject.number.is_some();
    let (numbered, others): (Vec<_>, Vec<_>) = mails.into_iter().partition(|one| is_numbered(one));
    let mut notes = Vec::new();
    let (mut chosen, cover) = match numbered.is_empty() {
        true => (unnumbered(&others, &mut notes), None),
        false => {
            let newest = newest(&numbered, &mut notes)?;
            let beside = others.iter().filter(|one| one.mail.subject.patch && one.diff != Ok(None));
            notes.extend(beside.map(|one| format!("left out: \"{}\", a patch beside the series", one.mail.title())));
            (newest.in_order()?, newest.cover)
        }
    };
    let of_replies = of_replies(&replies, inline, &mut notes);
    if inline {
        chosen.extend(&of_replies);
    }
    let Some(first) = cover.or(chosen.first().copied()) else {
        return Err(no_patch(&letters, path, !of_replies.is_empty()));
    };
    let subject = first.mail.title().to_owned();
    let version = first.mail.subject.version;
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
            letters.push(Letter { diff: Diff::find(&mail.text), mail });
        }
    }
    Ok(letters)
}

/// The patches without numbers, in the order in which they were found. `git am` uses this order too.
fn unnumbered<'a>(letters: &[&'a Letter], notes: &mut Vec<String>) -> Vec<&'a Letter> {
    let is_patch = |one: &Letter| one.diff != Ok(None) || (one.mail.html && one.mail.subject.patch);
    let (tagged, others): (Vec<_>, Vec<_>) =
        letters.iter().copied().filter(|one| is_patch(one)).partition(|one| one.mail.subject.patch);
    if tagged.is_empty() {
        return others;
    }
    let left_out = |one: &&Letter| format!("left out: \"{}\", which does not call itself a patch", one.mail.title());
    notes.extend(others.iter().map(left_out));
    tagged
}

/// The newest version that has all its patches.
fn newest<'a>(letters: &[&'a Letter], notes: &mut Vec<String>) -> Result<Candidate<'a>, SeriesError> {
    let mut candidates: BTreeMap<(u32, u32), Candidate<'a>> = BTreeMap::new();
    for &letter in letters {
        let Some((number, of)) = letter.mail.subject.number else { continue };
        let version = letter.mail.subject.version;
        let new = || Candidate { version, of, cover: None, patches: BTreeMap::new() };
        candidates.entry((version, of)).or_insert_with(new).add(number, letter);
    }
    let mut candidates: Vec<_> = candidates.into_values().rev().collect();
    let chosen = candidates.iter().position(|one| one.missing().is_empty());
    // If no version is complete, report what the newest one lacks.
    let chosen = candidates.remove(chosen.unwrap_or(0));
    let missing = chosen.missing();
    if !missing.is_empty() {
        return Err(SeriesError::Missing { subject: chosen.title(), of: chosen.of, missing: missing.join(", ") });
    }
    notes.extend(candidates.iter().map(|one| one.left_out(chosen.version)));
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
        if number == 0 {
            self.cover = Some(letter);
            return;
        }
        let same = self.patches.entry(number).or_default();
        if same.iter().all(|other| other.diff != letter.diff) {
            same.push(letter);
        }
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

    fn in_order(&self) -> Result<Vec<&'a Letter>, SeriesError> {
        let only = |(&number, letters): (&u32, &Vec<&'a Letter>)| match letters[..] {
            [first, second, ..] => {
                Err(SeriesError::Twice { number, of: self.of, first: first.described(), second: second.described() })
            }
            _ => Ok(letters[0]),
        };
        self.patches.iter().map(only).collect()
    }
}

impl Letter {
    fn described(&self) -> String {
        match &self.mail.message_id {
            Some(id) => format!("{} <{id}>", self.mail.title()),
            None => format!("{} ({})", self.mail.title(), self.mail.place),
        }
    }

    fn patch(&self, number: usize) -> Result<SeriesPatch, SeriesError> {
        let place = self.mail.place.clone();
        let subject = self.mail.title().to_owned();
        let diff = match &self.diff {
            _ if self.mail.html => return Err(SeriesError::Html { place, subject }),
            Ok(Some(diff)) => diff.clone(),
            Ok(None) => {
                let why = "it has no diff in its text, and none attached as .patch or .diff".to_owned();
                return Err(SeriesError::Damaged { place, subject, why });
            }
            Err(Objection::Damaged(why)) => return Err(SeriesError::Damaged { place, subject, why: why.clone() }),
            Err(Objection::Unsafe(why)) => return Err(SeriesError::Unsafe { place, subject, why: why.clone() }),
        };
        let Mail { author, message_id, .. } = self.mail.clone();
        Ok(SeriesPatch { number, subject, author, message_id, diff })
    }

    /// `base-commit: ID`, as `git format-patch --base` writes it.
    fn base_commit(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.mail.text);
        let id = text.lines().find_map(|line| line.strip_prefix("base-commit:"))?.trim().to_owned();
        let is_id = id.len() >= 7 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some(id)
    }
}
