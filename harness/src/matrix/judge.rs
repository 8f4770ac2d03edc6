//! Runs one scenario in one guest and gives the verdict: boot, scenario, proofs, end of QEMU.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_protocol::TaskState;
use kernels::cache::KeyMaker;
use kernels::{FailureKind, KnownReport, SourceLines};

use super::care::Care;
use super::conclude::{Ran, Seen, boot_failed, conclude};
use crate::classify::console::log;
use crate::classify::{self, Splat, SplatKind};
use crate::guest::{Back, Error, Guest, Hardware, OfKernel};
use crate::notes::{Note, Notes, Phases};
use crate::scenario::Scenario;
use crate::tries::{self, Sign};
use crate::trigger::Trigger;
use crate::verdict::{Failure, Verdict};
use crate::vm::agent::Agent;
use crate::vm::scale::Scale;
use crate::vm::{BootError, Vm};
use crate::waits::Graph;

/// The result of a cell.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// The observations of the scenario: values read, waits, tasks and their stacks.
    pub notes: Notes,
    /// For each removal, the proof of the path that it took.
    pub proofs: Vec<String>,
    /// The reports of the kernel on its console.
    pub splats: Vec<Splat>,
    /// How long each phase took.
    pub phases: Phases,
    /// The sign that the test bed, not the kernel, prevented a verdict. Another guest may give one.
    pub sign: Option<Sign>,
    /// Who waited for whom at the end, if the verdict is no pass.
    pub waits: Option<Graph>,
    /// A hash of everything that a held guest said ([`CellRecord::said`](crate::evidence::CellRecord::said)).
    pub said: Option<String>,
    /// The error messages of the kernel ([`CellRecord::errors`](crate::evidence::CellRecord::errors)).
    pub errors: Option<Vec<String>>,
}

impl Finding {
    /// A verdict without a guest.
    pub fn of(verdict: Verdict) -> Finding {
        Finding {
            verdict,
            notes: Notes::default(),
            proofs: Vec::new(),
            splats: Vec::new(),
            phases: Phases::default(),
            sign: None,
            waits: None,
            said: None,
            errors: None,
        }
    }
}

/// How long a guest may take to boot until the agent's hello, on a machine with KVM, in seconds. Under TCG it takes 3
/// to 10 s, and several times that on a busy host.
pub const BOOT: f64 = 20.0;

/// How long QEMU may take to quit, and a guest to list its stuck tasks, on a machine with KVM, in seconds.
const QUIT: f64 = 5.0;

/// The rules that judge a cell.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The scale of all waits for the guest.
    pub scale: Scale,
    /// The scale of waits for QEMU, which are in the host's time.
    pub host: Scale,
    /// Known reports of the kernel. They make no cell fail.
    pub known: &'a [KnownReport],
    /// Which repeat of the cell this is, from 1. A guest that is stopped at a place stands there at this execution.
    pub repeat: u32,
    /// What is done beside the scenario.
    pub care: Care,
    /// Whether the kernel can name who holds the lock for which a task hangs.
    pub names_holders: bool,
    /// Where the guest's memory is dumped to.
    pub dump: &'a Path,
}

/// Runs a scenario in the guest that `start` boots or restores. `console` is the file of its serial console.
pub async fn run(
    scenario: &Scenario,
    trigger: Option<Trigger>,
    rules: Rules<'_>,
    console: &Path,
    of_kernel: OfKernel,
    start: impl Future<Output = Result<Vm, BootError>>,
) -> Finding {
    let mut phases = Phases::default();
    let source = of_kernel.lines.clone();
    let began = Instant::now();
    let booted = start.await;
    phases.boot = began.elapsed().as_secs_f64();
    let vm = match booted {
        Ok(vm) => vm,
        Err(error) => {
            let log = log(console);
            let splats = classify::classify_knowing(&log, rules.known);
            let (verdict, sign) = boot_failed(&error, &splats, &log);
            let mut notes = Notes::default();
            let splats = with_lines(splats, log, source, &mut notes).await;
            return Finding { splats, notes, phases, sign, ..Finding::of(verdict) };
        }
    };

    phases.steps = vm.steps();

    let began = Instant::now();
    let vm = Arc::new(vm);
    let (time, before) = (vm.time(), vm.time().lost());
    let over = vm.drive(run_in(scenario, trigger, &vm, rules, console, of_kernel)).await;
    let Over { ran, mut notes, proofs, waits, silent, errors, logged } =
        over.unwrap_or_else(|error| Over::without_notes(error.into()));
    let (took, starved) = (began.elapsed(), time.lost().saturating_sub(before));
    (phases.scenario, phases.starved) = (took.as_secs_f64(), starved.as_secs_f64());

    let began = Instant::now();
    let ended = vm.kill(rules.host.seconds(QUIT)).await.err();
    if let Some(how) = &ended {
        notes.add(Note::QemuEnd(how.to_string()));
    }
    let said = vm.gate().map(|_| hash(vm.agent(), console));
    let whole = log(console);
    let log = logged.and_then(|length| whole.get(..length)).unwrap_or(&whole);
    let mut splats = classify::classify_knowing(log, rules.known);
    if tries::stood_still(took, starved) {
        classify::blame_host(&mut splats);
    }
    if let Some(splat) = splats.iter().find(|splat| splat.kind == SplatKind::Lockdep && splat.known.is_some()) {
        notes.add(Note::LockdepOffAfter(splat.to_string()));
    }
    let (verdict, sign) = match scenario.needs.script.and_then(|_| end_of_agent(log)) {
        Some(why) => (Verdict::Infra(why), None),
        None => conclude(ran, Seen { ended: ended.as_ref(), splats: &splats, silent }),
    };
    if matches!(verdict, Verdict::Fail(_)) {
        splats = with_lines(splats, log.to_owned(), source, &mut notes).await;
    }
    phases.teardown = began.elapsed().as_secs_f64();
    let errors = errors.filter(|_| verdict == Verdict::Pass);
    Finding { verdict, notes, proofs, splats, phases, sign, waits, said, errors }
}

/// The reports with lines of the source in their stacks. If these cannot be found, a note says why.
async fn with_lines(
    splats: Vec<Splat>,
    log: String,
    source: Option<Arc<SourceLines>>,
    notes: &mut Notes,
) -> Vec<Splat> {
    let Some(source) = source.filter(|_| !splats.is_empty()) else { return splats };
    let mut lined = splats.clone();
    // A vmlinux takes a second to read, in which other guests go on.
    let found = tokio::task::spawn_blocking(move || classify::add_lines(&mut lined, &log, &source).map(|()| lined));
    let why = match found.await {
        Ok(Ok(lined)) => return lined,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    notes.add(Note::NoLines(why));
    splats
}

/// How PID 1 of the guest reports its end, on the console.
const PID_1_ENDS: &str = "iov-agent: PID 1 ends: ";

/// What the agent reports on the console if its port to the host is gone.
const NO_PORT: &str = "iov-agent: cannot write to the host: ";

/// Why a guest says nothing about its kernel: its script has killed the agent, so that PID 1 ends and the kernel panics; or
/// the script has rebooted the guest, and the kernel shut the agent's port down.
fn end_of_agent(log: &str) -> Option<String> {
    let said = |mark: &str| log.lines().find_map(|line| Some(line.split_once(mark)?.1.trim()));
    if let Some(why) = said(PID_1_ENDS) {
        return Some(format!("the script has killed the guest's agent, so nothing is known about the kernel: {why}"));
    }
    // A kernel that goes down may cut the line.
    let why = Some(said(NO_PORT)?).filter(|why| !why.is_empty());
    let why = why.map(|why| format!(": its agent says: {why}")).unwrap_or_default();
    Some(format!("the guest was shut down while its script ran, so nothing is known about the kernel{why}"))
}

/// A hash of everything that a guest said. The console of a restored guest begins with the boot.
fn hash(agent: &Agent, console: &Path) -> String {
    let messages = agent.messages().collect(0, |message| guest_protocol::encode(message).ok()).concat();
    let console = std::fs::read(console).unwrap_or_default();
    KeyMaker::new().with("messages", messages).with("console", console).finish().as_str().to_owned()
}

/// The streams of events.
const STREAMS: [&str; 2] = ["uevent", "link"];

/// The end of a scenario, and its guest.
struct Over {
    ran: Ran,
    notes: Notes,
    proofs: Vec<String>,
    waits: Option<Graph>,
    /// The agent no longer answered.
    silent: bool,
    /// The error messages of the kernel during a scenario that passed. None if they are not known.
    errors: Option<Vec<String>>,
    /// How many bytes of the console's log come from the scenario, and not from what the user did afterwards. None if there was
    /// no user.
    logged: Option<usize>,
}

impl Over {
    fn without_notes(error: Error) -> Over {
        Over {
            ran: Err(error),
            notes: Notes::default(),
            proofs: Vec::new(),
            waits: None,
            silent: false,
            errors: None,
            logged: None,
        }
    }
}

async fn run_in(
    scenario: &Scenario,
    trigger: Option<Trigger>,
    vm: &Arc<Vm>,
    rules: Rules<'_>,
    console: &Path,
    of_kernel: OfKernel,
) -> Over {
    let guest = match Hardware::find(vm, rules.scale).await {
        Ok(hardware) => Guest::new(vm.clone(), hardware, trigger, rules.scale, rules.known, of_kernel, rules.repeat)
            .with(scenario.needs.script, scenario.needs.terminal),
        Err(error) => {
            let silent = stuck_tasks(vm.agent(), rules.scale.seconds(QUIT)).await.is_err();
            return Over { silent, ..Over::without_notes(error) };
        }
    };
    if let Err(error) = guest.remember_functions().await {
        return Over::without_notes(error);
    }
    let begins = guest.agent().messages().position();
    let (ran, proofs) = tokio::select! {
        biased;
        proven = proven(scenario, &guest, rules) => proven,
        died = guest.death(begins) => (Err(died), Vec::new()),
        never = look_on(&guest, rules.care.look_every) => match never {},
    };
    let (mut waits, mut silent, mut errors) = (None, false, None);
    if matches!(ran, Ok(Verdict::Pass)) {
        errors = guest.errors(begins).ok();
    } else {
        waits = guest.look().await.map(|graph| guest.with_lines(graph));
        silent = gather(&guest).await.is_err();
    }
    let ran = match is_deadlock(&ran) && !silent && !guest.has_proof() {
        true => match guest.stays_stuck().await {
            Err(error @ Error::Unprepared(_)) => Err(error),
            // A guest that answers no more has not gone on.
            _ => ran,
        },
        false => ran,
    };
    if rules.care.dump || is_deadlock(&ran) {
        guest.dump(rules.dump).await;
    }
    if rules.names_holders && !silent && is_deadlock(&ran) {
        // Only the verdict counts. The name of the holder is one more piece of evidence.
        let _ = guest.let_holder_be_named().await;
    }
    let notes = guest.notes();
    let mut logged = None;
    if scenario.needs.terminal.is_some() && !matches!(ran, Ok(Verdict::Pass | Verdict::Skip(_))) {
        logged = Some(log(console).len());
        // What the user does in it changes no verdict, and neither does an error.
        let _ = guest.shell_after_failure().await;
    }
    Over { ran, notes, proofs, waits, silent, errors, logged }
}

fn is_deadlock(ran: &Ran) -> bool {
    matches!(ran, Ok(Verdict::Fail(Failure { kind: FailureKind::Deadlock, .. })))
}

/// The result of a scenario, with the proofs of its removals.
async fn proven(scenario: &Scenario, guest: &Guest, rules: Rules<'_>) -> (Ran, Vec<String>) {
    let mut ran = (scenario.run)(guest).await;
    if let Ok(Verdict::Fail(Failure { kind: FailureKind::LostEvent, .. })) = &ran {
        // An event counts as lost only if no message from the agent was lost.
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
        ran = after(guest, !rules.care.quick).await;
    }
    (ran, proofs)
}

/// Looks at who waits for whom at this interval of the guest's time. What it sees is counted in the notes, and decides
/// nothing: so whoever measures how often a look is wrong measures the looks that decide.
async fn look_on(guest: &Guest, every: Option<Duration>) -> Infallible {
    let Some(every) = every else { return std::future::pending().await };
    loop {
        guest.vm().time().pause(every).await;
        guest.look().await;
    }
}

/// The checks after a scenario that passed: the kernel must be in order.
async fn after(guest: &Guest, put_back: bool) -> Ran {
    let before = match guest.aftermath().await? {
        Ok(inventory) if put_back => inventory,
        Ok(_) => return Ok(Verdict::Pass),
        Err(verdict) => return Ok(verdict),
    };
    match guest.put_back().await? {
        Back::There(_, inventory) => guest.use_and_clear(inventory).await,
        Back::Nothing(inventory) => guest.use_and_clear(inventory.unwrap_or(before)).await,
        Back::Failed(verdict) => Ok(verdict),
    }
}

/// Notes all stuck tasks with their stacks before the guest is ended. The guest may not answer; then these notes are
/// missing.
async fn gather(guest: &Guest) -> Result<(), Silent> {
    let within = guest.seconds(QUIT);
    let tasks = stuck_tasks(guest.agent(), within).await;
    if let Ok(tasks) = &tasks {
        guest.note_tasks(Note::TasksInDState, tasks);
    }
    let blocked = guest_protocol::Command::Sysrq { key: 'w' };
    if let Err(error) = guest.agent().call(blocked, within).await {
        guest.note(Note::NoSysrq(error.to_string()));
    }
    tasks.map(drop)
}

/// The agent does not answer, although QEMU runs.
struct Silent;

/// The tasks in D state. Empty if the agent answers with an error, or if the guest has ended.
async fn stuck_tasks(agent: &Agent, within: Duration) -> Result<Vec<TaskState>, Silent> {
    match agent.tasks(&[], within).await {
        Err(error) if error.is_silence() => Err(Silent),
        tasks => Ok(tasks.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_agent_is_found_on_the_console() {
        let log = "[    2.1] x\niov-agent: PID 1 ends: the server has ended (killed by SIGKILL)\r\n\
                   [    2.2] Kernel panic - not syncing: Attempted to kill init!\n";
        let why = end_of_agent(log).unwrap();
        assert!(why.ends_with("kernel: the server has ended (killed by SIGKILL)"), "{why}");
        let log = "iov-agent: cannot write to the host: failed to write whole buffer\n";
        let why = end_of_agent(log).unwrap();
        assert!(why.ends_with("about the kernel: its agent says: failed to write whole buffer"), "{why}");
        let why = end_of_agent("iov-agent: cannot write to the host: ").unwrap();
        assert!(why.ends_with("so nothing is known about the kernel"), "{why}");
        assert_eq!(end_of_agent("[    2.2] Kernel panic - not syncing: Fatal exception\n"), None);
    }
}
