//! The graph: tasks, what each waits for, and who can end the wait.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cycle;
use super::functions::only_waits;
pub use super::task::State;

/// Who waits for whom, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// All tasks but the idle ones.
    pub tasks: Vec<Party>,
    /// What each sleeping task waits for, where anything is known of it.
    pub waits: Vec<Wait>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Its pid, that of a thread.
    pub pid: i32,
    /// That of its process.
    pub tgid: i32,
    /// Its name.
    pub comm: String,
    /// What it does.
    pub state: State,
    /// Whether it is on a CPU.
    pub on_cpu: bool,
    /// Whether it is a thread of the kernel.
    pub kernel_thread: bool,
    /// How often it was switched out. If two looks find the same number, it has not run between them.
    pub switches: u64,
    /// The functions on its stack, the innermost first. Empty if it is on a CPU.
    pub stack: Vec<Call>,
}

/// A function on a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its name, without the suffix of a copy that the compiler made.
    pub function: String,
    /// The address to which its callee returns. The call is before it, and so its line is that of the byte before.
    pub returns_to: u64,
    /// Its source line, as `drivers/pci/probe.c:3391`, with what was inlined there. None if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The task's pid.
    pub pid: i32,
    /// The function that waits: the caller of those that only wait for others.
    pub at: Call,
    /// What it waits for.
    #[serde(rename = "for")]
    pub object: Object,
    /// Who can end the wait. Each edge on its own is necessary: the wait lasts at least as long as one edge stands.
    pub edges: Vec<Edge>,
}

/// Whom a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Tasks of which any can do it: threads of a process. Mostly one.
    pub to: Vec<i32>,
    /// Whether it is known, or guessed.
    pub certainty: Certainty,
    /// What the other has to do with it.
    pub relation: Relation,
}

/// How sure an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// The kernel's own data says so.
    Exact,
    /// It is probable. No proof follows from it.
    Guess,
}

/// What the other task has to do with a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// It has the object, or does what is awaited.
    Has,
    /// It waits for the object, too, and comes first.
    Ahead,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Object {
    /// A mutex.
    Mutex {
        /// The name that people know.
        name: String,
        /// Whether its owner is no task any more.
        owner_is_gone: bool,
    },
    /// A `struct rw_semaphore`.
    Rwsem {
        /// The name that people know.
        name: String,
        /// For what the task wants it.
        wanted: Mode,
        /// How it is held. `None`: it is free, and somebody is being woken.
        held: Option<Mode>,
        /// How many hold it for reading.
        readers: u64,
        /// Whether its owner is no task any more.
        owner_is_gone: bool,
    },
    /// A `struct semaphore`.
    Semaphore {
        /// The name that people know.
        name: String,
    },
    /// That a device is closed by all users of vfio.
    VfioDevice {
        /// The device's name.
        device: String,
        /// How often it is open.
        open: u32,
    },
    /// That a kernel thread ends.
    ThreadEnd {
        /// The thread's name.
        thread: String,
    },
    /// That a work item ends.
    Work {
        /// Its function, if a worker runs it.
        function: Option<String>,
    },
    /// Another completion.
    Completion {
        /// Its name.
        name: String,
    },
    /// That all users leave a file of sysfs, or of another file system of kernfs.
    KernfsFile {
        /// The path; empty if it was not found.
        path: String,
        /// The number of users.
        users: u32,
    },
    /// That the threaded handlers of an interrupt end.
    IrqThreads {
        /// The interrupt.
        irq: u32,
        /// How many handlers are active.
        active: u32,
    },
    /// That the thread of a hotplug slot carries out a request.
    SlotRequest {
        /// The slot's name.
        slot: String,
    },
    /// That accesses to a device's configuration space are unblocked.
    ConfigAccess {
        /// The device's name.
        device: String,
    },
    /// A wait queue of which nothing else is known.
    Queue {
        /// Its name.
        name: String,
    },
    /// The object was not found in memory.
    Unknown {
        /// What is known of it, in words.
        what: String,
    },
}

/// For what an rwsem is held, or wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Together with other readers.
    Read,
    /// Alone.
    Write,
}

/// Where a process of user space sleeps until another one, or the host, writes something to it. None of these ends by a
/// timeout (`fs/pipe.c`, `fs/eventfd.c`).
const READS: &[&str] = &["pipe_read", "anon_pipe_read", "eventfd_read"];

impl Party {
    /// Whether it is a process of user space that sleeps until somebody wants something of it.
    fn sleeps_of_its_own_accord(&self) -> bool {
        let place = self.stack.iter().map(|call| &*call.function).find(|function| !only_waits(function));
        !self.kernel_thread && self.state == State::Interruptible && place.is_some_and(|place| READS.contains(&place))
    }
}

impl Graph {
    /// The task with this pid.
    pub fn task(&self, pid: i32) -> Option<&Party> {
        self.tasks.iter().find(|task| task.pid == pid)
    }

    /// What the task with this pid waits for, if that is known.
    pub fn wait(&self, pid: i32) -> Option<&Wait> {
        self.waits.iter().find(|wait| wait.pid == pid)
    }

    /// All calls of the graph.
    fn calls(&mut self) -> impl Iterator<Item = &mut Call> {
        let stacks = self.tasks.iter_mut().flat_map(|task| &mut task.stack);
        stacks.chain(self.waits.iter_mut().map(|wait| &mut wait.at))
    }

    /// Notes the source line of each call. `find` gets the addresses of all calls, and gives their lines.
    ///
    /// # Errors
    /// Those of `find`. Then no line is noted.
    pub fn add_lines<E>(
        &mut self,
        find: impl FnOnce(&BTreeSet<u64>) -> Result<BTreeMap<u64, String>, E>,
    ) -> Result<(), E> {
        let address = |call: &Call| call.returns_to.wrapping_sub(1);
        let lines = find(&self.calls().map(|call| address(call)).collect())?;
        self.calls().for_each(|call| call.line = lines.get(&address(call)).cloned());
        Ok(())
    }

    /// The cycles that prove a deadlock: each task in it waits, by exact edges, for one in it.
    pub fn deadlocks(&self) -> Vec<Vec<&Wait>> {
        cycle::cycles(&self.waits, Certainty::Exact)
    }

    /// The cycle that keeps a task from ever running again: the one it is on, or else the next that it waits for.
    pub fn deadlock_of(&self, pid: i32) -> Option<Vec<&Wait>> {
        cycle::before(&self.waits, pid, Certainty::Exact)
    }

    /// The pids of all tasks that can never run again: those on a proven cycle, and those that wait for them. Sorted.
    pub fn stuck(&self) -> Vec<i32> {
        let mut stuck: Vec<i32> = cycle::stuck(&self.waits, Certainty::Exact).into_iter().collect();
        stuck.sort_unstable();
        stuck
    }

    /// The pids from a task to a process of user space that sleeps until somebody wants something of it: each waits, by
    /// exact edges, for the next. The first goes on when the last lets it, and not before. None if there is no such way.
    pub fn held_up(&self, pid: i32) -> Option<Vec<i32>> {
        let sleepers = self.tasks.iter().filter(|task| task.sleeps_of_its_own_accord());
        cycle::chain(&self.waits, pid, &sleepers.map(|task| task.pid).collect())
    }

    /// The cycles that close if all guesses are true, beside those that are proven.
    pub fn suspicions(&self) -> Vec<Vec<&Wait>> {
        let proven = self.deadlocks();
        let mut all = cycle::cycles(&self.waits, Certainty::Guess);
        all.retain(|cycle| !proven.contains(cycle));
        all
    }
}
