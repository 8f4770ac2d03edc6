//! How the result of a cell changes from one kernel to another. Series, `--against` and the comparison of two runs use
//! this one definition.

use std::collections::BTreeSet;

use kernels::{Bug, FailureKind, split_profile};
use serde::Serialize;

use crate::report::words;
use crate::verdict::{Expected, Failure, Verdict};

/// The result of all repeats of a cell on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It passed each time that it had a verdict.
    Pass,
    /// It failed each time that it had a verdict.
    Fail(Failure),
    /// It passed and failed.
    Flaky {
        /// How it failed.
        failure: Failure,
        /// How often it failed.
        failed: usize,
        /// Out of how many verdicts.
        of: usize,
    },
    /// It cannot run here.
    Skipped,
    /// It has no verdict on the kernel.
    Unknown(Verdict),
    /// There is no such cell.
    Absent,
}

/// The ways in which bugs of the catalogue may show on a kernel, for the bugs that a scenario detects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways(Expected);

/// The result of a cell on one kernel, and the ways in which bugs may show there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The result.
    pub state: State,
    /// The ways in which bugs may show.
    pub ways: Ways,
    /// The error messages of the kernel. None if they are not known, or a repeat did not pass.
    pub errors: Option<BTreeSet<String>>,
}

/// How the result of a cell changes from one kernel to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It passed before and fails now. Or it failed before, and now deadlocks or splats, which it did not before.
    Regressed,
    /// It failed before and passes.
    Fixed,
    /// It fails in another way than before, which is not more severe.
    FailsOtherwise,
    /// It fails as before: in the same way, or in another way of the same bug.
    StillBroken,
    /// It passes and fails on one of the two, so a change is not certain.
    Flaky,
    /// One of the two shows a random bug that the other may have as well.
    ByChance,
    /// One of the two has no verdict.
    NoAnswer,
    /// One of the two does not have the cell, or skips it.
    NotCompared,
    /// It passes as before, or is skipped as before.
    Unchanged,
}

impl State {
    /// The result of these repeats. Of several failures, one that is not of a random bug counts.
    pub fn of<'a>(verdicts: impl Iterator<Item = &'a Verdict> + Clone, ways: &Ways) -> State {
        let failures: Vec<_> = verdicts.clone().filter_map(failure).collect();
        let told = failures.iter().find(|failure| !ways.is_random(failure)).or(failures.first());
        let passed = verdicts.clone().filter(|verdict| **verdict == Verdict::Pass).count();
        match (told, passed) {
            (None, 1..) => State::Pass,
            (Some(&failure), 0) => State::Fail(failure.clone()),
            (Some(&failure), _) => {
                let (failed, of) = (failures.len(), failures.len() + passed);
                State::Flaky { failure: failure.clone(), failed, of }
            }
            (None, 0) => match verdicts.clone().find(|verdict| !matches!(verdict, Verdict::Skip(_))) {
                Some(verdict) => State::Unknown(verdict.clone()),
                None if verdicts.count() == 0 => State::Absent,
                None => State::Skipped,
            },
        }
    }

    /// How it fails, if it does.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            State::Fail(failure) | State::Flaky { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// Whether it is a verdict on the kernel.
    pub fn is_known(&self) -> bool {
        matches!(self, State::Pass | State::Fail(_) | State::Flaky { .. })
    }

    /// `does not build` or `does not boot`, with the reason, if that is the result.
    pub fn not_there(&self) -> Option<(&'static str, &str)> {
        match self {
            State::Unknown(Verdict::BuildFailed(why)) => Some(("does not build", why)),
            State::Unknown(Verdict::BootFailed(why)) => Some(("does not boot", why)),
            _ => None,
        }
    }

    /// In a few words.
    pub fn words(&self) -> String {
        match self {
            State::Pass => "pass".to_owned(),
            State::Fail(failure) => failure.to_string(),
            State::Flaky { failure, failed, of } => format!("{failure} in {failed} of {of}"),
            State::Skipped => "skipped".to_owned(),
            State::Unknown(verdict) => words::outcome(verdict).to_lowercase(),
            State::Absent => "not run".to_owned(),
        }
    }
}

/// How a cell failed, if it did.
pub fn failure(verdict: &Verdict) -> Option<&Failure> {
    match verdict {
        Verdict::Fail(failure) => Some(failure),
        _ => None,
    }
}

impl Ways {
    /// The ways of the bugs that a cell's kernel is known to have.
    pub fn expected(expected: &Expected) -> Ways {
        Ways(expected.clone())
    }

    /// The ways of the bugs `has` that a scenario detects. Without `has`, the kernel may have any of them.
    pub fn of(kernel: &str, has: Option<&[String]>, detects: &[String], bugs: &[Bug]) -> Ways {
        let names: Vec<_> = detects.iter().map(String::as_str).collect();
        Ways(Expected::of(has.unwrap_or(detects), &names, bugs, split_profile(kernel).1))
    }

    /// Whether all bugs that fail in this way are random.
    fn is_random(&self, failure: &Failure) -> bool {
        self.0.shows_random_bug(failure)
    }

    /// Whether one bug may show in both ways.
    fn are_of_one_bug(&self, one: &Failure, other: &Failure) -> bool {
        self.0.shown_by(one).any(|bug| self.0.shown_by(other).any(|shown| shown == bug))
    }
}

impl Change {
    /// From one kernel to another.
    pub fn between(before: &Seen, after: &Seen) -> Change {
        match (&before.state, &after.state) {
            (State::Absent, _) | (_, State::Absent) => Change::NotCompared,
            (State::Unknown(_), _) | (_, State::Unknown(_)) => Change::NoAnswer,
            (State::Pass, State::Pass) | (State::Skipped, State::Skipped) => Change::Unchanged,
            (State::Skipped, _) | (_, State::Skipped) => Change::NotCompared,
            (State::Fail(one), State::Fail(other)) => Change::of_failures(before, one, after, other),
            _ if is_of_random_bug(before, after) => Change::ByChance,
            (State::Flaky { .. }, _) | (_, State::Flaky { .. }) => Change::Flaky,
            (State::Fail(_), State::Pass) => Change::Fixed,
            (State::Pass, State::Fail(_)) => Change::Regressed,
        }
    }

    fn of_failures(before: &Seen, one: &Failure, after: &Seen, other: &Failure) -> Change {
        if is_same(before, one, after, other) {
            Change::StillBroken
        } else if before.ways.is_random(other) {
            Change::ByChance
        } else if is_severe(other.kind) && !is_severe(one.kind) {
            Change::Regressed
        } else {
            Change::FailsOtherwise
        }
    }

    /// In a few words.
    pub fn words(self) -> &'static str {
        match self {
            Change::Fixed => "fixed",
            Change::StillBroken => "still broken",
            Change::FailsOtherwise => "fails otherwise",
            Change::Regressed => "REGRESSED",
            Change::Flaky => "flaky",
            Change::ByChance => "random",
            Change::NoAnswer => "no answer",
            Change::NotCompared => "not compared",
            Change::Unchanged => "unchanged",
        }
    }
}

/// Whether two kernels fail in the same way, or in ways of one bug.
pub fn is_same(before: &Seen, one: &Failure, after: &Seen, other: &Failure) -> bool {
    (one.kind, &one.function) == (other.kind, &other.function)
        || before.ways.are_of_one_bug(one, other)
        || after.ways.are_of_one_bug(one, other)
}

/// Whether each failure of two kernels with different results is of a random bug that the other kernel may have as
/// well.
fn is_of_random_bug(before: &Seen, after: &Seen) -> bool {
    let mut failures =
        [(before, after), (after, before)].into_iter().filter_map(|(one, other)| Some((one.state.failure()?, other)));
    failures.all(|(failure, other)| other.ways.is_random(failure))
}

/// Whether a failure is more severe than a wait or a wrong answer: tasks never continue, or the kernel reports an
/// error.
fn is_severe(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Deadlock | FailureKind::KernelSplat)
}

#[cfg(test)]
mod tests {
    use kernels::{Chance, Fails};

    use super::*;

    fn fails(kind: FailureKind, function: &str) -> State {
        State::Fail(Failure { kind, function: Some(function.to_owned()), summary: String::new(), cycle: None })
    }

    fn stale() -> State {
        fails(FailureKind::StaleRead, "sriov_numvfs")
    }

    fn deadlock() -> State {
        fails(FailureKind::Deadlock, "sriov_numvfs_show")
    }

    fn flaky(state: &State) -> State {
        State::Flaky { failure: state.failure().unwrap().clone(), failed: 1, of: 2 }
    }

    fn bug(id: &str, chance: Chance, fails: &[(FailureKind, &str)]) -> Bug {
        let fails = fails.iter().map(|&(kind, function)| Fails { kind, function: function.to_owned() }).collect();
        let (title, references, under) = Default::default();
        Bug { id: id.to_owned(), title, references, fails, under, chance, ..Bug::default() }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// The change between kernels with these bugs of `bugs`; without a list, a kernel may have any bug.
    fn between(bugs: &[Bug], before: (&State, Option<&[&str]>), after: (&State, Option<&[&str]>)) -> Change {
        let detects: Vec<_> = bugs.iter().map(|bug| bug.id.clone()).collect();
        let seen = |(state, has): (&State, Option<&[&str]>)| Seen {
            state: state.clone(),
            ways: Ways::of("kernel", has.map(names).as_deref(), &detects, bugs),
            errors: None,
        };
        Change::between(&seen(before), &seen(after))
    }

    #[test]
    fn changes() {
        let unknown = || State::Unknown(Verdict::Infra(String::new()));
        let elsewhere = || fails(FailureKind::Deadlock, "driver_override_show");
        for (before, after, change) in [
            (State::Pass, State::Pass, Change::Unchanged),
            (stale(), State::Pass, Change::Fixed),
            (State::Pass, stale(), Change::Regressed),
            (stale(), stale(), Change::StillBroken),
            (deadlock(), elsewhere(), Change::FailsOtherwise),
            (deadlock(), stale(), Change::FailsOtherwise),
            (stale(), deadlock(), Change::Regressed),
            (stale(), flaky(&stale()), Change::Flaky),
            (flaky(&stale()), State::Pass, Change::Flaky),
            (State::Pass, flaky(&stale()), Change::Flaky),
            (unknown(), State::Pass, Change::NoAnswer),
            (stale(), unknown(), Change::NoAnswer),
            (State::Skipped, State::Skipped, Change::Unchanged),
            (State::Skipped, stale(), Change::NotCompared),
            (State::Absent, stale(), Change::NotCompared),
        ] {
            assert_eq!(between(&[], (&before, None), (&after, None)), change, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_random_bug_is_neither_a_regression_nor_a_fix() {
        let splat = || fails(FailureKind::KernelSplat, "proc_register");
        let random = [bug("random", Chance::Random, &[(FailureKind::KernelSplat, "proc_register")])];
        let change = |before: &State, after: &State| between(&random, (before, None), (after, None));
        for shown in [splat(), flaky(&splat())] {
            assert_eq!(change(&State::Pass, &shown), Change::ByChance);
            assert_eq!(change(&shown, &State::Pass), Change::ByChance);
        }
        assert_eq!(change(&splat(), &splat()), Change::StillBroken);
        assert_eq!(change(&stale(), &splat()), Change::ByChance, "more severe, but a known random bug");
        assert_eq!(change(&splat(), &stale()), Change::FailsOtherwise);
        assert_eq!(change(&State::Pass, &stale()), Change::Regressed, "another way to fail");
        assert_eq!(change(&State::Pass, &flaky(&stale())), Change::Flaky);
        let certain = [bug("certain", Chance::Certain, &[(FailureKind::KernelSplat, "proc_register")])];
        let both = [random.as_slice(), &certain].concat();
        assert_eq!(between(&both, (&State::Pass, None), (&splat(), None)), Change::Regressed, "it may be either");
    }

    #[test]
    fn a_kernel_without_a_random_bug_cannot_have_missed_it() {
        let splat = fails(FailureKind::KernelSplat, "proc_register");
        let random = [bug("random", Chance::Random, &[(FailureKind::KernelSplat, "proc_register")])];
        let change = |has: &[&str], before: &State, after: &State| {
            (between(&random, (before, Some(has)), (after, None)), between(&random, (before, None), (after, Some(has))))
        };
        assert_eq!(change(&["random"], &State::Pass, &splat).0, Change::ByChance);
        assert_eq!(change(&[], &State::Pass, &splat).0, Change::Regressed);
        assert_eq!(change(&["random"], &splat, &State::Pass).1, Change::ByChance);
        assert_eq!(change(&[], &splat, &State::Pass).1, Change::Fixed);
    }

    #[test]
    fn one_bug_may_show_at_different_functions() {
        let ways = [(FailureKind::Blocked, "remover"), (FailureKind::Deadlock, "reader")];
        let bugs =
            [bug("one", Chance::Window, &ways), bug("other", Chance::Window, &[(FailureKind::Blocked, "writer")])];
        let [remover, reader] = ways.map(|(kind, function)| fails(kind, function));
        let change = |before: &State, after: &State| between(&bugs, (before, None), (after, None));
        assert_eq!(change(&remover, &reader), Change::StillBroken);
        assert_eq!(change(&remover, &fails(FailureKind::Blocked, "writer")), Change::FailsOtherwise);
        assert_eq!(change(&fails(FailureKind::Blocked, "writer"), &reader), Change::Regressed);
    }

    #[test]
    fn of_several_failures_one_that_is_not_random_counts() {
        let random = [bug("random", Chance::Random, &[(FailureKind::KernelSplat, "proc_register")])];
        let ways = Ways::of("kernel", None, &names(&["random"]), &random);
        let splat = Verdict::fail(FailureKind::KernelSplat, "proc_register", String::new());
        let stale_read = Verdict::fail(FailureKind::StaleRead, "sriov_numvfs", String::new());
        let of = |verdicts: &[Verdict]| State::of(verdicts.iter(), &ways);
        assert_eq!(of(&[splat.clone(), stale_read.clone()]), stale());
        assert_eq!(
            of(&[splat.clone(), Verdict::Infra(String::new())]),
            fails(FailureKind::KernelSplat, "proc_register")
        );
        assert_eq!(of(&[splat, stale_read, Verdict::Pass]).words(), "stale-read at sriov_numvfs in 2 of 3");
        assert_eq!((of(&[]), of(&[Verdict::Skip(String::new())])), (State::Absent, State::Skipped));
    }
}
