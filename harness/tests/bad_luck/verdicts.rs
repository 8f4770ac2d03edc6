//! Verdicts on cells whose QEMU fails.

use harness::guest::OfKernel;
use harness::matrix::care::Care;
use harness::matrix::judge::{self, Finding, Rules};
use harness::notes::Note;
use harness::scenario::Scenario;
use harness::tries::Sign;
use harness::verdict::Verdict;
use harness::vm::Vm;
use harness::vm::scale::Scale;
use kernels::FailureKind;
use libtest_mimic::{Failed, Trial};

use crate::bed::Bed;
use crate::{fake, impatient_scenario, scenario, setting_scenario, short_scenario, trial};

/// A behaviour of QEMU, and the expected verdict.
struct Case {
    behaviour: &'static str,
    outcome: &'static str,
    /// Whether there is a sign of the test bed.
    retry: bool,
    /// Texts that the reason must contain.
    names: &'static [&'static str],
    /// The factor of all deadlines. It is small if a deadline must pass.
    scale: f64,
}

/// A factor with which deadlines pass soon, but leave enough time to start a process on a busy host.
const SOON: f64 = 0.1;

/// A case in which no deadline passes.
const fn case(behaviour: &'static str, outcome: &'static str, retry: bool, names: &'static [&'static str]) -> Case {
    Case { behaviour, outcome, retry, names, scale: 1.0 }
}

/// A case in which a deadline passes.
const fn late(behaviour: &'static str, outcome: &'static str, names: &'static [&'static str]) -> Case {
    Case { behaviour, outcome, retry: true, names, scale: SOON }
}

const ABORTED: &[&str] = &["signal: 6 (SIGABRT)", fake::ASSERTION];
const BOTH_VERSIONS: &[&str] = &["speaks protocol version", ", this harness ", "rebuild the guest image"];

const CASES: &[Case] = &[
    case("works", "pass", false, &[]),
    // Before the agent's hello message.
    case("is-missing", "infra", false, &["qemu-that-is-missing: No such file or directory"]),
    case("exits-at-once", "infra", false, &["exit status: 1", fake::ASSERTION]),
    late("never-connects", "infra", &["QEMU did not connect", "within 2 s", fake::ASSERTION]),
    late("never-greets", "infra", &["QEMU did not greet", "within 2 s"]),
    late("sends-no-hello", "boot-failed", &["the agent's hello message", "the kernel printed nothing"]),
    case("speaks-another-version", "infra", false, BOTH_VERSIONS),
    case("is-not-a-guest", "infra", false, &["not a message of protocol version", "grub>"]),
    case("crashes-before-hello", "infra", true, ABORTED),
    // During the scenario.
    case("sends-an-unknown-event", "pass", false, &[]),
    case("refuses", "infra", false, &["QMP command human-monitor-command", "refused by the test"]),
    case("panics", "fail", false, &["NULL pointer dereference"]),
    case("ends", "infra", false, &["read /proc/version", "QEMU ended (exit status: 0)"]),
    case("prints-a-misleading-text", "infra", false, &["QEMU ended (exit status: 1)", fake::MISLEADING]),
    case("crashes", "infra", true, ABORTED),
    case("crashes-on-the-first-request", "infra", true, ABORTED),
    case("crashes-with-a-request-unread", "infra", true, ABORTED),
    case("crashes-on-a-qmp-command", "infra", true, ABORTED),
    late("stops-answering", "infra", &["waited 2 s for the end of the operation to read /proc/version"]),
    case("sends-garbage", "infra", false, &["not a message of protocol version", "rm: cannot remove"]),
    case("sends-binary-data", "infra", false, &["read /proc/version", "not text"]),
];

/// A trial for each case, and the other trials of this file.
pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<_> =
        CASES.iter().map(|case| trial(format!("qemu {}", case.behaviour), || check(case))).collect();
    trials.push(trial("a qemu that ends after its last answer does not change the verdict", ends_after_its_answer));
    trials.push(trial("a command after one without an answer is an error", unanswered));
    trials.push(trial("a kernel that refuses a request that it must grant fails, and is not retried", refused));
    trials.push(trial("a qemu that does not quit is killed", never_quits));
    trials.push(trial("a bad exit status after quit is noted, whatever stderr says", quits_badly));
    trials.push(trial("an oops ends a wait for an event that cannot come any more", oops));
    trials
}

async fn check(case: &Case) -> Result<(), Failed> {
    let bed = Bed::new(case.behaviour)?;
    let scale = Scale::times(case.scale);
    let Finding { verdict, sign, .. } = judge(&bed, &scenario(), scale).await;
    if (verdict.outcome(), sign.is_some()) != (case.outcome, case.retry) {
        return Err(format!("{verdict:?}, sign: {sign:?}").into());
    }
    if case.outcome == "fail" && !matches!(&verdict, Verdict::Fail(f) if f.kind == FailureKind::KernelSplat) {
        return Err(format!("{verdict:?}").into());
    }
    let reason = verdict.reason().unwrap_or_default();
    if let Some(name) = case.names.iter().find(|name| !reason.contains(**name)) {
        return Err(format!("\"{name}\" is not in: {reason}").into());
    }
    if case.behaviour == "is-missing" { Ok(()) } else { bed.gone().await }
}

async fn judge(bed: &Bed, scenario: &Scenario, scale: Scale) -> Finding {
    let recorders = bed.recorders();
    let console = recorders.console.clone();
    let boot = Vm::boot(bed.machine(), recorders, scale.seconds(judge::BOOT));
    let dump = console.with_file_name("memory.kdump");
    let rules =
        Rules { scale, host: scale, known: &[], repeat: 1, care: Care::default(), names_holders: false, dump: &dump };
    judge::run(scenario, None, rules, &console, OfKernel::default(), boot).await
}

/// QEMU ends by itself after the scenario's last answer: the verdict stays, with a note.
async fn ends_after_its_answer() -> Result<(), Failed> {
    let bed = Bed::new("ends-after-its-answer")?;
    passes_although(&judge(&bed, &short_scenario(), Scale::times(1.0)).await, "QEMU ended (exit status: 0)")?;
    bed.gone().await
}

/// The qapi crate panics at the next command, and a second time while unwinding, which would abort the whole run.
async fn unanswered() -> Result<(), Failed> {
    let bed = Bed::new("never-answers-on-qmp")?;
    let finding = judge(&bed, &impatient_scenario(), Scale::times(1.0)).await;
    let reason = finding.verdict.reason().unwrap_or_default();
    if finding.verdict.outcome() != "infra"
        || finding.sign != Some(Sign::Mute)
        || !reason.contains("an earlier one was not answered")
    {
        return Err(format!("{finding:?}").into());
    }
    bed.gone().await
}

/// A retry would not change the result, and no other verdict explains it.
async fn refused() -> Result<(), Failed> {
    let bed = Bed::new("has-a-kernel-that-refuses")?;
    let finding = judge(&bed, &setting_scenario(), Scale::times(1.0)).await;
    let summary = "the kernel refused to write \"2\" to /sys/x/sriov_numvfs: EEXIST (errno 17)".to_owned();
    if finding.verdict != Verdict::fail(FailureKind::WrongState, "sriov_numvfs", summary) || finding.sign.is_some() {
        return Err(format!("{finding:?}").into());
    }
    bed.gone().await
}

async fn never_quits() -> Result<(), Failed> {
    let bed = Bed::new("never-quits")?;
    passes_although(&judge(&bed, &scenario(), Scale::times(SOON)).await, "did not end within")?;
    bed.gone().await
}

async fn quits_badly() -> Result<(), Failed> {
    let bed = Bed::new("quits-badly")?;
    let end = format!("QEMU ended (exit status: 1); it said: {}", fake::MISLEADING);
    passes_although(&judge(&bed, &scenario(), Scale::times(1.0)).await, &end)?;
    bed.gone().await
}

/// The deadline of the read, which is never answered, would be 6 s, and another 3 s for the evidence.
async fn oops() -> Result<(), Failed> {
    let bed = Bed::new("oopses-and-stops-answering")?;
    let finding = judge(&bed, &scenario(), Scale::times(0.3)).await;
    let is_splat = matches!(&finding.verdict, Verdict::Fail(failure) if failure.kind == FailureKind::KernelSplat);
    if !is_splat || finding.sign.is_some() || finding.phases.scenario > 6.0 {
        return Err(format!("{finding:?}").into());
    }
    bed.gone().await
}

fn passes_although(finding: &Finding, end: &str) -> Result<(), Failed> {
    let note = finding.notes.iter().find_map(|note| match note {
        Note::QemuEnd(how) => Some(how.as_str()),
        _ => None,
    });
    let note = note.unwrap_or_default();
    let is_so = finding.verdict == Verdict::Pass && note.contains(end);
    if is_so { Ok(()) } else { Err(format!("{finding:?}").into()) }
}
