//! The graph in words: one line for each wait.

use std::fmt::Write as _;

use super::functions::only_waits;
use super::graph::{Call, Certainty, Edge, Graph, Mode, Object, Party, Relation, State, Wait};

/// A wait in one line: who waits, where, for what, and who has it.
pub fn line(graph: &Graph, wait: &Wait) -> String {
    let mut line = match graph.task(wait.pid) {
        Some(task) => format!("{} [{}]", named(task), task.state),
        None => format!("pid {}", wait.pid),
    };
    let Object::Unknown { what } = &wait.object else {
        let _ = write!(line, " waits in {} for {}", place(&wait.at), object(&wait.object));
        push_holders(&mut line, graph, wait);
        return line;
    };
    let _ = write!(line, " waits in {} for {what}", place(&wait.at));
    line
}

/// A chain of tasks as [`Graph::held_up`] gives it: what each waits for, and where the last sleeps.
pub fn chain(graph: &Graph, pids: &[i32]) -> String {
    let one = |pid: &i32| match (graph.wait(*pid).filter(|wait| !wait.edges.is_empty()), graph.task(*pid)) {
        (Some(wait), _) => line(graph, wait),
        (None, Some(task)) => rest(task),
        (None, None) => format!("pid {pid}"),
    };
    pids.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// A wait without what differs from run to run, source lines and who has the object: `TASK waits in FUNCTION for WHAT`.
pub fn short(graph: &Graph, wait: &Wait) -> String {
    let who = graph.task(wait.pid).map_or("a task", |task| task.comm.as_str());
    format!("{who} waits in {} for {}", wait.at.function, object(&wait.object))
}

/// The whole graph: deadlocks, suspicions, other waits, and the tasks at the end of chains.
pub fn text(graph: &Graph) -> String {
    let (deadlocks, suspicions) = (graph.deadlocks(), graph.suspicions());
    let mut text = String::new();
    let mut block = |title: &str, waits: &[&Wait]| {
        if !waits.is_empty() {
            let _ = writeln!(text, "{title}:");
            waits.iter().for_each(|wait| text += &format!("  {}\n", line(graph, wait)));
        }
    };
    deadlocks.iter().for_each(|cycle| block("deadlock", cycle));
    suspicions.iter().for_each(|cycle| block("perhaps a deadlock", cycle));
    let told = |wait: &Wait| deadlocks.iter().chain(&suspicions).flatten().any(|other| other.pid == wait.pid);
    let others: Vec<&Wait> = graph.waits.iter().filter(|wait| !told(wait) && matters(graph, wait)).collect();
    block("others that wait", &others);
    let ends = ends(graph);
    if !ends.is_empty() {
        let _ = writeln!(text, "they wait for tasks of which no further wait is known:");
        ends.iter().for_each(|task| text += &format!("  {}\n", rest(task)));
    }
    text
}

/// The stacks of all tasks, innermost function first.
pub fn stacks(graph: &Graph) -> String {
    let mut text = String::new();
    for task in &graph.tasks {
        let on_cpu = if task.on_cpu { ", on a CPU" } else { "" };
        let _ = writeln!(text, "{} [{}]{on_cpu}", named(task), task.state);
        task.stack.iter().for_each(|call| text += &format!("    {}\n", place(call)));
    }
    text
}

/// Most tasks of a guest wait for work, and nobody waits for them.
fn matters(graph: &Graph, wait: &Wait) -> bool {
    let uninterruptible = graph.task(wait.pid).is_some_and(|task| task.state == State::Uninterruptible);
    uninterruptible || !wait.edges.is_empty()
}

/// The tasks that others wait for, and that wait for nobody known themselves.
fn ends(graph: &Graph) -> Vec<&Party> {
    let awaited = |pid: i32| graph.waits.iter().flat_map(|wait| &wait.edges).any(|edge| edge.to.contains(&pid));
    let open = |pid: i32| graph.wait(pid).is_none_or(|wait| wait.edges.is_empty());
    graph.tasks.iter().filter(|task| awaited(task.pid) && open(task.pid)).collect()
}

/// What a task does that waits for nobody known.
fn rest(task: &Party) -> String {
    format!("{} [{}] {}", named(task), task.state, doing(task))
}

/// What a task does, without its name: `sleeps in pipe_read (fs/pipe.c:318)`.
pub fn doing(task: &Party) -> String {
    let what = match task.state {
        State::Runnable if task.on_cpu => "runs",
        State::Runnable => "can run",
        State::Stopped => "is stopped",
        State::Gone => "ends",
        State::Interruptible | State::Uninterruptible | State::Idle => "sleeps",
    };
    let place = task.stack.iter().find(|call| !only_waits(&call.function));
    let place = place.map_or_else(String::new, |call| format!(" in {}", self::place(call)));
    format!("{what}{place}")
}

/// A task with its pid: `iov-own (pid 57)`.
pub fn named(task: &Party) -> String {
    format!("{} (pid {})", task.comm, task.pid)
}

/// A function, with its source line if that is known.
pub fn place(call: &Call) -> String {
    match &call.line {
        Some(line) => format!("{} ({line})", call.function),
        None => call.function.clone(),
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What is waited for: `device_lock of 0000:01:00.0`.
pub fn object(object: &Object) -> String {
    match object {
        Object::Mutex { name, .. }
        | Object::Semaphore { name }
        | Object::Completion { name }
        | Object::Queue { name } => name.clone(),
        Object::Rwsem { name, wanted: Mode::Read, .. } => format!("{name} for read"),
        Object::Rwsem { name, wanted: Mode::Write, .. } => format!("{name} for write"),
        Object::VfioDevice { device, .. } => format!("user space to close vfio device {device}"),
        Object::ThreadEnd { thread } => format!("thread {thread} to end"),
        Object::Work { function: Some(function) } => format!("work {function} to end"),
        Object::Work { function: None } => "a work item to end".to_owned(),
        Object::KernfsFile { path, .. } if path.is_empty() => "the users of a file of sysfs to leave it".to_owned(),
        Object::KernfsFile { path, users } => format!("{} of {path} to leave it", counted((*users).into(), "user")),
        Object::IrqThreads { irq, active } => {
            format!("{} of irq {irq} to end", counted((*active).into(), "threaded handler"))
        }
        Object::SlotRequest { slot } => format!("the thread of slot {slot} to do it"),
        Object::ConfigAccess { device } => format!("config accesses of {device} to be unblocked"),
        Object::Unknown { what } => what.clone(),
    }
}

fn push_holders(line: &mut String, graph: &Graph, wait: &Wait) {
    let of = |relation| wait.edges.iter().filter(move |edge| edge.relation == relation).collect::<Vec<_>>();
    let (has, ahead) = (of(Relation::Has), of(Relation::Ahead));
    let certain = has.iter().all(|edge| edge.certainty == Certainty::Exact);
    if has.is_empty() {
        let _ = write!(line, ", {}", nobody(&wait.object));
    } else {
        let verb = verb(&wait.object);
        let _ = write!(line, ", {}{verb} {}", if certain { "" } else { "probably " }, tasks(graph, &has));
    }
    if let Object::Rwsem { held: Some(Mode::Read), readers, .. } = &wait.object {
        let certainty = if certain && !has.is_empty() { "exact" } else { "a guess" };
        let _ = write!(line, " (for reading, {}, {certainty})", counted(*readers, "reader"));
    }
    if !ahead.is_empty() {
        let _ = write!(line, ", behind {} in the queue", tasks(graph, &ahead));
    }
}

fn verb(object: &Object) -> &'static str {
    match object {
        Object::Mutex { .. } | Object::Rwsem { .. } => "held by",
        Object::Semaphore { .. } => "last taken by",
        Object::VfioDevice { .. } => "open in",
        Object::ThreadEnd { .. } | Object::SlotRequest { .. } => "which is",
        Object::Work { .. } => "run by",
        Object::KernfsFile { .. } => "in it:",
        Object::IrqThreads { active: 1, .. } => "which is",
        Object::IrqThreads { .. } => "which are",
        Object::ConfigAccess { .. } => "blocked by",
        Object::Completion { .. } | Object::Queue { .. } | Object::Unknown { .. } => "which comes from",
    }
}

/// Why there is no edge.
fn nobody(object: &Object) -> &'static str {
    match object {
        Object::Mutex { owner_is_gone: true, .. } | Object::Rwsem { owner_is_gone: true, .. } => {
            "held by a task that is gone"
        }
        Object::Mutex { .. } | Object::Rwsem { held: None, .. } => "which is free now",
        Object::Rwsem { .. } | Object::Semaphore { .. } => "held by nobody known",
        Object::VfioDevice { .. } => "open in no process known",
        Object::KernfsFile { .. } => "in it: nobody known",
        _ => "which comes from nobody known",
    }
}

fn tasks(graph: &Graph, edges: &[&Edge]) -> String {
    let name = |pid: &i32| graph.task(*pid).map_or_else(|| format!("pid {pid}"), named);
    let of = |edge: &&Edge| edge.to.iter().map(name).collect::<Vec<_>>().join(" or ");
    edges.iter().map(of).collect::<Vec<_>>().join(", ")
}
