//! Kernels with and without a change: manifest, fetch, patch, configure, build, cache.

mod bug;
pub mod cache;
mod event;
mod manifest;
mod near;
mod requirements;

pub use bug::{Bug, Fails, FailureKind};
pub use event::{BuildEvent, CancelToken, Observer, Step};
pub use manifest::{Base, MANIFEST, Manifest, ManifestError, Source, Variant};
pub use near::{Unknown, near};
pub use requirements::{Probe, Requirement, requirements};
