//! Who waits for whom, as a picture: a box for each task, and an arrow to the one that it waits for.

use maud::{Markup, html};

use crate::waits::{Certainty, Graph, Party, Relation, State, Wait, words};

const WIDTH: f64 = 494.0;
const LEFT: f64 = 8.0;
/// Room on the right for the arrow from the last task to the first.
const RETURN: f64 = 48.0;
/// Letters on a line of a box.
const LETTERS: usize = 60;
const LINE: f64 = 16.0;
/// Room between two boxes.
const ARROW: f64 = 30.0;

/// The tasks of a picture, each waiting for the next.
struct Chain<'a> {
    tasks: Vec<(i32, Option<&'a Wait>)>,
    /// The last waits for the first.
    closed: bool,
}

/// The pictures of a graph: each closed cycle; or else the chain of each task in D state to one that waits for nobody.
pub fn draw(graph: &Graph) -> Markup {
    let cycles = graph.deadlocks();
    let closed: Vec<_> = cycles
        .iter()
        .map(|cycle| Chain { tasks: cycle.iter().map(|wait| (wait.pid, Some(*wait))).collect(), closed: true })
        .collect();
    let chains = if closed.is_empty() { open(graph) } else { closed };
    html! {
        @for chain in &chains {
            (picture(graph, chain))
        }
    }
}

/// Chains of tasks of which none waits for another of its chain. Only the longest are told.
fn open(graph: &Graph) -> Vec<Chain<'_>> {
    let asleep = |pid: i32| graph.task(pid).is_some_and(|task| task.state == State::Uninterruptible);
    let mut chains: Vec<Vec<i32>> = Vec::new();
    for wait in graph.waits.iter().filter(|wait| asleep(wait.pid) && !wait.edges.is_empty()) {
        let mut chain = vec![wait.pid];
        while let Some(next) = chain
            .last()
            .and_then(|last| graph.wait(*last))
            .and_then(|wait| wait.edges.iter().flat_map(|edge| &edge.to).find(|pid| !chain.contains(pid)))
        {
            chain.push(*next);
        }
        chains.push(chain);
    }
    chains.sort_by_key(|chain| std::cmp::Reverse(chain.len()));
    let mut told: Vec<Vec<i32>> = Vec::new();
    for chain in chains {
        if !told.iter().any(|longer| chain.iter().all(|pid| longer.contains(pid))) {
            told.push(chain);
        }
    }
    let chain = |pids: Vec<i32>| Chain {
        tasks: pids.into_iter().map(|pid| (pid, graph.wait(pid).filter(|wait| !wait.edges.is_empty()))).collect(),
        closed: false,
    };
    told.into_iter().take(3).map(chain).collect()
}

/// A box: its lines, and where it is.
struct Shown {
    head: String,
    lines: Vec<String>,
    /// What the next task has to do with the wait.
    by: &'static str,
    top: f64,
    height: f64,
}

fn picture(graph: &Graph, chain: &Chain<'_>) -> Markup {
    let mut top = 8.0;
    let mut boxes = Vec::new();
    for (pid, wait) in &chain.tasks {
        let (head, lines) = texts(graph.task(*pid), *pid, *wait);
        let height = 12.0 + LINE * (1 + lines.len()) as f64;
        boxes.push(Shown { head, lines, by: by(*wait), top, height });
        top += height + ARROW;
    }
    let height = top - ARROW + 8.0;
    let right = WIDTH - RETURN;
    let names: Vec<_> = boxes.iter().map(|one| one.head.as_str()).collect();
    let about = match chain.closed {
        true => format!("{} wait for each other in a circle", names.join(", ")),
        false => format!("{}: each waits for the next", names.join(", ")),
    };
    html! {
        svg.waits viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(about) {
            @for (one, next) in boxes.iter().zip(boxes.iter().skip(1)) {
                @let x = (LEFT + right) / 2.0;
                (arrow(&format!("M{x} {}V{}", one.top + one.height, next.top - 7.0), x, next.top, "down"))
                text.by x=(x + 10.0) y=(one.top + one.height + 19.0) { (one.by) }
            }
            @if let (true, Some(first), Some(last)) = (chain.closed, boxes.first(), boxes.last()) {
                @let (from, to) = (last.top + last.height / 2.0, first.top + first.height / 2.0);
                (arrow(&format!("M{right} {from}H{}V{to}H{}", right + 22.0, right + 7.0), right, to, "left"))
                @let (x, y) = (right + 34.0, (from + to) / 2.0);
                text.by x=(x) y=(y) text-anchor="middle" transform=(format!("rotate(-90 {x} {y})")) { (last.by) }
            }
            @for one in &boxes {
                rect.task x=(LEFT) y=(one.top) width=(right - LEFT) height=(one.height) rx="4" {}
                text.head x=(LEFT + 8.0) y=(one.top + 17.0) { (one.head) }
                @for (line, number) in one.lines.iter().zip(1_u16..) {
                    text x=(LEFT + 8.0) y=(one.top + 17.0 + LINE * f64::from(number)) { (line) }
                }
            }
        }
    }
}

fn arrow(path: &str, x: f64, y: f64, to: &str) -> Markup {
    let tip = if to == "down" { format!("M{x} {y}l-5 -9h10z") } else { format!("M{x} {y}l9 -5v10z") };
    html! {
        path.arrow d=(path) {}
        path.tip d=(tip) {}
    }
}

/// What the next task has to do with a wait. What is only a guess is called one.
fn by(wait: Option<&Wait>) -> &'static str {
    match wait.and_then(|wait| wait.edges.first()).map(|edge| (edge.relation, edge.certainty)) {
        Some((Relation::Has, Certainty::Exact)) => "held up by",
        Some((Relation::Ahead, Certainty::Exact)) => "after",
        Some((_, Certainty::Guess)) => "held up, probably, by",
        None => "",
    }
}

/// What a box says of a task: who it is, where it sleeps, and for what.
fn texts(task: Option<&Party>, pid: i32, wait: Option<&Wait>) -> (String, Vec<String>) {
    let head = match task {
        Some(task) => format!("{} [{}]", words::named(task), task.state),
        None => format!("pid {pid}"),
    };
    let lines = match (wait, task) {
        (Some(wait), _) => {
            let place = format!("waits in {}", words::place(&wait.at));
            let mut lines = wrapped(&place);
            lines.extend(wrapped(&format!("for {}", words::object(&wait.object))));
            lines
        }
        (None, Some(task)) => wrapped(&words::doing(task)),
        (None, None) => Vec::new(),
    };
    (head, lines)
}

fn wrapped(text: &str) -> Vec<String> {
    let options = textwrap::Options::new(LETTERS).subsequent_indent("    ");
    textwrap::wrap(text, options).into_iter().map(|line| line.replace("    ", "\u{2003}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `first` waits for a lock that `second` has, and that one, if `closed`, for one that `first` has.
    fn graph(closed: bool, certainty: &str) -> Graph {
        let task = |pid: i32, comm: &str| {
            json!({"pid": pid, "tgid": pid, "comm": comm, "state": "D", "on_cpu": false, "kernel_thread": false,
                "switches": 1, "stack": [{"function": "schedule", "returns_to": 1}, {"function": "show", "returns_to": 1,
                "line": "drivers/pci/iov.c:401"}]})
        };
        let wait = |pid: i32, for_pid: Option<i32>| {
            let edges: Vec<_> =
                for_pid.iter().map(|to| json!({"to": [to], "certainty": certainty, "relation": "has"})).collect();
            json!({"pid": pid, "at": {"function": "show", "returns_to": 1, "line": "drivers/pci/iov.c:401"},
                "for": {"kind": "mutex", "name": format!("<lock {pid}>"), "owner_is_gone": false}, "edges": edges})
        };
        let second = closed.then_some(1);
        serde_json::from_value(json!({
            "tasks": [task(1, "first"), task(2, "second")],
            "waits": [wait(1, Some(2)), wait(2, second)],
        }))
        .unwrap()
    }

    #[test]
    fn a_cycle_has_an_arrow_back() {
        let picture = draw(&graph(true, "exact")).into_string();
        assert!(
            picture.contains("aria-label=\"first (pid 1) [D], second (pid 2) [D] wait for each other in a circle\"")
        );
        assert_eq!((picture.matches("class=\"arrow\"").count(), picture.matches("class=\"task\"").count()), (2, 2));
        assert!(picture.contains("waits in show (drivers/pci/iov.c:401)") && picture.contains("for &lt;lock 1&gt;"));
    }

    #[test]
    fn a_chain_has_none_and_a_guess_is_called_one() {
        let picture = draw(&graph(false, "exact")).into_string();
        assert_eq!(picture.matches("class=\"arrow\"").count(), 1);
        assert!(picture.contains("each waits for the next") && picture.contains(">held up by<"), "{picture}");
        let guess = draw(&graph(true, "guess")).into_string();
        assert!(guess.contains("held up, probably, by") && !guess.contains("in a circle"), "{guess}");
        assert!(draw(&Graph::default()).into_string().is_empty());
    }
}
