//! The page of all bugs, `docs/catalogue.md`: what the manifest and the scenarios say about each, and the last
//! measurements.
//!
//! Measurements come from a run. If the run has none, those on the page stay.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kernels::{Bug, Fails, FailureKind, Manifest, Variant, split_profile};

use super::words;
use crate::evidence::{Run, RunCell};
use crate::notes::{Note, Notes, Read, Rounds};
use crate::scenario::{Comparison, Scenario};
use crate::verdict::{Failure, Verdict};

/// Measurements: of a bug by its id, of a row of a comparison by its name.
pub type Measured = BTreeMap<String, String>;

const NOTHING: &str = "not yet";
const MEASURED: &str = "- measured: ";

/// The page.
pub fn page(manifest: &Manifest, scenarios: &[Scenario], comparison: Comparison, measured: &Measured) -> String {
    let mut page = String::from(
        "# The bugs\n\nWritten by `cargo xtask catalogue` from `kernels/kernels.toml`, the scenarios and, with `--from RUN`, the \
         evidence of a run.\nMeasured: for each kernel, FAILED/ALL cells. FAILED counts the cells that failed in the way of the bug, or saw the bug \
         beside a more severe one. ALL also counts the cells that passed.\nKernels: plain bases, and kernels whose patches fix or add the bug. All others are like their base.\n",
    );
    let value = |key: &str| measured.get(key).map_or(NOTHING, String::as_str).to_owned();
    let _ = write!(page, "\n## {}\n\n|  | {} |\n", comparison.title, comparison.kernels.join(" | "));
    let _ = writeln!(page, "|--{}|", "|--".repeat(comparison.kernels.len()));
    for (row, _) in comparison.rows {
        let empty = vec![NOTHING; comparison.kernels.len()].join(" | ");
        let _ = writeln!(page, "| {row} | {} |", measured.get(*row).cloned().unwrap_or(empty));
    }
    for bug in &manifest.bugs {
        let _ = write!(page, "\n## {}\n\n{}.\n\n", bug.id, bug.title);
        let _ = writeln!(page, "- shows as: {} ({})", bug.shows_as(), chance(bug));
        for cycle in &bug.cycles {
            let _ = writeln!(page, "- closed by: `{}`", cycle.join("`; `"));
        }
        if let Some(why) = &bug.unproven {
            let _ = writeln!(page, "- no cycle proves it: {why}");
        }
        for reference in &bug.references {
            let _ = writeln!(page, "- see: {reference}");
        }
        let Entry { have, have_not, shown_by } = Entry::of(bug, manifest, scenarios);
        let _ = writeln!(page, "- kernels that have it: {}", list(&have));
        let _ = writeln!(page, "- kernels without it: {}", list(&have_not));
        let _ = writeln!(page, "- scenarios that show it: {}", list(&shown_by));
        let _ = writeln!(page, "{MEASURED}{}", value(&bug.id));
    }
    page
}

/// The kernels that have a bug and the scenarios that detect it, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Kernels that have it: plain bases, and kernels whose patches add it.
    pub have: Vec<&'a str>,
    /// Kernels without it: plain bases, and kernels whose patches fix it.
    pub have_not: Vec<&'a str>,
    /// Scenarios that detect it.
    pub shown_by: Vec<&'static str>,
}

impl<'a> Entry<'a> {
    /// The entry of a bug.
    pub fn of(bug: &Bug, manifest: &'a Manifest, scenarios: &[Scenario]) -> Entry<'a> {
        let of = |variant: &&Variant| variant.is_plain() || variant.concerns.contains(&bug.id);
        let has = |variant: &&Variant| variant.bugs.contains(&bug.id);
        let (have, have_not): (Vec<_>, Vec<_>) = manifest.variants.iter().filter(of).partition(has);
        let names = |variants: Vec<&'a Variant>| variants.into_iter().map(|variant| variant.name.as_str()).collect();
        Entry { have: names(have), have_not: names(have_not), shown_by: detecting(scenarios, bug).collect() }
    }
}

/// The measurements on a page.
pub fn measured_in(page: &str) -> Measured {
    let mut measured = Measured::new();
    let mut heading = "";
    for line in page.lines() {
        if let Some(next) = line.strip_prefix("## ") {
            heading = next;
        } else if let Some(value) = line.strip_prefix(MEASURED) {
            measured.insert(heading.to_owned(), value.to_owned());
        } else if let Some((row, values)) = row(line) {
            measured.insert(row.to_owned(), values.to_owned());
        }
    }
    measured.retain(|_, value| value.split(" | ").any(|value| value != NOTHING));
    measured
}

/// Earlier measurements, with the new ones in their place. Kernels that were not measured again keep theirs.
pub fn updated(before: Measured, now: Measured) -> Measured {
    let mut known = before;
    for (key, new) in now {
        let value = match known.get(&key) {
            Some(old) if new.contains(COLUMN) => columns(old, &new),
            Some(old) => kernels_of(old, &new),
            None => new,
        };
        known.insert(key, value);
    }
    known
}

const COLUMN: &str = " | ";

fn columns(old: &str, new: &str) -> String {
    let pick = |(old, new)| if new == NOTHING { old } else { new };
    let old = old.split(COLUMN).chain(std::iter::repeat(NOTHING));
    old.zip(new.split(COLUMN)).map(pick).collect::<Vec<_>>().join(COLUMN)
}

/// Counts are `KERNEL SHOWN/ALL, ...`.
fn kernels_of(old: &str, new: &str) -> String {
    let name = |count: &str| count.split(' ').next().unwrap_or_default().to_owned();
    let counted: Vec<_> = new.split(", ").map(|count| (name(count), count)).collect();
    let (mut all, mut taken) = (Vec::new(), Vec::new());
    for count in old.split(", ") {
        let again = counted.iter().find(|(kernel, _)| *kernel == name(count));
        taken.extend(again.map(|(kernel, _)| kernel));
        all.push(again.map_or(count, |(_, count)| count));
    }
    all.extend(counted.iter().filter(|(kernel, _)| !taken.contains(&kernel)).map(|(_, count)| *count));
    all.join(", ")
}

/// The name and the values of a row of a table. The head has no name and does not count.
fn row(line: &str) -> Option<(&str, &str)> {
    let (name, values) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
    (!name.trim().is_empty()).then_some((name, values))
}

/// The measurements of a run. Bugs that none of its cells detects, and empty rows, are left out.
pub fn measured_of(run: &Run, bugs: &[Bug], scenarios: &[Scenario], comparison: Comparison) -> Measured {
    let mut measured = Measured::new();
    for bug in bugs {
        let names: Vec<_> = detecting(scenarios, bug).collect();
        let counts: Vec<_> =
            run.info.variants.iter().filter_map(|kernel| showing(run, bug, &names, &kernel.name)).collect();
        if !counts.is_empty() {
            measured.insert(bug.id.clone(), counts.join(", "));
        }
    }
    for (name, scenarios) in comparison.rows {
        let values: Vec<_> =
            comparison.kernels.iter().map(|kernel| summed_up(&cells(run, scenarios, kernel))).collect();
        if values.iter().any(|value| value != NOTHING) {
            measured.insert((*name).to_owned(), values.join(" | "));
        }
    }
    measured
}

fn cells<'a>(run: &'a Run, scenarios: &[&str], kernel: &str) -> Vec<&'a RunCell> {
    let is = |cell: &&RunCell| {
        let id = &cell.record.cell;
        id.variant == kernel
            && scenarios.contains(&id.scenario.as_str())
            && matches!(cell.record.verdict, Verdict::Pass | Verdict::Fail(_))
    };
    run.cells.iter().filter(is).collect()
}

/// In how many cells a kernel shows a bug. A cell that failed in another way, maybe by another bug of the scenario,
/// says nothing about this bug.
fn showing(run: &Run, bug: &Bug, scenarios: &[&str], kernel: &str) -> Option<String> {
    let (mut shown, mut passed) = (0, 0);
    for cell in cells(run, scenarios, kernel) {
        match &cell.record.verdict {
            Verdict::Pass => passed += 1,
            Verdict::Fail(failure) => {
                let is_seen = is_shown_by(bug, failure, kernel) || is_among_waits(bug, &cell.record.observations);
                shown += usize::from(is_seen);
            }
            _ => {}
        }
    }
    (shown + passed > 0).then(|| format!("{kernel} {shown}/{}", shown + passed))
}

/// Whether a failure of a kernel is of this bug: as under the kernel's profile or, if lockdep is off, as without the
/// profile.
fn is_shown_by(bug: &Bug, failure: &Failure, kernel: &str) -> bool {
    let is = |way: &Fails| way.kind == failure.kind && failure.function.as_ref() == Some(&way.function);
    bug.ways(split_profile(kernel).1).iter().chain(&bug.fails).any(is)
}

/// Whether a bug is among the waits that a cell noted. The verdict names only the most severe one.
fn is_among_waits(bug: &Bug, notes: &Notes) -> bool {
    let blocks_at =
        |function: &str| bug.fails.iter().any(|way| way.kind == FailureKind::Blocked && way.function == function);
    notes.iter().any(|note| match note {
        Note::Waits(waits) => waits.iter().any(|wait| blocks_at(&wait.function)),
        _ => false,
    })
}

/// `ok`, with the longest wait if it is noticeable, or how the cells failed.
fn summed_up(cells: &[&RunCell]) -> String {
    let mut failures: Vec<_> = cells
        .iter()
        .filter(|cell| cell.record.verdict != Verdict::Pass)
        .map(|cell| words::outcome(&cell.record.verdict).to_lowercase())
        .collect();
    failures.sort_unstable();
    failures.dedup();
    let failed = cells.iter().filter(|cell| cell.record.verdict != Verdict::Pass).count();
    let waited = cells.iter().map(|cell| waited(&cell.record.observations)).fold(0.0, f64::max);
    match failed {
        _ if cells.is_empty() => NOTHING.to_owned(),
        0 if waited >= NOTICEABLE => format!("ok, waits {waited:.1} s"),
        0 => "ok".to_owned(),
        _ if failed == cells.len() => format!("**{}**", failures.join(", ")),
        _ => format!("**{}** in {failed} of {}", failures.join(", "), cells.len()),
    }
}

/// In seconds. A read takes up to this long on an emulated machine.
const NOTICEABLE: f64 = 0.05;

/// The longest of all waits that a scenario noted, in seconds.
fn waited(notes: &Notes) -> f64 {
    let longest = |note: &Note| match note {
        Note::Read(Read::Compared { waited, .. }) => *waited,
        Note::Rounds(Rounds::Watched(rounds)) => {
            rounds.iter().flat_map(|round| &round.events).map(|seen| seen.waited).fold(0.0, f64::max)
        }
        _ => 0.0,
    };
    notes.iter().map(longest).fold(0.0, f64::max)
}

fn detecting<'a>(scenarios: &'a [Scenario], bug: &'a Bug) -> impl Iterator<Item = &'static str> + 'a {
    scenarios.iter().filter(|scenario| scenario.detects.contains(&bug.id.as_str())).map(|scenario| scenario.name)
}

/// How reliably a bug reproduces, in words.
pub fn chance(bug: &Bug) -> &'static str {
    match bug.chance {
        kernels::Chance::Certain => "every time",
        kernels::Chance::Window => "in a timing window",
        kernels::Chance::Random => "randomly",
        kernels::Chance::Rare => "seldom",
    }
}

fn list(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::{Access, Round, Seen, Wait};

    const COMPARISON: Comparison =
        Comparison { title: "Kernels", kernels: &["a", "b"], rows: &[("1", &["s"]), ("2", &[])] };

    #[test]
    fn measurements_on_the_page_are_read_back() {
        let manifest = Manifest::of_project().unwrap();
        let bug = manifest.bugs[0].id.clone();
        let measured: Measured =
            [(bug, "stock 4/4".to_owned()), ("1".to_owned(), "ok | **deadlock**".to_owned())].into();
        let page = page(&manifest, &[], COMPARISON, &measured);
        assert!(page.contains("| 1 | ok | **deadlock** |\n| 2 | not yet | not yet |\n"), "{page}");
        assert_eq!(measured_in(&page), measured);
    }

    #[test]
    fn kernels_that_are_not_measured_again_keep_their_measurements() {
        let of = |pairs: &[(&str, &str)]| -> Measured {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let before = of(&[("bug", "a 1/1, b 0/1, c 1/2"), ("row", "ok | **deadlock**"), ("other", "a 1/1")]);
        let now = of(&[("bug", "b 0/9, d 1/1"), ("row", "**stale** | not yet"), ("new", "a 2/2")]);
        let known = of(&[
            ("bug", "a 1/1, b 0/9, c 1/2, d 1/1"),
            ("row", "**stale** | **deadlock**"),
            ("other", "a 1/1"),
            ("new", "a 2/2"),
        ]);
        assert_eq!(updated(before, now), known);
    }

    #[test]
    fn a_bug_shows_as_the_profile_of_the_kernel_has_it() {
        let manifest = Manifest::of_project().unwrap();
        let bug = manifest.bug("rescan-lock-recursive-pf-remove").unwrap();
        let failed = |kind| Failure {
            kind,
            function: Some("pci_lock_rescan_remove".into()),
            summary: String::new(),
            cycle: None,
        };
        let [splat, deadlock] = [FailureKind::KernelSplat, FailureKind::Deadlock].map(failed);
        assert!(is_shown_by(bug, &splat, "k+debug") && is_shown_by(bug, &deadlock, "k+debug"));
        assert!(!is_shown_by(bug, &splat, "k") && is_shown_by(bug, &deadlock, "k"));
    }

    #[test]
    fn a_bug_beside_a_more_severe_one_is_counted() {
        let manifest = Manifest::of_project().unwrap();
        let wait = |function: &str| Wait { attribute: String::new(), access: Access::Read, function: function.into() };
        let notes = Notes::from_iter([Note::Waits(vec![wait("sriov_numvfs_show"), wait("uevent_show")])]);
        let seen = |id: &str| is_among_waits(manifest.bug(id).unwrap(), &notes);
        assert!(seen("uevent-show-bystander") && seen("numvfs-show-bystander"));
        assert!(!seen("driver-override-show-bystander"));
        // This bug shows at the same function, but not as a wait.
        assert!(!seen("numvfs-show-vfio-remove"));
        assert!(!is_among_waits(manifest.bug("uevent-show-bystander").unwrap(), &Notes::default()));
    }

    #[test]
    fn the_longest_wait_counts() {
        let seen = |waited| Seen {
            of: "PF".to_owned(),
            value: "2".to_owned(),
            expected: "2".to_owned(),
            after_write_began: 1.0,
            waited,
        };
        let round = Round { vfs: 2, write_took: 7.0, events: vec![seen(0.1), seen(0.25)] };
        let read = |waited| Note::Read(Read::Compared { value: "0".to_owned(), expected: "0".to_owned(), waited });
        let mut notes = Notes::from_iter([Note::Rounds(Rounds::Watched(vec![round])), read(0.125)]);
        assert_eq!(waited(&notes), 0.25);
        notes.add(read(0.5));
        assert_eq!(waited(&notes), 0.5);
        assert_eq!(waited(&Notes::default()), 0.0);
    }
}
