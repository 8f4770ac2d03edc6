//! The verdict of a cell on its kernel, and the expected result.

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use globset::{Glob, GlobMatcher};
use kernels::{Bug, Chance, Cycle, Fails, FailureKind};
use serde::{Deserialize, Serialize};

/// The result of one cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "detail")]
pub enum Verdict {
    /// The kernel did what it should.
    Pass,
    /// The kernel did not do what it should.
    Fail(Failure),
    /// The cell cannot run here; the reason.
    Skip(String),
    /// The kernel did not build, so it was not tested.
    BuildFailed(String),
    /// The kernel did not boot as far as the agent's first message.
    BootFailed(String),
    /// The harness, QEMU or the test bed failed. The cell says nothing about the kernel.
    Infra(String),
}

/// How a kernel failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The kernel function (deadlock, blocked, splat) or the attribute (stale read) at which it failed.
    pub function: Option<String>,
    /// One line for people: what happened, with the values, tasks and times that show it.
    pub summary: String,
    /// The cycle that proves a deadlock: of each wait `TASK waits in FUNCTION for WHAT`, in the order of the cycle. Empty
    /// if no cycle was found. None if nobody looked for one, and for other failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<Vec<String>>,
}

/// What separates the waits of a cycle in a summary.
pub const NEXT_WAIT: &str = "; ";

impl Failure {
    /// Whether a cycle proves it.
    pub fn is_proven(&self) -> bool {
        self.cycle.as_ref().is_some_and(|cycle| !cycle.is_empty())
    }

    /// The summary: a line for each wait of the cycle that proves a deadlock.
    pub fn lines(&self) -> Vec<&str> {
        if self.is_proven() { self.summary.split(NEXT_WAIT).collect() } else { vec![&self.summary] }
    }
}

impl Verdict {
    /// The word for it in `results.json`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail(_) => "fail",
            Verdict::Skip(_) => "skip",
            Verdict::BuildFailed(_) => "build-failed",
            Verdict::BootFailed(_) => "boot-failed",
            Verdict::Infra(_) => "infra",
        }
    }

    /// A failure.
    pub fn fail(kind: FailureKind, function: &str, summary: String) -> Verdict {
        Verdict::Fail(Failure { kind, function: Some(function.to_owned()), summary, cycle: None })
    }

    /// The first of several verdicts that is no pass.
    pub fn first(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
        verdicts.into_iter().find(|verdict| *verdict != Verdict::Pass).unwrap_or(Verdict::Pass)
    }

    /// The reason for it, if there is one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Pass => None,
            Verdict::Fail(failure) => Some(&failure.summary),
            Verdict::Skip(reason)
            | Verdict::BuildFailed(reason)
            | Verdict::BootFailed(reason)
            | Verdict::Infra(reason) => Some(reason),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "{} at {function}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

/// The expected result of a cell, from the bugs in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// The variant has none of the bugs that the scenario detects.
    Pass,
    /// The variant has some of these bugs, and must fail in the way of one of them.
    Fail(Vec<Signature>),
    /// The kernel is not in the manifest, so no result is expected.
    None,
}

/// One way in which a bug makes a cell fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The bug's id in `kernels.toml`.
    pub bug: String,
    /// The kind of failure.
    pub kind: FailureKind,
    /// The function or attribute at which it fails.
    pub function: String,
    /// The cycles of which one proves it, if it is a deadlock ([`Bug::cycles`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cycles: Vec<Cycle>,
    /// How reliably the bug reproduces.
    #[serde(default)]
    pub chance: Chance,
    /// It fails in this way only if lockdep is off. Lockdep reports once per boot, and is off after any report.
    #[serde(default)]
    pub without_lockdep: bool,
}

impl Signature {
    /// Each way in which a bug fails on a kernel with a profile. If the profile changes how the bug shows, the usual
    /// ways count too if lockdep is off.
    fn each(bug: &Bug, profile: Option<&str>) -> Vec<Signature> {
        let signature = |way: &Fails, without_lockdep| Signature {
            bug: bug.id.clone(),
            kind: way.kind,
            function: way.function.clone(),
            cycles: if way.kind == FailureKind::Deadlock { bug.cycles.clone() } else { Vec::new() },
            chance: bug.chance,
            without_lockdep,
        };
        let ways = bug.ways(profile);
        let usual = bug.fails.iter().filter(|way| !ways.contains(way)).map(|way| signature(way, true));
        ways.iter().map(|way| signature(way, false)).chain(usual).collect()
    }

    /// Whether a failure is of this kind, at this place. A deadlock is at each place where a task of its cycle waits:
    /// which of them the verdict names says nothing about the bug.
    fn is_at(&self, failure: &Failure) -> bool {
        let place = format!(" waits in {} ", self.function);
        let of_cycle = || failure.cycle.iter().flatten().any(|wait| wait.contains(&place));
        self.kind == failure.kind && (failure.function.as_deref() == Some(self.function.as_str()) || of_cycle())
    }

    /// Whether a failure closes one of the cycles of this bug. True if the bug names none, or nobody looked for one.
    fn closes(&self, failure: &Failure) -> bool {
        match &failure.cycle {
            Some(waits) if !self.cycles.is_empty() => self.cycles.iter().any(|cycle| is_cycle(cycle, waits)),
            _ => true,
        }
    }
}

/// Whether waits are those of a cycle, beginning with any of them.
fn is_cycle(cycle: &Cycle, waits: &[String]) -> bool {
    let from = |start: usize| cycle.iter().cycle().skip(start).zip(waits).all(|(glob, wait)| matches(glob, wait));
    cycle.len() == waits.len() && (0..cycle.len()).any(from)
}

/// Whether a glob matches. A report asks for the same few again and again, and compiling one takes long.
fn matches(glob: &str, wait: &str) -> bool {
    static KNOWN: LazyLock<Mutex<HashMap<String, Option<GlobMatcher>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if !known.contains_key(glob) {
        known.insert(glob.to_owned(), Glob::new(glob).ok().map(|glob| glob.compile_matcher()));
    }
    // A clone of a matcher would compile parts of it anew.
    known.get(glob).and_then(Option::as_ref).is_some_and(|glob| glob.is_match(wait))
}

impl Expected {
    /// The expected result for a variant with the bugs `has`, in a scenario that detects `detects`, if its kernel has
    /// this profile.
    pub fn of(has: &[String], detects: &[&str], bugs: &[Bug], profile: Option<&str>) -> Expected {
        let signatures: Vec<_> = bugs
            .iter()
            .filter(|bug| has.contains(&bug.id) && detects.contains(&bug.id.as_str()))
            .flat_map(|bug| Signature::each(bug, profile))
            .collect();
        if signatures.is_empty() { Expected::Pass } else { Expected::Fail(signatures) }
    }

    /// The same for a scenario that is a script: where a cycle names a process of the agent, any process may be. `prefix`
    /// is how their names begin.
    pub fn by_any_process(self, prefix: &str) -> Expected {
        let any = |wait: String| match wait.split_once(' ') {
            Some((task, rest)) if task.starts_with(prefix) => format!("* {rest}"),
            _ => wait,
        };
        let each = |signature: Signature| {
            let cycles = signature.cycles.into_iter().map(|cycle| cycle.into_iter().map(any).collect());
            Signature { cycles: cycles.collect(), ..signature }
        };
        match self {
            Expected::Fail(signatures) => Expected::Fail(signatures.into_iter().map(each).collect()),
            other => other,
        }
    }

    /// The word for it in `results.json`.
    pub fn word(&self) -> &'static str {
        match self {
            Expected::Pass => "pass",
            Expected::Fail(_) => "fail",
            Expected::None => "none",
        }
    }

    /// Whether all expected bugs are random or rare.
    pub fn is_random(&self) -> bool {
        matches!(self, Expected::Fail(signatures) if signatures.iter().all(|signature| signature.chance.may_be_missed()))
    }

    /// The same, if these bugs show every time.
    pub fn surely(&self, bugs: &[&str]) -> Expected {
        let surely = |signature: &Signature| match bugs.contains(&signature.bug.as_str()) {
            true => Signature { chance: Chance::Certain, ..signature.clone() },
            false => signature.clone(),
        };
        match self {
            Expected::Fail(signatures) => Expected::Fail(signatures.iter().map(surely).collect()),
            Expected::Pass | Expected::None => self.clone(),
        }
    }

    /// Whether a pass says nothing: all expected bugs are random, and the scenario is there for nothing else.
    pub fn is_only_random(&self) -> bool {
        let random = |signature: &Signature| signature.chance == Chance::Random;
        matches!(self, Expected::Fail(signatures) if signatures.iter().all(random))
    }

    /// Whether a kernel with only random or rare bugs passed: no bug reproduced this time.
    pub fn missed_by(&self, verdict: &Verdict) -> bool {
        self.is_random() && *verdict == Verdict::Pass
    }

    /// Whether a verdict is as expected. A skip and a miss count as expected. A verdict that says nothing about the
    /// kernel does not.
    pub fn met_by(&self, verdict: &Verdict) -> bool {
        self.met(verdict, false)
    }

    /// The same, on a kernel whose lockdep was off after an unrelated report.
    pub fn met_without_lockdep(&self, verdict: &Verdict) -> bool {
        self.met(verdict, true)
    }

    fn met(&self, verdict: &Verdict, without_lockdep: bool) -> bool {
        match (self, verdict) {
            (_, Verdict::Skip(_)) => true,
            _ if self.missed_by(verdict) => true,
            (Expected::Pass | Expected::None, Verdict::Pass) => true,
            (Expected::Fail(_), Verdict::Fail(failure)) => {
                self.showing(failure).any(|signature| without_lockdep || !signature.without_lockdep)
            }
            _ => false,
        }
    }

    /// The expected bugs that this failure shows.
    pub fn shown_by<'a>(&'a self, failure: &'a Failure) -> impl Iterator<Item = &'a str> {
        self.showing(failure).map(|signature| signature.bug.as_str())
    }

    /// The expected bugs, each as often as it has ways to fail.
    pub fn bugs(&self) -> impl Iterator<Item = &str> {
        self.signatures().iter().map(|signature| signature.bug.as_str())
    }

    /// Whether expected bugs fail in this way, and all of these are random or rare.
    pub fn shows_random_bug(&self, failure: &Failure) -> bool {
        let mut showing = self.showing(failure).peekable();
        showing.peek().is_some() && showing.all(|signature| signature.chance.may_be_missed())
    }

    fn signatures(&self) -> &[Signature] {
        match self {
            Expected::Fail(signatures) => signatures,
            Expected::Pass | Expected::None => &[],
        }
    }

    fn showing<'a>(&'a self, failure: &'a Failure) -> impl Iterator<Item = &'a Signature> {
        self.signatures().iter().filter(|signature| signature.is_at(failure) && signature.closes(failure))
    }

    /// The expected bugs that fail in this way, but by another cycle.
    pub fn closed_otherwise<'a>(&'a self, failure: &'a Failure) -> impl Iterator<Item = &'a Signature> {
        self.signatures().iter().filter(|signature| signature.is_at(failure) && !signature.closes(failure))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn deadlock_at(function: &str) -> Verdict {
        Verdict::Fail(Failure {
            kind: FailureKind::Deadlock,
            function: Some(function.to_owned()),
            summary: String::new(),
            cycle: None,
        })
    }

    fn expected() -> Expected {
        Expected::Fail(vec![Signature {
            bug: "b".to_owned(),
            kind: FailureKind::Deadlock,
            function: "sriov_numvfs_show".to_owned(),
            cycles: Vec::new(),
            chance: Chance::Certain,
            without_lockdep: false,
        }])
    }

    #[test]
    fn only_the_named_failure_meets_a_bug() {
        let stale = Verdict::Fail(Failure {
            kind: FailureKind::StaleRead,
            function: Some("sriov_numvfs_show".to_owned()),
            summary: String::new(),
            cycle: None,
        });
        for (verdict, met) in [
            (deadlock_at("sriov_numvfs_show"), true),
            (deadlock_at("driver_override_show"), false),
            (stale, false),
            (Verdict::Pass, false),
            (Verdict::Infra("QEMU died".to_owned()), false),
            (Verdict::BuildFailed(String::new()), false),
            (Verdict::BootFailed(String::new()), false),
            (Verdict::Skip(String::new()), true),
        ] {
            assert_eq!(expected().met_by(&verdict), met, "{verdict:?}");
        }
    }

    #[test]
    fn any_way_in_which_a_bug_fails_meets_it() {
        let way = |function: &str| Fails { kind: FailureKind::Deadlock, function: function.to_owned() };
        let bug = Bug {
            id: "b".to_owned(),
            fails: vec![way("remover"), way("reader")],
            chance: Chance::Window,
            ..Bug::default()
        };
        let expected = Expected::of(&["b".to_owned()], &["b"], &[bug], None);
        assert!(expected.met_by(&deadlock_at("remover")) && expected.met_by(&deadlock_at("reader")));
        assert!(!expected.met_by(&deadlock_at("writer")));
        let Expected::Fail(signatures) = &expected else { panic!("{expected:?}") };
        assert!(signatures.iter().all(|signature| signature.chance == Chance::Window));
    }

    #[test]
    fn a_deadlock_at_the_function_of_a_bug_in_another_cycle_is_not_this_bug() {
        let words = |waits: &[&str]| waits.iter().map(|&wait| wait.to_owned()).collect::<Vec<_>>();
        let cycle = words(&[
            "irq/*-pciehp waits in remove for user space to close *",
            "iov-own waits in show for device_lock of *",
        ]);
        let expected = match expected() {
            Expected::Fail(one) => Expected::Fail(vec![Signature { cycles: vec![cycle], ..one[0].clone() }]),
            other => panic!("{other:?}"),
        };
        let closed = |cycle: Option<&[&str]>| match deadlock_at("sriov_numvfs_show") {
            Verdict::Fail(failure) => Failure { cycle: cycle.map(words), ..failure },
            other => panic!("{other:?}"),
        };
        let remover = "irq/25-pciehp waits in remove for user space to close vfio device 0000:01:00.0";
        let reader = "iov-own waits in show for device_lock of 0000:01:00.0";
        let third = "iov-write waits in store for pci_rescan_remove_lock";
        for (cycle, met) in [
            (None, true),
            (Some(&[remover, reader][..]), true),
            (Some(&[reader, remover]), true),
            (Some(&[]), false),
            (Some(&[reader, third]), false),
            (Some(&[remover, reader, third]), false),
            (Some(&[reader]), false),
        ] {
            let failure = closed(cycle);
            assert_eq!(expected.closed_otherwise(&failure).count(), usize::from(!met), "{cycle:?}");
            assert_eq!(expected.met_by(&Verdict::Fail(failure)), met, "{cycle:?}");
        }
    }

    #[test]
    fn a_deadlock_is_at_each_place_where_a_task_of_its_cycle_waits() {
        let waits = |function: &str| format!("iov-own waits in {function} for device_lock of 0000:01:00.0");
        let named = |function: &str, cycle: &[&str]| match deadlock_at(function) {
            Verdict::Fail(failure) => {
                Verdict::Fail(Failure { cycle: Some(cycle.iter().copied().map(waits).collect()), ..failure })
            }
            other => panic!("{other:?}"),
        };
        let expected = expected();
        assert!(expected.met_by(&named("remove", &["remove", "sriov_numvfs_show"])));
        assert!(!expected.met_by(&named("remove", &["remove", "show"])), "nobody waits there");
    }

    #[test]
    fn a_kernel_with_only_random_bugs_may_pass_but_not_fail_in_another_way() {
        let with = |chances: &[Chance]| match expected() {
            Expected::Fail(one) => {
                Expected::Fail(chances.iter().map(|&chance| Signature { chance, ..one[0].clone() }).collect())
            }
            other => panic!("{other:?}"),
        };
        let (random, rare) = (with(&[Chance::Random]), with(&[Chance::Rare]));
        assert!(rare.missed_by(&Verdict::Pass) && rare.met_by(&Verdict::Pass) && !rare.is_only_random());
        assert!(random.is_only_random() && !with(&[Chance::Random, Chance::Rare]).is_only_random());
        assert!(random.missed_by(&Verdict::Pass) && random.met_by(&Verdict::Pass));
        assert!(
            !random.missed_by(&deadlock_at("sriov_numvfs_show")) && random.met_by(&deadlock_at("sriov_numvfs_show"))
        );
        assert!(!random.met_by(&deadlock_at("driver_override_show")));
        assert!(!random.met_by(&Verdict::Infra(String::new())));
        // The same bug, shown at a place.
        let sure = rare.surely(&["b"]);
        assert!(!sure.missed_by(&Verdict::Pass) && !sure.met_by(&Verdict::Pass), "{sure:?}");
        assert_eq!(rare.surely(&["another"]), rare);
        for surer in [&[Chance::Window][..], &[Chance::Random, Chance::Certain]] {
            assert!(!with(surer).missed_by(&Verdict::Pass) && !with(surer).met_by(&Verdict::Pass), "{surer:?}");
        }
        assert!(!Expected::Pass.missed_by(&Verdict::Pass));
    }

    #[test]
    fn under_a_profile_a_bug_shows_in_another_way_as_long_as_lockdep_is_on() {
        let way = |kind, function: &str| Fails { kind, function: function.to_owned() };
        let bug = |fails: &[Fails]| Bug {
            id: "b".to_owned(),
            fails: fails.to_vec(),
            under: BTreeMap::from([("debug".to_owned(), vec![way(FailureKind::KernelSplat, "lock")])]),
            ..Bug::default()
        };
        let splat = Verdict::fail(FailureKind::KernelSplat, "lock", String::new());
        let expected = |fails: &[Fails], profile| Expected::of(&["b".to_owned()], &["b"], &[bug(fails)], profile);
        let deadlock = [way(FailureKind::Deadlock, "lock")];
        let (plain, debug) = (expected(&deadlock, None), expected(&deadlock, Some("debug")));
        assert!(plain.met_by(&deadlock_at("lock")) && !plain.met_by(&splat));
        assert!(debug.met_by(&splat) && !debug.met_by(&deadlock_at("lock")));
        assert!(debug.met_without_lockdep(&deadlock_at("lock")) && !debug.met_without_lockdep(&Verdict::Pass));
        // A bug that only lockdep detects is not expected to fail without lockdep.
        assert_eq!(expected(&[], None), Expected::Pass);
        assert!(expected(&[], Some("debug")).met_by(&splat) && !expected(&[], Some("debug")).met_by(&Verdict::Pass));
    }

    #[test]
    fn a_kernel_without_the_bug_must_pass() {
        assert!(Expected::Pass.met_by(&Verdict::Pass));
        assert!(!Expected::Pass.met_by(&deadlock_at("sriov_numvfs_show")));
        assert!(!Expected::Pass.met_by(&Verdict::Infra(String::new())));
        assert!(!Expected::None.met_by(&deadlock_at("sriov_numvfs_show")));
    }
}
