//! Running the kernel's own selftests of vfio in the guest, and judging the kernel by what they print.

use std::time::Duration;

use guest_protocol::ProgramEnd;
use kernels::FailureKind;

use super::place::over;
use super::stuck::Scope;
use super::{Error, Guest, Ran};
use crate::notes::TestRun;
use crate::tap::{self, Case, Outcome, Results};
use crate::verdict::Verdict;

/// The exit status of a selftest that was not run (`KSFT_SKIP` in `tools/testing/selftests/kselftest.h`).
const SKIPPED: i32 = 4;

impl Guest {
    /// Runs a vfio selftest of the kernel with these arguments. Notes the results of its test cases. Passes if no case
    /// failed; the failures name the cases.
    ///
    /// # Errors
    /// The agent's. [`Error::Unprepared`] if a case or the program was ended because it took too long and no task is
    /// stuck: then there is no verdict. [`Error::Lacks`] if the tests of this kernel do not have this one.
    pub async fn selftest(&self, name: &str, args: &[&str], within: Duration) -> Result<Verdict, Error> {
        let program = self.selftest_program(name).await?;
        let program = self.run(&program, args).await?;
        let coming = over(program.operation(), within);
        match self.or_stuck(&[program.operation()], Scope::AllTasks, coming).await {
            Ok(Ok(())) => {}
            Ok(Err(stuck)) => {
                self.note_tests(name, &tap::read(&program.printed()));
                return Ok(self.deadlock(&stuck, &[]));
            }
            Err(late) if late.late().is_some() => {
                let results = tap::read(&program.printed());
                self.note_tests(name, &results);
                self.end_program(&program).await?;
                return Err(Error::Unprepared(format!(
                    "{late}; the last that it printed: {}",
                    tap::why(&results.rest)
                )));
            }
            Err(error) => return Err(error),
        }
        let ran = program.ended(self.prompt()).await?;
        let results = tap::read(&ran.printed);
        self.note_tests(name, &results);
        judge(name, &ran, &results)
    }

    /// Whether the kernel has iommufd and the character devices of vfio (`CONFIG_IOMMUFD`, `CONFIG_VFIO_DEVICE_CDEV`).
    /// A device must be bound to vfio-pci.
    ///
    /// # Errors
    /// The agent's.
    pub async fn has_vfio_devices(&self) -> Result<bool, Error> {
        let iommufd = self.list("/dev").await?.iter().any(|name| name == "iommu");
        Ok(iommufd && self.list("/dev/vfio").await?.iter().any(|name| name == "devices"))
    }

    /// The path in the guest of a vfio selftest, which is put there if it is not there yet.
    async fn selftest_program(&self, name: &str) -> Result<String, Error> {
        let Some(selftests) = &self.of_kernel.selftests else {
            return Err(Error::Unprepared("the scenario did not ask for the selftests".to_owned()));
        };
        let file = selftests.folder.join(name);
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Lacks(format!("selftest {name}: {} has no such test", selftests.source)));
            }
            Err(error) => return Err(Error::Unprepared(format!("cannot read {}: {error}", file.display()))),
        };
        self.put_file(name, &bytes, true).await
    }

    fn note_tests(&self, program: &str, results: &Results) {
        self.note_test_run(TestRun {
            program: program.to_owned(),
            passed: results.passed(),
            failed: results.failed().map(|case| format!("{}: {}", case.name, case.why())).collect(),
            skipped: results.cases.iter().filter_map(skipped).chain(results.skipped.clone()).collect(),
            of: self.of_kernel.selftests.as_ref().map(|selftests| selftests.source.clone()).unwrap_or_default(),
        });
    }
}

/// The name of a case that was not run, and the reason.
fn skipped(case: &Case) -> Option<String> {
    match &case.outcome {
        Outcome::Skipped(why) => Some(format!("{}: {}", case.name, why.trim())),
        Outcome::Passed | Outcome::Failed => None,
    }
}

/// The verdict that follows from the output of a test program. If several cases failed, the verdict names all of them,
/// so that a known failure hides no other.
fn judge(name: &str, ran: &Ran, results: &Results) -> Result<Verdict, Error> {
    if let Some(late) = results.failed().find(|case| case.timed_out()) {
        return Err(Error::Unprepared(format!("the test case {} took too long and was ended by {name}", late.name)));
    }
    let failed: Vec<_> = results.failed().collect();
    if let [first, rest @ ..] = failed.as_slice() {
        let further = if rest.is_empty() { String::new() } else { format!(" (and {} further)", rest.len()) };
        let of = results.cases.len();
        let summary = format!("{name}: not ok {}{further}, of {of} test cases: {}", first.name, first.why());
        return Ok(Verdict::fail(FailureKind::WrongState, &names(results).join(", "), summary));
    }
    let all_there = results.missing() == 0 && results.bailed.is_none();
    match &ran.end {
        ProgramEnd::Exited(0) if all_there => Ok(Verdict::Pass),
        ProgramEnd::Exited(SKIPPED) if results.cases.is_empty() => {
            let why = results.skipped.clone().unwrap_or_else(|| tap::why(&results.rest));
            Ok(Verdict::Skip(format!("{name} was not run: {why}")))
        }
        end => {
            let mut summary = format!("{name} ended ({end}) after {} ", results.cases.len());
            summary += &results.planned.map_or("test cases".to_owned(), |planned| format!("of {planned} test cases"));
            let why = results.bailed.clone().unwrap_or_else(|| tap::why(&results.rest));
            if !why.is_empty() {
                summary += &format!(": {why}");
            }
            Ok(Verdict::fail(FailureKind::WrongState, results.running().unwrap_or(name), summary))
        }
    }
}

/// The names of the cases that failed, in order. `FIXTURE.VARIANT.*` stands for all cases of a variant if all failed.
fn names(results: &Results) -> Vec<String> {
    let variant = |case: &Case| case.name.rsplit_once('.').map(|(variant, _)| variant.to_owned());
    let mut names: Vec<String> = Vec::new();
    for case in results.failed() {
        let all: Vec<_> = results.cases.iter().filter(|other| variant(other) == variant(case)).collect();
        let together =
            variant(case).filter(|_| all.len() > 1 && all.iter().all(|case| case.outcome == Outcome::Failed));
        let name = together.map_or_else(|| case.name.clone(), |variant| format!("{variant}.*"));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(end: ProgramEnd, printed: &str) -> String {
        let ran = Ran { end, printed: printed.to_owned(), unreported: 0 };
        match judge("vfio_test", &ran, &tap::read(printed)) {
            Ok(Verdict::Fail(failure)) => format!("{failure}: {}", failure.summary),
            Ok(Verdict::Pass) => "pass".to_owned(),
            Ok(other) => format!("{}: {}", other.outcome(), other.reason().unwrap_or_default()),
            Err(error) => format!("no verdict: {error}"),
        }
    }

    #[test]
    fn the_verdict_names_the_cases_that_failed() {
        let said = "# t.c:9:a:Expected rc (-22) == -EOVERFLOW (-75)\n# a: Test failed\n";
        let verdicts = [
            judged(ProgramEnd::Exited(0), "1..1\nok 1 f.a\n"),
            judged(ProgramEnd::Exited(0), "1..2\nok 1 f.a # SKIP none\nok 2 f.b\n"),
            judged(ProgramEnd::Exited(1), &format!("1..2\n{said}not ok 1 f.a\nok 2 f.b\n")),
            judged(ProgramEnd::Exited(1), &format!("1..2\n{said}not ok 1 f.v.a\n# a: Test failed\nnot ok 2 f.w.a\n")),
            judged(ProgramEnd::Exited(1), &format!("1..3\n{said}not ok 1 f.v.a\nnot ok 2 f.v.b\nok 3 f.w.a\n")),
        ];
        insta::assert_snapshot!(verdicts.join("\n"), @"
        pass
        pass
        wrong-state at f.a: vfio_test: not ok f.a, of 2 test cases: t.c:9:a:Expected rc (-22) == -EOVERFLOW (-75)
        wrong-state at f.v.a, f.w.a: vfio_test: not ok f.v.a (and 1 further), of 2 test cases: t.c:9:a:Expected rc (-22) == -EOVERFLOW (-75)
        wrong-state at f.v.*: vfio_test: not ok f.v.a (and 1 further), of 3 test cases: t.c:9:a:Expected rc (-22) == -EOVERFLOW (-75)
        ");
    }

    #[test]
    fn a_program_that_ends_without_all_results_fails_or_is_skipped() {
        let verdicts = [
            judged(ProgramEnd::Exited(4), "No driver found for device 0000:01:00.0\n"),
            judged(ProgramEnd::Exited(4), "TAP version 13\n1..0 # SKIP SR-IOV already configured\n"),
            judged(ProgramEnd::Killed("SIGSEGV".to_owned()), "1..2\nok 1 f.a\n#  RUN   f.b ...\n"),
            judged(ProgramEnd::Exited(1), "lib/sysfs.c:9: Assertion Failure\n\n  Expression: a == b\n"),
            judged(ProgramEnd::Exited(0), "1..2\nok 1 f.a\n"),
            judged(ProgramEnd::Exited(1), "1..1\n# a: Test terminated by timeout\nnot ok 1 f.a\n"),
        ];
        insta::assert_snapshot!(verdicts.join("\n"), @"
        skip: vfio_test was not run: No driver found for device 0000:01:00.0
        skip: vfio_test was not run: SR-IOV already configured
        wrong-state at f.b: vfio_test ended (killed by SIGSEGV) after 1 of 2 test cases
        wrong-state at vfio_test: vfio_test ended (exit status 1) after 0 test cases: lib/sysfs.c:9: Assertion Failure; Expression: a == b
        wrong-state at vfio_test: vfio_test ended (exit status 0) after 1 of 2 test cases
        no verdict: the test case f.a took too long and was ended by vfio_test
        ");
    }
}
