//! The files that a run writes: one folder per run, and in it one folder per cell.
//!
//! ```text
//! OUT/latest -> 20260514-101500
//! OUT/20260514-101500/run.json           what is run, with which programs
//! OUT/20260514-101500/CELL/start.json    the description of this cell, written before it begins
//!                          argv.txt      QEMU's command line, quoted for a shell
//!                          repro.sh      runs only this cell
//!                          console.log   the guest's serial console
//!                          qmp.jsonl     the QMP channel, line by line
//!                          agent.jsonl   the agent's channel
//!                          coverage.json only with coverage: what it executed of its kernel
//!                          script/       only of a script: the script itself
//!                          output.log    only of a script: what it printed
//!                          verdict.json  the result of this cell, written last and atomically
//! OUT/20260514-101500/against.json       only with a reference: what the kernels are compared with
//! OUT/20260514-101500/coverage/          only with coverage: what there is to execute, by the key of the kernel
//! OUT/20260514-101500/split.json         only in a part of a plan: all cells of the plan, and the part of each
//! OUT/20260514-101500/series.json        only for a series: its patches, whose files are in the folder patches/
//! ```
//!
//! The answer of a bisection has a folder of its own, whose `bisection.json` names the cells of its steps.
//!
//! A cell is complete if its verdict.json exists. A cell without that file did not complete. Reports are made from
//! these files and from nothing else.

mod against;
mod bisection;
mod cell_dir;
mod coverage;
mod file;
mod join;
mod jsonl;
mod read;
mod run_dir;
mod series;
mod split;
mod transcript;

pub use against::{AgainstNote, EarlierCell, EarlierKernel};
pub use bisection::{BisectionNote, BisectionStep, Mark};
pub use cell_dir::{AGENT, CONSOLE, CellDir, CellRecord, CellStart, DUMP, KernelNote, OUTPUT, START, ScriptNote};
pub use coverage::{CellCoverage, KERNELS as COVERAGE, RunCoverage};
pub use file::{EvidenceError, write_whole};
pub use jsonl::JsonlWriter;
pub use read::{Run, RunCell, read_record, read_run};
pub use run_dir::{LATEST, RUN, RunDir, RunInfo, ScenarioNote, VariantNote, folder_of_runs};
pub use series::{Applies, PATCHES, SeriesNote, SeriesStep};
pub use split::{MergedNote, MergedPart, PartNote, Share, SplitCell, SplitNote};
pub use transcript::{Details, Said, Spoken, Transcript};

#[cfg(test)]
pub(crate) mod tests;
