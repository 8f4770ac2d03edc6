//! Kernels with and without a change: manifest, fetch, patch, configure, build, cache.

mod bug;
pub mod cache;
mod requirements;

pub use bug::{Bug, Fails, FailureKind};
pub use requirements::{Probe, Requirement, requirements};
