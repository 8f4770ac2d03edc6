//! Virtual machines with hardware to pull out, and verdicts on the kernels in them.

pub mod trigger;
pub mod verdict;
pub mod vm;
