//! Cycles in the graph.
//!
//! A task is stuck if one of its edges leads only to tasks that are stuck, too: each edge must end for the wait to end,
//! and any of the tasks of an edge can end it. The tasks of which this can hold at once are what remains when the others
//! are taken away, one after the other. Among these the cycles are.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::graph::{Certainty, Edge, Wait};

/// The pids of all tasks that can never run again, by edges that are at least this sure.
pub(super) fn stuck(waits: &[Wait], sure: Certainty) -> HashSet<i32> {
    let mut stuck: HashSet<i32> = waits.iter().map(|wait| wait.pid).collect();
    loop {
        let remain: HashSet<i32> = waits
            .iter()
            .filter(|wait| stuck.contains(&wait.pid) && wait.edges.iter().any(|edge| holds(edge, sure, &stuck)))
            .map(|wait| wait.pid)
            .collect();
        if remain.len() == stuck.len() {
            return stuck;
        }
        stuck = remain;
    }
}

fn holds(edge: &Edge, sure: Certainty, stuck: &HashSet<i32>) -> bool {
    edge.certainty <= sure && !edge.to.is_empty() && edge.to.iter().all(|pid| stuck.contains(pid))
}

/// The stuck tasks, and whom each waits for.
struct Standstill<'a> {
    sure: Certainty,
    stuck: HashSet<i32>,
    by_pid: HashMap<i32, &'a Wait>,
}

impl<'a> Standstill<'a> {
    fn of(waits: &'a [Wait], sure: Certainty) -> Standstill<'a> {
        let by_pid = waits.iter().map(|wait| (wait.pid, wait)).collect();
        Standstill { sure, stuck: stuck(waits, sure), by_pid }
    }

    /// The stuck tasks that a stuck task waits for.
    fn next(&self, pid: i32) -> impl Iterator<Item = i32> {
        let edges = self.by_pid.get(&pid).map(|wait| wait.edges.as_slice()).unwrap_or_default();
        edges.iter().filter(|edge| holds(edge, self.sure, &self.stuck)).flat_map(|edge| edge.to.iter().copied())
    }

    /// The pids of the shortest cycle on which a task is. It begins with its lowest pid.
    fn cycle(&self, pid: i32) -> Option<Vec<i32>> {
        let mut pids = shortest(pid, |pid| self.next(pid))?;
        let lowest = pids.iter().enumerate().min_by_key(|(_, pid)| **pid).map_or(0, |(index, _)| index);
        pids.rotate_left(lowest);
        Some(pids)
    }

    fn waits(&self, pids: &[i32]) -> Vec<&'a Wait> {
        pids.iter().filter_map(|pid| self.by_pid.get(pid).copied()).collect()
    }
}

/// For each stuck task that is on a cycle, the shortest one; each cycle once. A cycle begins with its lowest pid.
pub(super) fn cycles(waits: &[Wait], sure: Certainty) -> Vec<Vec<&Wait>> {
    let standstill = Standstill::of(waits, sure);
    let starts: BTreeSet<i32> = standstill.stuck.iter().copied().collect();
    let mut seen = HashSet::new();
    let cycles = starts.into_iter().filter_map(|start| standstill.cycle(start));
    cycles.filter(|cycle| seen.insert(cycle.clone())).map(|cycle| standstill.waits(&cycle)).collect()
}

/// The cycle on which a task is, or the nearest for which it waits. None if the task is not stuck.
pub(super) fn before(waits: &[Wait], pid: i32, sure: Certainty) -> Option<Vec<&Wait>> {
    let standstill = Standstill::of(waits, sure);
    let (mut seen, mut queue) = (HashSet::from([pid]), VecDeque::from([pid]));
    while let Some(pid) = queue.pop_front().filter(|_| standstill.stuck.contains(&pid)) {
        if let Some(cycle) = standstill.cycle(pid) {
            return Some(standstill.waits(&cycle));
        }
        queue.extend(standstill.next(pid).filter(|pid| seen.insert(*pid)));
    }
    None
}

/// The way from a task to one of these, which sleep until somebody wants something of them: each task on it waits, by
/// exact edges, for the next. None if the task may go on without any of them.
pub(super) fn chain(waits: &[Wait], pid: i32, sleepers: &HashSet<i32>) -> Option<Vec<i32>> {
    let mut held = sleepers.clone();
    // Of each held task, the one for which it waits.
    let mut next = HashMap::new();
    loop {
        let before = held.len();
        for wait in waits.iter().filter(|wait| !sleepers.contains(&wait.pid)) {
            let edge = wait.edges.iter().find(|edge| holds(edge, Certainty::Exact, &held));
            if let Some(edge) = edge.filter(|_| held.insert(wait.pid)) {
                next.insert(wait.pid, edge.to[0]);
            }
        }
        if held.len() == before {
            break;
        }
    }
    let mut chain = vec![pid];
    while let Some(pid) = next.get(chain.last()?) {
        chain.push(*pid);
    }
    (chain.len() > 1).then_some(chain)
}

/// The shortest way from a task to itself.
fn shortest<I: Iterator<Item = i32>>(start: i32, next: impl Fn(i32) -> I) -> Option<Vec<i32>> {
    let mut before = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(pid) = queue.pop_front() {
        for other in next(pid) {
            if other == start {
                let mut way = vec![pid];
                while let Some(previous) = before.get(way.last()?) {
                    way.push(*previous);
                }
                way.reverse();
                return Some(way);
            }
            if let std::collections::hash_map::Entry::Vacant(entry) = before.entry(other) {
                entry.insert(pid);
                queue.push_back(other);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waits::graph::{Call, Object, Relation};

    fn wait(pid: i32, edges: &[(&[i32], Certainty)]) -> Wait {
        Wait {
            pid,
            at: Call { function: "somewhere".into(), returns_to: 0, line: None },
            object: Object::Queue { name: "something".into() },
            edges: edges
                .iter()
                .map(|(to, certainty)| Edge { to: to.to_vec(), certainty: *certainty, relation: Relation::Has })
                .collect(),
        }
    }

    fn pids(cycles: Vec<Vec<&Wait>>) -> Vec<Vec<i32>> {
        cycles.into_iter().map(|cycle| cycle.into_iter().map(|wait| wait.pid).collect()).collect()
    }

    use Certainty::{Exact, Guess};

    #[test]
    fn a_cycle_begins_with_its_lowest_pid_and_is_told_once() {
        let waits = [wait(7, &[(&[3], Exact)]), wait(5, &[(&[7], Exact)]), wait(3, &[(&[5], Exact)])];
        assert_eq!(pids(cycles(&waits, Exact)), [[3, 5, 7]]);
    }

    #[test]
    fn a_task_may_wait_for_itself() {
        assert_eq!(pids(cycles(&[wait(7, &[(&[7], Exact)])], Exact)), [[7]]);
    }

    #[test]
    fn a_chain_to_a_task_that_can_run_is_no_cycle() {
        let waits = [wait(3, &[(&[5], Exact)]), wait(5, &[(&[9], Exact)])];
        assert!(cycles(&waits, Exact).is_empty());
        assert!(stuck(&waits, Exact).is_empty());
    }

    #[test]
    fn who_waits_for_a_cycle_is_stuck_and_not_on_it() {
        let waits = [wait(3, &[(&[5], Exact)]), wait(5, &[(&[3], Exact)]), wait(9, &[(&[3], Exact)])];
        assert_eq!(pids(cycles(&waits, Exact)), [[3, 5]]);
        assert_eq!(stuck(&waits, Exact), HashSet::from([3, 5, 9]));
    }

    #[test]
    fn a_task_is_told_the_cycle_that_it_waits_for() {
        let waits = [
            wait(3, &[(&[5], Exact)]),
            wait(5, &[(&[3], Exact)]),
            wait(7, &[(&[7], Exact)]),
            wait(8, &[(&[7], Exact)]),
            wait(9, &[(&[8], Exact)]),
            wait(10, &[(&[11], Exact)]),
        ];
        let told = |pid| before(&waits, pid, Exact).map(|cycle| pids(vec![cycle]).swap_remove(0));
        assert_eq!((told(5), told(9), told(10), told(99)), (Some(vec![3, 5]), Some(vec![7]), None, None));
    }

    #[test]
    fn a_chain_leads_to_a_sleeper_by_exact_edges_only() {
        let waits = [
            wait(3, &[(&[5], Exact)]),
            wait(5, &[(&[9], Exact)]),
            wait(6, &[(&[9], Guess)]),
            wait(7, &[(&[9, 10], Exact)]),
            wait(8, &[(&[8], Exact)]),
        ];
        let to = |pid, sleepers: &[i32]| chain(&waits, pid, &sleepers.iter().copied().collect());
        assert_eq!((to(3, &[9]), to(5, &[9])), (Some(vec![3, 5, 9]), Some(vec![5, 9])));
        assert_eq!((to(6, &[9]), to(7, &[9]), to(8, &[9]), to(9, &[9])), (None, None, None, None));
        assert_eq!(to(7, &[9, 10]), Some(vec![7, 9]), "both of the process sleep");
        assert_eq!(to(3, &[]), None);
    }

    #[test]
    fn a_guess_proves_nothing() {
        let waits = [wait(3, &[(&[5], Exact)]), wait(5, &[(&[3], Guess)])];
        assert!(cycles(&waits, Exact).is_empty());
        assert_eq!(pids(cycles(&waits, Guess)), [[3, 5]]);
    }

    #[test]
    fn any_thread_of_a_process_that_can_run_opens_a_cycle() {
        let mut waits = vec![wait(3, &[(&[5, 6], Exact)]), wait(5, &[(&[3], Exact)])];
        assert!(cycles(&waits, Exact).is_empty(), "thread 6 may close the file");
        waits.push(wait(6, &[(&[3], Exact)]));
        assert_eq!(pids(cycles(&waits, Exact)), [[3, 5], [3, 6]]);
    }

    #[test]
    fn one_edge_that_is_stuck_is_enough() {
        let waits = [wait(3, &[(&[9], Exact), (&[5], Exact)]), wait(5, &[(&[3], Exact)])];
        assert_eq!(pids(cycles(&waits, Exact)), [[3, 5]]);
    }
}
