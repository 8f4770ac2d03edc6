//! One run on many machines: the parts of a plan ([`crate::matrix::partition`]) become one run again.

mod copy;
mod error;
mod found;
mod merge;
pub mod slurm;
mod weave;

pub use error::{Fault, MergeError};
pub use merge::{Merged, Told, merge};

#[cfg(test)]
mod tests;
