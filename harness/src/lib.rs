//! Virtual machines with hardware to pull out, and verdicts on the kernels in them.
//!
//! Each folder is a room with one purpose, and `ARCHITECTURE.md` says which room may use which. The files beside them
//! hold the words that all rooms share.

pub mod bench;
pub mod bisect;
pub mod cell;
pub mod classify;
pub mod evidence;
pub mod guest;
pub mod host;
pub mod lab;
pub mod matrix;
pub mod notes;
pub mod progress;
pub mod report;
pub mod scenario;
pub mod text;
pub mod trigger;
pub mod verdict;
pub mod vm;
