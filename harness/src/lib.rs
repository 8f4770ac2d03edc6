//! Virtual machines with hardware to pull out, and verdicts on the kernels in them.

pub mod accel;
pub mod bench;
pub mod cell;
pub mod classify;
pub mod error;
pub mod evidence;
pub mod guest;
pub mod host;
pub mod judge;
pub mod lab;
pub mod matrix;
mod order;
pub mod plan;
pub mod progress;
pub mod removal;
pub mod report;
pub mod scale;
pub mod scenario;
pub mod snapshots;
pub mod stack;
pub mod stuck;
mod tail;
pub mod trigger;
pub mod verdict;
pub mod vm;
mod yank;
