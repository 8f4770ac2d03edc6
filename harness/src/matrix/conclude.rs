//! Makes the verdict on a kernel from the result of the scenario, the kernel log and the end of QEMU.

use kernels::FailureKind;

use crate::classify::console::last_words;
use crate::classify::{Severity, Splat, SplatKind};
use crate::guest::Error;
use crate::tries::Sign;
use crate::verdict::{Failure, Verdict};
use crate::vm::ended::Ended;
use crate::vm::{BootError, KillError};

/// The result of a scenario.
pub(super) type Ran = Result<Verdict, Error>;

/// Other observations of its guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen<'a> {
    /// How QEMU ended, if not because the harness ended it.
    pub ended: Option<&'a KillError>,
    /// The reports of the kernel on its console.
    pub splats: &'a [Splat],
    /// The agent no longer answered when the scenario had ended.
    pub silent: bool,
}

/// The verdict from the scenario and the kernel log, and the sign of the test bed if there is no verdict.
///
/// - A fatal splat overrules a pass. It also explains an error, a refused operation, and a wrong state: the kernel may
///   show one after a failed operation.
/// - If a task died, its splat explains a deadlock: the task never releases the locks that it held.
/// - A report of lockdep explains a deadlock: it names the locks.
/// - If nothing explains an error, its text also has how QEMU ended.
pub(super) fn conclude(ran: Ran, seen: Seen<'_>) -> (Verdict, Option<Sign>) {
    let splats = seen.splats;
    let fatal = splats.iter().find(|splat| splat.is_fatal());
    let died = splats.iter().any(Splat::kills);
    let lockdep = splats.iter().find(|splat| splat.is_fatal() && splat.kind == SplatKind::Lockdep);
    let deadlocked = matches!(&ran, Ok(Verdict::Fail(failure)) if failure.kind == FailureKind::Deadlock);
    let is_wrong = matches!(&ran, Ok(Verdict::Fail(failure)) if failure.kind == FailureKind::WrongState);
    match (ran, fatal) {
        (Ok(Verdict::Pass) | Err(_), Some(splat)) => (splatted(splat), None),
        (Ok(_), Some(splat)) if is_wrong => (splatted(splat), None),
        (Ok(_), Some(splat)) if died && deadlocked => (splatted(splat), None),
        (Ok(_), Some(splat)) if lockdep.is_some() && deadlocked => (splatted(lockdep.unwrap_or(splat)), None),
        (Ok(verdict), _) => (verdict, None),
        (Err(error @ Error::Lacks(_)), None) => (Verdict::Skip(error.to_string()), None),
        (Err(Error::Refused { at, what, why }), None) if test_bed(splats).is_none() => {
            let summary = Error::Refused { at: at.clone(), what, why }.to_string();
            (Verdict::fail(FailureKind::WrongState, &at, summary), None)
        }
        (Err(error), None) => no_verdict(&error, seen),
    }
}

/// The verdict if a scenario ends with an error and the kernel log does not explain it.
fn no_verdict(error: &Error, seen: Seen<'_>) -> (Verdict, Option<Sign>) {
    let mut why = match seen.ended {
        // Added only if the error does not have it already.
        Some(how) if how.ended().is_none() || how.ended() != error.ended() => format!("{error}; {how}"),
        _ => error.to_string(),
    };
    let sign = sign(error, seen);
    match (&sign, test_bed(seen.splats)) {
        (_, Some(splat)) => why += &format!("; the test bed failed: {}", splat.title),
        (Some(starved @ Sign::Starved(_)), None) => why += &format!("; {starved}"),
        _ => {}
    }
    (Verdict::Infra(why), sign)
}

/// The sign that the test bed prevented a verdict. If there are several, the most certain one.
fn sign(error: &Error, seen: Seen<'_>) -> Option<Sign> {
    let ended = error.ended().or(seen.ended.and_then(KillError::ended));
    if test_bed(seen.splats).is_some() {
        Some(Sign::Log)
    } else if ended.is_some_and(Ended::is_crash) {
        Some(Sign::Crash)
    } else if error.is_mute_qemu() || matches!(seen.ended, Some(KillError::Late(_))) {
        Some(Sign::Mute)
    } else if matches!(error, Error::Lost(_)) {
        Some(Sign::Lost)
    } else {
        let starved = error.late().and_then(|late| Sign::of_time(late.within, late.starved));
        starved.or(seen.silent.then_some(Sign::Silence))
    }
}

fn splatted(splat: &Splat) -> Verdict {
    let (function, summary) = (splat.function.clone(), splat.title.clone());
    Verdict::Fail(Failure { kind: FailureKind::KernelSplat, function, summary, cycle: None })
}

/// The verdict on a guest that did not boot, and the sign of the test bed, if there is one. It is the kernel's fault
/// unless QEMU or the test bed failed.
pub(super) fn boot_failed(error: &BootError, splats: &[Splat], log: &str) -> (Verdict, Option<Sign>) {
    let why = error.to_string();
    let sign = match error {
        BootError::Mute(_) => Some(Sign::Mute),
        BootError::Clock { .. } => Some(Sign::Clock),
        error if error.ended().is_some_and(Ended::is_crash) => Some(Sign::Crash),
        _ => None,
    };
    if sign.is_some() || matches!(error, BootError::Qemu(_) | BootError::Gone(_)) {
        return (Verdict::Infra(why), sign);
    }
    if let Some(splat) = splats.iter().find(|splat| splat.is_fatal()) {
        return (Verdict::BootFailed(format!("{why}; the kernel reported: {}", splat.title)), None);
    }
    if let Some(splat) = test_bed(splats) {
        return (Verdict::Infra(format!("{why}; the test bed failed: {}", splat.title)), Some(Sign::Log));
    }
    match error {
        BootError::Foreign(_) => (Verdict::Infra(why), None),
        BootError::Known(_) => (Verdict::BootFailed(why), None),
        error => {
            let silence = matches!(error, BootError::Silent(_)).then_some(Sign::Silence);
            (Verdict::BootFailed(format!("{why}; {}", last_words(log))), silence)
        }
    }
}

fn test_bed(splats: &[Splat]) -> Option<&Splat> {
    splats.iter().find(|splat| splat.severity() == Severity::TestBed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kernels::KnownReport;

    use super::*;
    use crate::classify;
    use crate::vm::agent::{AgentError, Lost};
    use crate::vm::ended::tests::{aborted, exited};
    use crate::vm::event_log::{Closed, WaitError};
    use crate::vm::qmp::QmpError;

    const WARNING: &str = "[    1.000000] ------------[ cut here ]------------\n\
        [    1.000000] WARNING: CPU: 0 PID: 7 at drivers/pci/iov.c:1 sriov_enable+0x1/0x2\n\
        [    1.000000] ---[ end trace 0000000000000000 ]---\n";
    const OOPS: &str = "[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000\n\
        [    1.000000] Oops: Oops: 0000 [#1] PREEMPT SMP\n\
        [    1.000000] RIP: 0010:strlen+0x1/0x2\n\
        [    1.000000] ---[ end trace 0000000000000000 ]---\n";
    const LOST_TIMER: &str = "[    1.000000] rcu: rcu_preempt kthread timer wakeup didn't happen for 5251 jiffies! g1 f0x0 RCU_GP_WAIT_FQS(5)\n";

    fn ended(how: Ended) -> Error {
        Error::Wait(WaitError::Closed { awaited: "a thing".to_owned(), why: Closed::Ended(how) })
    }

    fn late(starved: u64) -> WaitError {
        let (within, starved) = (Duration::from_secs(60), Duration::from_secs(starved));
        WaitError::Deadline { awaited: "a thing".to_owned(), within, starved, last: "nothing".to_owned() }
    }

    fn deadline() -> Error {
        Error::Wait(late(0))
    }

    fn judged(ran: Ran, splats: &[Splat]) -> Verdict {
        conclude(ran, Seen { splats, ..Seen::default() }).0
    }

    /// Outcome and sign, if the guest's agent answers until the end.
    fn concluded(ran: Ran, log: &str) -> (&'static str, Option<Sign>) {
        let (verdict, sign) = conclude(ran, Seen { splats: &classify::classify(log), ..Seen::default() });
        (verdict.outcome(), sign)
    }

    #[test]
    fn the_verdict_combines_the_scenario_and_the_kernel_log() {
        let failed = || Ok(Verdict::fail(FailureKind::Deadlock, "f", String::new()));
        assert_eq!(concluded(Ok(Verdict::Pass), ""), ("pass", None));
        assert_eq!(concluded(Ok(Verdict::Pass), WARNING), ("fail", None));
        assert_eq!(concluded(failed(), WARNING), ("fail", None));
        assert_eq!(judged(failed(), &classify::classify(WARNING)), failed().unwrap());
        // A task that died with locks held explains why others wait forever.
        let by_death = judged(failed(), &classify::classify(OOPS));
        assert!(
            matches!(&by_death, Verdict::Fail(failure) if failure.kind == FailureKind::KernelSplat),
            "{by_death:?}"
        );
        // The report explains the wrong state.
        let wrong = || Ok(Verdict::fail(FailureKind::WrongState, "f", String::new()));
        let wrong = judged(wrong(), &classify::classify(WARNING));
        assert!(matches!(&wrong, Verdict::Fail(failure) if failure.kind == FailureKind::KernelSplat), "{wrong:?}");
        let stale = || Ok(Verdict::fail(FailureKind::StaleRead, "f", String::new()));
        assert_eq!(judged(stale(), &classify::classify(OOPS)), stale().unwrap());
        // A report of the kernel explains an error of the scenario.
        assert_eq!(concluded(Err(ended(exited(0, ""))), WARNING), ("fail", None));
        assert_eq!(concluded(Err(deadline()), WARNING), ("fail", None));
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
    fn lockdep_explains_a_deadlock_unless_its_report_is_known() {
        let failed = |kind| Ok(Verdict::fail(kind, "f", "stuck".to_owned()));
        let splats = classify::classify(LOCKDEP);
        let verdict = judged(failed(FailureKind::Deadlock), &splats);
        let summary = "WARNING: possible recursive locking detected";
        assert_eq!(verdict, Verdict::fail(FailureKind::KernelSplat, "sriov_disable", summary.to_owned()));
        let stale = failed(FailureKind::StaleRead);
        assert_eq!(judged(failed(FailureKind::StaleRead), &splats), stale.unwrap());
        let known = |says: &str| [KnownReport { says: vec![says.to_owned()], why: "harmless".to_owned() }];
        let passing = |says: &str| judged(Ok(Verdict::Pass), &classify::classify_knowing(LOCKDEP, &known(says)));
        assert_eq!(passing("(pci_rescan_remove_lock)"), Verdict::Pass);
        assert_eq!(passing("(another_lock)").outcome(), "fail");
    }

    #[test]
    fn errors_of_the_test_bed_are_never_a_verdict_on_the_kernel() {
        assert_eq!(concluded(Err(deadline()), ""), ("infra", None));
        assert_eq!(concluded(Err(ended(exited(1, "QEMU ended (signal: 6"))), ""), ("infra", None));
        assert_eq!(concluded(Err(Error::Unprepared("no PF".to_owned())), ""), ("infra", None));
        // A kernel does not fail for a feature that it does not have.
        assert_eq!(concluded(Err(Error::Lacks("reset_method".to_owned())), ""), ("skip", None));
        assert_eq!(concluded(Err(Error::Lacks("reset_method".to_owned())), OOPS), ("fail", None));
        // A verdict counts even if a timer was lost.
        assert_eq!(concluded(Ok(Verdict::Pass), LOST_TIMER), ("pass", None));
    }

    #[test]
    fn a_refused_operation_is_a_failure_of_the_kernel() {
        let refused = || {
            let what = "write \"2\" to /sys/x/sriov_numvfs".to_owned();
            Err(Error::Refused { at: "sriov_numvfs".to_owned(), what, why: "EEXIST (errno 17)".to_owned() })
        };
        let summary = "the kernel refused to write \"2\" to /sys/x/sriov_numvfs: EEXIST (errno 17)";
        let wrong = Verdict::fail(FailureKind::WrongState, "sriov_numvfs", summary.to_owned());
        assert_eq!(judged(refused(), &[]), wrong);
        assert_eq!(concluded(refused(), ""), ("fail", None));
        // A report of the kernel says more. And if the machine loses timers, the kernel may not be the cause.
        let splat = judged(refused(), &classify::classify(OOPS));
        assert!(matches!(&splat, Verdict::Fail(failure) if failure.kind == FailureKind::KernelSplat), "{splat:?}");
        assert_eq!(concluded(refused(), LOST_TIMER), ("infra", Some(Sign::Log)));
    }

    #[test]
    fn another_guest_is_tried_only_on_a_sign_of_the_test_bed() {
        let infra = |sign| ("infra", Some(sign));
        assert_eq!(concluded(Err(ended(aborted())), ""), infra(Sign::Crash));
        let silent = QmpError::Silent { command: "device_del", within: Duration::from_secs(30) };
        assert_eq!(concluded(Err(Error::Qmp(silent)), ""), infra(Sign::Mute));
        let lost = Lost { stream: "uevent".to_owned() };
        assert_eq!(concluded(Err(lost.into()), ""), infra(Sign::Lost));
        assert_eq!(concluded(Err(deadline()), LOST_TIMER), infra(Sign::Log));
        assert_eq!(concluded(Err(late(30).into()), ""), infra(Sign::Starved(Duration::from_secs(30))));
        assert_eq!(concluded(Err(late(3).into()), ""), ("infra", None));

        let seen = |ended: Option<&KillError>, silent| conclude(Err(deadline()), Seen { ended, splats: &[], silent }).1;
        assert_eq!(seen(None, true), Some(Sign::Silence));
        assert_eq!(seen(Some(&KillError::Late(Duration::from_secs(15))), true), Some(Sign::Mute));
        assert_eq!(seen(Some(&KillError::Ended(aborted())), false), Some(Sign::Crash));
        assert_eq!(seen(Some(&KillError::Ended(exited(0, ""))), false), None);
    }

    #[test]
    fn the_reason_for_no_verdict_is_not_repeated() {
        let why = |error, ended: Option<&KillError>, log: &str| {
            let seen = Seen { ended, splats: &classify::classify(log), silent: false };
            conclude(Err(error), seen).0.reason().unwrap_or_default().to_owned()
        };
        let crash = KillError::Ended(aborted());
        insta::assert_snapshot!(why(ended(aborted()), Some(&crash), ""), @"while waiting for a thing: QEMU ended (signal: 6 (SIGABRT)); it said: Assertion failed.");
        insta::assert_snapshot!(why(late(30).into(), None, ""), @"waited 60 s for a thing; it did not come (last heard: nothing); QEMU waited 30 s for the host's CPUs");
        insta::assert_snapshot!(why(deadline(), Some(&crash), ""), @"waited 60 s for a thing; it did not come (last heard: nothing); QEMU ended (signal: 6 (SIGABRT)); it said: Assertion failed.");
        insta::assert_snapshot!(why(deadline(), None, LOST_TIMER), @"waited 60 s for a thing; it did not come (last heard: nothing); the test bed failed: rcu: rcu_preempt kthread timer wakeup didn't happen for 5251 jiffies! g1 f0x0 RCU_GP_WAIT_FQS(5)");
    }

    #[test]
    fn kernels_that_do_not_boot() {
        let failed = |error: BootError, log: &str| {
            let (verdict, sign) = boot_failed(&error, &classify::classify(log), log);
            (verdict.outcome(), sign)
        };
        let silent = || BootError::Silent(AgentError::Wait(late(0)));
        let foreign = || BootError::Foreign(AgentError::Version { theirs: 0 });
        let reset = || BootError::Ended(exited(0, "QEMU ended (signal: 6"));
        let panic = "[    1.000000] Kernel panic - not syncing: no good\n";
        assert_eq!(failed(reset(), panic), ("boot-failed", None));
        assert_eq!(failed(reset(), ""), ("boot-failed", None));
        assert_eq!(failed(silent(), "[    1.000000] hello\n"), ("boot-failed", Some(Sign::Silence)));
        assert_eq!(failed(silent(), LOST_TIMER), ("infra", Some(Sign::Log)));
        assert_eq!(failed(foreign(), "[    1.000000] hello\n"), ("infra", None));
        assert_eq!(failed(foreign(), panic), ("boot-failed", None));
        assert_eq!(failed(BootError::Mute("no greeting".to_owned()), ""), ("infra", Some(Sign::Mute)));
        assert_eq!(failed(BootError::Ended(aborted()), ""), ("infra", Some(Sign::Crash)));
        assert_eq!(failed(BootError::Gone(aborted()), ""), ("infra", Some(Sign::Crash)));
        assert_eq!(failed(BootError::Gone(exited(1, "QEMU ended (signal: 6")), ""), ("infra", None));
        // A clock that is too fast triggers a watchdog.
        assert_eq!(failed(BootError::Clock { guest: 924.0, host: 134.8 }, panic), ("infra", Some(Sign::Clock)));
        assert_eq!(failed(BootError::Known("silence".to_owned()), ""), ("boot-failed", None));
        assert_eq!(failed(BootError::Qemu("no such option".to_owned()), ""), ("infra", None));
    }
}
