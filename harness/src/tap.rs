//! What a test program prints: TAP version 13, as the kernel's selftests write it
//! (`Documentation/dev-tools/ktap.rst`, `tools/testing/selftests/kselftest.h`).

/// The results of a test program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// How many test cases it said that it would run.
    pub planned: Option<u32>,
    /// Why it ran none, if it said so (`1..0 # SKIP`).
    pub skipped: Option<String>,
    /// Why it stopped before the end, if it said so (`Bail out!`).
    pub bailed: Option<String>,
    /// Its test cases, in the order in which they ended.
    pub cases: Vec<Case>,
    /// What it printed after the result of the last case, or before it ended without any.
    pub rest: Vec<String>,
}

/// One test case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name, or its number if it has none.
    pub name: String,
    /// Its result.
    pub outcome: Outcome,
    /// What the program printed after the result of the case before.
    pub said: Vec<String>,
}

/// The result of a test case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed, or failed where it must (`XFAIL`, `TODO`).
    Passed,
    /// It failed.
    Failed,
    /// It was not run; the reason.
    Skipped(String),
}

/// How the first line of a failed assertion looks: of `kselftest_harness.h` (`ASSERT_EQ()`), and of the `VFIO_ASSERT_*`
/// and `VFIO_FAIL` of `vfio/lib/include/libvfio/assert.h`.
const ASSERTIONS: [&str; 3] = [":Expected ", ": Assertion Failure", ": FAIL"];

/// How the line begins that says which case begins.
const BEGINS: &str = "RUN ";

/// How many lines of an assertion are of interest.
const SHOWN: usize = 6;

/// Reads the output of a test program. Lines that are no results are what the program says of the next one.
pub fn read(output: &str) -> Results {
    let mut results = Results::default();
    for line in output.lines() {
        if let Some((name, outcome)) = result(line) {
            let name = if name.is_empty() { format!("case {}", results.cases.len() + 1) } else { name };
            results.cases.push(Case { name, outcome, said: std::mem::take(&mut results.rest) });
        } else if let Some((planned, skipped)) = plan(line) {
            results.planned = Some(planned);
            results.skipped = skipped;
        } else if let Some(why) = line.strip_prefix("Bail out!") {
            results.bailed = Some(why.trim().to_owned());
        } else if !line.starts_with("TAP version ") {
            results.rest.push(line.to_owned());
        }
    }
    results
}

impl Results {
    /// The cases that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| case.outcome == Outcome::Failed)
    }

    /// How many cases passed.
    pub fn passed(&self) -> usize {
        self.cases.iter().filter(|case| case.outcome == Outcome::Passed).count()
    }

    /// The name of the case that had begun when the output ended, if the program says when a case begins.
    pub fn running(&self) -> Option<&str> {
        let mut lines = self.rest.iter().rev().map(|line| line.trim_start_matches('#').trim());
        let begun = lines.find_map(|line| line.strip_prefix(BEGINS))?;
        Some(begun.trim().trim_end_matches("...").trim_end())
    }

    /// How many of the planned cases have no result.
    pub fn missing(&self) -> usize {
        self.planned.map_or(0, |planned| (planned as usize).saturating_sub(self.cases.len()))
    }
}

impl Case {
    /// Why it failed: the assertion that it printed, or else its last line.
    pub fn why(&self) -> String {
        why(&self.said)
    }

    /// Whether it was ended because it took too long. That says nothing about the kernel.
    pub fn timed_out(&self) -> bool {
        self.outcome == Outcome::Failed && self.said.iter().any(|line| line.ends_with(": Test terminated by timeout"))
    }
}

/// The assertion in these lines, or else the last line, in one line.
pub fn why(said: &[String]) -> String {
    let mut lines = said.iter().map(|line| line.trim_start_matches('#').trim()).filter(|line| !is_frame(line));
    let is_assertion = |line: &&str| ASSERTIONS.iter().any(|mark| line.contains(mark));
    let first = lines.clone().find(is_assertion);
    let shown: Vec<_> = match first {
        Some(first) => lines.skip_while(|line| *line != first).take(SHOWN).collect(),
        None => lines.next_back().into_iter().collect(),
    };
    shown.join("; ")
}

/// Whether a line only says that a test case begins or ends, and not why, or is empty.
fn is_frame(line: &str) -> bool {
    line.is_empty()
        || [BEGINS, "OK ", "FAIL ", "Starting "].iter().any(|word| line.starts_with(word))
        || [": Test failed", ": Test terminated by assertion"].iter().any(|end| line.ends_with(end))
}

/// Name and outcome in `ok NUMBER NAME # DIRECTIVE REASON` or `not ok ...`. Number, dash, name and directive may be
/// missing. `kselftest.h` also writes `ok NUMBER # SKIP NAME`.
fn result(line: &str) -> Option<(String, Outcome)> {
    let (rest, good) = match line.strip_prefix("not ok") {
        Some(rest) => (rest, false),
        None => (line.strip_prefix("ok")?, true),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, directive) = match rest.split_once("# ") {
        Some((name, directive)) => (name.trim(), directive.trim()),
        None => (rest.trim(), ""),
    };
    let (word, reason) = directive.split_once(' ').unwrap_or((directive, ""));
    let outcome = match word.to_ascii_uppercase().as_str() {
        "SKIP" if name.is_empty() => return Some((reason.to_owned(), Outcome::Skipped(String::new()))),
        "SKIP" => Outcome::Skipped(reason.to_owned()),
        "XFAIL" | "TODO" => Outcome::Passed,
        _ if good => Outcome::Passed,
        _ => Outcome::Failed,
    };
    Some((name.to_owned(), outcome))
}

/// The number in `1..NUMBER # SKIP REASON`, and the reason.
fn plan(line: &str) -> Option<(u32, Option<String>)> {
    let rest = line.strip_prefix("1..")?;
    let (number, directive) = rest.split_once(' ').unwrap_or((rest, ""));
    let skipped = directive.trim().strip_prefix("# SKIP").map(|reason| reason.trim().to_owned());
    Some((number.parse().ok()?, skipped))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUTPUT: &str = "\
TAP version 13
1..4
# Starting 4 tests from 2 test cases.
#  RUN           limit.type1.unmap ...
Mapped HVA 0x7f (size 0x1000) at IOVA 0x0
#            OK  limit.type1.unmap
ok 1 limit.type1.unmap
#  RUN           limit.type1.overflow ...
# vfio_dma_mapping_test.c:284:overflow:Expected rc (-22) == -EOVERFLOW (-75)
# overflow: Test terminated by assertion
#          FAIL  limit.type1.overflow
not ok 2 limit.type1.overflow
#  RUN           limit.huge.map ...
#      SKIP      mmap() failed: Invalid argument (22)
#            OK  limit.huge.map
ok 3 limit.huge.map # SKIP mmap() failed: Invalid argument (22)
#  RUN           limit.type1.map ...
lib/iommu.c:209: Assertion Failure

  Expression: __iommu_map(iommu, region) == 0
  Observed: 0xffffffffffffffe4 == 0
  [errno: 28 - No space left on device]
  
# map: Test failed
#          FAIL  limit.type1.map
not ok 4 limit.type1.map
# FAILED: 2 / 4 tests passed.
# Totals: pass:1 fail:2 xfail:0 xpass:0 skip:1 error:0
";

    #[test]
    fn the_output_of_a_selftest_is_read() {
        let results = read(OUTPUT);
        let lines = results.cases.iter().map(|case| match &case.outcome {
            Outcome::Passed => format!("{} passed", case.name),
            Outcome::Skipped(why) => format!("{} skipped: {why}", case.name),
            Outcome::Failed => format!("{} failed: {}", case.name, case.why()),
        });
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @"
        limit.type1.unmap passed
        limit.type1.overflow failed: vfio_dma_mapping_test.c:284:overflow:Expected rc (-22) == -EOVERFLOW (-75)
        limit.huge.map skipped: mmap() failed: Invalid argument (22)
        limit.type1.map failed: lib/iommu.c:209: Assertion Failure; Expression: __iommu_map(iommu, region) == 0; Observed: 0xffffffffffffffe4 == 0; [errno: 28 - No space left on device]
        ");
        assert_eq!((results.passed(), results.failed().count(), results.missing()), (1, 2, 0));
        assert!(results.rest.last().unwrap().starts_with("# Totals"));
    }

    #[test]
    fn a_program_that_ends_early_lacks_cases() {
        let (head, _) = OUTPUT.split_once("ok 3").unwrap();
        let results = read(head);
        assert_eq!((results.cases.len(), results.missing()), (2, 2));
        assert_eq!(results.running(), Some("limit.huge.map"));
        assert_eq!(read(OUTPUT).running(), None);
    }

    #[test]
    fn other_forms_of_results_are_read() {
        let case = |line: &str| read(line).cases.into_iter().map(|case| (case.name, case.outcome)).next();
        let some = |name: &str, outcome| Some((name.to_owned(), outcome));
        assert_eq!(case("ok"), some("case 1", Outcome::Passed));
        assert_eq!(case("not ok 7 - a b"), some("a b", Outcome::Failed));
        assert_eq!(case("ok 2 # SKIP a"), some("a", Outcome::Skipped(String::new())));
        assert_eq!(case("ok 2 a # skip none"), some("a", Outcome::Skipped("none".to_owned())));
        assert_eq!(case("not ok 2 a # TODO later"), some("a", Outcome::Passed));
        assert_eq!(case("ok 2 a # XFAIL known"), some("a", Outcome::Passed));
        assert_eq!(case("okay"), None);
        assert_eq!(case("# ok 1 a"), None);
        let skipped = read("1..0 # SKIP SR-IOV may not be supported\n");
        assert_eq!((skipped.planned, skipped.skipped.as_deref()), (Some(0), Some("SR-IOV may not be supported")));
        assert_eq!(read("Bail out! no device").bailed.as_deref(), Some("no device"));
    }

    #[test]
    fn a_timeout_is_told_from_a_failure() {
        let timed_out = |line: &str| read(&format!("# a: {line}\nnot ok 1 a\n")).cases[0].timed_out();
        assert!(timed_out("Test terminated by timeout"));
        assert!(!timed_out("Test failed"));
    }

    proptest! {
        #[test]
        fn no_output_makes_it_panic(output in "[ok not1.#SKIP:!\na-z-]{0,200}") {
            let results = read(&output);
            results.cases.iter().for_each(|case| drop(case.why()));
        }

        #[test]
        fn every_result_is_read(cases in prop::collection::vec(("[a-z_.]{1,20}", 0..3u8, "[a-z (]{0,20}"), 0..20)) {
            let mut output = format!("TAP version 13\n1..{}\n", cases.len());
            for (number, (name, kind, said)) in cases.iter().enumerate() {
                let (verdict, directive) = [("ok", ""), ("not ok", ""), ("ok", " # SKIP why")][usize::from(*kind)];
                output += &format!("# {said}\n{verdict} {} {name}{directive}\n", number + 1);
            }
            let results = read(&output);
            prop_assert_eq!(results.missing(), 0);
            let read: Vec<_> = results.cases.iter().map(|case| (case.name.clone(), case.outcome.clone())).collect();
            let written: Vec<_> = cases.into_iter().map(|(name, kind, _)| {
                let why = || Outcome::Skipped("why".to_owned());
                (name, match kind { 0 => Outcome::Passed, 1 => Outcome::Failed, _ => why() })
            }).collect();
            prop_assert_eq!(read, written);
        }
    }
}
