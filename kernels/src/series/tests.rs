//! Whole series: written as mails in all encodings that mails have, and read back.

use std::fs;

use data_encoding::BASE64_MIME;
use proptest::prelude::*;

use super::*;

mod again;
mod fit;

/// How the text of a mail is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dress {
    Plain,
    Crlf,
    Base64,
    Base64Crlf,
    Quoted,
    Flowed,
    FlowedDelsp,
    Armored,
    Attached,
}

const DRESSES: [Dress; 9] = [
    Dress::Plain,
    Dress::Crlf,
    Dress::Base64,
    Dress::Base64Crlf,
    Dress::Quoted,
    Dress::Flowed,
    Dress::FlowedDelsp,
    Dress::Armored,
    Dress::Attached,
];

/// A mail of an mbox (mboxrd).
fn mail(subject: &str, id: &str, text: &str, dress: Dress) -> String {
    let head = format!("From: A U Thor <a@example.org>\nSubject: {subject}\nMessage-ID: <{id}@example.org>\n");
    let base64 = |text: &str| BASE64_MIME.encode(text.as_bytes());
    let with = |kind: &str, encoding: &str, text: &str| {
        format!("{head}Content-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\n{text}")
    };
    let utf8 = "text/plain; charset=utf-8";
    let mail = match dress {
        Dress::Plain | Dress::Crlf => with(utf8, "8bit", text),
        Dress::Base64 => with(utf8, "base64", &base64(text)),
        Dress::Base64Crlf => with(utf8, "base64", &base64(&text.replace('\n', "\r\n"))),
        Dress::Quoted => with(utf8, "quoted-printable", &quoted(text)),
        Dress::Flowed => with(&format!("{utf8}; format=flowed"), "8bit", &flowed(text, false)),
        Dress::FlowedDelsp => {
            with(&format!("{utf8}; format=flowed; delsp=yes"), "quoted-printable", &quoted(&flowed(text, true)))
        }
        Dress::Armored => with(utf8, "8bit", &armored(text)),
        Dress::Attached => {
            let part = |kind: &str, text: &str| format!("--=-x\nContent-Type: {kind}\n{text}\n");
            let words = part("text/plain", "\nwords");
            let patch =
                part("text/x-patch; name=1.patch", &format!("Content-Transfer-Encoding: base64\n\n{}", base64(text)));
            format!("{head}Content-Type: multipart/mixed; boundary=\"=-x\"\n\n{words}{patch}--=-x--\n")
        }
    };
    let quoted: String = mail
        .split_inclusive('\n')
        .map(
            |line| if line.trim_start_matches('>').starts_with("From ") { format!(">{line}") } else { line.to_owned() },
        )
        .collect();
    let mail = format!("From mboxrd@z Thu Jan  1 00:00:00 1970\n{quoted}\n");
    if dress == Dress::Crlf { mail.replace('\n', "\r\n") } else { mail }
}

fn quoted(text: &str) -> String {
    let lines = text.split('\n').map(|line| String::from_utf8(quoted_printable::encode(line)).unwrap());
    lines.collect::<Vec<_>>().join("\n").replace("\r\n", "\n")
}

/// The text as `format=flowed`: wrapped at 20 characters where there is a space, with a space before lines that need
/// one.
fn flowed(text: &str, delsp: bool) -> String {
    let stuffed = |line: &str| {
        let needs = line.starts_with([' ', '>']) || line.starts_with("From ");
        if needs { format!(" {line}") } else { line.to_owned() }
    };
    let mut wrapped = String::new();
    for line in text.split('\n') {
        let mut rest = line;
        while let Some(at) = rest.get(..20).and_then(|start| start.trim_end().rfind(' ')).filter(|&at| at > 0) {
            let (start, end) = rest.split_at(at + 1);
            if start.trim().is_empty() || end.trim().is_empty() {
                break;
            }
            wrapped += &stuffed(start);
            wrapped += if delsp { " \n" } else { "\n" };
            rest = end;
        }
        wrapped += &stuffed(rest);
        wrapped.push('\n');
    }
    wrapped.pop();
    wrapped
}

fn armored(text: &str) -> String {
    let escaped: String =
        text.split_inclusive('\n').map(|l| if l.starts_with('-') { format!("- {l}") } else { l.to_owned() }).collect();
    format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{escaped}-----BEGIN PGP SIGNATURE-----\n\nabc=\n\
         -----END PGP SIGNATURE-----\n"
    )
}

/// The text of a mail with a patch that changes one line of `file`, between these others.
fn patch(file: &str, context: &[String], old: &str, new: &str) -> String {
    let before: String = context.iter().map(|line| format!(" {line}\n")).collect();
    format!(
        "Do this. -- and that\nFrom now on.\n\nSigned-off-by: A U Thor <a@example.org>\n---\n {file} | 2 +-\n\n{}-- \n2.47.0\n\n",
        diff(file, context.len(), &before, old, new)
    )
}

fn diff(file: &str, lines: usize, before: &str, old: &str, new: &str) -> String {
    format!(
        "diff --git a/{file} b/{file}\nindex 1..2 100644\n--- a/{file}\n+++ b/{file}\n@@ -1,{n} +1,{n} @@ f()\n{before}-{old}\n+{new}\n",
        n = lines + 1
    )
}

/// A line of code, without spaces at its end: a flowed mail cannot have those.
fn line() -> impl Strategy<Value = String> {
    "[\t ]{0,3}[-+@>a-zA-Z0-9_(){};=.\"'àß€ ]{0,70}".prop_map(|line| line.trim_end_matches(' ').to_owned())
}

proptest! {
    #[test]
    fn a_series_is_read_as_it_was_sent(
        dress in prop::sample::select(&DRESSES[..]),
        patches in prop::collection::vec((prop::collection::vec(line(), 0..4), line(), line()), 1..4),
        shuffle in any::<bool>(),
    ) {
        let of = patches.len();
        let mut mails: Vec<String> = patches.iter().enumerate().map(|(index, (context, old, new))| {
            let subject = format!("[PATCH v2 {}/{of}] PCI: number {index}", index + 1);
            mail(&subject, &index.to_string(), &patch("drivers/pci/iov.c", context, old, new), dress)
        }).collect();
        mails.push(mail(&format!("[PATCH v2 0/{of}] PCI: all"), "cover", "Words.\n", dress));
        mails.push(mail(&format!("Re: [PATCH v2 1/{of}] PCI: a"), "reply", "> diff --git a/f b/f\n\nNo.\n", dress));
        if shuffle {
            mails.reverse();
        }
        let series = Series::of_bytes(mails.concat().as_bytes(), "a.mbox", false).unwrap();
        prop_assert_eq!((series.subject.as_str(), series.version, series.patches.len()), ("PCI: all", Version::of(2), of));
        for (read, (context, old, new)) in series.patches.iter().zip(&patches) {
            let before: String = context.iter().map(|line| format!(" {line}\n")).collect();
            let sent = diff("drivers/pci/iov.c", context.len(), &before, old, new);
            prop_assert_eq!(String::from_utf8_lossy(&read.diff.text), sent);
        }
    }

    #[test]
    fn no_input_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "(?s).{0,200}") {
        let _ = Series::of_bytes(&bytes, "a", true);
        let _ = Series::of_bytes(format!("diff --git a/f b/f\n{text}").as_bytes(), "a", true);
        let _ = Series::of_bytes(format!("From a Thu Jan  1 00:00:00 1970\nSubject: [PATCH 1/1] a\n{text}").as_bytes(), "a", true);
    }

    #[test]
    fn spaces_at_the_end_of_lines_are_kept_in_encodings_that_allow_them(
        dress in prop::sample::select(&[Dress::Plain, Dress::Crlf, Dress::Base64, Dress::Quoted, Dress::Attached][..]),
        blanks in "[ \t]{0,3}", ending in prop::sample::select(&["", "\r"][..]),
    ) {
        // In a mail with CR LF, a CR that belongs to the file cannot be distinguished.
        let ending = if dress == Dress::Crlf { "" } else { ending };
        let old = format!("a{blanks}{ending}");
        let new = format!("b{blanks}{ending}");
        let text = patch("drivers/pci/iov.c", &[], &old, &new);
        let series = Series::of_bytes(mail("[PATCH] PCI: a", "1", &text, dress).as_bytes(), "a", false).unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&series.patches[0].diff.text), diff("drivers/pci/iov.c", 0, "", &old, &new));
    }
}

fn plain(subject: &str, id: &str, text: &str) -> String {
    mail(subject, id, text, Dress::Plain)
}

fn change(file: &str, old: &str, new: &str) -> String {
    patch(file, &[], old, new)
}

fn read(mails: &[String]) -> Result<Series, String> {
    Series::of_bytes(mails.concat().as_bytes(), "a.mbox", false).map_err(|error| error.to_string())
}

fn titles(series: &Series) -> Vec<&str> {
    series.patches.iter().map(|patch| patch.subject.as_str()).collect()
}

#[test]
fn the_newest_complete_version_is_taken() {
    let one = |version: &str, number: &str, title: &str| {
        plain(&format!("[PATCH{version} {number}] {title}"), &format!("{version}{number}"), &change("f", "a", title))
    };
    let mails = [
        one("", "1/2", "old 1"),
        one("", "2/2", "old 2"),
        one(" v2", "2/2", "new 2"),
        one(" v2", "1/2", "new 1"),
        one(" v3", "2/2", "newest 2"),
        plain("[PATCH] beside", "beside", &change("g", "a", "b")),
        plain("Re: [PATCH v2 1/2] new 1", "reply", &change("f", "a", "c")),
        plain("Re: [PATCH v2 1/2] new 1", "reply2", "Do not\n> diff --git a/f b/f\n"),
    ];
    let series = read(&mails).unwrap();
    assert_eq!((series.version, titles(&series)), (Version::of(2), vec!["new 1", "new 2"]));
    insta::assert_snapshot!(series.notes.join("\n"), @r#"
    left out: version 3, without its patch 1 of 2
    left out: version 1, which version 2 replaces
    left out: "beside", a patch beside the series
    left out: a diff in a reply by A U Thor <a@example.org> (--inline takes it)
    "#);
}

#[test]
fn diffs_in_replies_are_taken_if_asked_for() {
    let reply = plain("Re: the report", "1", &format!("How about this?\n\n{}", change("drivers/pci/iov.c", "a", "b")));
    insta::assert_snapshot!(read(std::slice::from_ref(&reply)).unwrap_err(), @"no patch in 1 mail; there are diffs in replies: --inline takes those");
    let series = Series::of_bytes(reply.as_bytes(), "a", true).unwrap();
    assert_eq!(titles(&series), ["the report"]);
    let both = [plain("[PATCH 1/1] PCI: first", "2", &change("f", "a", "b")), reply];
    let series = Series::of_bytes(both.concat().as_bytes(), "a", true).unwrap();
    assert_eq!(titles(&series), ["PCI: first", "the report"]);
    assert_eq!(series.patches[1].number, 2);
}

#[test]
fn patches_without_numbers_come_in_the_order_of_their_files() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("0002-b.patch"), change("f", "b", "c")).unwrap();
    let envelope = "From 0123 Mon Sep 17 00:00:00 2001\nFrom: A <a@example.org>\nSubject: [PATCH] PCI: a\n\n";
    fs::write(folder.path().join("0001-a.patch"), format!("{envelope}{}", change("f", "a", "b"))).unwrap();
    // If a subject says [PATCH], mails without it are left out.
    let series = Series::read(folder.path(), false).unwrap();
    assert_eq!(titles(&series), ["PCI: a"]);
    insta::assert_snapshot!(series.notes.join("\n"), @r#"left out: "0002-b.patch", which does not call itself a patch"#);
    fs::write(folder.path().join("0001-a.patch"), change("f", "a", "b")).unwrap();
    assert_eq!(titles(&Series::read(folder.path(), false).unwrap()), ["0001-a.patch", "0002-b.patch"]);
}

#[test]
fn errors_name_the_patch_and_the_mail() {
    let text = change("drivers/pci/iov.c", "a", "b");
    let told = |mails: &[String]| read(mails).unwrap_err();
    let of_three = [plain("[PATCH v2 0/3] PCI: all", "0", "Words."), plain("[PATCH v2 2/3] PCI: b", "2", &text)];
    insta::assert_snapshot!(told(&of_three), @r#"the series "PCI: all" is not complete: there is no patch 1, 3 of 3"#);
    let other = change("drivers/pci/iov.c", "a", "c");
    let twice = [plain("[PATCH 1/1] PCI: a", "1", &text), plain("[PATCH 1/1] PCI: b", "2", &other)];
    insta::assert_snapshot!(told(&twice), @r#"two different patches are number 1 of 1: "PCI: a <1@example.org>" and "PCI: b <2@example.org>"; leave one of them out"#);
    let same = [plain("[PATCH 1/1] PCI: a", "1", &text), plain("[PATCH RESEND 1/1] PCI: a", "2", &text)];
    assert_eq!(titles(&read(&same).unwrap()), ["PCI: a"]);
    let html = plain("[PATCH 1/1] PCI: a", "1", "<pre>").replace("text/plain", "text/html");
    insta::assert_snapshot!(told(&[html]), @"a.mbox (PCI: a) is HTML only, and HTML damages patches: take it from a list archive, as in `b4 am MESSAGE-ID`, or ask for it as plain text");
    insta::assert_snapshot!(told(&[plain("Hello", "1", "words")]), @"no patch in 1 mail: a patch has a diff in its plain text, or attached as .patch or .diff");
    insta::assert_snapshot!(told(&[plain("[PATCH 1/1] PCI: a", "1", "words")]), @"the patch in a.mbox (PCI: a) is damaged: it has no diff in its text, and none attached as .patch or .diff");
    let outside = change("../../etc/passwd", "a", "b");
    insta::assert_snapshot!(told(&[plain("[PATCH] PCI: a", "1", &outside)]), @"the patch in a.mbox (PCI: a) is refused: its path `../../etc/passwd` is no plain path within the tree");
    let far = read(&[plain("[PATCH] drm: a", "1", &change("drivers/gpu/drm/a.c", "a", "b"))]).unwrap();
    insta::assert_snapshot!(far.within_reach().unwrap_err(), @"this series touches nothing that the scenarios exercise: it changes drivers/gpu/drm/a.c. The scenarios exercise PCI and its hotplug, SR-IOV, vfio, IOMMUs, igb, the driver core, sysfs and the code that these use. --force runs them anyway");
    assert!(read(&[plain("[PATCH] PCI: a", "1", &text)]).unwrap().within_reach().is_ok());
}

#[test]
fn the_base_commit_is_read_where_git_writes_it() {
    let text = change("f", "a", "b") + "\nbase-commit: 0123456789abcdef0123456789abcdef01234567\n";
    let series = read(&[plain("[PATCH] PCI: a", "1", &text)]).unwrap();
    assert_eq!(series.base_commit.as_deref(), Some("0123456789abcdef0123456789abcdef01234567"));
    assert_eq!(read(&[plain("[PATCH] PCI: a", "1", &change("f", "a", "b"))]).unwrap().base_commit, None);
}
