//! A look: from a guest's memory to the graph.

use std::collections::HashSet;

use super::error::LookError;
use super::functions::{self, takes_mutex, takes_semaphore, waiting_frames, waits_for_completion};
use super::graph::{Call, Graph, Object, Party, Wait};
use super::kernel::Kernel;
use super::locks::{self, Found};
use super::memory::Memory;
use super::scene::{Scene, Waiter};
use super::stack::Frame;
use super::task::Task;
use super::view::View;
use super::{completions, config_access, irq, kernfs, names};

/// Looks at a guest once. It should be stopped meanwhile: else the graph mixes two moments, and proves nothing.
///
/// # Errors
/// The guest's memory cannot be read, the kernel lacks what a look needs, or the lists of tasks make no sense.
pub fn look(memory: &dyn Memory, kernel: &Kernel) -> Result<Graph, LookError> {
    let scene = Scene::new(View::new(memory, kernel)?)?;
    let mut pids = HashSet::new();
    if !scene.tasks.iter().all(|task| pids.insert(task.pid)) {
        return Err(LookError::Damaged { list: "the list of tasks" });
    }
    let waits = scene.tasks.iter().filter_map(|task| wait(&scene, task)).collect();
    Ok(Graph { tasks: scene.tasks.iter().map(party).collect(), waits })
}

fn party(task: &Task) -> Party {
    Party {
        pid: task.pid,
        tgid: task.tgid,
        comm: task.comm.clone(),
        state: task.state,
        on_cpu: task.on_cpu,
        kernel_thread: task.is_kthread(),
        switches: task.switches,
        stack: task.stack.frames.iter().map(call).collect(),
    }
}

fn call(frame: &Frame) -> Call {
    Call { function: frame.function.clone(), returns_to: frame.returns_to, line: None }
}

/// What a sleeping task waits for. `None` if nothing is known of it.
fn wait(scene: &Scene<'_>, task: &Task) -> Option<Wait> {
    if !task.state.asleep() {
        return None;
    }
    let at = task.stack.frames.get(waiting_frames(task))?;
    let (object, edges) = match found(scene, task, at) {
        Ok(found) => found?,
        // What one task waits for could not be read. The others can be.
        Err(error) => (Object::Unknown { what: format!("something that cannot be read: {error}") }, Vec::new()),
    };
    Some(Wait { pid: task.pid, at: call(at), object, edges })
}

fn found(scene: &Scene<'_>, task: &Task, at: &Frame) -> Result<Option<Found>, LookError> {
    let waiting = &task.stack.frames[..waiting_frames(task)];
    let through = |pred: fn(&str) -> bool| waiting.iter().any(|frame| pred(&frame.function));
    if through(takes_mutex) {
        return locks::mutex(scene, task);
    }
    if through(|function| function.starts_with("rwsem_down_")) {
        return locks::rwsem(scene, task);
    }
    if through(takes_semaphore) {
        return locks::semaphore(scene, task);
    }
    if through(waits_for_completion) {
        return completions::completion(scene, task, &at.function);
    }
    let special = match at.function.as_str() {
        _ if through(functions::synchronizes_irq) => irq::synchronize(scene, task)?,
        function if kernfs::DRAIN.contains(&function) => kernfs::drain(scene, task)?,
        "pciehp_sysfs_disable_slot" | "pciehp_sysfs_enable_slot" => irq::slot_request(scene, task)?,
        config_access::WAITS => config_access::blocked(scene, task)?,
        _ => None,
    };
    match special {
        Some(found) => Ok(Some(found)),
        None => queue(scene, task),
    }
}

/// A wait queue that nobody wrote a rule for.
fn queue(scene: &Scene<'_>, task: &Task) -> Result<Option<Found>, LookError> {
    let Some(node) = scene.node(task, Waiter::Wait) else { return Ok(None) };
    let Some(head) = scene.ring(node, Waiter::Wait)?.and_then(|ring| ring.head) else { return Ok(None) };
    let queue = head.wrapping_sub(scene.kernel().offset("wait_queue_head", "head")?);
    Ok(Some((Object::Queue { name: names::of_address(scene, queue, "a wait queue") }, Vec::new())))
}
