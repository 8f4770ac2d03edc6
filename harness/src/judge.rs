//! From a machine and a scenario to a verdict: boot, scenario, proof, classification.

use std::path::Path;
use std::time::{Duration, Instant};

use kernels::FailureKind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::classify::{self, Severity, Splat};
use crate::error::Error;
use crate::guest::Guest;
use crate::scale::Scale;
use crate::scenario::Scenario;
use crate::trigger::Trigger;
use crate::verdict::{Failure, Verdict};
use crate::vm::argv::Machine;
use crate::vm::{BootError, Recorders, Vm};

/// What a cell found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// What the scenario noted: values read, waits, tasks and their stacks.
    pub notes: Map<String, Value>,
    /// For each removal, what proves the way that it went.
    pub proofs: Vec<String>,
    /// What the kernel said about itself on its console.
    pub splats: Vec<Splat>,
    /// Where the time went.
    pub phases: Phases,
}

/// Where the time of a cell went, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// From starting QEMU to the agent's first words.
    pub boot: f64,
    /// The scenario and its proofs.
    pub scenario: f64,
    /// Ending QEMU and reading its log.
    pub teardown: f64,
    /// Boots that stalled for reasons of the test bed, before the one that counts.
    pub stalled_boots: u32,
}

/// How long a guest may take to say hello, on a machine with KVM, in seconds. Under TCG it takes 3 to 10 s, and several
/// times that on a busy host.
const BOOT: f64 = 30.0;

/// A boot that stalls is tried again this often before the kernel is said not to boot.
const BOOT_TRIES: u32 = 2;

/// Runs a scenario on a machine.
pub async fn run(
    scenario: &Scenario,
    trigger: Option<Trigger>,
    machine: Machine,
    scale: Scale,
    recorders: Recorders,
) -> Finding {
    let mut phases = Phases::default();
    let began = Instant::now();
    let vm = loop {
        match Vm::boot(machine.clone(), recorders.clone(), scale.seconds(BOOT)).await {
            Ok(vm) => break vm,
            Err(BootError::Silent(_)) if stalled(&recorders.console) && phases.stalled_boots + 1 < BOOT_TRIES => {
                phases.stalled_boots += 1;
            }
            Err(error) => {
                phases.boot = began.elapsed().as_secs_f64();
                let log = log(&recorders.console);
                let splats = classify::classify(&log);
                let verdict = boot_failed(&error, &splats, &log);
                return Finding { verdict, notes: Map::new(), proofs: Vec::new(), splats, phases };
            }
        }
    };
    phases.boot = began.elapsed().as_secs_f64();

    let began = Instant::now();
    let (ran, notes, proofs, vm) = run_in(scenario, trigger, vm, scale).await;
    phases.scenario = began.elapsed().as_secs_f64();

    let began = Instant::now();
    let mut notes = notes;
    if let Some(Err(how)) = end(vm).await {
        notes.insert("qemu-end".to_owned(), how.into());
    }
    let splats = classify::classify(&log(&recorders.console));
    let verdict = conclude(ran, &splats);
    phases.teardown = began.elapsed().as_secs_f64();
    Finding { verdict, notes, proofs, splats, phases }
}

type Ran = Result<Verdict, Error>;

async fn run_in(
    scenario: &Scenario,
    trigger: Option<Trigger>,
    vm: Vm,
    scale: Scale,
) -> (Ran, Map<String, Value>, Vec<String>, Option<Vm>) {
    let guest = match Guest::new(vm, scale, trigger).await {
        Ok(guest) => guest,
        Err(error) => return (Err(error), Map::new(), Vec::new(), None),
    };
    let mut ran = (scenario.run)(&guest).await;
    let mut proofs = Vec::new();
    if ran.is_ok() {
        match guest.proofs().await {
            Ok(found) => proofs = found,
            Err(error) => ran = Err(error),
        }
    }
    if !matches!(ran, Ok(Verdict::Pass)) {
        gather(&guest).await;
    }
    (ran, guest.notes(), proofs, Some(guest.into_vm()))
}

/// Writes down where all stuck tasks are, before the guest is ended. What cannot be had is left out: the guest may be
/// beyond answering.
async fn gather(guest: &Guest) {
    let within = Duration::from_secs(5);
    if let Ok(tasks) = guest.agent().tasks(&[], within).await {
        guest.note_tasks("tasks-in-d-state", &tasks);
    }
    let blocked = guest_protocol::Command::Sysrq { key: 'w' };
    if let Err(error) = guest.agent().call(blocked, within).await {
        guest.note("no-sysrq", error.to_string());
    }
}

async fn end(vm: Option<Vm>) -> Option<Result<(), String>> {
    Some(vm?.kill().await)
}

/// What scenario and kernel log say together. A splat overrules a pass, and explains an error.
fn conclude(ran: Ran, splats: &[Splat]) -> Verdict {
    let fatal = splats.iter().find(|splat| splat.is_fatal());
    match (ran, fatal) {
        (Ok(Verdict::Pass) | Err(_), Some(splat)) => Verdict::Fail(Failure {
            kind: FailureKind::KernelSplat,
            function: splat.function.clone(),
            summary: splat.title.clone(),
        }),
        (Ok(verdict), _) => verdict,
        (Err(error), None) => {
            let bed = splats.iter().find(|splat| splat.kind.severity() == Severity::TestBed);
            let bed = bed.map(|splat| format!(" (the test bed had trouble of its own: {})", splat.title));
            Verdict::Infra(format!("{error}{}", bed.unwrap_or_default()))
        }
    }
}

/// A guest that did not come up: the kernel's fault, unless QEMU or the test bed says otherwise.
fn boot_failed(error: &BootError, splats: &[Splat], log: &str) -> Verdict {
    if let BootError::Qemu(why) = error {
        return Verdict::Infra(why.clone());
    }
    if let Some(splat) = splats.iter().find(|splat| splat.is_fatal()) {
        return Verdict::BootFailed(format!("{error}; the kernel said: {}", splat.title));
    }
    if let Some(splat) = splats.iter().find(|splat| splat.kind.severity() == Severity::TestBed) {
        return Verdict::Infra(format!("{error}; the test bed had trouble of its own: {}", splat.title));
    }
    match log.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => Verdict::BootFailed(format!("{error}; its last line on the console: {}", line.trim())),
        None => Verdict::BootFailed(format!("{error}; the kernel printed nothing")),
    }
}

/// Whether a boot stalled the way the test bed makes it stall: silence, and no error of the kernel's own.
fn stalled(console: &Path) -> bool {
    !classify::classify(&log(console)).iter().any(|splat| splat.is_fatal())
}

/// The console's log so far. A file that is not there is a guest that printed nothing.
fn log(console: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned()
}
