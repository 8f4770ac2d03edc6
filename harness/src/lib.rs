//! Boots kernels in virtual machines, removes PCI devices while they are in use, and gives a verdict on each kernel.
//!
//! Each folder is a "room": a module with one purpose. `ARCHITECTURE.md` says which room may use which. The single
//! files define terms that all rooms share.

pub mod bench;
pub mod bisect;
pub mod cell;
pub mod classify;
pub mod coverage;
pub mod evidence;
pub mod guest;
pub mod host;
pub mod lab;
pub mod matrix;
pub mod notes;
pub mod progress;
pub mod report;
pub mod scenario;
pub mod script;
pub mod spread;
pub mod tap;
pub mod text;
pub mod tries;
pub mod trigger;
pub mod verdict;
pub mod vm;
pub mod waits;
