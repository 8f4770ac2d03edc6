//! Completions whose waker is known: of vfio's users, of `kthread_stop`, of `flush_work`.

use std::collections::HashMap;

use super::error::LookError;
use super::graph::{Certainty, Edge, Object, Relation};
use super::locks::{Found, has};
use super::names;
use super::scene::{Scene, Waiter};
use super::task::Task;
use super::view::is_object;

/// The most open files of a process that are looked at.
const MOST_FILES: u32 = 4096;
/// The most work items that a worker still has to do.
const MOST_WORK: usize = 1000;
/// vfio waits here for its users (`drivers/vfio/vfio_main.c`; `vfio_del_group_dev` until 5.15).
const VFIO_WAITS: [&str; 2] = ["vfio_unregister_group_dev", "vfio_del_group_dev"];
const FLUSH: [&str; 5] =
    ["__flush_work", "flush_work", "__cancel_work_sync", "__cancel_work_timer", "start_flush_work"];

/// What a task waits for that is in a completion. `at` is the function that waits.
pub(super) fn completion(scene: &Scene<'_>, task: &Task, at: &str) -> Result<Option<Found>, LookError> {
    let Some(node) = scene.node(task, Waiter::Swait) else { return Ok(None) };
    let Some(head) = scene.ring(node, Waiter::Swait)?.and_then(|ring| ring.head) else {
        return Ok(Some((Object::Unknown { what: "a completion".to_owned() }, Vec::new())));
    };
    let kernel = scene.kernel();
    let completion = head.wrapping_sub(kernel.offset("completion", "wait.task_list")?);
    // It is done, and the task will run: it waits for nobody.
    let done = kernel.offset_if_any("completion", "done").map(|offset| completion.wrapping_add(offset));
    if done.is_some_and(|done| scene.view.u32(done).is_ok_and(|done| done != 0)) {
        return Ok(None);
    }
    if VFIO_WAITS.contains(&at)
        && let Some(found) = vfio(scene, completion)?
    {
        return Ok(Some(found));
    }
    if let Some(found) = thread_end(scene, completion) {
        return Ok(Some(found));
    }
    if FLUSH.iter().any(|function| task.is_in(function)) {
        return work(scene, completion).map(Some);
    }
    let name = names::of_address(scene, completion, "a completion");
    Ok(Some((Object::Completion { name }, Vec::new())))
}

fn vfio(scene: &Scene<'_>, completion: u64) -> Result<Option<Found>, LookError> {
    let Some(device) = names::within(scene, completion, "vfio_device", "comp") else { return Ok(None) };
    let physical = scene.view.member(device, "vfio_device", "dev")?;
    let Some(name) = names::device(scene, physical) else { return Ok(None) };
    let open = scene.view.u32(device.wrapping_add(scene.kernel().offset("vfio_device", "open_count")?))?;
    Ok(Some((Object::VfioDevice { device: name, open }, users(scene, device)?)))
}

/// The processes that have a vfio device open, and those that are closing it. Any thread of a process may close a file;
/// but if several have the same file, all of them must.
fn users(scene: &Scene<'_>, device: u64) -> Result<Vec<Edge>, LookError> {
    let mut known: HashMap<u64, bool> = HashMap::new();
    let mut edges: Vec<(u64, Edge)> = Vec::new();
    for task in scene.tasks.iter().filter(|task| !task.is_kthread()) {
        let edge = Edge { to: vec![task.pid], certainty: Certainty::Exact, relation: Relation::Has };
        let files = scene.view.member(task.address, "task_struct", "files")?;
        // A file that is being closed is in no table any more.
        if closes(scene, task, device) {
            edges.push((0, edge));
            continue;
        }
        if !is_object(files) {
            continue;
        }
        let has_it = match known.get(&files) {
            Some(has_it) => *has_it,
            None => has_open(scene, files, device)?,
        };
        known.insert(files, has_it);
        match edges.iter_mut().find(|(of, _)| *of == files) {
            _ if !has_it => {}
            Some((_, edge)) => edge.to.push(task.pid),
            None => edges.push((files, edge)),
        }
    }
    Ok(edges.into_iter().map(|(_, edge)| edge).collect())
}

fn has_open(scene: &Scene<'_>, files: u64, device: u64) -> Result<bool, LookError> {
    let Some(operations) = scene.view.address("vfio_device_fops") else { return Ok(false) };
    let view = &scene.view;
    let table = view.member(files, "files_struct", "fdt")?;
    let count = view.u32(table.wrapping_add(scene.kernel().offset("fdtable", "max_fds")?))?.min(MOST_FILES);
    let array = view.member(table, "fdtable", "fd")?;
    for index in 0..u64::from(count) {
        let file = view.u64(array.wrapping_add(8 * index))?;
        if is_object(file)
            && view.member(file, "file", "f_op")? == operations
            && is_device_or_file_of(scene, view.member(file, "file", "private_data")?, device)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a word is a vfio device (the private data of its files until 6.5), or a `struct vfio_device_file` of it.
fn is_device_or_file_of(scene: &Scene<'_>, word: u64, device: u64) -> bool {
    let through_file = || {
        scene.kernel().offset_if_any("vfio_device_file", "device").is_some()
            && is_object(word)
            && scene.view.member(word, "vfio_device_file", "device") == Ok(device)
    };
    word == device || through_file()
}

fn closes(scene: &Scene<'_>, task: &Task, device: u64) -> bool {
    let is_in = task.is_in("vfio_device_fops_release");
    let mut words = task.stack.words_up_to(&["vfio_device_fops_release", "__fput"]);
    is_in && words.any(|word| is_device_or_file_of(scene, word, device))
}

fn thread_end(scene: &Scene<'_>, completion: u64) -> Option<Found> {
    let exited = scene.kernel().offset_if_any("kthread", "exited")?;
    let ends = |task: &Task| task.kthread(&scene.view).map(|kthread| kthread.wrapping_add(exited)) == Some(completion);
    let index = scene.tasks.iter().position(ends)?;
    let object = Object::ThreadEnd { thread: scene.tasks[index].comm.clone() };
    Some((object, vec![has(scene, index, Certainty::Exact)]))
}

/// A flush queues a barrier behind the work item (`insert_wq_barrier`, `kernel/workqueue.c`). If a worker runs the item,
/// the barrier is on the worker's own list, so the worker is known.
fn work(scene: &Scene<'_>, completion: u64) -> Result<Found, LookError> {
    let kernel = scene.kernel();
    let barrier = completion.wrapping_sub(kernel.offset("wq_barrier", "done")?);
    let entry = kernel.offset("wq_barrier", "work")?.wrapping_add(kernel.offset("work_struct", "entry")?);
    let node = barrier.wrapping_add(entry);
    for (index, task) in scene.tasks.iter().enumerate().filter(|(_, task)| task.is_worker()) {
        let Some(kthread) = task.kthread(&scene.view) else { continue };
        let worker = scene.view.member(kthread, "kthread", "data")?;
        if is_object(worker) && has_scheduled(scene, worker, node)? {
            let function = scene.view.member(worker, "worker", "current_func")?;
            let function = scene.view.function(function);
            return Ok((Object::Work { function }, vec![has(scene, index, Certainty::Exact)]));
        }
    }
    Ok((Object::Work { function: None }, Vec::new()))
}

fn has_scheduled(scene: &Scene<'_>, worker: u64, node: u64) -> Result<bool, LookError> {
    let head = worker.wrapping_add(scene.kernel().offset("worker", "scheduled")?);
    let mut at = scene.view.u64(head)?;
    for _ in 0..MOST_WORK {
        if at == head {
            return Ok(false);
        }
        if at == node {
            return Ok(true);
        }
        at = scene.view.u64(at)?;
    }
    Err(LookError::Damaged { list: "a worker's list of work" })
}
