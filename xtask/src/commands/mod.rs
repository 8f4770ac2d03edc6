//! One file per subcommand.

pub mod bench;
pub mod bench_mutants;
pub mod bisect;
pub mod bisect_step;
pub mod build;
pub mod catalogue;
pub mod classify;
pub mod completions;
pub mod coverage;
pub mod debug;
pub mod doctor;
pub mod gc;
pub mod list;
pub mod man;
pub mod merge;
pub mod plan;
pub mod report;
pub mod run;
pub mod run_matrix;
pub mod series;
pub mod setup;
pub mod shell;
pub mod test;
