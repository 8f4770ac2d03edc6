//! All tasks of a look, and who of them queues where.
//!
//! A task that waits has an object with its own address and a list node on its own stack: `struct mutex_waiter`,
//! `struct swait_queue` and others. The node links it with the other waiters, and with what they wait for.

use std::collections::{BTreeMap, HashMap};

use super::error::LookError;
use super::kernel::Kernel;
use super::task::{self, Task};
use super::view::{View, is_kernel_address};

/// The most waiters of one object.
const MOST: usize = 1000;

/// The objects that link a task with what it waits for: structure, member with the list node, member with the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    Mutex,
    Rwsem,
    Semaphore,
    /// Of a completion.
    Swait,
    /// Of a `wait_queue_head_t`.
    Wait,
}

impl Waiter {
    fn members(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Waiter::Mutex => ("mutex_waiter", "list", "task"),
            Waiter::Rwsem => ("rwsem_waiter", "list", "task"),
            Waiter::Semaphore => ("semaphore_waiter", "list", "task"),
            Waiter::Swait => ("swait_queue", "task_list", "task"),
            Waiter::Wait => ("wait_queue_entry", "entry", "private"),
        }
    }

    /// From the begin of the object to the node.
    pub fn to_node(self, kernel: &Kernel) -> Result<u64, LookError> {
        let (structure, node, _) = self.members();
        kernel.offset(structure, node)
    }

    /// From the node to the member with the task: to be added, wrapping.
    fn to_task(self, kernel: &Kernel) -> Result<u64, LookError> {
        let (structure, _, task) = self.members();
        Ok(kernel.offset(structure, task)?.wrapping_sub(self.to_node(kernel)?))
    }
}

/// The waiters of one object, as their nodes are linked.
pub(super) struct Ring {
    /// The list's head, which is in the object. `None` if the object only points to its first waiter.
    pub head: Option<u64>,
    /// The nodes of the waiters.
    pub nodes: Vec<u64>,
    /// The waiters, as indices of tasks.
    pub tasks: Vec<usize>,
}

/// All tasks of a look.
pub(super) struct Scene<'a> {
    pub view: View<'a>,
    pub tasks: Vec<Task>,
    by_address: HashMap<u64, usize>,
    by_stack: BTreeMap<u64, usize>,
}

impl<'a> Scene<'a> {
    pub fn new(view: View<'a>) -> Result<Scene<'a>, LookError> {
        let tasks = task::all(&view)?;
        let by_address = tasks.iter().enumerate().map(|(index, task)| (task.address, index)).collect();
        let by_stack = tasks.iter().enumerate().map(|(index, task)| (task.stack_at, index)).collect();
        Ok(Scene { view, tasks, by_address, by_stack })
    }

    pub fn kernel(&self) -> &'a Kernel {
        self.view.kernel()
    }

    /// The task at an address, as an index.
    pub fn task_at(&self, address: u64) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// The node of a task's own object of this kind, on its live stack.
    pub fn node(&self, task: &Task, kind: Waiter) -> Option<u64> {
        let to_task = kind.to_task(self.kernel()).ok()?;
        let own = task.stack.words().filter(|(_, word)| *word == task.address);
        own.map(|(at, _)| at.wrapping_sub(to_task)).find(|node| task.stack.contains(*node) && self.is_linked(*node))
    }

    /// Whether both neighbours of a node point back to it.
    fn is_linked(&self, node: u64) -> bool {
        let linked = || -> Result<bool, LookError> {
            let (next, previous) = (self.view.u64(node)?, self.view.u64(node.wrapping_add(8))?);
            if !is_kernel_address(next) || !is_kernel_address(previous) {
                return Ok(false);
            }
            Ok(self.view.u64(next.wrapping_add(8))? == node && self.view.u64(previous)? == node)
        };
        linked().unwrap_or(false)
    }

    /// The waiters that are linked with a node. `None` if more than one member of the ring is no waiter of this kind.
    pub fn ring(&self, node: u64, kind: Waiter) -> Result<Option<Ring>, LookError> {
        let to_task = kind.to_task(self.kernel())?;
        let mut ring = Ring { head: None, nodes: Vec::new(), tasks: Vec::new() };
        let mut at = node;
        while ring.nodes.len() < MOST {
            match self.waiter(at, to_task)? {
                Some(task) => {
                    ring.nodes.push(at);
                    ring.tasks.push(task);
                }
                None if ring.head.is_none() => ring.head = Some(at),
                None => return Ok(None),
            }
            at = self.view.u64(at)?;
            if at == node {
                return Ok(Some(ring));
            }
        }
        Err(LookError::Damaged { list: "a list of waiters" })
    }

    /// The task on whose stack an address is.
    fn stack_owner(&self, address: u64) -> Option<usize> {
        let (begin, index) = self.by_stack.range(..=address).next_back()?;
        (address - begin < self.kernel().stack_size()).then_some(*index)
    }

    /// Whether an address is on the stack of any task.
    pub fn is_on_a_stack(&self, address: u64) -> bool {
        self.stack_owner(address).is_some()
    }

    /// The task that has a node on its own stack, and its own address beside it. This holds of a task that has been
    /// woken or runs, too.
    fn waiter(&self, node: u64, to_task: u64) -> Result<Option<usize>, LookError> {
        let Some(index) = self.stack_owner(node) else { return Ok(None) };
        let owner = self.view.u64(node.wrapping_add(to_task))?;
        Ok((owner == self.tasks[index].address).then_some(index))
    }
}
