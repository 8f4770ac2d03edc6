//! Whether everything that was begun ends, or tasks are left that wait for each other.

use std::time::Duration;

use guest_protocol::TaskState;
use kernels::FailureKind;
use tokio::time::{Instant, sleep};

use super::{Error, Guest, Stuck};
use crate::classify::stack;
use crate::notes::Note;
use crate::notes::Place;
use crate::verdict::Verdict;
use crate::vm::agent::{AgentError, Operation};
use crate::vm::event_log::WaitError;

/// How what was begun ended.
#[derive(Debug)]
pub enum Ending {
    /// All of it is over.
    Done,
    /// It is not, and these tasks are stuck.
    Stuck(Vec<Stuck>),
}

/// Time between two looks at all tasks, on a machine with KVM, in seconds.
const LOOK: f64 = 0.7;
/// A task that sleeps at the same place in so many looks in a row is stuck.
const LOOKS: usize = 3;
/// How long to go on looking, in seconds, if nothing ends and nothing is stuck.
const GIVE_UP: f64 = 40.0;
/// Time between two looks at where one task is. No event tells that a task begins to wait.
const POLL: Duration = Duration::from_millis(50);
/// Where a task sleeps for a time of its own choice (`kernel/time/sleep_timeout.c`): uninterruptibly, but not stuck. The one
/// without `_state` is that of kernels before 5.16.
const NAPS: &[&str] = &["msleep", "usleep_range_state", "usleep_range", "schedule_timeout_uninterruptible"];

impl Guest {
    /// Waits until these operations are over and all removals are complete; or until it is sure that they never will be:
    /// tasks sleep uninterruptibly at the same place for look after look.
    ///
    /// # Errors
    /// Those of the waits. If nothing ended and nothing is stuck either, a deadline: no verdict.
    pub async fn ending(&self, operations: &[&Operation]) -> Result<Ending, Error> {
        self.ending_with(operations, async |_| Ok(())).await
    }

    /// The same, and then something more that must come, within the deadline that it is given.
    ///
    /// # Errors
    /// As [`Guest::ending`], and those of what must come.
    pub async fn ending_with(
        &self,
        operations: &[&Operation],
        more: impl AsyncFnOnce(Duration) -> Result<(), Error>,
    ) -> Result<Ending, Error> {
        let within = self.seconds(GIVE_UP);
        let mut all = std::pin::pin!(async {
            for operation in operations {
                over(operation, within).await?;
            }
            self.removed_within(within).await?;
            more(within).await
        });
        let mut looks: Vec<Vec<TaskState>> = Vec::new();
        loop {
            if let Ok(ended) = self.vm().starved().timeout(self.seconds(LOOK), &mut all).await {
                return ended.map(|()| Ending::Done);
            }
            let (asleep, napping) = self.asleep().await?;
            if napping.iter().any(is_ours) || self.some_are_busy(operations).await? {
                looks.clear();
                continue;
            }
            looks.push(asleep);
            let stuck = stuck_in(&looks);
            if !stuck.is_empty() {
                return Ok(Ending::Stuck(stuck));
            }
        }
    }

    /// Whether one of these operations is at work: whoever waits for a lock that it has is not stuck. A driver can be long
    /// at it with a card that is gone.
    async fn some_are_busy(&self, operations: &[&Operation]) -> Result<bool, Error> {
        for operation in operations {
            if operation.whereabouts(self.prompt()).await?.iter().any(is_busy) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The tasks that are stuck, whatever they belong to. Finding none is quick. As long as some task naps, whoever waits
    /// may be waiting for that one.
    ///
    /// # Errors
    /// The agent's.
    pub async fn stuck(&self) -> Result<Vec<Stuck>, Error> {
        let began = Instant::now();
        let mut watch = Watch::new(self.seconds(LOOK * (LOOKS - 1) as f64), self.seconds(GIVE_UP));
        let mut pause = POLL;
        loop {
            let (asleep, napping) = self.asleep().await?;
            if let Some(stuck) = watch.look(began.elapsed(), asleep, !napping.is_empty()) {
                return Ok(stuck);
            }
            sleep(pause).await;
            pause = self.seconds(LOOK).min(pause * 2);
        }
    }

    /// The tasks that sleep uninterruptibly until someone wakes them, and those that do so for a time.
    async fn asleep(&self) -> Result<(Vec<TaskState>, Vec<TaskState>), Error> {
        let mut tasks = self.agent().tasks(&[], self.prompt()).await?;
        tasks.retain(|task| task.state == 'D');
        let (napping, asleep) = tasks.into_iter().partition(is_napping);
        Ok((asleep, napping))
    }

    /// Waits until an operation's process waits in one of these functions, or the operation is over. Neither need come:
    /// after `patience` that is an answer, too.
    ///
    /// # Errors
    /// The agent's.
    pub async fn waits_in(
        &self,
        operation: &Operation,
        functions: &[&str],
        patience: Duration,
    ) -> Result<Place, Error> {
        let began = Instant::now();
        loop {
            match over(operation, POLL).await {
                Ok(()) => return Ok(Place::Over),
                Err(error) if !error.is_deadline() => return Err(error),
                Err(_) => {}
            }
            let tasks = operation.whereabouts(self.prompt()).await?;
            if let Some((_, function)) = tasks.iter().find_map(|task| found_in(task, functions)) {
                return Ok(Place::In(function));
            }
            if began.elapsed() > patience {
                return Ok(Place::Elsewhere);
            }
        }
    }

    /// Waits until some task of the guest, its kernel threads included, is in one of these functions.
    ///
    /// # Errors
    /// The agent's; a deadline, if none comes there in time.
    pub async fn task_in(&self, functions: &[&str], within: Duration) -> Result<TaskState, Error> {
        self.some_task(functions, within, "in", |task| found_in(task, functions).is_some()).await
    }

    /// Waits until so many tasks are, at least one.
    ///
    /// # Errors
    /// As [`Guest::task_in`].
    pub async fn tasks_in(&self, functions: &[&str], count: usize, within: Duration) -> Result<Vec<TaskState>, Error> {
        self.some_tasks(functions, count, within, "in", |task| found_in(task, functions).is_some()).await
    }

    /// Waits until some task waits for a lock right in one of these functions, not in one that they call. Where a function
    /// is also on the stack of others, which wait elsewhere, this tells them apart.
    ///
    /// # Errors
    /// As [`Guest::task_in`].
    pub async fn task_at(&self, functions: &[&str], within: Duration) -> Result<TaskState, Error> {
        self.some_task(functions, within, "right in", |task| is_at(task, functions)).await
    }

    /// Waits until some task, among those in D state or in one of these functions, is as asked. `how` it is to be in the
    /// functions is for the error.
    ///
    /// # Errors
    /// As [`Guest::task_in`].
    pub(crate) async fn some_task(
        &self,
        functions: &[&str],
        within: Duration,
        how: &str,
        is: impl Fn(&TaskState) -> bool,
    ) -> Result<TaskState, Error> {
        Ok(self.some_tasks(functions, 1, within, how, is).await?.swap_remove(0))
    }

    async fn some_tasks(
        &self,
        functions: &[&str],
        count: usize,
        within: Duration,
        how: &str,
        is: impl Fn(&TaskState) -> bool,
    ) -> Result<Vec<TaskState>, Error> {
        let began = Instant::now();
        loop {
            let tasks = self.agent().tasks(functions, self.prompt()).await?;
            let there: Vec<_> = tasks.iter().filter(|task| is(task)).cloned().collect();
            if there.len() >= count.max(1) {
                return Ok(there);
            }
            if began.elapsed() > within {
                let awaited = format!(
                    "{} {how} {}",
                    if count > 1 { format!("{count} tasks") } else { "a task".to_owned() },
                    functions.join(" or ")
                );
                let last = tasks.iter().map(describe).collect::<Vec<_>>().join("; ");
                let last = if last.is_empty() { "no task in D state".to_owned() } else { last };
                return Err(WaitError::Deadline { awaited, within, last }.into());
            }
            sleep(POLL).await;
        }
    }

    /// Waits until no task of the guest is in this function.
    ///
    /// # Errors
    /// The agent's; a deadline.
    pub async fn none_in(&self, function: &str, within: Duration) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let mut tasks = self.agent().tasks(&[function], self.prompt()).await?;
            tasks.retain(|task| stack::is_in(task, function));
            let Some(task) = tasks.first() else { return Ok(()) };
            if began.elapsed() > within {
                let awaited = format!("all tasks to leave {function}");
                return Err(WaitError::Deadline { awaited, within, last: describe(task) }.into());
            }
            sleep(POLL).await;
        }
    }

    /// The verdict on tasks that are stuck for ever. It names the first of these functions that any of them is in; if none
    /// is, what the first task waits in.
    pub fn deadlock(&self, stuck: &[Stuck], at: &[&str]) -> Verdict {
        let tasks: Vec<_> = stuck.iter().map(|stuck| stuck.task.clone()).collect();
        self.note_tasks(Note::Stuck, &tasks);
        let named = at.iter().find(|function| tasks.iter().any(|task| stack::is_in(task, function)));
        let first = || stuck.first().map(|stuck| stuck.function.clone()).unwrap_or_default();
        let function = named.map_or_else(first, |&function| function.to_owned());
        let who: Vec<_> = tasks.iter().map(describe).collect();
        Verdict::fail(FailureKind::Deadlock, &function, format!("for ever in D state: {}", who.join("; ")))
    }
}

/// Waits until an operation is over, however it ends.
async fn over(operation: &Operation, within: Duration) -> Result<(), Error> {
    match operation.done(within).await {
        Ok(_) | Err(AgentError::Failed { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn found_in(task: &TaskState, functions: &[&str]) -> Option<(TaskState, String)> {
    let function = functions.iter().find(|function| stack::is_in(task, function))?;
    Some((task.clone(), (*function).to_owned()))
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

fn is_busy(task: &TaskState) -> bool {
    task.state == 'R' || is_napping(task)
}

/// Whether a task waits for a lock right in one of these functions.
pub(crate) fn is_at(task: &TaskState, functions: &[&str]) -> bool {
    task.state == 'D' && stack::function(&task.stack).is_some_and(|function| functions.contains(&function))
}

fn describe(task: &TaskState) -> String {
    let function = stack::function(&task.stack).unwrap_or("an unknown place");
    format!("{} (pid {}) in {function}", task.comm, task.pid)
}

/// Looks at the tasks that sleep, until they tell who is stuck. Times are counted from the first look.
struct Watch {
    /// How far the first and the last look must be apart.
    enough: Duration,
    /// How long others may nap before that is no excuse any more.
    patience: Duration,
    since: Duration,
    looks: Vec<Vec<TaskState>>,
}

impl Watch {
    fn new(enough: Duration, patience: Duration) -> Watch {
        Watch { enough, patience, since: Duration::ZERO, looks: Vec::new() }
    }

    /// Takes the next look. None if it takes more looks to tell: whoever waits may be waiting for one who naps.
    fn look(&mut self, at: Duration, asleep: Vec<TaskState>, napping: bool) -> Option<Vec<Stuck>> {
        if self.looks.is_empty() {
            self.since = at;
        }
        self.looks.push(asleep);
        let suspects = unmoved(&self.looks);
        if suspects.is_empty() {
            return Some(suspects);
        }
        if napping && at < self.patience {
            self.looks.clear();
            return None;
        }
        (self.looks.len() >= LOOKS && at - self.since > self.enough).then_some(suspects)
    }
}

/// The tasks that are stuck, once there are looks enough to tell.
fn stuck_in(looks: &[Vec<TaskState>]) -> Vec<Stuck> {
    looks.len().checked_sub(LOOKS).map_or_else(Vec::new, |from| unmoved(&looks[from..]))
}

/// The tasks that were at the same place in each of these looks.
fn unmoved(looks: &[Vec<TaskState>]) -> Vec<Stuck> {
    let Some((last, before)) = looks.split_last() else { return Vec::new() };
    let same = |task: &&TaskState| {
        let is = |other: &TaskState| other.tid == task.tid && other.stack == task.stack;
        before.iter().all(|look| look.iter().any(is))
    };
    let stuck = |task: &TaskState| {
        let function = stack::function(&task.stack)?.to_owned();
        Some(Stuck { task: task.clone(), function })
    };
    last.iter().filter(same).filter_map(stuck).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(tid: i32, frames: &[&str]) -> TaskState {
        let stack = frames.iter().map(|&frame| frame.to_owned()).collect();
        TaskState { pid: tid, tid, comm: "t".to_owned(), state: 'D', wchan: String::new(), stack }
    }

    fn found(looks: &[Vec<TaskState>]) -> Vec<(i32, String)> {
        stuck_in(looks).into_iter().map(|stuck| (stuck.task.tid, stuck.function)).collect()
    }

    #[test]
    fn who_waits_right_in_a_function_is_not_who_waits_below_it() {
        let release = &["device_release_driver_internal"];
        let locked = task(1, &["__mutex_lock", "mutex_lock", release[0], "pci_stop_bus_device"]);
        let below = task(2, &["schedule_timeout", "vfio_unregister_group_dev", "vfio_pci_remove", release[0]]);
        assert!(is_at(&locked, release) && !is_at(&below, release));
        assert!(found_in(&below, release).is_some());
        assert!(!is_at(&TaskState { state: 'S', ..locked }, release));
    }

    #[test]
    fn who_runs_or_naps_is_at_work() {
        let asleep = task(1, &["__mutex_lock", "a"]);
        assert!(!is_busy(&asleep) && is_busy(&task(1, &["msleep", "igb_down"])));
        assert!(is_busy(&TaskState { state: 'R', ..asleep.clone() }) && !is_busy(&TaskState { state: 'S', ..asleep }));
    }

    #[test]
    fn whoever_may_be_waiting_for_one_who_naps_is_not_stuck() {
        let seconds = Duration::from_secs;
        let asleep = || vec![task(1, &["__mutex_lock", "a"])];
        let mut watch = Watch::new(seconds(4), seconds(100));
        for at in [0, 3, 6, 9] {
            assert!(watch.look(seconds(at), asleep(), true).is_none(), "at {at}");
        }
        // From then on nobody naps, and it takes as long as ever.
        assert!(watch.look(seconds(12), asleep(), false).is_none());
        assert!(watch.look(seconds(15), asleep(), false).is_none());
        assert_eq!(watch.look(seconds(18), asleep(), false).map(|stuck| stuck.len()), Some(1));
        // Who gets on was not stuck; and there is an end to patience.
        assert_eq!(watch.look(seconds(19), Vec::new(), true).map(|stuck| stuck.len()), Some(0));
        let mut watch = Watch::new(seconds(4), seconds(5));
        let looks = [0, 3, 6, 9, 12].map(|at| watch.look(seconds(at), asleep(), true).map(|stuck| stuck.len()));
        assert_eq!(looks, [None, None, None, None, Some(1)]);
    }

    #[test]
    fn who_stays_where_he_was_is_stuck() {
        let a = || task(1, &["__mutex_lock", "a", "f"]);
        let b = || task(2, &["__mutex_lock", "b"]);
        let moved = || task(2, &["__mutex_lock", "c"]);
        let looks = vec![vec![a(), b()], vec![a()], vec![a(), b()], vec![a(), moved()]];
        assert_eq!(found(&looks[..2]), []);
        assert_eq!(found(&looks), [(1, "a".to_owned())]);
        assert_eq!(found(&[vec![a()], vec![], vec![a()], vec![a()]]), []);
    }
}
