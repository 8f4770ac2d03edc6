//! What became of a cell from one kernel to another: one definition for series, for `--against`, and for runs that are to
//! agree.

use kernels::{Bug, FailureKind, split_profile};
use serde::Serialize;

use crate::report::words;
use crate::verdict::{Expected, Failure, Verdict};

/// What the repeats of a cell came to on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It passed, each time that it came to a verdict.
    Pass,
    /// It failed, each time.
    Fail(Failure),
    /// It passed and failed.
    Flaky {
        /// How it failed.
        failure: Failure,
        /// How often.
        failed: usize,
        /// Of how many times.
        of: usize,
    },
    /// It cannot be run here.
    Skipped,
    /// Nothing is known.
    Unknown(Verdict),
    /// There is no such cell.
    Absent,
}

/// The ways in which bugs of the catalogue may show on a kernel, of those that a scenario detects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways(Expected);

/// What a cell came to on one kernel, and what may show there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it came to.
    pub state: State,
    /// What may show.
    pub ways: Ways,
}

/// What became of a cell from one kernel to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It passed before and fails now, or fails now for good and did not before.
    Regressed,
    /// It failed before and passes.
    Fixed,
    /// It fails in another way than before, and in none that is worse.
    FailsOtherwise,
    /// It fails as before: in the same way, or in another way of the same bug.
    StillBroken,
    /// It passes now and then: nothing can be said of it.
    Flaky,
    /// One of the two shows a bug that the other may have as well, and that shows only now and then.
    ByChance,
    /// There is no verdict.
    NoAnswer,
    /// There is no such cell on one of the two, or it is skipped there.
    NotCompared,
    /// It passes as before, or is skipped as before.
    Unchanged,
}

impl State {
    /// What these repeats came to. Of several failures one counts that is not known to show by chance.
    pub fn of<'a>(verdicts: impl Iterator<Item = &'a Verdict> + Clone, ways: &Ways) -> State {
        let failures: Vec<_> = verdicts.clone().filter_map(failure).collect();
        let told = failures.iter().find(|failure| !ways.are_by_chance(failure)).or(failures.first());
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

    /// Whether it says something of the kernel.
    pub fn is_known(&self) -> bool {
        matches!(self, State::Pass | State::Fail(_) | State::Flaky { .. })
    }

    /// `does not build` or `does not boot`, if that is what became of the kernel, and why.
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
    /// Those of the bugs that a cell's kernel is known to have.
    pub fn expected(expected: &Expected) -> Ways {
        Ways(expected.clone())
    }

    /// Those of the bugs `has` that a scenario detects. A kernel of which nothing is known may have any.
    pub fn of(kernel: &str, has: Option<&[String]>, detects: &[String], bugs: &[Bug]) -> Ways {
        let names: Vec<_> = detects.iter().map(String::as_str).collect();
        Ways(Expected::of(has.unwrap_or(detects), &names, bugs, split_profile(kernel).1))
    }

    /// Whether only bugs fail in this way that show now and then.
    fn are_by_chance(&self, failure: &Failure) -> bool {
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
            _ if is_chance(before, after) => Change::ByChance,
            (State::Flaky { .. }, _) | (_, State::Flaky { .. }) => Change::Flaky,
            (State::Fail(_), State::Pass) => Change::Fixed,
            (State::Pass, State::Fail(_)) => Change::Regressed,
        }
    }

    fn of_failures(before: &Seen, one: &Failure, after: &Seen, other: &Failure) -> Change {
        if is_same(before, one, after, other) {
            Change::StillBroken
        } else if before.ways.are_by_chance(other) {
            Change::ByChance
        } else if for_good(other.kind) && !for_good(one.kind) {
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
            Change::ByChance => "now and then",
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

/// Whether each failure of two kernels that do not agree is one that the other may have as well, and shows only now and
/// then.
fn is_chance(before: &Seen, after: &Seen) -> bool {
    let mut failures =
        [(before, after), (after, before)].into_iter().filter_map(|(one, other)| Some((one.state.failure()?, other)));
    failures.all(|(failure, other)| other.ways.are_by_chance(failure))
}

/// Whether nothing goes on after such a failure.
fn for_good(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Deadlock | FailureKind::KernelSplat)
}

#[cfg(test)]
mod tests {
    use kernels::{Chance, Fails};

    use super::*;

    fn fails(kind: FailureKind, function: &str) -> State {
        State::Fail(Failure { kind, function: Some(function.to_owned()), summary: String::new() })
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
        Bug { id: id.to_owned(), title, references, fails, under, chance, by_design: false }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// On kernels that have these bugs of `bugs`, or of which nothing is known.
    fn between(bugs: &[Bug], before: (&State, Option<&[&str]>), after: (&State, Option<&[&str]>)) -> Change {
        let detects: Vec<_> = bugs.iter().map(|bug| bug.id.clone()).collect();
        let seen = |(state, has): (&State, Option<&[&str]>)| Seen {
            state: state.clone(),
            ways: Ways::of("kernel", has.map(names).as_deref(), &detects, bugs),
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
    fn what_shows_by_chance_is_neither_a_regression_nor_a_fix() {
        let splat = || fails(FailureKind::KernelSplat, "proc_register");
        let random = [bug("random", Chance::Random, &[(FailureKind::KernelSplat, "proc_register")])];
        let change = |before: &State, after: &State| between(&random, (before, None), (after, None));
        for shown in [splat(), flaky(&splat())] {
            assert_eq!(change(&State::Pass, &shown), Change::ByChance);
            assert_eq!(change(&shown, &State::Pass), Change::ByChance);
        }
        assert_eq!(change(&splat(), &splat()), Change::StillBroken);
        assert_eq!(change(&stale(), &splat()), Change::ByChance, "this one is worse, but is no news");
        assert_eq!(change(&splat(), &stale()), Change::FailsOtherwise);
        assert_eq!(change(&State::Pass, &stale()), Change::Regressed, "another way to fail");
        assert_eq!(change(&State::Pass, &flaky(&stale())), Change::Flaky);
        let certain = [bug("certain", Chance::Certain, &[(FailureKind::KernelSplat, "proc_register")])];
        let both = [random.as_slice(), &certain].concat();
        assert_eq!(between(&both, (&State::Pass, None), (&splat(), None)), Change::Regressed, "it may be either");
    }

    #[test]
    fn a_kernel_that_is_known_not_to_have_a_bug_cannot_have_missed_it() {
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
    fn one_bug_may_show_here_or_there() {
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
    fn of_several_failures_the_one_counts_that_is_not_by_chance() {
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
