//! Threaded handlers of interrupts: who waits for them to end, or for one to do something.

use super::error::LookError;
use super::functions::waiting_frames;
use super::graph::{Certainty, Edge, Object};
use super::locks::{Found, has};
use super::names;
use super::scene::{Scene, Waiter};
use super::task::Task;
use super::view::is_object;

/// A thread with no interrupt to handle sleeps here (`kernel/irq/manage.c`). The latter is mostly inlined.
const AT_REST: [&str; 2] = ["irq_thread", "irq_wait_for_interrupt"];

/// The thread of an interrupt's handler, by index of its task, and its `struct irqaction`.
fn threads<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = (usize, u64)> + 'a {
    let handles = |task: &Task| task.is_kthread() && task.comm.starts_with("irq/");
    scene.tasks.iter().enumerate().filter(move |(_, task)| handles(task)).filter_map(|(index, task)| {
        let action = scene.view.member(task.kthread(&scene.view)?, "kthread", "data").ok()?;
        is_object(action).then_some((index, action))
    })
}

/// The controllers of pciehp's slots: a port has its interrupt for its slot.
pub(super) fn controllers<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = u64> + 'a {
    let of = |action: u64| scene.view.member(action, "irqaction", "dev_id").ok().filter(|at| is_object(*at));
    threads(scene).filter_map(move |(_, action)| of(action)).filter(|at| names::slot(scene, *at).is_some())
}

fn is_at_rest(task: &Task) -> bool {
    let sleeps_in = task.stack.frames.get(waiting_frames(task));
    sleeps_in.is_some_and(|frame| AT_REST.contains(&frame.function.as_str()))
}

/// The begin of the structure with the wait queue on which a task waits.
fn queue_in(
    scene: &Scene<'_>,
    task: &Task,
    structure: &'static str,
    member: &'static str,
) -> Result<Option<u64>, LookError> {
    let kernel = scene.kernel();
    let Some(node) = scene.node(task, Waiter::Wait) else { return Ok(None) };
    let Some(head) = scene.ring(node, Waiter::Wait)?.and_then(|ring| ring.head) else { return Ok(None) };
    let queue = head.wrapping_sub(kernel.offset("wait_queue_head", "head")?);
    Ok(Some(queue.wrapping_sub(kernel.offset(structure, member)?)))
}

/// `__synchronize_irq` waits until no threaded handler of an interrupt is active.
pub(super) fn synchronize(scene: &Scene<'_>, task: &Task) -> Result<Option<Found>, LookError> {
    let kernel = scene.kernel();
    let Some(descriptor) = queue_in(scene, task, "irq_desc", "wait_for_threads")? else { return Ok(None) };
    let irq = scene.view.u32(descriptor.wrapping_add(kernel.offset("irq_desc", "irq_data.irq")?))?;
    let active = scene.view.u32(descriptor.wrapping_add(kernel.offset("irq_desc", "threads_active")?))?;
    if active == 0 {
        return Ok(None);
    }
    let number = kernel.offset("irqaction", "irq")?;
    let of_this = |action: u64| scene.view.u32(action.wrapping_add(number)) == Ok(irq);
    let busy: Vec<usize> = threads(scene)
        .filter(|(index, action)| of_this(*action) && !is_at_rest(&scene.tasks[*index]))
        .map(|(index, _)| index)
        .collect();
    let certainty = if busy.len() == active as usize { Certainty::Exact } else { Certainty::Guess };
    let edges = busy.into_iter().map(|thread| has(scene, thread, certainty)).collect();
    Ok(Some((Object::IrqThreads { irq, active }, edges)))
}

/// A write to a slot's `power` waits until the slot's thread has carried it out (`pciehp_sysfs_enable_slot` and
/// `pciehp_sysfs_disable_slot`, `drivers/pci/hotplug/pciehp_ctrl.c`).
pub(super) fn slot_request(scene: &Scene<'_>, task: &Task) -> Result<Option<Found>, LookError> {
    let Some(controller) = queue_in(scene, task, "controller", "requester")? else { return Ok(None) };
    let Some(slot) = names::slot(scene, controller) else { return Ok(None) };
    let thread = threads(scene).find(|(_, action)| scene.view.member(*action, "irqaction", "dev_id") == Ok(controller));
    let certainty = if is_busy(scene, controller)? { Certainty::Exact } else { Certainty::Guess };
    let edges: Vec<Edge> = thread.map(|(index, _)| has(scene, index, certainty)).into_iter().collect();
    Ok(Some((Object::SlotRequest { slot }, edges)))
}

/// Whether the condition of the wait is still to come: the thread runs, or has yet to.
fn is_busy(scene: &Scene<'_>, controller: u64) -> Result<bool, LookError> {
    let kernel = scene.kernel();
    let running = controller.wrapping_add(kernel.offset("controller", "ist_running")?);
    let pending = controller.wrapping_add(kernel.offset("controller", "pending_events")?);
    Ok(scene.view.u8(running)? != 0 || scene.view.u32(pending)? != 0)
}
