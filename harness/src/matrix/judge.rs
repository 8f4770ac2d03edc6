//! From a machine and a scenario to a verdict: boot, scenario, proof, classification.

use std::future::Future;
use std::path::Path;
use std::time::Instant;

use kernels::{FailureKind, KnownReport};

use crate::classify::console::{last_words, log};
use crate::classify::{self, Severity, Splat, SplatKind};
use crate::guest::{Back, Error, Guest, Hardware};
use crate::notes::Phases;
use crate::notes::{Note, Notes};
use crate::scenario::Scenario;
use crate::trigger::Trigger;
use crate::verdict::{Failure, Verdict};
use crate::vm::process;
use crate::vm::scale::Scale;
use crate::vm::{BootError, Vm};

/// What a cell found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// What the scenario noted: values read, waits, tasks and their stacks.
    pub notes: Notes,
    /// For each removal, what proves the way that it went.
    pub proofs: Vec<String>,
    /// What the kernel said about itself on its console.
    pub splats: Vec<Splat>,
    /// Where the time went.
    pub phases: Phases,
    /// The test bed, not the kernel, is why there is no verdict: another try may bring one.
    pub retry: bool,
}

impl Finding {
    /// A verdict that needed no guest.
    pub fn of(verdict: Verdict) -> Finding {
        Finding {
            verdict,
            notes: Notes::default(),
            proofs: Vec::new(),
            splats: Vec::new(),
            phases: Phases::default(),
            retry: false,
        }
    }
}

/// How long a guest may take to say hello, on a machine with KVM, in seconds. Under TCG it takes 3 to 10 s, and several
/// times that on a busy host.
pub const BOOT: f64 = 20.0;

/// How long QEMU may take to quit, and a guest to say where its stuck tasks are, on a machine with KVM, in seconds.
const QUIT: f64 = 5.0;

/// By what a cell is judged.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Of all deadlines.
    pub scale: Scale,
    /// Reports of the kernel that are held against nobody.
    pub known: &'a [KnownReport],
    /// Whether a card that the scenario removed is put back when it is over.
    pub put_back: bool,
}

/// Runs a scenario on a guest that `start` brings up, be it by booting or otherwise. `console` is where it prints.
pub async fn run(
    scenario: &Scenario,
    trigger: Option<Trigger>,
    rules: Rules<'_>,
    console: &Path,
    start: impl Future<Output = Result<Vm, BootError>>,
) -> Finding {
    let mut phases = Phases::default();
    let began = Instant::now();
    let booted = start.await;
    phases.boot = began.elapsed().as_secs_f64();
    let vm = match booted {
        Ok(vm) => vm,
        Err(error) => {
            let log = log(console);
            let splats = classify::classify_knowing(&log, rules.known);
            let (verdict, retry) = boot_failed(&error, &splats, &log);
            return Finding { splats, phases, retry, ..Finding::of(verdict) };
        }
    };

    phases.steps = vm.steps();

    let began = Instant::now();
    let (ran, notes, proofs, vm) = run_in(scenario, trigger, vm, rules).await;
    phases.scenario = began.elapsed().as_secs_f64();

    let began = Instant::now();
    let mut notes = notes;
    let ended = vm.kill(rules.scale.seconds(QUIT)).await.err();
    if let Some(how) = &ended {
        notes.add(Note::QemuEnd(how.clone()));
    }
    let splats = classify::classify_knowing(&log(console), rules.known);
    if let Some(splat) = splats.iter().find(|splat| splat.kind == SplatKind::Lockdep && splat.known.is_some()) {
        notes.add(Note::LockdepOffAfter(splat.to_string()));
    }
    let (verdict, retry) = conclude(ran, ended.as_deref(), &splats);
    phases.teardown = began.elapsed().as_secs_f64();
    Finding { verdict, notes, proofs, splats, phases, retry }
}

/// The streams that tell of events.
const STREAMS: [&str; 2] = ["uevent", "link"];

type Ran = Result<Verdict, Error>;

async fn run_in(
    scenario: &Scenario,
    trigger: Option<Trigger>,
    vm: Vm,
    rules: Rules<'_>,
) -> (Ran, Notes, Vec<String>, Vm) {
    let guest = match Hardware::find(&vm, rules.scale).await {
        Ok(hardware) => Guest::new(vm, hardware, trigger, rules.scale, rules.known),
        Err(error) => return (Err(error), Notes::default(), Vec::new(), vm),
    };
    let begins = guest.agent().messages().position();
    let (ran, proofs) = tokio::select! {
        biased;
        proven = proven(scenario, &guest, rules) => proven,
        died = guest.death(begins) => (Err(died), Vec::new()),
    };
    if !matches!(ran, Ok(Verdict::Pass)) {
        gather(&guest).await;
    }
    (ran, guest.notes(), proofs, guest.into_vm())
}

/// What a scenario found, with the proofs of its removals.
async fn proven(scenario: &Scenario, guest: &Guest, rules: Rules<'_>) -> (Ran, Vec<String>) {
    let mut ran = (scenario.run)(guest).await;
    if let Ok(Verdict::Fail(Failure { kind: FailureKind::LostEvent, .. })) = &ran {
        // That no event came is known only if nothing was lost on the way.
        ran = STREAMS.iter().try_for_each(|stream| guest.heard_all(stream, 0)).and(ran);
    }
    let mut proofs = Vec::new();
    if ran.is_ok() {
        match guest.proofs().await {
            Ok(found) => proofs = found,
            Err(error) => ran = Err(error),
        }
    }
    if matches!(ran, Ok(Verdict::Pass)) {
        ran = after(guest, rules.put_back).await;
    }
    (ran, proofs)
}

/// A scenario that a kernel survived must leave it in order.
async fn after(guest: &Guest, put_back: bool) -> Ran {
    match guest.aftermath().await? {
        Verdict::Pass if put_back => {}
        verdict => return Ok(verdict),
    }
    Ok(match guest.put_back().await? {
        Back::There(_) | Back::Nothing => Verdict::Pass,
        Back::Failed(verdict) => verdict,
    })
}

/// Writes down where all stuck tasks are, before the guest is ended. What cannot be had is left out: the guest may be
/// beyond answering.
async fn gather(guest: &Guest) {
    let within = guest.seconds(QUIT);
    if let Ok(tasks) = guest.agent().tasks(&[], within).await {
        guest.note_tasks(Note::TasksInDState, &tasks);
    }
    let blocked = guest_protocol::Command::Sysrq { key: 'w' };
    if let Err(error) = guest.agent().call(blocked, within).await {
        guest.note(Note::NoSysrq(error.to_string()));
    }
}

/// What scenario and kernel log say together, and whether another try may say more. A splat overrules a pass, and
/// explains an error; so does how QEMU `ended`, if not as it was told. If a task died, that also explains a deadlock: it
/// leaves behind, taken for ever, the locks that it had. So does a report of lockdep, which names the locks. And a kernel that
/// complained of what it did may well show something wrong afterwards.
fn conclude(ran: Ran, ended: Option<&str>, splats: &[Splat]) -> (Verdict, bool) {
    let fatal = splats.iter().find(|splat| splat.is_fatal());
    let died = splats.iter().any(|splat| splat.kind.kills());
    let lockdep = splats.iter().find(|splat| splat.is_fatal() && splat.kind == SplatKind::Lockdep);
    let deadlocked = matches!(&ran, Ok(Verdict::Fail(failure)) if failure.kind == FailureKind::Deadlock);
    let is_wrong = matches!(&ran, Ok(Verdict::Fail(failure)) if failure.kind == FailureKind::WrongState);
    match (ran, fatal) {
        (Ok(Verdict::Pass) | Err(_), Some(splat)) => (splatted(splat), false),
        (Ok(_), Some(splat)) if is_wrong => (splatted(splat), false),
        (Ok(_), Some(splat)) if died && deadlocked => (splatted(splat), false),
        (Ok(_), Some(splat)) if lockdep.is_some() && deadlocked => (splatted(lockdep.unwrap_or(splat)), false),
        (Ok(verdict), _) => (verdict, false),
        (Err(error @ Error::Lacks(_)), None) => (Verdict::Skip(error.to_string()), false),
        (Err(error), None) => {
            let why = match (error.to_string(), ended) {
                (why, Some(how)) if !why.contains(how) => format!("{why}; {how}"),
                (why, _) => why,
            };
            match test_bed(splats) {
                Some(splat) => (Verdict::Infra(format!("{why}; the test bed had trouble: {}", splat.title)), true),
                None => (Verdict::Infra(why.clone()), error.may_pass() || process::is_crash(&why)),
            }
        }
    }
}

fn splatted(splat: &Splat) -> Verdict {
    let (function, summary) = (splat.function.clone(), splat.title.clone());
    Verdict::Fail(Failure { kind: FailureKind::KernelSplat, function, summary })
}

/// A guest that did not come up: the kernel's fault, unless QEMU or the test bed says otherwise. And whether another try
/// may bring it up.
fn boot_failed(error: &BootError, splats: &[Splat], log: &str) -> (Verdict, bool) {
    let why = error.to_string();
    let may_pass = matches!(error, BootError::Mute(_) | BootError::Clock { .. }) || process::is_crash(&why);
    if may_pass || matches!(error, BootError::Qemu(_)) {
        return (Verdict::Infra(why), may_pass);
    }
    if let Some(splat) = splats.iter().find(|splat| splat.is_fatal()) {
        return (Verdict::BootFailed(format!("{why}; the kernel said: {}", splat.title)), false);
    }
    if let Some(splat) = test_bed(splats) {
        return (Verdict::Infra(format!("{why}; the test bed had trouble: {}", splat.title)), true);
    }
    if matches!(error, BootError::Foreign(_)) {
        return (Verdict::Infra(why), false);
    }
    if matches!(error, BootError::Known(_)) {
        return (Verdict::BootFailed(why), false);
    }
    // A guest that just fell silent may have lost a timer, which the test bed is known to do.
    (Verdict::BootFailed(format!("{why}; {}", last_words(log))), matches!(error, BootError::Silent(_)))
}

fn test_bed(splats: &[Splat]) -> Option<&Splat> {
    splats.iter().find(|splat| splat.kind.severity() == Severity::TestBed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::vm::agent::AgentError;
    use crate::vm::event_log::WaitError;
    use crate::vm::qmp::QmpError;

    const CRASH: &str = "QEMU ended (signal: 6 (SIGABRT)); it said: Assertion failed.";
    const WARNING: &str = "[    1.000000] ------------[ cut here ]------------\n\
        [    1.000000] WARNING: CPU: 0 PID: 7 at drivers/pci/iov.c:1 sriov_enable+0x1/0x2\n\
        [    1.000000] ---[ end trace 0000000000000000 ]---\n";
    const OOPS: &str = "[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000\n\
        [    1.000000] Oops: Oops: 0000 [#1] PREEMPT SMP\n\
        [    1.000000] RIP: 0010:strlen+0x1/0x2\n\
        [    1.000000] ---[ end trace 0000000000000000 ]---\n";
    const LOST_TIMER: &str = "[    1.000000] rcu: rcu_preempt kthread timer wakeup didn't happen for 5251 jiffies! g1 f0x0 RCU_GP_WAIT_FQS(5)\n";

    fn ended(why: &str) -> Error {
        Error::Wait(WaitError::Closed { awaited: "a thing".to_owned(), why: why.into() })
    }

    fn late() -> WaitError {
        let within = Duration::from_secs(1);
        WaitError::Deadline { awaited: "a thing".to_owned(), within, last: "nothing".to_owned() }
    }

    fn deadline() -> Error {
        Error::Wait(late())
    }

    /// Outcome and whether to try again.
    fn concluded(ran: Ran, log: &str) -> (&'static str, bool) {
        let (verdict, retry) = conclude(ran, None, &classify::classify(log));
        (verdict.outcome(), retry)
    }

    #[test]
    fn a_kernel_is_judged_by_what_it_did_and_said() {
        let failed = || Ok(Verdict::fail(FailureKind::Deadlock, "f", String::new()));
        assert_eq!(concluded(Ok(Verdict::Pass), ""), ("pass", false));
        assert_eq!(concluded(Ok(Verdict::Pass), WARNING), ("fail", false));
        assert_eq!(concluded(failed(), WARNING), ("fail", false));
        assert_eq!(conclude(failed(), None, &classify::classify(WARNING)).0, failed().unwrap());
        // Who died with locks taken is why others wait for ever.
        let by_death = conclude(failed(), None, &classify::classify(OOPS)).0;
        assert!(
            matches!(&by_death, Verdict::Fail(failure) if failure.kind == FailureKind::KernelSplat),
            "{by_death:?}"
        );
        // What it complained of is why it shows something wrong.
        let wrong = || Ok(Verdict::fail(FailureKind::WrongState, "f", String::new()));
        let wrong = conclude(wrong(), None, &classify::classify(WARNING)).0;
        assert!(matches!(&wrong, Verdict::Fail(failure) if failure.kind == FailureKind::KernelSplat), "{wrong:?}");
        let stale = || Ok(Verdict::fail(FailureKind::StaleRead, "f", String::new()));
        assert_eq!(conclude(stale(), None, &classify::classify(OOPS)).0, stale().unwrap());
        // The kernel's own words explain what went wrong.
        assert_eq!(concluded(Err(ended("QEMU ended (exit status: 0)")), WARNING), ("fail", false));
        assert_eq!(concluded(Err(deadline()), WARNING), ("fail", false));
    }

    const LOCKDEP: &str = "[    1.000000] ============================================\n\
        [    1.000000] WARNING: possible recursive locking detected\n\
        [    1.000000] iov-agent/42 is trying to acquire lock:\n\
        [    1.000000] ffffffff82a5f0a8 (pci_rescan_remove_lock){+.+.}-{3:3}, at: sriov_disable+0x1b/0xf0\n\
        [    1.000000] stack backtrace:\n\
        [    1.000000] Call Trace:\n\
        [    1.000000]  <TASK>\n\
        [    1.000000]  __mutex_lock+0x9b/0xb40\n\
        [    1.000000]  sriov_disable+0x1b/0xf0\n\
        [    1.000000]  </TASK>\n";

    #[test]
    fn lockdep_explains_a_deadlock_unless_what_it_says_is_known() {
        let failed = |kind| Ok(Verdict::fail(kind, "f", "stuck".to_owned()));
        let splats = classify::classify(LOCKDEP);
        let (verdict, _) = conclude(failed(FailureKind::Deadlock), None, &splats);
        let summary = "WARNING: possible recursive locking detected";
        assert_eq!(verdict, Verdict::fail(FailureKind::KernelSplat, "sriov_disable", summary.to_owned()));
        let stale = failed(FailureKind::StaleRead);
        assert_eq!(conclude(failed(FailureKind::StaleRead), None, &splats).0, stale.unwrap());
        let known = |says: &str| [KnownReport { says: vec![says.to_owned()], why: "harmless".to_owned() }];
        let judged = |says: &str| {
            let splats = classify::classify_knowing(LOCKDEP, &known(says));
            conclude(Ok(Verdict::Pass), None, &splats).0
        };
        assert_eq!(judged("(pci_rescan_remove_lock)"), Verdict::Pass);
        assert_eq!(judged("(another_lock)").outcome(), "fail");
    }

    #[test]
    fn what_is_not_the_kernels_fault_is_never_a_verdict_on_it() {
        assert_eq!(concluded(Err(deadline()), ""), ("infra", true));
        assert_eq!(concluded(Err(ended(CRASH)), ""), ("infra", true));
        let silent = QmpError::Silent { command: "device_del", within: Duration::from_secs(30) };
        assert_eq!(concluded(Err(Error::Qmp(silent)), ""), ("infra", true));
        assert_eq!(concluded(Err(ended("QEMU ended (exit status: 1)")), ""), ("infra", false));
        assert_eq!(concluded(Err(deadline()), LOST_TIMER), ("infra", true));
        assert_eq!(concluded(Err(Error::Unprepared("no PF".to_owned())), ""), ("infra", false));
        // What a kernel never had it is not to blame for.
        assert_eq!(concluded(Err(Error::Lacks("reset_method".to_owned())), ""), ("skip", false));
        assert_eq!(concluded(Err(Error::Lacks("reset_method".to_owned())), OOPS), ("fail", false));
        // A scenario that got its answer in spite of it keeps it.
        assert_eq!(concluded(Ok(Verdict::Pass), LOST_TIMER), ("pass", false));
    }

    #[test]
    fn kernels_that_do_not_boot() {
        let failed = |error: BootError, log: &str| {
            let (verdict, retry) = boot_failed(&error, &classify::classify(log), log);
            (verdict.outcome(), retry)
        };
        let silent = || BootError::Silent(AgentError::Wait(late()));
        let foreign = || BootError::Foreign(AgentError::Version { theirs: 0 });
        let reset = || BootError::Ended("QEMU ended (exit status: 0)".to_owned());
        let panic = "[    1.000000] Kernel panic - not syncing: no good\n";
        assert_eq!(failed(reset(), panic), ("boot-failed", false));
        assert_eq!(failed(reset(), ""), ("boot-failed", false));
        assert_eq!(failed(silent(), "[    1.000000] hello\n"), ("boot-failed", true));
        assert_eq!(failed(silent(), LOST_TIMER), ("infra", true));
        assert_eq!(failed(foreign(), "[    1.000000] hello\n"), ("infra", false));
        assert_eq!(failed(foreign(), panic), ("boot-failed", false));
        assert_eq!(failed(BootError::Mute("no greeting".to_owned()), ""), ("infra", true));
        assert_eq!(failed(BootError::Ended(CRASH.to_owned()), ""), ("infra", true));
        // A clock that runs fast makes a watchdog bark.
        assert_eq!(failed(BootError::Clock { guest: 924.0, host: 134.8 }, panic), ("infra", true));
        assert_eq!(failed(BootError::Known("silence".to_owned()), ""), ("boot-failed", false));
        assert_eq!(failed(BootError::Qemu("no such option".to_owned()), ""), ("infra", false));
    }
}
