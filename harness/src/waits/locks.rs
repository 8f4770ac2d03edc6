//! Mutexes, rwsems and semaphores: which one a task waits for, and who has it.

use super::error::LookError;
use super::graph::{Certainty, Edge, Mode, Object, Relation};
use super::names;
use super::readers;
use super::scene::{Ring, Scene, Waiter};
use super::task::Task;
use super::view::{is_kernel_address, is_object};

/// The low bits of a mutex's and an rwsem's owner are flags (`kernel/locking/mutex.h`, `kernel/locking/rwsem.c`).
pub(super) const FLAGS: u64 = 7;
/// The mutex was handed over to a task that has not woken yet (`MUTEX_FLAG_PICKUP`).
const PICKUP: u64 = 4;
/// `RWSEM_WRITER_LOCKED` and `RWSEM_READER_SHIFT`, and the bit above the readers, `RWSEM_READER_OWNED` aside.
pub(super) const WRITER_LOCKED: u64 = 1;
pub(super) const READER_SHIFT: u32 = 8;
pub(super) const READ_FAIL: u64 = 1 << 63;
/// `enum rwsem_waiter_type`.
const WAITING_FOR_WRITE: u32 = 0;
/// The low bits of `task->blocker` are the lock's kind (`include/linux/hung_task.h`).
const BLOCKER_KIND: u64 = 3;

/// A lock, and the waiters that are queued there.
pub(super) struct Queued {
    pub lock: u64,
    pub ring: Ring,
}

/// The object and the edges of a wait.
pub(super) type Found = (Object, Vec<Edge>);

/// An edge to the one task that has the object.
pub(super) fn has(scene: &Scene<'_>, holder: usize, certainty: Certainty) -> Edge {
    Edge { to: vec![scene.tasks[holder].pid], certainty, relation: Relation::Has }
}

fn ahead(scene: &Scene<'_>, first: usize) -> Edge {
    Edge { to: vec![scene.tasks[first].pid], certainty: Certainty::Exact, relation: Relation::Ahead }
}

pub(super) fn mutex(scene: &Scene<'_>, task: &Task) -> Result<Option<Found>, LookError> {
    let Some(node) = scene.node(task, Waiter::Mutex) else { return Ok(None) };
    let Some(Queued { lock, .. }) = queued(scene, task, node, Waiter::Mutex)? else {
        return Ok(Some((Object::Unknown { what: "a mutex".to_owned() }, Vec::new())));
    };
    let word = scene.view.member(lock, "mutex", "owner")?;
    // Who gets it by hand-over is awake, and is no holder that anybody must wait for.
    let owner = if word & PICKUP == 0 { word & !FLAGS } else { 0 };
    let holder = scene.task_at(owner);
    let object = Object::Mutex { name: names::mutex(scene, lock), owner_is_gone: owner != 0 && holder.is_none() };
    Ok(Some((object, holder.map(|holder| has(scene, holder, Certainty::Exact)).into_iter().collect())))
}

pub(super) fn rwsem(scene: &Scene<'_>, task: &Task) -> Result<Option<Found>, LookError> {
    let Some(node) = scene.node(task, Waiter::Rwsem) else { return Ok(None) };
    let Some(Queued { lock, ring }) = queued(scene, task, node, Waiter::Rwsem)? else {
        return Ok(Some((Object::Unknown { what: "an rwsem".to_owned() }, Vec::new())));
    };
    let count = scene.view.member(lock, "rw_semaphore", "count")?;
    let owner = scene.view.member(lock, "rw_semaphore", "owner")? & !FLAGS;
    let holder = scene.task_at(owner);
    let readers = (count & !READ_FAIL) >> READER_SHIFT;
    let (held, mut edges) = if count & WRITER_LOCKED != 0 {
        (Some(Mode::Write), holder.map(|holder| has(scene, holder, Certainty::Exact)).into_iter().collect())
    } else if readers > 0 {
        (Some(Mode::Read), readers::of(scene, lock, readers, holder, &ring.tasks)?)
    } else {
        (None, Vec::new())
    };
    edges.extend(first_writer(scene, lock, node)?.map(|first| ahead(scene, first)));
    let object = Object::Rwsem {
        name: names::rwsem(scene, lock),
        wanted: mode(scene, node)?,
        held,
        readers: if held == Some(Mode::Read) { readers } else { 0 },
        owner_is_gone: held == Some(Mode::Write) && owner != 0 && holder.is_none(),
    };
    Ok(Some((object, edges)))
}

fn mode(scene: &Scene<'_>, node: u64) -> Result<Mode, LookError> {
    let kernel = scene.kernel();
    let waiter = node.wrapping_sub(Waiter::Rwsem.to_node(kernel)?);
    let word = scene.view.u32(waiter.wrapping_add(kernel.offset("rwsem_waiter", "type")?))?;
    Ok(if word == WAITING_FOR_WRITE { Mode::Write } else { Mode::Read })
}

/// The first waiter, if it is another one and wants to write: nobody is woken before it. If the first is a reader, all
/// readers are woken with it (`rwsem_mark_wake`).
fn first_writer(scene: &Scene<'_>, lock: u64, node: u64) -> Result<Option<usize>, LookError> {
    let kernel = scene.kernel();
    let member = if kernel.offset_if_any("rw_semaphore", "wait_list").is_some() { "wait_list" } else { "first_waiter" };
    let first = scene.view.member(lock, "rw_semaphore", member)?;
    let first = match member {
        // The member is a pointer to the waiter, whose node may be elsewhere in it.
        "first_waiter" => first.wrapping_add(Waiter::Rwsem.to_node(kernel)?),
        _ => first,
    };
    if first == node {
        return Ok(None);
    }
    let Some(ring) = scene.ring(node, Waiter::Rwsem)? else { return Ok(None) };
    let Some(position) = ring.nodes.iter().position(|other| *other == first) else { return Ok(None) };
    Ok((mode(scene, first)? == Mode::Write).then_some(ring.tasks[position]))
}

/// No owner is recorded until 6.16, and then only the last task that took it (`last_holder`). Any task may release it.
pub(super) fn semaphore(scene: &Scene<'_>, task: &Task) -> Result<Option<Found>, LookError> {
    let Some(node) = scene.node(task, Waiter::Semaphore) else { return Ok(None) };
    let Some(Queued { lock, .. }) = queued(scene, task, node, Waiter::Semaphore)? else {
        return Ok(Some((Object::Unknown { what: "a semaphore".to_owned() }, Vec::new())));
    };
    let last = scene.kernel().offset_if_any("semaphore", "last_holder").map(|offset| lock.wrapping_add(offset));
    let last = last.and_then(|member| scene.view.u64(member).ok()).and_then(|address| scene.task_at(address));
    let edges = last.map(|holder| has(scene, holder, Certainty::Guess)).into_iter().collect();
    Ok(Some((Object::Semaphore { name: names::of_address(scene, lock, "a semaphore") }, edges)))
}

fn structure(kind: Waiter) -> &'static str {
    match kind {
        Waiter::Mutex => "mutex",
        Waiter::Rwsem => "rw_semaphore",
        _ => "semaphore",
    }
}

/// The lock for which a task waits.
///
/// Until 7.0, the lock has the head of the list of its waiters. Since 7.1 (25500ba7e77c "locking/mutex: Remove the
/// list_head from struct mutex", and the same for rwsem and semaphore), it only points to its first waiter. Then the
/// task itself says which lock it waits for, if the kernel records it; else a pointer to the lock is on its stack.
fn queued(scene: &Scene<'_>, task: &Task, node: u64, kind: Waiter) -> Result<Option<Queued>, LookError> {
    let Some(ring) = scene.ring(node, kind)? else { return Ok(None) };
    let kernel = scene.kernel();
    if let Some(list) = kernel.offset_if_any(structure(kind), "wait_list") {
        return Ok(ring.head.map(|head| Queued { lock: head.wrapping_sub(list), ring }));
    }
    if ring.head.is_some() {
        return Ok(None);
    }
    let first = kernel.offset(structure(kind), "first_waiter")?;
    let to_node = kind.to_node(kernel)?;
    // Frames and waiters on a stack point to waiters, too, and are no locks.
    let points_here = |lock: u64| {
        let first = (is_object(lock) && !scene.is_on_a_stack(lock)).then(|| scene.view.u64(lock.wrapping_add(first)));
        first.is_some_and(|first| first.is_ok_and(|first| ring.nodes.contains(&first.wrapping_add(to_node))))
    };
    let recorded = recorded(scene, task, kind)?.filter(|lock| points_here(*lock));
    let lock = recorded.or_else(|| task.stack.words().map(|(_, word)| word).find(|word| points_here(*word)));
    Ok(lock.map(|lock| Queued { lock, ring }))
}

/// The lock that a task says it is blocked on.
fn recorded(scene: &Scene<'_>, task: &Task, kind: Waiter) -> Result<Option<u64>, LookError> {
    let kernel = scene.kernel();
    let member = |name| -> Result<Option<u64>, LookError> {
        let offset = kernel.offset_if_any("task_struct", name);
        let word = offset.map(|offset| scene.view.u64(task.address.wrapping_add(offset))).transpose()?;
        Ok(word.filter(|word| is_kernel_address(*word)))
    };
    // Without `blocked_lock`, `blocked_on` is a waiter (6.12, with DEBUG_MUTEXES).
    if kind == Waiter::Mutex
        && kernel.offset_if_any("task_struct", "blocked_lock").is_some()
        && let Some(lock) = member("blocked_on")?
    {
        return Ok(Some(lock));
    }
    Ok(member("blocker")?.map(|word| word & !BLOCKER_KIND))
}
