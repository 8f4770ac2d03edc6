//! The stacks of the tasks that matter to a verdict, with file and line where the last look found them.

use maud::{Markup, html};

use crate::evidence::CellRecord;
use crate::text::counted;
use crate::waits::{Graph, words};

/// The most tasks whose stacks are on the page. `stacks.txt` has all.
const MOST: usize = 6;

pub fn draw(record: &CellRecord, graph: Option<&Graph>) -> Markup {
    let all = stacks(record, graph);
    if all.is_empty() {
        return html! {};
    }
    html! {
        details {
            summary { "Stacks of " (counted(all.len(), "task", "tasks")) }
            @for (task, lines) in all.iter().take(MOST) {
                h6 { (task) }
                pre.stack { @for line in lines { (line) "\n" } }
            }
            @if all.len() > MOST { p.quiet { (all.len() - MOST) " more are in the files of the cell." } }
        }
    }
}

/// The tasks on closed cycles and those that wait for them, or else those that the verdict names.
fn stacks(record: &CellRecord, graph: Option<&Graph>) -> Vec<(String, Vec<String>)> {
    let stuck = graph.map(Graph::stuck).unwrap_or_default();
    let noted = record.observations.tasks();
    let is_told = |pid: i32| match stuck.is_empty() {
        true => noted.iter().any(|(_, task)| task.tid == pid),
        false => stuck.contains(&pid),
    };
    let of_graph = graph.into_iter().flat_map(|graph| &graph.tasks).filter(|task| is_told(task.pid));
    let looked: Vec<_> = of_graph
        .map(|task| {
            let head = format!("{} [{}]", words::named(task), task.state);
            (head, task.stack.iter().map(words::place).collect())
        })
        .collect();
    if !looked.is_empty() {
        return looked;
    }
    let head = |what: &str, task: &guest_protocol::TaskState| {
        format!("{} (pid {}) [{}], {what}", task.comm, task.tid, task.state)
    };
    noted.iter().map(|(what, task)| (head(what, task), task.stack.clone())).collect()
}
