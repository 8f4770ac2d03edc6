//! The time that a run spent outside its scenarios, computed from the folder of the run.

use std::fs;
use std::time::SystemTime;

use super::{Measurement, Unit, median};
use crate::evidence::{Run, RunCell};
use crate::notes::Note;
use crate::notes::Phases;
use crate::text::counted;

/// Measures a run. `cold_boot` is the time of a boot on this machine in seconds, for runs in which no cell boots.
/// `wall` is the time of the whole command in seconds, if it is known.
pub fn measure(run: &Run, wall: Option<f64>, cold_boot: Option<f64>, measurement: &mut Measurement) {
    let cells: Vec<_> = run.cells.iter().filter_map(|cell| Some((cell.record.seconds, phases(cell)?))).collect();
    let jobs = run.info.jobs.max(1) as f64;
    let ideal = cells.iter().map(|(_, phases)| phases.scenario).sum::<f64>() / jobs;
    measurement.setup.push(format!(
        "{}: {}, {jobs} at a time, {}",
        run.path.display(),
        counted(cells.len(), "cell", "cells"),
        run.info.accel
    ));
    let booted: Vec<_> = cells.iter().filter(|(_, phases)| phases.steps.agent.is_some()).collect();
    measurement.add("cells", cells.len() as f64, Unit::Count);
    measurement.add("cells that booted", booted.len() as f64, Unit::Count);
    measurement.add("scenario seconds / jobs", ideal, Unit::Seconds);
    let wall = match wall {
        Some(wall) => Some(("wall time of the whole command", wall)),
        None => span(run).map(|wall| ("wall time from the start of the run to its last verdict", wall)),
    };
    if let Some((what, wall)) = wall {
        measurement.add(what, wall, Unit::Seconds);
        measurement.add("wall time / (scenario seconds / jobs)", wall / ideal, Unit::Ratio);
    }
    let Some(overhead) = median(cells.iter().map(|(seconds, phases)| seconds - phases.scenario)) else { return };
    measurement.add("outside the scenario, median of cells", overhead, Unit::Seconds);
    if let Some(restored) = median(cells.iter().filter(|(_, p)| p.steps.restore.is_some()).map(|(s, p)| s - p.scenario))
    {
        measurement.add("outside the scenario, median of cells from snapshots", restored, Unit::Seconds);
    }
    if let Some(boot) = cold_boot.or_else(|| median_boot(run)) {
        measurement.add("cold boot, median", boot, Unit::Seconds);
        measurement.add("outside the scenario / cold boot", overhead / boot, Unit::Ratio);
    }
}

/// The time of a boot in a run until the agent's hello, in seconds: the median of the cells that booted.
pub fn median_boot(run: &Run) -> Option<f64> {
    let phases = run.cells.iter().filter_map(phases);
    median(phases.filter(|phases| phases.steps.agent.is_some()).map(|phases| phases.steps.total()))
}

/// The time of a finished cell by phases. None if the cell ran no scenario, or if an older harness without phases ran
/// it.
fn phases(cell: &RunCell) -> Option<Phases> {
    let phases = cell.record.observations.iter().find_map(|note| match note {
        Note::Phases(phases) => Some(*phases),
        _ => None,
    });
    phases.filter(|phases| cell.finished && phases.scenario > 0.0)
}

/// The time from the writing of `run.json`, before the first cell, to the last verdict, in seconds. It follows from the
/// modification times of the files.
fn span(run: &Run) -> Option<f64> {
    let time = |path: std::path::PathBuf| -> Option<SystemTime> { fs::metadata(path).ok()?.modified().ok() };
    let began = time(run.path.join("run.json"))?;
    let ended = run.cells.iter().filter_map(|cell| time(cell.evidence.as_ref()?.join("verdict.json"))).max()?;
    Some(ended.duration_since(began).ok()?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cell::CellId;
    use crate::evidence::{CellRecord, RunInfo};
    use crate::verdict::{Expected, Verdict};

    fn cell(seconds: f64, phases: serde_json::Value, finished: bool) -> RunCell {
        let cell = CellId {
            scenario: "a::b".to_owned(),
            topology: "igb".to_owned(),
            trigger: None,
            variant: "stock".to_owned(),
            repeat: 1,
        };
        let record = CellRecord {
            cell,
            expected: Expected::Pass,
            verdict: Verdict::Pass,
            seconds,
            trigger_proof: None,
            splats: Vec::new(),
            retries: Vec::new(),
            said: None,
            errors: None,
            observations: json!({ "phases": phases }).into(),
        };
        RunCell { record, evidence: None, finished, kernel: None, own: Vec::new() }
    }

    fn figures(cells: Vec<RunCell>, wall: Option<f64>, boot: Option<f64>) -> Vec<(String, f64)> {
        let info = RunInfo { jobs: 2, ..RunInfo::default() };
        let mut measurement = Measurement { setup: Vec::new(), figures: Vec::new() };
        measure(&Run { path: "/nonexistent".into(), info, cells, ..Run::default() }, wall, boot, &mut measurement);
        measurement.figures.into_iter().map(|figure| (figure.what, figure.value)).collect()
    }

    #[test]
    fn time_outside_of_scenarios() {
        let booted = json!({"boot": 9.0, "qemu": 1.0, "kernel": 2.0, "agent": 5.0, "scenario": 4.0, "teardown": 0.0});
        let restored = |scenario| json!({"boot": 0.5, "restore": 0.5, "scenario": scenario, "teardown": 0.0});
        let unbegun = json!({"boot": 0.0, "scenario": 0.0, "teardown": 0.0});
        let cells = vec![
            cell(14.0, booted, true),
            cell(2.5, restored(2.0), true),
            cell(2.75, restored(2.0), true),
            cell(1.0, unbegun, true),
            cell(99.0, restored(90.0), false),
        ];
        let found = figures(cells.clone(), Some(6.0), None);
        let of = |what: &str| found.iter().find(|(name, _)| name == what).map(|(_, value)| *value);
        assert_eq!(of("cells"), Some(3.0));
        assert_eq!(of("cells that booted"), Some(1.0));
        assert_eq!(of("wall time / (scenario seconds / jobs)"), Some(1.5));
        assert_eq!(of("outside the scenario, median of cells"), Some(0.75));
        assert_eq!(of("outside the scenario, median of cells from snapshots"), Some(0.625));
        assert_eq!(of("outside the scenario / cold boot"), Some(0.75 / 8.0));
        // A given boot time overrides the boots of the run. Without a wall time there is no ratio to it.
        let found = figures(cells, None, Some(7.5));
        assert!(found.contains(&("outside the scenario / cold boot".to_owned(), 0.1)), "{found:?}");
        assert!(!found.iter().any(|(what, _)| what.starts_with("wall")), "{found:?}");
        assert!(!figures(Vec::new(), None, None).iter().any(|(what, _)| what.contains("boot,")));
    }
}
