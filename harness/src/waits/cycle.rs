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

/// For each stuck task that is on a cycle, the shortest one; each cycle once. A cycle begins with its lowest pid.
pub(super) fn cycles(waits: &[Wait], sure: Certainty) -> Vec<Vec<&Wait>> {
    let stuck = stuck(waits, sure);
    let by_pid: HashMap<i32, &Wait> = waits.iter().map(|wait| (wait.pid, wait)).collect();
    let next = |pid: i32| {
        let edges = by_pid.get(&pid).map(|wait| wait.edges.as_slice()).unwrap_or_default();
        edges.iter().filter(|edge| holds(edge, sure, &stuck)).flat_map(|edge| edge.to.iter().copied())
    };
    let starts: BTreeSet<i32> = stuck.iter().copied().collect();
    let mut seen = HashSet::new();
    let mut cycles = Vec::new();
    for start in starts {
        let Some(mut pids) = shortest(start, next) else { continue };
        let lowest = pids.iter().enumerate().min_by_key(|(_, pid)| **pid).map_or(0, |(index, _)| index);
        pids.rotate_left(lowest);
        if seen.insert(pids.clone()) {
            cycles.push(pids.iter().filter_map(|pid| by_pid.get(pid).copied()).collect());
        }
    }
    cycles
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
