//! What a run leaves behind: one folder per run, one per cell in it.
//!
//! ```text
//! OUT/latest -> 20260514-101500
//! OUT/20260514-101500/run.json           what was run, with what
//! OUT/20260514-101500/CELL/start.json    what this cell is; there from the beginning
//!                          argv.txt      QEMU's command line, as a shell would take it
//!                          repro.sh      runs this cell alone
//!                          console.log   the guest's serial console
//!                          qmp.jsonl     the QMP channel, line by line
//!                          agent.jsonl   the agent's channel
//!                          verdict.json  written last, and whole
//! OUT/20260514-101500/against.json       what its kernels are compared with, if with anything
//! OUT/20260514-101500/series.json        of a series: its patches, which are in the folder patches/
//! ```
//!
//! A cell counts when its verdict is there, and a cell without one did not complete. Reports are drawn from these files
//! and from nothing else.

mod against;
mod cell_dir;
mod file;
mod jsonl;
mod read;
mod run_dir;
mod series;

pub use against::{AgainstNote, EarlierCell, EarlierKernel};
pub use cell_dir::{CellDir, CellRecord, CellStart, KernelNote};
pub use file::{EvidenceError, write_whole};
pub use jsonl::JsonlWriter;
pub use read::{Run, RunCell, read_run};
pub use run_dir::{LATEST, RunDir, RunInfo, ScenarioNote, VariantNote};
pub use series::{Applies, PATCHES, SeriesNote, SeriesStep};

#[cfg(test)]
pub(crate) mod tests;
