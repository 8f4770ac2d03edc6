//! Kernels with and without a change: manifest, fetch, patch, configure, build, cache.
//!
//! [`Manifest::load`] reads `kernels.toml`. A [`Builder`] finds the [`KernelImage`] of a variant in the
//! [cache](cache::Cache), or builds it there, and says how its structs are [laid out](layout::Layout). This crate knows
//! nothing of QEMU.

pub mod archive;
mod bug;
mod build_id;
mod builder;
pub mod cache;
mod code;
mod compile;
mod config;
mod error;
mod event;
mod files;
mod follow;
pub mod gc;
mod image;
mod job;
pub mod layout;
mod lines;
mod manifest;
mod mutant;
mod near;
mod package;
mod patch;
mod profile;
mod ready;
mod requirements;
mod selftests;
pub mod series;
pub mod shared;
mod site;
mod source;
mod space;
pub mod tree;
mod unpack;
mod workshop;

pub use archive::{ArchiveError, Package};
pub use bug::{Bug, Chance, Cycle, Fails, FailureKind};
pub use build_id::set_build_id;
pub use builder::Builder;
pub use code::{Code, CodeError, SourceFile};
pub use config::{FragmentError, Unmet};
pub use error::{BuildError, CompilerError, PatchError};
pub use event::{BuildEvent, CancelToken, Observer, Step};
pub use image::KernelImage;
pub use job::JobError;
pub use lines::{InFunction, SourceLines};
pub use manifest::{Base, MANIFEST, Manifest, ManifestError, Need, OwnConfig, Source, Variant};
pub use mutant::{Mutant, MutantError};
pub use near::{Unknown, near};
pub use profile::{KnownReport, Profile, split_profile};
pub use ready::{ReadyKernel, modules_of_cells};
pub use requirements::{Probe, Requirement, requirements, selftest_requirements};
pub use selftests::Selftests;
pub use tree::Revision;
