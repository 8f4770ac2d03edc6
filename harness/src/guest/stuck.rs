//! Telling a task that is stuck in the kernel from one that is slow: by what the kernel says of it, never by time alone.
//!
//! A task is stuck if it sleeps uninterruptibly at the same place in look after look: in [`LOOKS`] of them, from the first to
//! the last of which passes as much time as between so many regular looks. Meanwhile nobody may be at work for whom it
//! may be waiting: no task of ours and none of the kernel's may nap, or be elsewhere than at the look before, and no operation
//! that is asked about may run. All who wait for something that may never come look in this way.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use guest_protocol::TaskState;
use tokio::time::{Instant, sleep};

use super::place::{POLL, describe};
use super::{Error, Guest};
use crate::classify::stack;
use crate::vm::agent::Operation;
use crate::vm::event_log::WaitError;
use crate::vm::starved::Late;

/// A task that sleeps uninterruptibly at one place of the kernel.
#[derive(Clone, Debug)]
pub struct Stuck {
    /// The task.
    pub task: TaskState,
    /// The function that wanted to wait.
    pub function: String,
}

/// What became of something awaited.
#[derive(Debug)]
pub enum Came<T> {
    /// It came.
    Yes(T),
    /// It did not: its task is stuck.
    Stuck(Stuck),
}

/// How long something prompt may take before one looks where the tasks are, on a machine with KVM, in seconds.
const FIRST: f64 = 0.2;
/// Time between two looks, on a machine with KVM, in seconds.
const LOOK: f64 = 0.7;
/// A task that sleeps at the same place in so many looks in a row is stuck.
const LOOKS: usize = 3;
/// How long to go on looking if nothing comes and nothing is stuck, on a machine with KVM, in seconds.
const GIVE_UP: f64 = 40.0;
/// For how long work of the kernel's own threads is an excuse for those who may be waiting for them, on a machine with KVM,
/// in seconds. Some have work for ever, and hold nothing.
const AT_WORK: f64 = 30.0;
/// For at least so long in any guest, in seconds: for as long as the kernel waits for a device after a reset, a nap at a time
/// (`drivers/pci/pci.c`, `PCIE_RESET_READY_POLL_MS`), and some.
const LONGEST_NAP: f64 = 65.0;
/// And at least so much longer goes the looking on, so that who is stuck then is found, in seconds.
const AFTER_NAPS: f64 = 10.0;
/// Where a task sleeps for a time of its own choice (`kernel/time/sleep_timeout.c`): uninterruptibly, but not stuck. The one
/// without `_state` is that of kernels before 5.16.
const NAPS: &[&str] = &["msleep", "usleep_range_state", "usleep_range", "schedule_timeout_uninterruptible"];

impl Guest {
    /// Awaits something of an operation that should come promptly; when it does not, finds out whether the operation's
    /// process is stuck in the kernel.
    ///
    /// # Errors
    /// Those of the wait, which gets its deadline. If nothing came and nothing is stuck either, that passes: no verdict.
    pub async fn unless_stuck<T>(
        &self,
        operation: &Operation,
        wait: impl AsyncFnOnce(Duration) -> Result<T, Error>,
    ) -> Result<Came<T>, Error> {
        let came = self.or_stuck(&[operation], Whose::Theirs, wait(self.give_up())).await?;
        Ok(match came {
            Ok(came) => Came::Yes(came),
            Err(mut stuck) => Came::Stuck(stuck.swap_remove(0)),
        })
    }

    /// Awaits something of these operations, or tasks that are stuck, at least one.
    pub(super) async fn or_stuck<T>(
        &self,
        operations: &[&Operation],
        whose: Whose,
        coming: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Vec<Stuck>>, Error> {
        let mut coming = pin!(coming);
        let (began, mut watch, mut pause) = (Instant::now(), self.stuck_watch(), FIRST);
        loop {
            if let Ok(came) = self.vm().starved().timeout(self.seconds(pause), &mut coming).await {
                return came.map(Ok);
            }
            pause = LOOK;
            let look = self.look(operations).await?;
            let theirs: Vec<_> = look.asked_about.iter().map(|task| task.tid).collect();
            if let Seen::Stuck(mut stuck) = watch.take(began.elapsed(), look) {
                stuck.retain(|stuck| whose == Whose::Anybodys || theirs.contains(&stuck.task.tid));
                if !stuck.is_empty() {
                    return Ok(Err(stuck));
                }
            }
        }
    }

    /// The tasks that are stuck, whatever they belong to. Finding none is quick.
    ///
    /// # Errors
    /// The agent's; a deadline if those who sleep may be waiting for one of ours who naps, again and again: no verdict.
    pub async fn stuck(&self) -> Result<Vec<Stuck>, Error> {
        let starved = self.vm().starved();
        let patience = starved.patience(self.give_up());
        let (began, mut watch, mut pause) = (Instant::now(), self.stuck_watch(), POLL);
        loop {
            let look = self.look(&[]).await?;
            let last = look.asleep.first().map(describe).unwrap_or_default();
            match watch.take(began.elapsed(), look) {
                Seen::Nobody => return Ok(Vec::new()),
                Seen::Stuck(stuck) => return Ok(stuck),
                Seen::Unsure => {}
            }
            if let Some(Late { within, starved }) = patience.is_over() {
                let awaited = "all tasks to come to rest".to_owned();
                return Err(WaitError::Deadline { awaited, within, starved, last }.into());
            }
            sleep(pause).await;
            pause = self.seconds(LOOK).min(pause * 2);
        }
    }

    /// How long to go on looking.
    pub(super) fn give_up(&self) -> Duration {
        self.seconds(GIVE_UP).max(Duration::from_secs_f64(LONGEST_NAP + AFTER_NAPS))
    }

    fn stuck_watch(&self) -> Watch {
        let patience = self.seconds(AT_WORK).max(Duration::from_secs_f64(LONGEST_NAP));
        Watch::new(self.seconds(LOOK * (LOOKS - 1) as f64), patience)
    }

    async fn look(&self, operations: &[&Operation]) -> Result<Look, Error> {
        let mut asked_about = Vec::new();
        for operation in operations {
            asked_about.extend(operation.whereabouts(self.prompt()).await?);
        }
        let mut tasks = self.agent().tasks(&[], self.prompt()).await?;
        tasks.retain(|task| task.state == 'D');
        let (napping, asleep) = tasks.into_iter().partition(is_napping);
        Ok(Look { asleep, napping, asked_about })
    }

    /// The tasks that wait for some owner to release a vfio device
    /// ([`WAITS_FOR_OWNER`]).
    ///
    /// # Errors
    /// The agent's.
    pub async fn removers_waiting(&self) -> Result<Vec<TaskState>, Error> {
        let mut tasks = self.agent().tasks(WAITS_FOR_OWNER, self.prompt()).await?;
        tasks.retain(|task| WAITS_FOR_OWNER.iter().any(|function| stack::is_in(task, function)));
        Ok(tasks)
    }
}

/// Where the remover of a vfio device waits for its owner: `drivers/vfio/vfio_main.c`, since 5.13 and before.
pub const WAITS_FOR_OWNER: &[&str] = &["vfio_unregister_group_dev", "vfio_del_group_dev"];

/// Whose tasks are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those of the operations.
    Theirs,
    /// All of the guest's.
    Anybodys,
}

/// What one look finds.
#[derive(Clone, Debug, Default)]
struct Look {
    /// The tasks that sleep uninterruptibly until someone wakes them.
    asleep: Vec<TaskState>,
    /// Those that do so for a time.
    napping: Vec<TaskState>,
    /// The tasks of the operations that it is about.
    asked_about: Vec<TaskState>,
}

impl Look {
    /// Whether somebody is seen at work. A driver can be long at it with a card that is gone.
    fn shows_work(&self, of_kernel: bool) -> bool {
        let is_busy = |task: &TaskState| task.state == 'R' || is_napping(task);
        self.asked_about.iter().any(is_busy) || self.napping.iter().any(|task| of_kernel || is_ours(task))
    }

    /// Whether somebody has got on since an earlier look: is asleep elsewhere, or of an operation that is asked about.
    fn shows_work_since(&self, before: &Look, of_kernel: bool) -> bool {
        let elsewhere = |task: &TaskState, then: &TaskState| task.tid == then.tid && !is_where(task, then);
        let has_moved = |task: &TaskState| before.asleep.iter().any(|then| elsewhere(task, then));
        let has_stayed = |then: &TaskState| self.asked_about.iter().any(|task| is_where(task, then));
        !before.asked_about.iter().all(has_stayed)
            || self.asleep.iter().any(|task| (of_kernel || is_ours(task)) && has_moved(task))
    }

    fn has_asleep(&self, task: &TaskState) -> bool {
        self.asleep.iter().any(|other| is_where(other, task))
    }
}

/// Whether this is the same task, in the same state at the same place.
fn is_where(task: &TaskState, other: &TaskState) -> bool {
    (task.tid, task.state, &task.stack) == (other.tid, other.state, &other.stack)
}

fn is_napping(task: &TaskState) -> bool {
    NAPS.iter().any(|nap| stack::is_in(task, nap))
}

/// Whether a task is of an operation, be it one that was asked about or one that goes on beside those: the agent names them
/// (`guest-images/agent/src/job.rs`). In 6.1 a reset of a card that is gone goes on for a minute, a nap at a time, with the
/// device lock that its removal waits for.
fn is_ours(task: &TaskState) -> bool {
    task.comm.starts_with("iov-")
}

/// Looks at the tasks that sleep, until they tell who is stuck. Times are counted from its beginning.
struct Watch {
    /// How far the first and the last look at a task must be apart.
    span: Duration,
    /// For how long work of the kernel's own threads is an excuse.
    patience: Duration,
    /// The looks since somebody was last seen at work.
    looks: Vec<(Duration, Look)>,
}

/// What the looks so far tell.
#[derive(Debug)]
enum Seen {
    /// Nobody who was asleep at the first look still is where he was.
    Nobody,
    /// It takes more of them.
    Unsure,
    /// These are stuck.
    Stuck(Vec<Stuck>),
}

impl Watch {
    fn new(span: Duration, patience: Duration) -> Watch {
        Watch { span, patience, looks: Vec::new() }
    }

    /// Takes the next look.
    fn take(&mut self, at: Duration, look: Look) -> Seen {
        let of_kernel = at < self.patience;
        let suspects = look.asleep.iter().any(|task| self.looks.iter().all(|(_, before)| before.has_asleep(task)));
        let since_last = self.looks.last().is_some_and(|(_, before)| look.shows_work_since(before, of_kernel));
        let now = look.shows_work(of_kernel);
        if now || since_last {
            self.looks.clear();
        }
        if !now {
            self.looks.push((at, look));
        }
        match self.stuck(at) {
            stuck if !stuck.is_empty() => Seen::Stuck(stuck),
            _ if suspects => Seen::Unsure,
            _ => Seen::Nobody,
        }
    }

    /// Those who are stuck by now.
    fn stuck(&self, now: Duration) -> Vec<Stuck> {
        let is_stuck = |task: &&TaskState| {
            let there = self.looks.iter().rev().take_while(|(_, look)| look.has_asleep(task));
            let (looks, since) = there.fold((0, now), |(looks, _), (at, _)| (looks + 1, *at));
            looks >= LOOKS && now - since >= self.span
        };
        let stuck = |task: &TaskState| {
            let function = stack::function(&task.stack)?.to_owned();
            Some(Stuck { task: task.clone(), function })
        };
        let asleep = self.looks.last().map_or(&[][..], |(_, look)| &look.asleep);
        asleep.iter().filter(is_stuck).filter_map(stuck).collect()
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

    fn asleep(tasks: &[TaskState]) -> Look {
        Look { asleep: tasks.to_vec(), ..Look::default() }
    }

    fn beside(napping: TaskState) -> Look {
        Look { napping: vec![napping], ..asleep(&[a()]) }
    }

    fn ours(tid: i32, frames: &[&str]) -> TaskState {
        TaskState { comm: "iov-write".to_owned(), ..task(tid, frames) }
    }

    /// Who is stuck after each of these looks, at these seconds; `-` nobody, `?` that is not known yet.
    fn seen(watch: &mut Watch, looks: &[(u64, Look)]) -> Vec<String> {
        let told = |(at, look): &(u64, Look)| match watch.take(Duration::from_secs(*at), look.clone()) {
            Seen::Nobody => "-".to_owned(),
            Seen::Unsure => "?".to_owned(),
            Seen::Stuck(stuck) => stuck.iter().map(|stuck| stuck.function.as_str()).collect::<Vec<_>>().join(" "),
        };
        looks.iter().map(told).collect()
    }

    fn watch() -> Watch {
        Watch::new(Duration::from_secs(4), Duration::from_secs(100))
    }

    #[test]
    fn who_stays_where_he_was_is_stuck() {
        let looks = [asleep(&[a(), b()]), asleep(&[a()]), asleep(&[a(), b()])];
        let looks: Vec<_> = [0, 2, 4].into_iter().zip(looks).collect();
        assert_eq!(seen(&mut watch(), &looks), ["?", "?", "a"]);
        // Who was elsewhere once has to be looked at as often again.
        let moved = || task(1, &["__mutex_lock", "c"]);
        let looks = [a(), a(), moved(), a(), a(), a()].map(|task| asleep(&[task]));
        let looks: Vec<_> = [0, 2, 4, 6, 8, 10].into_iter().zip(looks).collect();
        assert_eq!(seen(&mut watch(), &looks), ["?", "?", "-", "-", "?", "a"]);
    }

    #[test]
    fn whoever_may_be_waiting_for_one_who_got_on_is_not_stuck() {
        // As it was seen: a reset waits for the device lock, which a write has; the write waits elsewhere first, and then
        // for the reset.
        let reset = || ours(57, &["schedule_preempt_disabled", "__mutex_lock", "pci_reset_function"]);
        let write = |function| ours(54, &["schedule", function]);
        let look = |function| asleep(&[reset(), write(function)]);
        let looks = [look("pci_enable_sriov"), look("pci_wait_cfg"), look("pci_wait_cfg"), look("pci_wait_cfg")];
        let looks: Vec<_> = [0, 2, 4, 6].into_iter().zip(looks).collect();
        assert_eq!(seen(&mut watch(), &looks), ["?", "?", "?", "pci_reset_function pci_wait_cfg"]);
        // The kernel's threads are an excuse, too, for as long as there is patience.
        let thread = |function| asleep(&[a(), task(9, &["schedule", function])]);
        let looks = [thread("one"), thread("other"), thread("one"), thread("other")];
        for (began, told) in [(0, "?"), (100, "a")] {
            let looks: Vec<_> = (0..).map(|look| began + 2 * look).zip(looks.clone()).collect();
            assert_eq!(seen(&mut watch(), &looks)[3], told);
        }
        // So is an operation that was asked about and is over.
        let about = |tasks: &[TaskState]| Look { asked_about: tasks.to_vec(), ..asleep(&[a()]) };
        let waits = || TaskState { state: 'S', ..ours(8, &["pipe_read"]) };
        let looks = [about(&[waits()]), about(&[]), about(&[]), about(&[])];
        let looks: Vec<_> = [0, 2, 4, 6].into_iter().zip(looks).collect();
        assert_eq!(seen(&mut watch(), &looks), ["?", "?", "?", "a"]);
    }

    #[test]
    fn looks_must_be_enough_and_far_enough_apart() {
        assert_eq!(seen(&mut watch(), &[(0, asleep(&[a()])), (50, asleep(&[a()]))]), ["?", "?"]);
        let looks: Vec<_> = [0, 1, 2, 3, 4].into_iter().map(|at| (at, asleep(&[a()]))).collect();
        assert_eq!(seen(&mut watch(), &looks), ["?", "?", "?", "?", "a"]);
    }

    #[test]
    fn who_is_nowhere_to_be_found_or_gets_on_is_not_stuck() {
        assert_eq!(seen(&mut watch(), &[(0, asleep(&[]))]), ["-"]);
        let looks = [(0, asleep(&[a()])), (2, asleep(&[b()])), (4, asleep(&[]))];
        assert_eq!(seen(&mut watch(), &looks), ["?", "-", "-"]);
        let nowhere: Vec<_> = [0, 2, 4].into_iter().map(|at| (at, asleep(&[task(3, &["__schedule"])]))).collect();
        assert_eq!(seen(&mut watch(), &nowhere), ["?", "?", "?"]);
    }

    #[test]
    fn whoever_may_be_waiting_for_one_who_naps_is_not_stuck() {
        let nap = || beside(task(9, &["msleep", "pciehp_ist"]));
        let mut watch = watch();
        assert_eq!(seen(&mut watch, &[(0, nap()), (3, nap()), (6, nap()), (9, nap())]), ["?"; 4]);
        // From then on nobody naps, and it takes as long as ever.
        let looks: Vec<_> = [12, 15, 18].into_iter().map(|at| (at, asleep(&[a()]))).collect();
        assert_eq!(seen(&mut watch, &looks), ["?", "?", "a"]);
        // There is an end to patience with the kernel's threads.
        assert_eq!(seen(&mut watch, &[(99, nap()), (102, nap()), (104, nap()), (106, nap())]), ["?", "?", "?", "a"]);
    }

    #[test]
    fn whoever_may_be_waiting_for_one_of_ours_is_not_stuck_as_long_as_that_is_at_work() {
        let nap = || beside(ours(9, &["msleep", "pci_dev_wait"]));
        let looks: Vec<_> = [99, 102, 104, 106].into_iter().map(|at| (at, nap())).collect();
        assert_eq!(seen(&mut watch(), &looks), ["?"; 4]);
        // One that was asked about may as well be running.
        let running = TaskState { state: 'R', ..task(8, &[]) };
        for (task, told) in [(running.clone(), "?"), (TaskState { state: 'S', ..running }, "a")] {
            let look = || Look { asked_about: vec![task.clone()], ..asleep(&[a()]) };
            assert_eq!(seen(&mut watch(), &[(0, look()), (2, look()), (4, look())])[2], told);
        }
    }
}
