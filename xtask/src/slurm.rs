//! `--on slurm`: the cells of a command as jobs of Slurm.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use harness::cell::PlannedCell;
use harness::evidence::LATEST;
use harness::matrix::Times;
use harness::matrix::balance::balance;
use harness::spread::slurm::{Jobs, Place, Scripts, Work, submit, watch};
use harness::text::counted;

use crate::out;
use crate::ui::Ui;

/// What runs jobs on many machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cluster {
    /// Slurm: a job builds, an array has a task for each part, and a job merges the parts
    Slurm,
}

/// The heading of these options in help texts.
const HEADING: &str = "Many machines";

/// Where the cells run.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct On {
    /// Run the cells as jobs of a cluster, from a checkout that all its nodes see. Ctrl-C cancels the jobs
    #[arg(help_heading = HEADING, long, value_enum, value_name = "CLUSTER", conflicts_with = "partition")]
    on: Option<Cluster>,
    /// The number of parts, each a task of the array [default: 4]
    #[arg(help_heading = HEADING, long, value_name = "N", requires = "on")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    parts: Option<u32>,
    /// Submit the jobs, print how to get at their results, and end
    #[arg(help_heading = HEADING, long, requires = "on")]
    detach: bool,
    /// Build the kernels and the guest image, and run nothing: what the first job does
    #[arg(help_heading = HEADING, long, conflicts_with = "on")]
    pub build_only: bool,
    /// Options for each sbatch, such as -p PARTITION --cpus-per-task=8
    #[arg(help_heading = HEADING, last = true, value_name = "SBATCH_OPTIONS", requires = "on", allow_hyphen_values = true)]
    sbatch: Vec<String>,
}

/// What is run on a cluster.
pub struct Task<'a> {
    /// The cells.
    pub cells: &'a [PlannedCell],
    /// The folder for the folders of runs.
    pub out: &'a Path,
    /// Print what would be submitted, and do nothing.
    pub dry_run: bool,
}

impl On {
    /// Whether the cells run elsewhere.
    pub fn is_elsewhere(&self) -> bool {
        self.on.is_some()
    }

    /// Runs the cells as jobs. The result is the folder of the run that they become, or none if there is nothing to wait
    /// for. Dropping the future cancels the jobs.
    ///
    /// # Errors
    /// Slurm cannot be asked, or the jobs left no result.
    pub async fn run(&self, task: Task<'_>, ui: &Ui) -> Result<Option<PathBuf>> {
        let parts = self.parts.unwrap_or(4);
        let out = std::path::absolute(task.out).context("cannot find the folder of runs")?;
        let work = work(&out)?;
        if task.dry_run {
            let scripts = Scripts::new(&work, &Place::shown(&out), parts);
            let texts =
                scripts.by_job().map(|(job, text)| format!("# {job}.sh, by sbatch {}\n{text}\n", self.options()));
            out::print(&texts.concat())?;
            return Ok(None);
        }
        let split = balance(task.cells, &scenarios::all(), parts, &Times::of(&out.join(LATEST)));
        let place = Place::create(&out)?;
        Scripts::new(&work, &place, parts).write(&work, &place, &split)?;
        let jobs = submit(&place, &self.sbatch).await?;
        ui.say(&format!(
            "jobs {} (build), {} ({}), {} (merge); scripts, logs and evidence in {}",
            jobs.build,
            jobs.parts,
            counted(parts as usize, "part", "parts"),
            jobs.merge,
            place.path().display()
        ));
        if self.detach {
            out::print(&come_back(&jobs, &place))?;
            return Ok(None);
        }
        let guard = Cancel(Some((&jobs, &place)));
        let run = watch(&jobs, &place, &split, ui, |line| ui.say(line)).await?;
        guard.disarm();
        Ok(Some(run))
    }

    fn options(&self) -> String {
        shell_words::join(&self.sbatch)
    }
}

/// Cancels the jobs unless they have ended.
struct Cancel<'a>(Option<(&'a Jobs, &'a Place)>);

impl Cancel<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        if let Some((jobs, place)) = self.0 {
            jobs.cancel();
            eprintln!("the jobs {} were cancelled; what they left is in {}", jobs.list(), place.path().display());
        }
    }
}

/// What to run on the nodes: this program with these arguments.
fn work(out: &Path) -> Result<Work> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    Ok(Work {
        program: std::env::current_exe().context("cannot find this program")?,
        arguments: of_nodes(&arguments),
        within: std::env::current_dir().context("cannot find the current folder")?,
        out: PathBuf::from(out),
    })
}

/// Options with a value that are about this command, and not about its parts.
const OWN: [&str; 4] = ["--on", "--parts", "--out", "--format"];
/// The same without a value.
const OWN_FLAGS: [&str; 4] = ["--detach", "--dry-run", "--setup", "--build-only"];

/// The arguments of a part: those of this command that choose cells and say how to run them.
fn of_nodes(arguments: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut all = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = all.next() {
        let name = argument.split('=').next().unwrap_or(argument);
        if OWN.contains(&name) {
            if name == argument {
                all.next();
            }
        } else if !OWN_FLAGS.contains(&name) {
            kept.push(argument.clone());
        }
    }
    kept
}

/// How to get at the results of jobs that nobody waits for.
fn come_back(jobs: &Jobs, place: &Place) -> String {
    let (list, parts) = (jobs.list(), place.parts());
    format!(
        "progress:   squeue --jobs {list}\ncancel:     scancel {}\nresults:    cargo xtask merge --partial {} (at any time)\n\
         at the end: {}, and the folder that it names",
        list.replace(',', " "),
        parts.display(),
        place.path().join("merge.json").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_get_the_options_about_cells() {
        let kept = |line: &str| of_nodes(&shell_words::split(line).unwrap()).join(" ");
        assert_eq!(
            kept(
                "run-matrix --on slurm --kernels stock,candidate --parts=4 --out x --setup --quick --format json -- -p long"
            ),
            "run-matrix --kernels stock,candidate --quick"
        );
        assert_eq!(kept("series v2.mbox --on=slurm --detach -j 2"), "series v2.mbox -j 2");
    }
}
