//! Who holds an rwsem for reading.
//!
//! The kernel records only the last task that took it for reading, and until 6.17 this stays when that task has
//! released it. So the readers are found by the code on the stacks: a sleeping task is in a function that calls
//! `down_read*()`. If there are as many such tasks as the lock has readers, they are the readers.

use std::collections::HashSet;

use super::error::LookError;
use super::functions::{DOWN_READ, only_waits};
use super::graph::{Certainty, Edge};
use super::locks::has;
use super::scene::Scene;
use super::symbols::KERNEL_MAP;
use super::task::Task;
use super::view::View;

/// The longest code of a function that is read.
const LONGEST: u64 = 0x8000;
/// `call rel32`.
const CALL: u8 = 0xe8;
const CALL_LENGTH: usize = 5;
/// `mov $imm32, %rdi`, sign-extended: the address of a global lock becomes the first argument.
const ARGUMENT: [u8; 3] = [0x48, 0xc7, 0xc7];
/// How far before the call the argument may be set.
const NEAR: usize = 48;

/// The readers of a lock, of which there are `count`. `last` is the last one that took it, `queued` are its waiters.
pub(super) fn of(
    scene: &Scene<'_>,
    lock: u64,
    count: u64,
    last: Option<usize>,
    queued: &[usize],
) -> Result<Vec<Edge>, LookError> {
    let targets: HashSet<u64> = DOWN_READ.iter().filter_map(|name| scene.kernel().symbols.address(name)).collect();
    let global = lock >= KERNEL_MAP;
    let mut found = Vec::new();
    for (index, task) in scene.tasks.iter().enumerate() {
        // Who waits for the lock does not have it: readers do not take an rwsem twice.
        if queued.contains(&index) || !(global || last == Some(index) || has_word(task, lock)) {
            continue;
        }
        if takes(&scene.view, task, lock, &targets)? {
            found.push(index);
        }
    }
    // A task that runs may hold the lock, too, unseen. Then the last who took it must be one of those that were found.
    let somebody_runs = scene.tasks.iter().any(|task| task.on_cpu);
    let sure = found.len() as u64 == count && (!somebody_runs || last.is_some_and(|last| found.contains(&last)));
    if sure {
        return Ok(found.into_iter().map(|reader| has(scene, reader, Certainty::Exact)).collect());
    }
    found.extend(last.filter(|last| !found.contains(last) && !queued.contains(last)));
    Ok(found.into_iter().map(|reader| has(scene, reader, Certainty::Guess)).collect())
}

fn has_word(task: &Task, lock: u64) -> bool {
    task.stack.words().any(|(_, word)| word == lock)
}

/// Whether a task is in a function that takes this lock for reading.
fn takes(view: &View<'_>, task: &Task, lock: u64, targets: &HashSet<u64>) -> Result<bool, LookError> {
    for frame in task.stack.frames.iter().filter(|frame| !only_waits(&frame.function)) {
        if calls(view, frame.returns_to, lock, targets)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the function with this address in it calls one of `targets`; for a global lock, with the lock as its
/// argument. The call may be anywhere in it: the compiler moves unlikely code behind the rest.
fn calls(view: &View<'_>, address: u64, lock: u64, targets: &HashSet<u64>) -> Result<bool, LookError> {
    let Some(range) = view.kernel().symbols.range(address - 1) else { return Ok(false) };
    let mut code = vec![0; (range.end - range.start).min(LONGEST) as usize];
    view.read(range.start, &mut code)?;
    Ok((0..code.len().saturating_sub(CALL_LENGTH - 1)).any(|at| {
        code[at] == CALL
            && targets.contains(&target(range.start, &code, at))
            && (lock < KERNEL_MAP || argument(&code[at.saturating_sub(NEAR)..at]) == Some(lock))
    }))
}

fn target(begin: u64, code: &[u8], at: usize) -> u64 {
    let relative = immediate(&code[at + 1..]);
    begin.wrapping_add((at + CALL_LENGTH) as u64).wrapping_add_signed(relative)
}

/// The address that the last `mov` before a call puts into the first argument.
fn argument(before: &[u8]) -> Option<u64> {
    let at = before.windows(ARGUMENT.len()).rposition(|bytes| bytes == ARGUMENT)?;
    let value = before.get(at + ARGUMENT.len()..at + ARGUMENT.len() + 4)?;
    Some(0u64.wrapping_add_signed(immediate(value)))
}

/// A sign-extended 32-bit value. The caller has checked that four bytes are there.
fn immediate(bytes: &[u8]) -> i64 {
    i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
