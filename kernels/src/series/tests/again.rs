//! Patches that were sent more than once, and replies that do not call themselves so.

use super::{change, plain, read, titles};
use crate::series::{Series, Version};

/// A mail with a patch that changes `a` to `new`, sent on a day.
fn sent(subject: &str, id: &str, day: u32, new: &str) -> String {
    dated(plain(subject, id, &change("drivers/pci/iov.c", "a", new)), day)
}

fn dated(mail: String, day: u32) -> String {
    mail.replacen("Message-ID:", &format!("Date: {day} Jan 2026 10:00:00 +0000\nMessage-ID:"), 1)
}

fn answering(mail: String, id: &str) -> String {
    mail.replacen("Message-ID:", &format!("In-Reply-To: <{id}@example.org>\nMessage-ID:"), 1)
}

/// A mail from somebody else.
fn of_another(mail: String) -> String {
    mail.replace("A U Thor <a@example.org>", "R E Viewer <r@example.org>")
}

/// The lines that the patches add.
fn added(series: &Series) -> Vec<String> {
    let line = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        text.lines().filter(|line| !line.starts_with("+++")).find_map(|line| line.strip_prefix('+')).unwrap().to_owned()
    };
    series.patches.iter().map(|patch| line(&patch.diff.text)).collect()
}

/// What the patches add, and the notes.
fn result(mails: &[String]) -> String {
    let series = read(mails).unwrap();
    let notes: String = series.notes.iter().map(|note| format!("\n{note}")).collect();
    format!("version {}: {}{notes}", series.version, added(&series).join(" "))
}

#[test]
fn a_single_patch_sent_again_replaces_the_first_one() {
    let resend = [sent("[PATCH v2] PCI: a", "1", 1, "old"), sent("[RESEND PATCH v2] PCI: a", "2", 2, "new")];
    insta::assert_snapshot!(result(&resend), @r#"
    version 2: new
    left out: patch "PCI: a" of version 2, which the resend of version 2 replaces
    "#);
    let lower = [sent("[PATCH v2 resend] PCI: a", "1", 2, "new"), sent("[PATCH v2] PCI: a", "2", 1, "old")];
    assert_eq!(added(&read(&lower).unwrap()), ["new"]);
    let renamed = [sent("[PATCH] PCI: a", "1", 1, "old"), sent("[PATCH v2] PCI: Do a", "2", 2, "new")];
    insta::assert_snapshot!(result(&renamed), @r#"
    version 2: new
    left out: patch "PCI: a" of version 1, which version 2 replaces
    "#);
    // These are two patches.
    let two = [sent("[PATCH] PCI: a", "1", 1, "one"), sent("[PATCH] PCI: b", "2", 2, "two")];
    insta::assert_snapshot!(result(&two), @"version 1: one two");
}

#[test]
fn patches_of_a_series_sent_again_replace_the_first_ones() {
    let series = || [sent("[PATCH v3 1/2] PCI: a", "1", 1, "one"), sent("[PATCH v3 2/2] PCI: b", "2", 1, "two")];
    let and = |mail: String| result(&[series().to_vec(), vec![mail]].concat());
    insta::assert_snapshot!(and(sent("[PATCH v3.1 2/2] PCI: b", "3", 2, "new")), @r"
    version 3: one new
    left out: patch 2 of version 3, which version 3.1 replaces
    ");
    insta::assert_snapshot!(and(sent("[PATCH RESEND v3 2/2] PCI: b", "3", 2, "new")), @r"
    version 3: one new
    left out: patch 2 of version 3, which the resend of version 3 replaces
    ");
    insta::assert_snapshot!(and(answering(sent("[PATCH v4 2/2] PCI: b", "3", 2, "new"), "2")), @r"
    version 3: one new
    left out: patch 2 of version 3, which version 4 replaces
    ");
    insta::assert_snapshot!(and(answering(sent("[PATCH v4] PCI: b", "3", 2, "new"), "2")), @r"
    version 3: one new
    left out: patch 2 of version 3, which version 4 replaces
    ");
    insta::assert_snapshot!(and(sent("[PATCH v3 2/2] PCI: b", "3", 2, "new")), @r"
    version 3: one new
    left out: patch 2 of version 3, which a later mail replaces
    ");
    // This one belongs to a version 4 of which the rest is missing.
    insta::assert_snapshot!(and(answering(sent("[PATCH v4 2/2] PCI: b", "3", 2, "new"), "gone")), @r"
    version 3: one two
    left out: version 4, without its patch 1 of 2
    ");
}

#[test]
fn a_series_sent_again_replaces_the_first_one() {
    let mut mails = vec![plain("[PATCH RESEND 0/2] PCI: both", "r0", "Words.\nbase-commit: 2222222\n")];
    mails.extend([
        sent("[PATCH RESEND 1/2] PCI: a", "r1", 2, "new1"),
        sent("[PATCH RESEND 2/2] PCI: b", "r2", 2, "new2"),
    ]);
    mails.push(plain("[PATCH 0/2] PCI: both", "0", "Words.\nbase-commit: 1111111\n"));
    mails.extend([sent("[PATCH 1/2] PCI: a", "1", 1, "one"), sent("[PATCH 2/2] PCI: b", "2", 1, "two")]);
    insta::assert_snapshot!(result(&mails), @r"
    version 1: new1 new2
    left out: patches 1, 2 of version 1, which the resend of version 1 replaces
    ");
    let series = read(&mails).unwrap();
    assert_eq!((series.base_commit.as_deref(), series.version), (Some("2222222"), Version::FIRST));
}

#[test]
fn a_reply_without_re_is_no_patch() {
    let quoted = format!("Why?\n> {}", change("f", "a", "b").replace('\n', "\n> "));
    let mails = [
        plain("[PATCH RESEND 0/1] PCI: all", "0", "Words.\n"),
        sent("[PATCH RESEND 1/1] PCI: a", "1", 1, "one"),
        of_another(answering(dated(plain("[PATCH RESEND 1/1] PCI: a", "3", &quoted), 2), "1")),
        of_another(dated(plain("[PATCH RESEND 1/1] PCI: a", "4", &quoted), 2)),
        of_another(answering(dated(plain("[PATCH RESEND 0/1] PCI: all", "5", "Good.\n"), 2), "0")),
        of_another(answering(sent("[PATCH RESEND 1/1] PCI: a", "6", 2, "better"), "1")),
    ];
    insta::assert_snapshot!(result(&mails), @r"
    version 1: one
    left out: a diff in a reply by R E Viewer <r@example.org> (--inline takes it)
    ");
    assert_eq!(titles(&read(&mails).unwrap()), ["PCI: a"]);
}

#[test]
fn a_patch_that_nothing_calls_newer_replaces_none() {
    let told = |second: String| read(&[sent("[PATCH 1/1] PCI: a", "1", 1, "one"), second]).unwrap_err();
    assert!(told(sent("[PATCH 1/1] PCI: b", "2", 2, "two")).contains("two different patches are number 1 of 1"));
    assert!(told(of_another(sent("[PATCH 1/1] PCI: a", "2", 2, "two"))).contains("two different patches"));
}
