//! The answer as plain text for a mail, made from the answer and from the evidence of the runs.

use std::fmt::Write as _;
use std::path::Path;

use super::ruling::{Mark, Observed};
use super::{Answer, Found, History, Judged, Revision};
use crate::evidence::{RunCell, read_run};
use crate::report::mail::{quote_script, wrap};
use crate::verdict::Verdict;

/// How many tasks are shown.
const TASKS: usize = 3;
/// How many stack frames of each task are shown.
const FRAMES: usize = 5;

/// The question in terms of the command line.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The scenario and, if it has one, its trigger: `numvfs_read::owner_rescans_on_removal, yank`.
    pub cell: String,
    /// The command that repeats the cell on a commit, without the short name of the commit at its end.
    pub repeat: String,
    /// The scenario and its text, if it is a script that is short enough to be quoted.
    pub script: Option<(String, String)>,
}

/// The answer as text: the commit, the failure that was looked for, the commits that were judged, the evidence and
/// git's log.
pub fn render(answer: &Answer, asked: &Asked) -> String {
    let mut text = String::new();
    let kind = if answer.reverse { "fixed" } else { "bad" };
    match &answer.found {
        Found::First(revision) => {
            line(
                &mut text,
                "",
                &match revision.is_of_series() {
                    true => format!("{} is the first {kind} patch of the series", revision.short),
                    false => format!("{} is the first {kind} commit", revision.id),
                },
            );
            text.push('\n');
            commit(&mut text, revision);
        }
        Found::OneOf(revisions) => {
            let what = if revisions.iter().any(Revision::is_of_series) { "patch" } else { "commit" };
            let words = format!("The first {kind} {what} is one of these; some of them could not be judged:");
            line(&mut text, "", &words);
            text.push('\n');
            revisions.iter().for_each(|revision| line(&mut text, "  ", &revision.to_string()));
        }
    }
    text.push('\n');
    line(&mut text, "", &format!("Looked for: {} in {}", answer.wanted, asked.cell));
    text.push('\n');
    for judged in &answer.judged {
        let flaky = if judged.ruling.flaky { " (flaky)" } else { "" };
        let mark = word(judged.ruling.mark);
        let words = format!("{}: {}{flaky}", judged.revision, judged.ruling.why);
        wrap(&mut text, &format!("{mark:4} "), "    ", &words);
    }
    if let Some((judged, observed)) = shown(answer) {
        text.push('\n');
        evidence(&mut text, judged, observed);
        line(&mut text, "", "To reproduce it:");
        let _ = writeln!(text, "  {} {}", asked.repeat, judged.revision.short);
    }
    if let Some((name, script)) = &asked.script {
        quote_script(&mut text, name, script);
    }
    text.push_str("\ngit bisect log:\n");
    for words in answer.log.lines() {
        let _ = writeln!(text, "  {words}");
    }
    text
}

fn word(mark: Mark) -> &'static str {
    match mark {
        Mark::Good => "good",
        Mark::Bad => "bad",
        Mark::Skip => "skip",
    }
}

fn commit(text: &mut String, revision: &Revision) {
    line(text, "  ", &revision.subject);
    if revision.is_of_series() {
        // A patch in no mail has no author.
        if revision.author != format!("{} <>", History::NOBODY) {
            line(text, "  ", &revision.author);
        }
        return;
    }
    line(text, "  ", &format!("{}, {}", revision.author, revision.date));
    // The format of Documentation/process/submitting-patches.rst. Must not be wrapped.
    let _ = writeln!(text, "  ({} (\"{}\"))", revision.short, revision.subject);
}

/// The failure to show: that of the commit that was found, or else of the bad commit that was judged last, which is the
/// nearest one.
fn shown(answer: &Answer) -> Option<(&Judged, &Observed)> {
    let failure = |judged: &Judged| judged.ruling.mark == Mark::Bad;
    let found = match &answer.found {
        Found::First(revision) => answer.judged(&revision.id).filter(|judged| failure(judged)),
        Found::OneOf(_) => None,
    };
    let judged = found.or_else(|| answer.judged.iter().rev().find(|judged| failure(judged)))?;
    let like = |observed: &&Observed| match &observed.verdict {
        Verdict::Fail(failure) => answer.wanted.is(failure),
        _ => false,
    };
    Some((judged, judged.observed.iter().find(like)?))
}

fn evidence(text: &mut String, judged: &Judged, observed: &Observed) {
    line(text, "", &format!("What {} does:", judged.revision.short));
    line(text, "  ", observed.verdict.reason().unwrap_or_default());
    let Some(folder) = &observed.evidence else { return };
    match cell(folder) {
        Some(cell) => {
            for (what, task) in cell.record.observations.tasks().into_iter().take(TASKS) {
                line(text, "  ", &format!("{what}: {} (pid {}), state {}", task.comm, task.pid, task.state));
                task.stack.iter().take(FRAMES).for_each(|frame| line(text, "    ", frame));
            }
            let _ = writeln!(text, "Evidence:\n  {}", folder.display());
        }
        None => {
            let _ = writeln!(text, "Its evidence was deleted (--restart judges again):\n  {}", folder.display());
        }
    }
}

/// The cell in a folder.
fn cell(folder: &Path) -> Option<RunCell> {
    let run = read_run(folder.parent()?).ok()?;
    run.cells.into_iter().find(|cell| cell.evidence.as_deref() == Some(folder))
}

/// Adds a line, wrapped. Continuation lines are indented by four more spaces.
fn line(text: &mut String, indent: &str, words: &str) {
    wrap(text, indent, &format!("{indent}    "), words);
}

#[cfg(test)]
mod tests {
    use kernels::FailureKind;

    use super::*;
    use crate::bisect::ruling::{Ruling, Wanted, ruling};

    fn revision(number: usize, subject: &str) -> Revision {
        let digit = number.to_string();
        Revision {
            id: digit.repeat(40),
            tree: String::new(),
            short: digit.repeat(12),
            subject: subject.to_owned(),
            author: "A Developer <dev@example.org>".to_owned(),
            date: "2024-02-09".to_owned(),
        }
    }

    fn judged(number: usize, subject: &str, verdict: Verdict) -> Judged {
        let observed = vec![Observed { verdict, evidence: Some("/nonexistent/run/cell".into()) }];
        let wanted = Wanted::Like { kind: FailureKind::Deadlock, function: Some("sriov_numvfs_show".to_owned()) };
        let ruling: Ruling = ruling(&observed, 1, &wanted).unwrap();
        Judged { revision: revision(number, subject), ruling, observed, remembered: false }
    }

    fn answer(found: Found, reverse: bool) -> Answer {
        let summary = "owner iov-own (pid 53) in D state in sriov_numvfs_show while irq/25-pciehp (pid 39) waits in vfio \
                       for this owner: neither can go on";
        let deadlock = Verdict::fail(FailureKind::Deadlock, "sriov_numvfs_show", summary.to_owned());
        let broken = Verdict::BuildFailed("drivers/pci/iov.c:3: error: expected ';'".to_owned());
        Answer {
            found,
            wanted: Wanted::Like { kind: FailureKind::Deadlock, function: Some("sriov_numvfs_show".to_owned()) },
            judged: vec![
                judged(9, "The newest", deadlock.clone()),
                judged(1, "The oldest", Verdict::Pass),
                judged(4, "PCI: Forget a semicolon", broken),
                judged(5, "PCI/IOV: Serialize sysfs sriov_numvfs reads vs writes", deadlock),
            ],
            log: "git bisect start 'b' 'a'\n# first bad commit: [5]\n".to_owned(),
            reverse,
        }
    }

    fn asked() -> Asked {
        let repeat = "cargo xtask run owner_rescans_on_removal --trigger yank --tree linux --rev".to_owned();
        Asked { cell: "numvfs_read::owner_rescans_on_removal, yank".to_owned(), repeat, script: None }
    }

    #[test]
    fn a_patch_of_nobody_has_no_author() {
        let patch = |author: &str| {
            let mut text = String::new();
            let (short, author) = ("patch-1".to_owned(), author.to_owned());
            commit(&mut text, &Revision { short, author, ..revision(1, "PCI: Say nothing") });
            text
        };
        assert_eq!(patch("unknown <>"), "  PCI: Say nothing\n");
        assert_eq!(patch("A <a@example.org>"), "  PCI: Say nothing\n  A <a@example.org>\n");
    }

    #[test]
    fn the_answer_fits_into_a_mail() {
        let found = Found::First(revision(5, "PCI/IOV: Serialize sysfs sriov_numvfs reads vs writes"));
        insta::assert_snapshot!(render(&answer(found, false), &asked()));
        let found = Found::OneOf(vec![revision(4, "PCI: Forget a semicolon"), revision(5, "PCI/IOV: Serialize")]);
        insta::assert_snapshot!(render(&answer(found, true), &asked()));
    }

    #[test]
    fn a_short_script_is_quoted() {
        let found = Found::First(revision(5, "PCI/IOV: Serialize sysfs sriov_numvfs reads vs writes"));
        let script = "PF=$(iov pf)\n\niov own $PF --on-request 'cat $SYSFS/sriov_numvfs' --release || exit 4 # longer than a line\n";
        let asked = Asked {
            cell: "script::repro on igb, yank".to_owned(),
            repeat: "cargo xtask run --script repro.sh --topology igb --trigger yank --tree linux --rev".to_owned(),
            script: Some(("script::repro".to_owned(), script.to_owned())),
        };
        insta::assert_snapshot!(render(&answer(found, false), &asked));
    }

    #[test]
    fn patches_of_a_series_are_called_by_their_names() {
        let named = |found: Revision, short: &str| Revision { short: short.to_owned(), ..found };
        let of_series = |judged: Judged| {
            let short = if judged.ruling.mark == Mark::Good { "base" } else { "patch-5" };
            Judged { revision: named(judged.revision.clone(), short), ..judged }
        };
        let found = named(revision(5, "PCI/IOV: Serialize sysfs sriov_numvfs reads vs writes"), "patch-5");
        let answer = answer(Found::First(found), false);
        let answer = Answer { judged: answer.judged.into_iter().skip(1).map(of_series).collect(), ..answer };
        let repeat = "cargo xtask run owner_rescans_on_removal --base 6.12 --series DIR --kernel".to_owned();
        insta::assert_snapshot!(render(&answer, &Asked { repeat, ..asked() }));
    }
}
