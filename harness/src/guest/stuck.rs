//! Telling a task that is stuck in the kernel from a slow one: by its state and stack, never by time alone.
//!
//! A task is stuck if it sleeps uninterruptibly at the same place in [`SAMPLES`] samples in a row. The first and the
//! last of them must be as far apart as that many regular samples. During this time no task may be active for which the
//! stuck task may wait. A task of an operation or of the kernel is active if it is in a timed sleep, or if its stack
//! differs from the one in the sample before. A task of an awaited operation is also active if it is running. All waits
//! for an event that may never come use this detection.
//!
//! It takes seconds. If the guest can be looked at, a proof ([`super::proof`]) comes before it. In a held guest, samples
//! are only taken of a wait that looks have not decided for some seconds.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use guest_protocol::{PROCESS_PREFIX, TaskState};

use super::place::{POLL, describe};
use super::proof::{LOOK, Proof, Proven};
use super::{Error, Guest};
use crate::classify::stack;
use crate::vm::agent::Operation;
use crate::vm::event_log::WaitError;
use crate::vm::starved::Late;
use crate::waits::{Party, State};

/// A task that sleeps uninterruptibly at one place of the kernel.
#[derive(Clone, Debug)]
pub struct Stuck {
    /// The task.
    pub task: TaskState,
    /// The function that waits: the first on its stack that is not part of the scheduler or the locking code.
    pub function: String,
    /// Who holds it up, in words: the chain to a process of user space, if a proof found it.
    pub held_up: Option<String>,
}

impl Stuck {
    /// None if no function on its stack is known to wait.
    fn of(task: &TaskState) -> Option<Stuck> {
        let function = stack::function(&task.stack)?.to_owned();
        Some(Stuck { task: task.clone(), function, held_up: None })
    }
}

/// The result of a wait.
#[derive(Debug)]
pub enum Came<T> {
    /// The awaited event came.
    Yes(T),
    /// The event did not come: the task is stuck.
    Stuck(Stuck),
}

/// How long to wait before the first sample is taken, on a machine with KVM, in seconds.
const FIRST_SAMPLE: f64 = 0.2;
/// Time between two samples, on a machine with KVM, in seconds.
const INTERVAL: f64 = 0.7;
/// The longest time between two looks that find nothing, on a machine with KVM, in seconds.
const RARE: f64 = 5.0;
/// How long looks alone judge a held guest that can be looked at, on a machine with KVM, in seconds. They prove nearly every
/// deadlock, and waiting costs nothing there. A sample costs more CPU time than many operations do.
const BY_LOOKS: f64 = 8.0;
/// A task that sleeps at the same place in this many samples in a row is stuck.
const SAMPLES: usize = 3;
/// How long to take samples if the awaited event does not come and no task is stuck, on a machine with KVM, in seconds.
const GIVE_UP: f64 = 40.0;
/// Until this time no task counts as stuck while a kernel thread is active, as it may wait for that thread. On a
/// machine with KVM, in seconds. Some kernel threads are active forever, and hold no lock.
const KERNEL_ACTIVITY: f64 = 30.0;
/// The minimum of [`KERNEL_ACTIVITY`] on any machine, in seconds. The kernel waits this long for a device after a
/// reset, in short sleeps (`drivers/pci/pci.c`, `PCIE_RESET_READY_POLL_MS`); a margin is added.
const LONGEST_WAIT: f64 = 65.0;
/// Samples are taken for at least this much longer, so that a task that is stuck after that wait is found, in seconds.
const MARGIN: f64 = 10.0;
/// Functions in which a task sleeps uninterruptibly until a timer expires (`kernel/time/sleep_timeout.c`): it is not
/// stuck. Kernels before 5.16 have `usleep_range`, without `_state`.
const TIMED_SLEEPS: &[&str] = &["msleep", "usleep_range_state", "usleep_range", "schedule_timeout_uninterruptible"];

impl Guest {
    /// Waits for an event of an operation that should come at once. If it does not come, finds out whether the
    /// operation's process is stuck in the kernel.
    ///
    /// # Errors
    /// Those of `wait`, which gets the deadline. The deadline passes if the event does not come and the process is not
    /// stuck: then there is no verdict.
    pub async fn unless_stuck<T>(
        &self,
        operation: &Operation,
        wait: impl AsyncFnOnce(Duration) -> Result<T, Error>,
    ) -> Result<Came<T>, Error> {
        let came = self.or_stuck(&[operation], Scope::Operations, wait(self.give_up())).await?;
        Ok(match came {
            Ok(came) => Came::Yes(came),
            Err(mut stuck) => Came::Stuck(stuck.swap_remove(0)),
        })
    }

    /// Waits for an event of these operations. Returns the stuck tasks instead if there are any.
    pub(super) async fn or_stuck<T>(
        &self,
        operations: &[&Operation],
        scope: Scope,
        coming: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Vec<Stuck>>, Error> {
        let mut coming = pin!(coming);
        // Only what is asked of one operation may be answered by who holds it up. Others may wait for as long as they like.
        let proof = if scope == Scope::Operations { Proof::with_chains() } else { Proof::default() };
        let (mut detector, mut proof) = (self.stuck_detector(), proof);
        let (time, began) = (self.vm().time(), self.vm().time().now());
        let mut due = began + self.seconds(FIRST_SAMPLE);
        let (mut is_postponed, mut pause) = (false, self.seconds(INTERVAL));
        loop {
            if let Ok(came) = time.timeout(self.until_look(due.saturating_sub(time.now()), &proof), &mut coming).await {
                return came.map(Ok);
            }
            let proven = self.prove(&mut proof).await;
            if proven.is_none() && time.now() < due {
                continue;
            }
            // The next look may prove it, and a look costs a tenth of a sample.
            if proven.is_none() && proof.is_near() && !is_postponed {
                (is_postponed, due) = (true, time.now() + LOOK);
                continue;
            }
            if proven.is_none() && self.looks_judge() && time.now() - began < self.seconds(BY_LOOKS) {
                (due, pause) = (time.now() + pause, (pause * 2).min(self.seconds(RARE)));
                continue;
            }
            let sample = self.sample(operations).await?;
            let tids: Vec<_> = sample.of_operations.iter().map(|task| task.tid).collect();
            let proven = proven.map(|proven| sample.proven(&proven)).unwrap_or_default();
            let seen = match detector.add(time.now().saturating_sub(began), sample) {
                Finding::Stuck(stuck) => stuck,
                Finding::None | Finding::Undecided => Vec::new(),
            };
            for mut stuck in [proven, seen] {
                stuck.retain(|stuck| scope == Scope::AllTasks || tids.contains(&stuck.task.tid));
                if !stuck.is_empty() {
                    return Ok(Err(stuck));
                }
            }
            due = time.now() + self.seconds(INTERVAL);
        }
    }

    /// Waits for an event. Returns the stuck tasks instead if a cycle proves that there are any. A task that only stays where
    /// it is is no proof: whoever holds it up may still let it go.
    pub(super) async fn or_proven<T>(
        &self,
        operation: &Operation,
        coming: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Vec<Stuck>>, Error> {
        let (mut coming, mut proof) = (pin!(coming), Proof::default());
        let mut next = self.seconds(INTERVAL);
        loop {
            let pause = if proof.is_near() { LOOK } else { next };
            // Looks become rare: one at a guest with thousands of tasks takes seconds of the host's time.
            next = (next * 2).min(self.seconds(RARE));
            if let Ok(came) = self.vm().time().timeout(pause, &mut coming).await {
                return came.map(Ok);
            }
            if let Some(proven) = self.prove(&mut proof).await {
                let sample = self.sample(&[operation]).await?;
                let is_own = |stuck: &Stuck| sample.of_operations.iter().any(|task| task.tid == stuck.task.tid);
                let mut stuck = sample.proven(&proven);
                // Those of the operation come first: the verdict names the place of the first.
                stuck.sort_by_key(|stuck| !is_own(stuck));
                if !stuck.is_empty() {
                    return Ok(Err(stuck));
                }
            }
        }
    }

    /// Whether the guest is held, and could be looked at each time.
    fn looks_judge(&self) -> bool {
        self.vm().gate().is_some() && self.has_looked()
    }

    /// How long to wait until the next look, if the next sample is due after this time. While nothing is suspected, a
    /// held guest is only looked at when a sample is due: each look before it would cost an alarm.
    fn until_look(&self, sample: Duration, proof: &Proof) -> Duration {
        if self.vm().gate().is_some() && !proof.is_near() { sample } else { sample.min(LOOK) }
    }

    /// All stuck tasks of the guest. If no task sleeps uninterruptibly, this takes one look, or one sample.
    ///
    /// # Errors
    /// The agent's; a deadline if sleeping tasks may be waiting for tasks that stay active: then there is no verdict.
    pub async fn stuck(&self) -> Result<Vec<Stuck>, Error> {
        let (time, began) = (self.vm().time(), self.vm().time().now());
        let patience = time.patience(self.give_up());
        let (mut detector, mut proof, mut pause) = (self.stuck_detector(), Proof::default(), POLL);
        let is_blocked = |task: &Party| task.state == State::Uninterruptible;
        if self.look().await.is_some_and(|graph| !graph.tasks.iter().any(is_blocked)) {
            return Ok(Vec::new());
        }
        loop {
            let sample = self.sample(&[]).await?;
            let last = sample.blocked.first().map(describe).unwrap_or_default();
            if !sample.blocked.is_empty()
                && let Some(proven) = self.prove(&mut proof).await
            {
                let stuck = sample.proven(&proven);
                if !stuck.is_empty() {
                    return Ok(stuck);
                }
            }
            match detector.add(time.now().saturating_sub(began), sample) {
                Finding::None => return Ok(Vec::new()),
                Finding::Stuck(stuck) => return Ok(stuck),
                Finding::Undecided => {}
            }
            if let Some(Late { within, starved }) = patience.is_over() {
                let awaited = "all tasks to end, or to be stuck".to_owned();
                return Err(WaitError::Deadline { awaited, within, starved, last }.into());
            }
            time.pause(pause).await;
            pause = self.seconds(INTERVAL).min(pause * 2);
        }
    }

    /// How long to take samples before a deadline is reported.
    pub(super) fn give_up(&self) -> Duration {
        self.seconds(GIVE_UP).max(Duration::from_secs_f64(LONGEST_WAIT + MARGIN))
    }

    fn stuck_detector(&self) -> Detector {
        let patience = self.seconds(KERNEL_ACTIVITY).max(Duration::from_secs_f64(LONGEST_WAIT));
        Detector::new(self.seconds(INTERVAL * (SAMPLES - 1) as f64), patience)
    }

    async fn sample(&self, operations: &[&Operation]) -> Result<Sample, Error> {
        let mut of_operations = Vec::new();
        for operation in operations {
            of_operations.extend(operation.whereabouts(self.prompt()).await?);
        }
        let mut tasks = self.agent().tasks(&[], self.prompt()).await?;
        tasks.retain(|task| task.state == 'D');
        let (timed, blocked) = tasks.into_iter().partition(is_in_timed_sleep);
        Ok(Sample { blocked, timed, of_operations })
    }

    /// The tasks that wait for an owner to release a vfio device ([`WAITS_FOR_OWNER`]).
    ///
    /// # Errors
    /// The agent's.
    pub async fn removers_waiting(&self) -> Result<Vec<TaskState>, Error> {
        let mut tasks = self.agent().tasks(WAITS_FOR_OWNER, self.prompt()).await?;
        tasks.retain(|task| WAITS_FOR_OWNER.iter().any(|function| stack::is_in(task, function)));
        Ok(tasks)
    }
}

/// The functions in which a removal of a vfio device waits for the owner (`drivers/vfio/vfio_main.c`): the first since
/// 5.13, the second before.
pub const WAITS_FOR_OWNER: &[&str] = &["vfio_unregister_group_dev", "vfio_del_group_dev"];

/// Which stuck tasks count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The tasks of the operations.
    Operations,
    /// All tasks of the guest.
    AllTasks,
}

/// The states of the tasks at one time.
#[derive(Clone, Debug, Default)]
struct Sample {
    /// Tasks that sleep uninterruptibly until they are woken.
    blocked: Vec<TaskState>,
    /// Tasks that sleep uninterruptibly until a timer expires.
    timed: Vec<TaskState>,
    /// All tasks of the awaited operations.
    of_operations: Vec<TaskState>,
}

impl Sample {
    /// Whether a task is running or in a timed sleep. A driver may take long to release a card that is removed. Kernel
    /// threads count only with `of_kernel`.
    fn shows_activity(&self, of_kernel: bool) -> bool {
        let is_busy = |task: &TaskState| task.state == 'R' || is_in_timed_sleep(task);
        self.of_operations.iter().any(is_busy) || self.timed.iter().any(|task| of_kernel || is_operation(task))
    }

    /// Whether a task has made progress since an earlier sample: it is blocked at another place, or a task of an
    /// awaited operation has changed its state. Kernel threads count only with `of_kernel`.
    fn shows_activity_since(&self, before: &Sample, of_kernel: bool) -> bool {
        let differs = |task: &TaskState, then: &TaskState| task.tid == then.tid && !is_same(task, then);
        let has_moved = |task: &TaskState| before.blocked.iter().any(|then| differs(task, then));
        let has_stayed = |then: &TaskState| self.of_operations.iter().any(|task| is_same(task, then));
        !before.of_operations.iter().all(has_stayed)
            || self.blocked.iter().any(|task| (of_kernel || is_operation(task)) && has_moved(task))
    }

    /// The tasks among these that sleep uninterruptibly. The others wait interruptibly.
    fn proven(&self, proven: &Proven) -> Vec<Stuck> {
        let held_up = |tid: i32| proven.held_up.iter().find(|(pid, _)| *pid == tid).map(|(_, words)| words.clone());
        let of = |task: &TaskState| match held_up(task.tid) {
            None if !proven.stuck.contains(&task.tid) => None,
            held_up => Some(Stuck { held_up, ..Stuck::of(task)? }),
        };
        self.blocked.iter().filter_map(of).collect()
    }

    fn has_blocked(&self, task: &TaskState) -> bool {
        self.blocked.iter().any(|other| is_same(other, task))
    }
}

/// Whether both are the same task, in the same state and with the same stack.
fn is_same(task: &TaskState, other: &TaskState) -> bool {
    (task.tid, task.state, &task.stack) == (other.tid, other.state, &other.stack)
}

fn is_in_timed_sleep(task: &TaskState) -> bool {
    TIMED_SLEEPS.iter().any(|function| stack::is_in(task, function))
}

/// Whether a task belongs to any operation, awaited or not, by the name that the agent gives its process. In 6.1 the reset of a removed card takes a minute, in short sleeps. It holds the
/// device lock for which the card's removal waits.
fn is_operation(task: &TaskState) -> bool {
    task.comm.starts_with(PROCESS_PREFIX)
}

/// Collects samples until it is known which tasks are stuck. Times are counted from its start.
struct Detector {
    /// The minimum time between the first and the last sample of a stuck task.
    span: Duration,
    /// Until this time no task counts as stuck while a kernel thread is active.
    patience: Duration,
    /// The samples since a task was last active.
    samples: Vec<(Duration, Sample)>,
}

/// The result of the samples so far.
#[derive(Debug)]
enum Finding {
    /// No task that was blocked in the first sample is still blocked at the same place.
    None,
    /// More samples are needed.
    Undecided,
    /// These tasks are stuck.
    Stuck(Vec<Stuck>),
}

impl Detector {
    fn new(span: Duration, patience: Duration) -> Detector {
        Detector { span, patience, samples: Vec::new() }
    }

    /// Adds the next sample.
    fn add(&mut self, at: Duration, sample: Sample) -> Finding {
        let of_kernel = at < self.patience;
        let suspects =
            sample.blocked.iter().any(|task| self.samples.iter().all(|(_, before)| before.has_blocked(task)));
        let since_last = self.samples.last().is_some_and(|(_, before)| sample.shows_activity_since(before, of_kernel));
        let now = sample.shows_activity(of_kernel);
        if now || since_last {
            self.samples.clear();
        }
        if !now {
            self.samples.push((at, sample));
        }
        match self.stuck(at) {
            stuck if !stuck.is_empty() => Finding::Stuck(stuck),
            _ if suspects => Finding::Undecided,
            _ => Finding::None,
        }
    }

    /// The tasks that are stuck at this time.
    fn stuck(&self, now: Duration) -> Vec<Stuck> {
        let is_stuck = |task: &&TaskState| {
            let there = self.samples.iter().rev().take_while(|(_, sample)| sample.has_blocked(task));
            let (samples, since) = there.fold((0, now), |(samples, _), (at, _)| (samples + 1, *at));
            samples >= SAMPLES && now - since >= self.span
        };
        let blocked = self.samples.last().map_or(&[][..], |(_, sample)| &sample.blocked);
        blocked.iter().filter(is_stuck).filter_map(Stuck::of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(tid: i32, frames: &[&str]) -> TaskState {
        let stack = frames.iter().map(|&frame| frame.to_owned()).collect();
        TaskState { pid: tid, tid, comm: "t".to_owned(), state: 'D', wchan: String::new(), stack }
    }

    fn a() -> TaskState {
        task(1, &["__mutex_lock", "a", "f"])
    }

    fn b() -> TaskState {
        task(2, &["__mutex_lock", "b"])
    }

    fn blocked(tasks: &[TaskState]) -> Sample {
        Sample { blocked: tasks.to_vec(), ..Sample::default() }
    }

    fn beside(timed: TaskState) -> Sample {
        Sample { timed: vec![timed], ..blocked(&[a()]) }
    }

    fn operation(tid: i32, frames: &[&str]) -> TaskState {
        TaskState { comm: "iov-write".to_owned(), ..task(tid, frames) }
    }

    /// The functions of the stuck tasks after each of these samples, taken at these seconds. `-`: none. `?`: undecided.
    fn seen(detector: &mut Detector, samples: &[(u64, Sample)]) -> Vec<String> {
        let shown = |(at, sample): &(u64, Sample)| match detector.add(Duration::from_secs(*at), sample.clone()) {
            Finding::None => "-".to_owned(),
            Finding::Undecided => "?".to_owned(),
            Finding::Stuck(stuck) => stuck.iter().map(|stuck| stuck.function.as_str()).collect::<Vec<_>>().join(" "),
        };
        samples.iter().map(shown).collect()
    }

    fn detector() -> Detector {
        Detector::new(Duration::from_secs(4), Duration::from_secs(100))
    }

    #[test]
    fn a_task_that_stays_at_its_place_is_stuck() {
        let samples = [blocked(&[a(), b()]), blocked(&[a()]), blocked(&[a(), b()])];
        let samples: Vec<_> = [0, 2, 4].into_iter().zip(samples).collect();
        assert_eq!(seen(&mut detector(), &samples), ["?", "?", "a"]);
        // After a task has moved, the full number of samples is needed again.
        let moved = || task(1, &["__mutex_lock", "c"]);
        let samples = [a(), a(), moved(), a(), a(), a()].map(|task| blocked(&[task]));
        let samples: Vec<_> = [0, 2, 4, 6, 8, 10].into_iter().zip(samples).collect();
        assert_eq!(seen(&mut detector(), &samples), ["?", "?", "-", "-", "?", "a"]);
    }

    #[test]
    fn a_task_is_not_stuck_while_another_makes_progress() {
        // A case that occurred: a reset waits for the device lock, which a write holds. The write first waits at
        // another place, and then for the reset.
        let reset = || operation(57, &["schedule_preempt_disabled", "__mutex_lock", "pci_reset_function"]);
        let write = |function| operation(54, &["schedule", function]);
        let sample = |function| blocked(&[reset(), write(function)]);
        let samples =
            [sample("pci_enable_sriov"), sample("pci_wait_cfg"), sample("pci_wait_cfg"), sample("pci_wait_cfg")];
        let samples: Vec<_> = [0, 2, 4, 6].into_iter().zip(samples).collect();
        assert_eq!(seen(&mut detector(), &samples), ["?", "?", "?", "pci_reset_function pci_wait_cfg"]);
        // Progress of kernel threads counts too, until `patience` has passed.
        let thread = |function| blocked(&[a(), task(9, &["schedule", function])]);
        let samples = [thread("one"), thread("other"), thread("one"), thread("other")];
        for (began, shown) in [(0, "?"), (100, "a")] {
            let samples: Vec<_> = (0..).map(|sample| began + 2 * sample).zip(samples.clone()).collect();
            assert_eq!(seen(&mut detector(), &samples)[3], shown);
        }
        // The end of an awaited operation counts as progress.
        let about = |tasks: &[TaskState]| Sample { of_operations: tasks.to_vec(), ..blocked(&[a()]) };
        let waits = || TaskState { state: 'S', ..operation(8, &["pipe_read"]) };
        let samples = [about(&[waits()]), about(&[]), about(&[]), about(&[])];
        let samples: Vec<_> = [0, 2, 4, 6].into_iter().zip(samples).collect();
        assert_eq!(seen(&mut detector(), &samples), ["?", "?", "?", "a"]);
    }

    #[test]
    fn samples_must_be_enough_and_far_enough_apart() {
        assert_eq!(seen(&mut detector(), &[(0, blocked(&[a()])), (50, blocked(&[a()]))]), ["?", "?"]);
        let samples: Vec<_> = [0, 1, 2, 3, 4].into_iter().map(|at| (at, blocked(&[a()]))).collect();
        assert_eq!(seen(&mut detector(), &samples), ["?", "?", "?", "?", "a"]);
    }

    #[test]
    fn a_task_that_moves_or_has_no_known_function_is_not_stuck() {
        assert_eq!(seen(&mut detector(), &[(0, blocked(&[]))]), ["-"]);
        let samples = [(0, blocked(&[a()])), (2, blocked(&[b()])), (4, blocked(&[]))];
        assert_eq!(seen(&mut detector(), &samples), ["?", "-", "-"]);
        let unknown: Vec<_> = [0, 2, 4].into_iter().map(|at| (at, blocked(&[task(3, &["__schedule"])]))).collect();
        assert_eq!(seen(&mut detector(), &unknown), ["?", "?", "?"]);
    }

    #[test]
    fn a_task_is_not_stuck_while_a_kernel_thread_is_in_a_timed_sleep() {
        let sleeping = || beside(task(9, &["msleep", "pciehp_ist"]));
        let mut detector = detector();
        assert_eq!(
            seen(&mut detector, &[(0, sleeping()), (3, sleeping()), (6, sleeping()), (9, sleeping())]),
            ["?"; 4]
        );
        // From here on no task is in a timed sleep, and the usual number of samples is needed.
        let samples: Vec<_> = [12, 15, 18].into_iter().map(|at| (at, blocked(&[a()]))).collect();
        assert_eq!(seen(&mut detector, &samples), ["?", "?", "a"]);
        // After `patience` has passed, kernel threads do not count any more.
        assert_eq!(
            seen(&mut detector, &[(99, sleeping()), (102, sleeping()), (104, sleeping()), (106, sleeping())]),
            ["?", "?", "?", "a"]
        );
    }

    #[test]
    fn a_task_is_not_stuck_while_an_operation_is_active() {
        let sleeping = || beside(operation(9, &["msleep", "pci_dev_wait"]));
        let samples: Vec<_> = [99, 102, 104, 106].into_iter().map(|at| (at, sleeping())).collect();
        assert_eq!(seen(&mut detector(), &samples), ["?"; 4]);
        // A task of an awaited operation that is running counts too.
        let running = TaskState { state: 'R', ..task(8, &[]) };
        for (task, shown) in [(running.clone(), "?"), (TaskState { state: 'S', ..running }, "a")] {
            let sample = || Sample { of_operations: vec![task.clone()], ..blocked(&[a()]) };
            assert_eq!(seen(&mut detector(), &[(0, sample()), (2, sample()), (4, sample())])[2], shown);
        }
    }
}
