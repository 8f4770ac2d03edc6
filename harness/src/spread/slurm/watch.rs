//! Waits for the jobs, and shows how far they are: from the evidence of the parts, and from the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::submit::State;
use super::{Jobs, Place, SlurmError};
use crate::cell::CellId;
use crate::evidence::{CellRecord, EvidenceError, LATEST, SplitNote, read_record};
use crate::progress::{Event, Progress};

/// How often the queue and the evidence are looked at. Neither a shared folder nor Slurm can say that something is new.
const EVERY: Duration = Duration::from_secs(2);

/// How long the result of the merge may take to be seen on a shared folder after its job has ended.
const LAG: Duration = Duration::from_secs(30);

/// Waits until the jobs have ended, and returns the folder of the run that the parts became. Tells of each cell as if it
/// ran here; `say` gets a line when a job or part changes its state.
///
/// # Errors
/// [`SlurmError`]. A controller that does not answer for a while is not an error.
pub async fn watch(
    jobs: &Jobs,
    place: &Place,
    split: &SplitNote,
    progress: &dyn Progress,
    say: impl Fn(&str),
) -> Result<PathBuf, SlurmError> {
    let known = split.cells.iter().filter_map(|cell| Some((cell.id.to_string(), cell.seconds?)));
    let (count, jobs_at_a_time, seconds) = (split.cells.len(), split.parts as usize, known.collect());
    progress.event(Event::Cells { count, jobs: jobs_at_a_time, evidence: place.path(), seconds: &seconds });
    let mut seen = Seen::default();
    let mut mute = false;
    loop {
        seen.look(place, split, progress)?;
        match jobs.states().await {
            Ok(states) => {
                mute = false;
                seen.changes(jobs, &states).iter().for_each(|line| say(line));
                if states.is_empty() {
                    break;
                }
            }
            Err(error) if !mute => {
                mute = true;
                say(&format!("{error}; the jobs are not touched, and asked after again"));
            }
            Err(_) => {}
        }
        tokio::time::sleep(EVERY).await;
    }
    seen.look(place, split, progress)?;
    progress.event(Event::CellsStopped);
    result(place).await
}

/// The folder that `merge` names.
async fn result(place: &Place) -> Result<PathBuf, SlurmError> {
    let until = Instant::now() + LAG;
    loop {
        let json = fs::read(place.results()).unwrap_or_default();
        let results = serde_json::from_slice::<serde_json::Value>(&json).unwrap_or_default();
        if let Some(run) = results["run"]["evidence"].as_str() {
            return Ok(PathBuf::from(run));
        }
        if Instant::now() > until {
            return Err(SlurmError::NotMerged { log: place.log("merge"), parts: place.parts() });
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What was told already.
#[derive(Default)]
struct Seen {
    cells: BTreeSet<CellId>,
    states: BTreeMap<String, (String, String)>,
}

impl Seen {
    /// Tells of the cells that have ended since the last look.
    fn look(&mut self, place: &Place, split: &SplitNote, progress: &dyn Progress) -> Result<(), EvidenceError> {
        for part in 1..=split.parts {
            for record in self.news(&place.part(part).join(LATEST)) {
                // The part of a node that died runs again: its cells are told of once.
                if self.cells.insert(record.cell.clone()) {
                    progress.event(Event::CellFinished {
                        cell: &record.cell.to_string(),
                        verdict: &record.verdict,
                        unexpected: record.is_unexpected(),
                        took: Duration::from_secs_f64(record.seconds),
                    });
                }
            }
        }
        Ok(())
    }

    /// The verdicts in the folder of a run that were not seen yet. One that cannot be read is read later.
    fn news(&self, run: &Path) -> Vec<CellRecord> {
        let folders = fs::read_dir(run).into_iter().flatten().flatten().map(|entry| entry.path());
        let known: BTreeSet<_> = self.cells.iter().map(CellId::folder).collect();
        let is_new = |folder: &PathBuf| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with('.') && !known.contains(&*name)
        };
        folders.filter(is_new).filter_map(|folder| read_record(&folder).ok().flatten()).collect()
    }

    /// A line for each job that has another state than at the last look.
    fn changes(&mut self, jobs: &Jobs, states: &[State]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut now = BTreeMap::new();
        for State { job, state, node } in states {
            let name = name(jobs, job);
            let is = (state.clone(), node.clone());
            let before = self.states.get(&name);
            // A job that waits may have another reason each time.
            let differs = before.is_none_or(|before| before.0 != is.0 || (is.0 != "PENDING" && before.1 != is.1));
            if differs && (before.is_some() || state != "PENDING") {
                lines.push(format!("{name}: {} {node}", state.to_lowercase()));
            }
            now.insert(name, is);
        }
        let ended = self.states.keys().filter(|name| !now.contains_key(*name));
        lines.extend(ended.map(|name| format!("{name}: ended")));
        self.states = now;
        lines
    }
}

/// A job in words: `build`, `part 2`, `merge`.
fn name(jobs: &Jobs, job: &str) -> String {
    match job.split_once('_') {
        Some((_, task)) => format!("part {task}"),
        None if job == jobs.build => "build".to_owned(),
        None if job == jobs.merge => "merge".to_owned(),
        None => format!("job {job}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_once() {
        let jobs = Jobs { build: "12".to_owned(), parts: "13".to_owned(), merge: "14".to_owned() };
        let mut seen = Seen::default();
        let mut changes = |states: &[(&str, &str, &str)]| {
            let state = |(job, state, node): &(&str, &str, &str)| State {
                job: (*job).to_owned(),
                state: (*state).to_owned(),
                node: (*node).to_owned(),
            };
            seen.changes(&jobs, &states.iter().map(state).collect::<Vec<_>>()).join("; ")
        };
        assert_eq!(changes(&[("12", "RUNNING", "n1"), ("14", "PENDING", "(Dependency)")]), "build: running n1");
        assert_eq!(changes(&[("12", "RUNNING", "n1"), ("14", "PENDING", "(Priority)")]), "");
        assert_eq!(
            changes(&[("13_2", "RUNNING", "n2"), ("14", "PENDING", "(Dependency)")]),
            "part 2: running n2; build: ended"
        );
        assert_eq!(changes(&[("13_2", "PENDING", "(BeginTime)")]), "part 2: pending (BeginTime); merge: ended");
        assert_eq!(changes(&[("13_2", "RUNNING", "n3")]), "part 2: running n3");
    }
}
