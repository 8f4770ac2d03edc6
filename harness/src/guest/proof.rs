//! Proof of a deadlock: tasks that wait for each other in a closed cycle.
//!
//! A look at the guest's memory ([`crate::waits`]) says who waits for whom. A cycle of exact edges can never open by
//! itself. It must be there in two looks, and no task of it may have run between them, although others have. In the same
//! way two looks prove that an operation is held up by a process of user space.

use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use guest_protocol::PROCESS_PREFIX;
use kernels::FailureKind;

use super::Guest;
use crate::notes::{Looks, Note};
use crate::verdict::{Failure, NEXT_WAIT, Verdict};
use crate::vm::NoGraph;
use crate::waits::{Graph, Party, State, Wait, look, words};

/// Time between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// A cycle: pid of each task, and how often it was switched out.
type Cycle = Vec<(i32, u64)>;

/// What the last look found.
#[derive(Debug, Default)]
pub(super) struct Proof {
    before: Vec<Cycle>,
    /// Of each operation that is held up by a process of user space, the chain to it. None if these are of no interest.
    chains: Option<Vec<Cycle>>,
    /// How often all tasks were switched out, in sum.
    switches: u64,
}

/// What two looks prove.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// The pids of all tasks that can never run again.
    pub stuck: Vec<i32>,
    /// The pids of operations that are held up, and in words by whom.
    pub held_up: Vec<(i32, String)>,
}

impl Proof {
    /// One that also finds operations which are held up by a process of user space.
    pub fn with_chains() -> Proof {
        Proof { chains: Some(Vec::new()), ..Proof::default() }
    }

    /// Whether the last look found something. Then the next one proves it, or that it is not so.
    pub fn is_near(&self) -> bool {
        !self.before.is_empty() || self.chains.as_ref().is_some_and(|chains| !chains.is_empty())
    }

    /// Whether a cycle stands since the look before, and the chains that do. A look counts only if the guest has run since
    /// the one before: on a busy host it may not have.
    fn add(&mut self, graph: &Graph) -> (bool, Vec<Cycle>) {
        let all = graph.tasks.iter().fold(0, |sum: u64, task| sum.wrapping_add(task.switches));
        if std::mem::replace(&mut self.switches, all) == all {
            return (false, Vec::new());
        }
        let switches = |pid: i32| Some((pid, graph.task(pid)?.switches));
        let cycle = |waits: &Vec<&Wait>| waits.iter().map(|wait| switches(wait.pid)).collect::<Option<Cycle>>();
        let now: Vec<Cycle> = graph.deadlocks().iter().filter_map(cycle).collect();
        let stands = now.iter().any(|cycle| self.before.contains(cycle));
        self.before = now;
        let chain = |task: &Party| graph.held_up(task.pid)?.into_iter().map(switches).collect::<Option<Cycle>>();
        let stand = self.chains.as_mut().map(|before| {
            let operations = graph.tasks.iter().filter(|task| task.comm.starts_with(PROCESS_PREFIX));
            let now: Vec<Cycle> = operations.filter_map(chain).collect();
            let stand = now.iter().filter(|chain| before.contains(chain)).cloned().collect();
            *before = now;
            stand
        });
        (stands, stand.unwrap_or_default())
    }
}

impl Guest {
    /// Looks at who waits for whom in the guest. None if that is not possible; a note says why.
    pub(crate) async fn look(&self) -> Option<Graph> {
        let kernel = self.of_kernel.looks.as_ref()?;
        match self.vm.look(kernel, look).await {
            Ok(graph) => {
                self.note_look(!graph.deadlocks().is_empty());
                Some(graph)
            }
            Err(NoGraph::Runs) => None,
            Err(error) => {
                self.note(Note::NoGraph(error.to_string()));
                None
            }
        }
    }

    /// Dumps the guest's memory into a file. If that is not possible, a note says why.
    pub(crate) async fn dump(&self, path: &Path) {
        if let Err(error) = self.vm.dump(self.of_kernel.looks.as_ref(), path).await {
            self.note(Note::NoDump(error.to_string()));
        }
    }

    /// The graph with the source lines of all calls, if the kernel has any. The guest stands meanwhile, so this does not
    /// wait for another thread.
    pub(crate) fn with_lines(&self, mut graph: Graph) -> Graph {
        if let Some(lines) = &self.of_kernel.lines
            && let Err(error) = graph.add_lines(|addresses| lines.find(addresses))
        {
            self.note(Note::NoLines(error.to_string()));
        }
        graph
    }

    /// Looks again. None if that proves nothing.
    pub(super) async fn prove(&self, proof: &mut Proof) -> Option<Proven> {
        let graph = self.look().await?;
        let (stands, chains) = proof.add(&graph);
        if !stands && chains.is_empty() {
            return None;
        }
        let graph = self.with_lines(graph);
        let held_up = chains.iter().filter_map(|chain| {
            let pids: Vec<_> = chain.iter().map(|(pid, _)| *pid).collect();
            Some((*pids.first()?, words::chain(&graph, &pids)))
        });
        let mut proven = Proven { stuck: Vec::new(), held_up: held_up.collect() };
        if stands {
            proven.stuck = graph.stuck();
            *self.proven.lock().unwrap_or_else(PoisonError::into_inner) = Some(graph);
        }
        Some(proven)
    }

    /// Whether a deadlock is proven.
    pub(crate) fn has_proof(&self) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The verdict on a deadlock at this function: with the cycle, if one is proven that keeps this task, and else with
    /// these words. Without a function, it is the place of the cycle ([`place`]), or else where this task waits.
    pub(super) fn deadlock_of(&self, pid: i32, function: Option<&str>, waits: &str, otherwise: String) -> Verdict {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let cycle = proven.as_ref().and_then(|graph| Some((graph, graph.deadlock_of(pid)?)));
        let of_cycle = cycle.as_ref().and_then(|(graph, cycle)| place(graph, cycle));
        let function = Some(function.or(of_cycle).unwrap_or(waits).to_owned());
        let (summary, cycle) = match &cycle {
            Some((graph, cycle)) => {
                let of_all = |words: fn(&Graph, &Wait) -> String| cycle.iter().map(|wait| words(graph, wait)).collect();
                let lines: Vec<String> = of_all(words::line);
                (lines.join(NEXT_WAIT), Some(of_all(words::short)))
            }
            None => (otherwise, self.has_looked().then(Vec::new)),
        };
        Verdict::Fail(Failure { kind: FailureKind::Deadlock, function, summary, cycle })
    }

    /// Whether the guest could be looked at, each time.
    pub(super) fn has_looked(&self) -> bool {
        let notes = self.notes();
        notes.iter().any(|note| matches!(note, Note::Looks(_)))
            && !notes.iter().any(|note| matches!(note, Note::NoGraph(_)))
    }

    /// Counts a look.
    fn note_look(&self, has_cycle: bool) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = notes.iter().find_map(|note| match note {
            Note::Looks(looks) => Some(*looks),
            _ => None,
        });
        let Looks { taken, with_cycle } = known.unwrap_or_default();
        notes.add(Note::Looks(Looks { taken: taken + 1, with_cycle: with_cycle + u32::from(has_cycle) }));
    }
}

/// The function at which a cycle is told: where its first task in D state waits. One that sleeps interruptibly, such as the
/// kernel thread that waits for a vfio user, waits for whom the others hinder.
fn place<'a>(graph: &Graph, cycle: &[&'a Wait]) -> Option<&'a str> {
    let is_stuck = |wait: &&&Wait| graph.task(wait.pid).is_some_and(|task| task.state == State::Uninterruptible);
    let wait = cycle.iter().find(is_stuck).or(cycle.first())?;
    Some(wait.at.function.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waits::{Call, Certainty, Edge, Object, Relation};

    fn task(pid: i32, switches: u64) -> Party {
        Party {
            pid,
            tgid: pid,
            comm: "t".to_owned(),
            state: State::Uninterruptible,
            on_cpu: false,
            kernel_thread: false,
            switches,
            stack: Vec::new(),
        }
    }

    /// Two tasks that wait for each other.
    fn graph(switches: u64, certainty: Certainty) -> Graph {
        let wait = |pid, other| Wait {
            pid,
            at: Call { function: "f".to_owned(), returns_to: 1, line: None },
            object: Object::Queue { name: "q".to_owned() },
            edges: vec![Edge { to: vec![other], certainty, relation: Relation::Has }],
        };
        Graph { tasks: vec![task(1, switches), task(2, 7)], waits: vec![wait(1, 2), wait(2, 1)] }
    }

    /// The same with a third task, which was switched out so often.
    fn beside(switches: u64, graph: Graph) -> Graph {
        Graph { tasks: [graph.tasks, vec![task(3, switches)]].concat(), ..graph }
    }

    #[test]
    fn a_cycle_must_be_seen_twice_and_nobody_on_it_may_have_run() {
        let mut proof = Proof::default();
        let look = |others, switches| beside(others, graph(switches, Certainty::Exact));
        assert!(!proof.add(&look(1, 3)).0 && proof.is_near());
        assert!(!proof.add(&look(2, 4)).0, "a task has run");
        assert!(!proof.add(&beside(3, Graph::default())).0 && !proof.is_near());
        assert!(!proof.add(&look(4, 4)).0, "not in the look before");
        assert!(!proof.add(&look(4, 4)).0 && proof.is_near(), "the guest has not run");
        assert!(proof.add(&look(5, 4)).0);
    }

    #[test]
    fn a_cycle_is_told_at_the_place_of_a_task_in_d_state() {
        let mut graph = graph(3, Certainty::Exact);
        graph.waits[1].at.function = "g".to_owned();
        let told = |graph: &Graph| place(graph, &graph.deadlocks()[0]).map(str::to_owned);
        assert_eq!(told(&graph).as_deref(), Some("f"));
        graph.tasks[0].state = State::Interruptible;
        assert_eq!(told(&graph).as_deref(), Some("g"));
        graph.tasks[1].state = State::Interruptible;
        assert_eq!(told(&graph).as_deref(), Some("f"), "the first, if none is");
    }

    #[test]
    fn a_guess_proves_nothing() {
        let mut proof = Proof::default();
        assert!([1, 2].iter().all(|others| !proof.add(&beside(*others, graph(3, Certainty::Guess))).0));
    }

    /// An operation that waits for a process, which sleeps in this function.
    fn held_up(others: u64, switches: u64, function: &str) -> Graph {
        let call = Call { function: function.to_owned(), returns_to: 1, line: None };
        let sleeper = Party { state: State::Interruptible, stack: vec![call], ..task(2, switches) };
        let operation = Party { comm: format!("{PROCESS_PREFIX}read"), ..task(1, 5) };
        let waits = graph(0, Certainty::Exact).waits.into_iter().take(1).collect();
        beside(others, Graph { tasks: vec![operation, sleeper], waits })
    }

    #[test]
    fn an_operation_is_held_up_by_a_process_that_sleeps_and_has_not_run_between_two_looks() {
        let mut proof = Proof::with_chains();
        assert!(proof.add(&held_up(1, 7, "pipe_read")).1.is_empty() && proof.is_near());
        assert!(proof.add(&held_up(2, 8, "pipe_read")).1.is_empty(), "the sleeper has run");
        assert_eq!(proof.add(&held_up(3, 8, "pipe_read")), (false, vec![vec![(1, 5), (2, 8)]]));
        assert!(proof.add(&held_up(4, 8, "hrtimer_nanosleep")).1.is_empty() && !proof.is_near(), "it wakes by itself");
        let mut without = Proof::default();
        assert!((1..4).all(|others| without.add(&held_up(others, 8, "pipe_read")).1.is_empty()) && !without.is_near());
    }
}
