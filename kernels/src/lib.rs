//! Kernels with and without a change: manifest, fetch, patch, configure, build, cache.

mod bug;
pub mod cache;

pub use bug::{Bug, Fails, FailureKind};
