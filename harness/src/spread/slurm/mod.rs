//! One run as jobs of Slurm: a job that builds, an array with a task for each part, and a job that merges.
//!
//! Slurm decides when and where they run, and runs the task of a node that died again. What became of a part is read from
//! its evidence: `sacct` needs a database that many clusters do not have.

mod scripts;
mod submit;
mod watch;

pub use scripts::{Place, Scripts, Work};
pub use submit::{Jobs, submit};
pub use watch::watch;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::evidence::EvidenceError;

/// How long a command of Slurm may take. The controller of a busy cluster answers late.
const PATIENCE: Duration = Duration::from_secs(60);

/// Slurm does not do what a run needs.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// A command is not there, or cannot be run.
    #[error(
        "cannot run `{program}`: {cause}; --on slurm runs on a machine that can submit jobs, with the commands of Slurm"
    )]
    Start {
        /// The command.
        program: String,
        /// Why.
        cause: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The command.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its stderr.
        stderr: String,
    },
    /// A command gave no answer.
    #[error("`{command}` gave no answer within {} s", PATIENCE.as_secs())]
    Late {
        /// The command.
        command: String,
    },
    /// `sbatch` printed something else than the number of a job.
    #[error("`sbatch --parsable` printed `{0}`, which is no number of a job")]
    NoJob(String),
    /// The job that merges has ended and left no result.
    #[error(
        "the job that merges ended without a result; {} says why. The parts are in {}; to merge what is there: \
         cargo xtask merge --partial {}", log.display(), parts.display(), parts.display()
    )]
    NotMerged {
        /// Its output.
        log: PathBuf,
        /// The folder of the parts.
        parts: PathBuf,
    },
    /// A file cannot be written or read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}
