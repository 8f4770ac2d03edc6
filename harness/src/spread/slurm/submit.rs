//! Submits the jobs, asks after them, and cancels them.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use super::{PATIENCE, Place, SlurmError};

/// The numbers of the jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// That which builds.
    pub build: String,
    /// The array of the parts.
    pub parts: String,
    /// That which merges.
    pub merge: String,
}

/// What Slurm says of a job or of the task of an array that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// The number of the job, with the task: `13_2`.
    pub job: String,
    /// `PENDING`, `RUNNING`, ...
    pub state: String,
    /// The node, or why there is none yet.
    pub node: String,
}

/// Submits the scripts of a place. Each job begins when the one before it has ended, however it ended. `options` are for
/// each `sbatch`. If one cannot be submitted, those before it are cancelled.
///
/// # Errors
/// [`SlurmError`].
pub async fn submit(place: &Place, options: &[String]) -> Result<Jobs, SlurmError> {
    let build = sbatch(&place.script("build"), None, options).await?;
    let parts = match sbatch(&place.script("part"), Some(&build), options).await {
        Ok(parts) => parts,
        Err(error) => return Err(after_cancelling(&[&build], error)),
    };
    match sbatch(&place.script("merge"), Some(&parts), options).await {
        Ok(merge) => Ok(Jobs { build, parts, merge }),
        Err(error) => Err(after_cancelling(&[&build, &parts], error)),
    }
}

fn after_cancelling(jobs: &[&String], error: SlurmError) -> SlurmError {
    cancel(jobs.iter().map(|job| job.as_str()));
    error
}

async fn sbatch(script: &Path, after: Option<&str>, options: &[String]) -> Result<String, SlurmError> {
    let mut command = Command::new("sbatch");
    command.arg("--parsable").args(after.map(|job| format!("--dependency=afterany:{job}"))).args(options).arg(script);
    let printed = stdout_of(&mut command).await?;
    // `JOB` or `JOB;CLUSTER`.
    let job = printed.trim().split(';').next().unwrap_or_default();
    let is_number = !job.is_empty() && job.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { Ok(job.to_owned()) } else { Err(SlurmError::NoJob(printed.trim().to_owned())) }
}

impl Jobs {
    /// The numbers, separated by commas.
    pub fn list(&self) -> String {
        [&self.build, &self.parts, &self.merge].map(String::as_str).join(",")
    }

    /// Those that have not ended. Jobs that ended long ago are not known to Slurm any more.
    pub(super) async fn states(&self) -> Result<Vec<State>, SlurmError> {
        let mut command = Command::new("squeue");
        command.args(["--noheader", "--array", "--format=%i|%T|%R", "--jobs", &self.list()]);
        match stdout_of(&mut command).await {
            Ok(text) => Ok(text.lines().filter_map(State::parse).collect()),
            Err(SlurmError::Failed { stderr, .. }) if stderr.contains("Invalid job id") => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Cancels all of them, and waits until Slurm has taken the order.
    pub fn cancel(&self) {
        cancel([&self.build, &self.parts, &self.merge].map(String::as_str));
    }
}

impl State {
    fn parse(line: &str) -> Option<State> {
        let [job, state, node] = line.trim().splitn(3, '|').collect::<Vec<_>>().try_into().ok()?;
        let [job, state, node]: [&str; 3] = [job, state, node];
        Some(State { job: job.to_owned(), state: state.to_owned(), node: node.to_owned() })
    }
}

/// This happens while the process ends, so nothing can be awaited.
fn cancel<'a>(jobs: impl IntoIterator<Item = &'a str>) {
    let mut command = std::process::Command::new("scancel");
    // If this fails, the jobs run on, and their numbers were printed.
    let _ = command.args(jobs).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

async fn stdout_of(command: &mut Command) -> Result<String, SlurmError> {
    let shown = || {
        let plain = command.as_std();
        let words = std::iter::once(plain.get_program()).chain(plain.get_args()).map(|word| word.to_string_lossy());
        shell_words::join(words)
    };
    let (shown, program) = (shown(), command.as_std().get_program().to_string_lossy().into_owned());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match timeout(PATIENCE, output).await {
        Err(_) => return Err(SlurmError::Late { command: shown }),
        Ok(output) => output.map_err(|cause| SlurmError::Start { program, cause })?,
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(SlurmError::Failed { command: shown, status: output.status, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_squeue_are_read() {
        let state = State::parse("13_2|RUNNING|n1\n").unwrap();
        assert_eq!((state.job.as_str(), state.state.as_str(), state.node.as_str()), ("13_2", "RUNNING", "n1"));
        assert_eq!(State::parse("14|PENDING|(Dependency)").unwrap().node, "(Dependency)");
        assert_eq!(State::parse("slurm_load_jobs error"), None);
    }
}
