//! From the runs of a commit to its mark for git: good, bad or skip.

use std::fmt;
use std::path::PathBuf;

use kernels::FailureKind;
use serde::{Deserialize, Serialize};

pub use crate::evidence::Mark;
use crate::verdict::{Failure, Verdict};

/// One run of the scenario on a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The verdict.
    pub verdict: Verdict,
    /// The folder of the cell. None if there was no cell, because the kernel did not build.
    pub evidence: Option<PathBuf>,
}

/// The failure that is looked for. A different failure is another bug, and says nothing about this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Any failure.
    Any,
    /// A failure of this kind, at this function or attribute.
    Like {
        /// The kind.
        kind: FailureKind,
        /// The function or attribute. None: any.
        function: Option<String>,
    },
}

impl Wanted {
    /// A failure like this one.
    pub fn like(failure: &Failure) -> Wanted {
        Wanted::Like { kind: failure.kind, function: failure.function.clone() }
    }

    /// Whether a failure is one that is looked for.
    pub fn is(&self, failure: &Failure) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Like { kind, function } => {
                *kind == failure.kind && (function.is_none() || *function == failure.function)
            }
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Any => f.write_str("any failure"),
            Wanted::Like { kind, function: Some(function) } => write!(f, "{kind} at {function}"),
            Wanted::Like { kind, function: None } => write!(f, "{kind}"),
        }
    }
}

/// How git marks a commit, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// The mark.
    pub mark: Mark,
    /// The reason, in a few words.
    pub why: String,
    /// Its runs did not agree.
    pub flaky: bool,
}

/// The ruling from the runs so far. None if another run is needed. More than half of `runs` must agree. If there are
/// more runs already, from earlier bisections, all of them count. A kernel that does not build needs only one run.
pub fn ruling(observed: &[Observed], runs: usize, wanted: &Wanted) -> Option<Ruling> {
    if let Some(why) = observed.iter().find_map(unbuilt) {
        return Some(Ruling { mark: Mark::Skip, why: cannot("does not build", why), flaky: false });
    }
    let all = observed.len().max(runs);
    let of = |mark| observed.iter().filter(move |one| self::mark(&one.verdict, wanted) == mark);
    let count = |mark| of(mark).count();
    let flaky = [Mark::Good, Mark::Bad, Mark::Skip].into_iter().filter(|&mark| count(mark) > 0).count() > 1;
    for mark in [Mark::Bad, Mark::Good, Mark::Skip] {
        if count(mark) > all / 2 {
            let mut why = of(mark).next().map(|one| words(&one.verdict, wanted)).unwrap_or_default();
            if observed.len() > 1 {
                why += &format!(", {} of {} runs", count(mark), observed.len());
            }
            return Some(Ruling { mark, why, flaky });
        }
    }
    if observed.len() < all {
        return None;
    }
    let why = format!(
        "no majority: of {all} runs, {} passed, {} failed with the wanted failure, {} ended otherwise; try more --runs",
        count(Mark::Good),
        count(Mark::Bad),
        count(Mark::Skip)
    );
    Some(Ruling { mark: Mark::Skip, why, flaky })
}

/// The most frequent failure. If several are equally frequent, the first of them.
pub fn usual_failure(observed: &[Observed]) -> Option<&Failure> {
    let failures = || {
        observed.iter().filter_map(|one| match &one.verdict {
            Verdict::Fail(failure) => Some(failure),
            _ => None,
        })
    };
    let often = |failure: &Failure| failures().filter(|other| Wanted::like(failure).is(other)).count();
    // `max_by_key` returns the last of equal elements.
    failures().rev().max_by_key(|failure| often(failure))
}

fn mark(verdict: &Verdict, wanted: &Wanted) -> Mark {
    match verdict {
        Verdict::Pass => Mark::Good,
        Verdict::Fail(failure) if wanted.is(failure) => Mark::Bad,
        _ => Mark::Skip,
    }
}

fn words(verdict: &Verdict, wanted: &Wanted) -> String {
    match verdict {
        Verdict::Pass => "passes".to_owned(),
        Verdict::Fail(failure) if wanted.is(failure) => failure.to_string(),
        Verdict::Fail(failure) => format!("fails in another way, {failure}"),
        Verdict::BootFailed(why) => cannot("does not boot", why),
        Verdict::Skip(why) => format!("cannot be run: {}", first_line(why)),
        Verdict::BuildFailed(why) | Verdict::Infra(why) => first_line(why).to_owned(),
    }
}

fn unbuilt(observed: &Observed) -> Option<&str> {
    match &observed.verdict {
        Verdict::BuildFailed(why) => Some(why),
        _ => None,
    }
}

/// What a kernel cannot do, and why. The reason alone, if it states that already: `does not compile: ...`.
fn cannot(what: &str, why: &str) -> String {
    let why = first_line(why);
    if why.starts_with("does not ") { why.to_owned() } else { format!("{what}: {why}") }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(letters: &str) -> Vec<Observed> {
        let verdict = |letter| match letter {
            'p' => Verdict::Pass,
            'd' => Verdict::fail(FailureKind::Deadlock, "show", String::new()),
            's' => Verdict::fail(FailureKind::KernelSplat, "oops", String::new()),
            'n' => Verdict::BuildFailed("error: x\nmore".to_owned()),
            'b' => Verdict::BootFailed("silent".to_owned()),
            other => panic!("{other}"),
        };
        letters.chars().map(|letter| Observed { verdict: verdict(letter), evidence: None }).collect()
    }

    fn deadlock() -> Wanted {
        Wanted::Like { kind: FailureKind::Deadlock, function: Some("show".to_owned()) }
    }

    #[test]
    fn a_majority_of_the_runs_decides_and_ends_them() {
        let mark = |letters, runs| ruling(&seen(letters), runs, &deadlock()).map(|ruling| (ruling.mark, ruling.flaky));
        for (letters, runs, expected) in [
            ("", 1, None),
            ("p", 1, Some((Mark::Good, false))),
            ("d", 1, Some((Mark::Bad, false))),
            ("d", 3, None),
            ("dp", 3, None),
            ("dd", 3, Some((Mark::Bad, false))),
            ("dpd", 3, Some((Mark::Bad, true))),
            ("dpp", 3, Some((Mark::Good, true))),
            ("dp", 2, Some((Mark::Skip, true))),
            // Three different marks, and no majority.
            ("dps", 3, Some((Mark::Skip, true))),
            // Another failure shows neither the presence nor the absence of the wanted one.
            ("s", 1, Some((Mark::Skip, false))),
            ("sd", 3, None),
            ("b", 1, Some((Mark::Skip, false))),
            ("n", 5, Some((Mark::Skip, false))),
            // Runs of earlier bisections count too.
            ("dpp", 1, Some((Mark::Good, true))),
        ] {
            assert_eq!(mark(letters, runs), expected, "{letters} of {runs}");
        }
        assert_eq!(ruling(&seen("s"), 1, &Wanted::Any).unwrap().mark, Mark::Bad);
    }

    #[test]
    fn the_reason_has_one_line() {
        let why = |letters, runs| ruling(&seen(letters), runs, &deadlock()).unwrap().why;
        insta::assert_snapshot!(why("d", 1), @"deadlock at show");
        insta::assert_snapshot!(why("dpd", 3), @"deadlock at show, 2 of 3 runs");
        insta::assert_snapshot!(why("s", 1), @"fails in another way, kernel-splat at oops");
        insta::assert_snapshot!(why("n", 1), @"does not build: error: x");
        assert_eq!(cannot("does not build", "does not compile: x\nlog"), "does not compile: x");
        insta::assert_snapshot!(why("b", 1), @"does not boot: silent");
        insta::assert_snapshot!(why("dp", 2), @"no majority: of 2 runs, 1 passed, 1 failed with the wanted failure, 0 ended otherwise; try more --runs");
    }

    #[test]
    fn the_usual_failure_is_the_most_frequent_one() {
        let usual = |letters| usual_failure(&seen(letters)).map(ToString::to_string);
        assert_eq!(usual("sdd").as_deref(), Some("deadlock at show"));
        assert_eq!(usual("sd").as_deref(), Some("kernel-splat at oops"));
        assert_eq!(usual("pb"), None);
    }
}
