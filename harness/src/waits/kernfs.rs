//! The removal of a file of sysfs: `kernfs_drain` waits until all users of the file have left it.

use super::error::LookError;
use super::functions::waiting_frames;
use super::graph::{Certainty, Object};
use super::locks::{Found, has};
use super::names;
use super::scene::{Scene, Waiter};
use super::task::Task;
use super::view::is_object;

/// What `kernfs_node.active` counts from, once the node is deactivated (`fs/kernfs/kernfs-internal.h`).
const DEACTIVATED: i32 = i32::MIN + 1;
/// The most users that are believed.
const MOST_USERS: i32 = 4096;
/// The functions that wait.
pub(super) const DRAIN: [&str; 2] = ["kernfs_drain", "__kernfs_remove"];
/// The functions in which a task uses an open file.
const USES: [&str; 3] = ["kernfs_fop_", "kernfs_seq_", "kernfs_file_"];

pub(super) fn drain(scene: &Scene<'_>, task: &Task) -> Result<Option<Found>, LookError> {
    if scene.node(task, Waiter::Wait).is_none() {
        return Ok(None);
    }
    let Some((node, path, users)) = drained(scene, task) else {
        return Ok(Some((Object::KernfsFile { path: String::new(), users: 0 }, Vec::new())));
    };
    let inside: Vec<usize> =
        (0..scene.tasks.len()).filter(|index| is_inside(scene, &scene.tasks[*index], node)).collect();
    let certainty = if inside.len() == users as usize { Certainty::Exact } else { Certainty::Guess };
    let edges = inside.into_iter().map(|user| has(scene, user, certainty)).collect();
    Ok(Some((Object::KernfsFile { path, users }, edges)))
}

/// The node that a task waits for, its path, and how many users it still has.
fn drained(scene: &Scene<'_>, task: &Task) -> Option<(u64, String, u32)> {
    let active = scene.kernel().offset_if_any("kernfs_node", "active")?;
    task.stack.words_up_to(&DRAIN).filter(|word| is_object(*word)).find_map(|node| {
        let users = scene.view.i32(node.wrapping_add(active)).ok()?.wrapping_sub(DEACTIVATED);
        if !(1..MOST_USERS).contains(&users) {
            return None;
        }
        Some((node, names::path(scene, node)?, users.cast_unsigned()))
    })
}

/// Whether a task is in a file operation on a node. Who still waits for the mutex of the open file has not entered.
fn is_inside(scene: &Scene<'_>, task: &Task, node: u64) -> bool {
    let uses = |function: &str| USES.iter().any(|prefix| function.starts_with(prefix));
    let functions: Vec<&str> =
        task.stack.frames.iter().map(|frame| frame.function.as_str()).filter(|name| uses(name)).collect();
    if functions.is_empty() || waits_to_enter(task) {
        return false;
    }
    let has_open = |word| is_object(word) && scene.view.member(word, "kernfs_open_file", "kn") == Ok(node);
    // Who removes a node has it on its stack for that.
    let removes = DRAIN.iter().any(|function| task.is_in(function));
    task.stack.words_up_to(&functions).any(|word| (word == node && !removes) || has_open(word))
}

fn waits_to_enter(task: &Task) -> bool {
    let waits = waiting_frames(task);
    let caller = task.stack.frames.get(waits);
    waits > 0
        && caller
            .is_some_and(|frame| frame.function.starts_with("kernfs_fop_write") || frame.function == "kernfs_seq_start")
}
