//! Splits mbox files, maildirs and folders of patches into single mails.

use std::fs;
use std::path::{Path, PathBuf};

use super::SeriesError;

/// An unparsed mail, or a patch without mail headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// Where it was found, for error messages.
    pub place: String,
    /// The name of its file, for a mail without a subject.
    pub name: String,
    /// The mail, without the `From ` line of the mbox.
    pub bytes: Vec<u8>,
}

/// Extensions of the files in a folder that are read as mails or patches.
const ENDINGS: &[&str] = &["patch", "eml", "mbox", "mbx", "diff"];

/// The mails of a file, a folder of patches, or a maildir. Those of a folder are in the order of the file names.
pub(super) fn read(path: &Path) -> Result<Vec<Raw>, SeriesError> {
    if !path.is_dir() {
        return split(&read_file(path)?, path);
    }
    let maildir: Vec<PathBuf> = ["cur", "new"].map(|name| path.join(name)).into_iter().filter(|p| p.is_dir()).collect();
    let mut files = Vec::new();
    for folder in if maildir.is_empty() { vec![path.to_owned()] } else { maildir.clone() } {
        let entries = fs::read_dir(&folder).map_err(SeriesError::read(&folder))?;
        for entry in entries {
            files.push(entry.map_err(SeriesError::read(&folder))?.path());
        }
    }
    let ending = |path: &Path| path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let wanted =
        |path: &PathBuf| !maildir.is_empty() || ending(path).is_some_and(|ending| ENDINGS.contains(&ending.as_str()));
    files.retain(|file| wanted(file) && file.is_file());
    files.sort_by_key(|file| file.file_name().map(ToOwned::to_owned));
    let mut mails = Vec::new();
    for file in &files {
        mails.extend(split(&read_file(file)?, file)?);
    }
    if mails.is_empty() {
        let what = format!("no mail and no patch: it has no file whose name ends in .{}", ENDINGS.join(", ."));
        return Err(SeriesError::Nothing { path: path.to_owned(), what });
    }
    Ok(mails)
}

fn read_file(path: &Path) -> Result<Vec<u8>, SeriesError> {
    fs::read(path).map_err(SeriesError::read(path))
}

/// The mails in the bytes of one file.
pub(super) fn split(bytes: &[u8], path: &Path) -> Result<Vec<Raw>, SeriesError> {
    if bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(&[0xfd, b'7', b'z']) || bytes.starts_with(b"BZh") {
        return Err(SeriesError::Compressed { path: path.to_owned() });
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let mails = mails(bytes);
    if mails.is_empty() {
        return Err(SeriesError::Nothing { path: path.to_owned(), what: "nothing".to_owned() });
    }
    let count = mails.len();
    let place = |number: usize| if count == 1 { name.clone() } else { format!("mail {} of {name}", number + 1) };
    Ok(mails
        .into_iter()
        .enumerate()
        .map(|(number, bytes)| Raw { place: place(number), name: name.clone(), bytes })
        .collect())
}

/// The parts between the separators of an mbox. If there is no separator, the whole file is one mail.
fn mails(bytes: &[u8]) -> Vec<Vec<u8>> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    let mut mails: Vec<Vec<u8>> = Vec::new();
    let mut is_mbox = false;
    for (number, line) in lines.iter().enumerate() {
        if is_separator(line) && lines.get(number + 1).is_some_and(|next| is_header(next)) {
            is_mbox = true;
            mails.push(Vec::new());
            continue;
        }
        if mails.is_empty() {
            mails.push(Vec::new());
        }
        let line = if is_mbox { unquoted(line) } else { line };
        if let Some(mail) = mails.last_mut() {
            mail.extend_from_slice(line);
        }
    }
    mails.retain(|mail| !mail.iter().all(u8::is_ascii_whitespace));
    mails
}

/// Whether a line is a separator, `From SOMEBODY Thu Jan  1 00:00:00 1970`, and not a sentence that begins with "From".
fn is_separator(line: &[u8]) -> bool {
    let Ok(line) = str::from_utf8(line) else { return false };
    let Some(rest) = line.strip_prefix("From ") else { return false };
    let words: Vec<&str> = rest.split_whitespace().collect();
    let is_time = |word: &&str| {
        let mut parts = word.split(':');
        (2..=3).contains(&word.split(':').count()) && parts.all(|part| part.len() == 2 && part.parse::<u8>().is_ok())
    };
    let is_year = |word: &&str| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    words.iter().any(is_time) && words.iter().any(is_year)
}

/// Whether a line is a header, `Name: value`.
pub(super) fn is_header(line: &[u8]) -> bool {
    match line.iter().position(|&byte| byte == b':') {
        None | Some(0) => false,
        Some(colon) => line[..colon].iter().all(|byte| byte.is_ascii_graphic()),
    }
}

/// Removes the `>` that an mbox puts before a line that looks like a separator.
fn unquoted(line: &[u8]) -> &[u8] {
    let quotes = line.iter().take_while(|&&byte| byte == b'>').count();
    if quotes > 0 && line[quotes..].starts_with(b"From ") { &line[1..] } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
From mboxrd@z Thu Jan  1 00:00:00 1970\nSubject: one\n\nFrom here on: words.\nFrom now on 12 mails in 2024\n\
>From the start\n>>From a quotation\n\n\
From 0123abcd Mon Sep 17 00:00:00 2001\nSubject: two\n\nbody\n";

    #[test]
    fn an_mbox_is_split_at_its_separators() {
        let mails: Vec<String> = mails(TWO.as_bytes()).into_iter().map(|m| String::from_utf8(m).unwrap()).collect();
        assert_eq!(mails.len(), 2, "{mails:?}");
        assert!(mails[0].starts_with("Subject: one\n"));
        assert!(mails[0].ends_with("in 2024\nFrom the start\n>From a quotation\n\n"), "{:?}", mails[0]);
        assert_eq!(mails[1], "Subject: two\n\nbody\n");
    }

    #[test]
    fn a_file_without_separators_is_one_unchanged_mail() {
        let text = b"Subject: one\r\n\r\n>From me\r\n";
        assert_eq!(mails(text), [text.to_vec()]);
        assert!(mails(b"").is_empty() && mails(b" \n\n").is_empty());
    }

    #[test]
    fn folders_and_maildirs_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("0002-b.patch", "Subject: two\n\n2\n");
        write("0001-a.patch", "Subject: one\n\n1\n");
        write("notes.txt", "Subject: none\n\n3\n");
        let names = |raws: Vec<Raw>| raws.into_iter().map(|raw| raw.place).collect::<Vec<_>>();
        assert_eq!(names(read(folder.path()).unwrap()), ["0001-a.patch", "0002-b.patch"]);
        write("new/2.host", "Subject: two\n\n2\n");
        write("cur/1.host:2,S", "Subject: one\n\n1\n");
        assert_eq!(names(read(folder.path()).unwrap()), ["1.host:2,S", "2.host"]);
    }

    #[test]
    fn a_path_without_mails_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| read(path).unwrap_err().to_string().replace(&*folder.path().to_string_lossy(), "F");
        insta::assert_snapshot!(told(folder.path()), @"F holds no mail and no patch: it has no file whose name ends in .patch, .eml, .mbox, .mbx, .diff");
        let file = folder.path().join("a.mbox");
        fs::write(&file, "").unwrap();
        insta::assert_snapshot!(told(&file), @"F/a.mbox holds nothing");
        fs::write(&file, [0x1f, 0x8b, 8]).unwrap();
        insta::assert_snapshot!(told(&file), @"F/a.mbox is compressed: unpack it first, as in `zcat F/a.mbox | cargo xtask series -`");
        insta::assert_snapshot!(told(&folder.path().join("gone")), @"cannot read F/gone");
    }
}
