//! Who waits for whom in a guest, read from the guest's memory, in words. And which objects its kernel has: [`census()`]
//! counts them, [`left()`] finds the locks that are still held, and the PCI devices that it removed and did not free, and
//! [`referenced()`] says how many references the others have, and what else is counted for them.
//!
//! A closed cycle of tasks that wait for each other proves a deadlock. [`look()`] needs the guest's physical memory, the
//! kernel's `System.map`, and the layout of its structures. It needs nothing in the guest. The kernel must be built with
//! frame pointers.
//!
//! Each edge is exact or a guess, and only exact edges prove anything. None of the waits with exact edges ends by a
//! timeout; a signal may end those in S state. The rules of each kind of wait are in its file:
//! `locks` and `readers`, `completions`, `kernfs`, `irq`, `config_access`. Not known are: who holds a spinlock, who
//! keeps an RCU grace period from ending, and who will wake a wait queue or completion that has no rule here.

mod completions;
mod config_access;
mod cycle;
mod error;
mod functions;
mod graph;
mod held;
mod irq;
mod kernel;
mod kernfs;
mod left;
mod locks;
mod look;
mod memory;
mod modules;
mod names;
mod orc;
mod readers;
mod scene;
mod slabs;
mod stack;
mod symbols;
mod task;
#[cfg(test)]
mod tests;
mod unfreed;
mod view;
mod vmcoreinfo;
pub mod words;

pub use error::LookError;
pub use graph::{Call, Certainty, Edge, Graph, Mode, Object, Party, Relation, State, Wait};
pub use held::Held;
pub use kernel::Kernel;
pub use left::{Left, left};
pub use look::look;
pub use memory::{Memory, Unreadable};
pub use slabs::{Census, census};
pub use symbols::Symbols;
pub use unfreed::{Counts, Referenced, Unfreed, referenced};
pub use vmcoreinfo::{Names, vmcoreinfo};
