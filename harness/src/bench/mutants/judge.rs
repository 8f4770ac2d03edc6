//! Runs the cells of a mutant, and judges it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::MutantsError;
use super::order::order;
use super::results::{Judged, Kill, Outcome};
use super::stage::{Prepared, Ready, Stage};
use crate::cell::PlannedCell;
use crate::evidence::{AgainstNote, EarlierKernel};
use crate::progress::Event;
use crate::report::{CellChange, Change, Report, by_message};

impl Stage<'_> {
    /// Runs the cells of a mutant until one kills it, or all if that was asked for. Those of scenarios that have killed
    /// others come first.
    ///
    /// # Errors
    /// Evidence cannot be written.
    pub async fn judge(
        &self,
        Ready { place, run }: Ready<'_>,
        bases: &BTreeMap<String, EarlierKernel>,
        killers: &BTreeSet<String>,
    ) -> Result<Judged, MutantsError> {
        let mutant = &place.mutant;
        let judged = Judged {
            name: mutant.name.clone(),
            file: mutant.file.clone(),
            function: mutant.function.clone(),
            shows: mutant.shows.clone(),
            base: place.base.clone(),
            outcome: Outcome::NoAnswer,
            killed_by: Vec::new(),
            why: None,
            says: Vec::new(),
            reached: self.reached().map(|reached| reached.count(mutant)),
            cells: 0,
            of: 0,
            build_seconds: None,
            cells_seconds: 0.0,
            run: None,
        };
        let known = place.base.as_ref().and_then(|base| Some((base, bases.get(base)?)));
        let (prepared, (base, known)) = match (run, known) {
            (Ok(prepared), Some(known)) => (prepared, known),
            (Err((outcome, why)), _) => return Ok(Judged { outcome, why: Some(why), ..judged }),
            (Ok(_), None) => return Ok(judged),
        };
        let note = AgainstNote { asked: base.clone(), kernel: base.clone(), earlier: Some(known.clone()) };
        note.write(prepared.runner.folder())?;
        let cells = order(&prepared.cells, mutant, known, self.reached(), killers);
        let began = Instant::now();
        self.cells_of(&mutant.name, &prepared, cells).await?;
        let took = began.elapsed();
        let report = Report::of(prepared.runner.folder())?;
        report.write_files()?;
        Ok(conclude(judged, &report, &prepared, took))
    }

    /// Runs cells until all have ended, or one has killed the mutant.
    async fn cells_of(&self, name: &str, prepared: &Prepared<'_>, cells: Vec<PlannedCell>) -> Result<(), MutantsError> {
        let request = self.request(name, cells);
        let running = prepared.runner.run(&request, &*prepared.watch);
        tokio::pin!(running);
        loop {
            tokio::select! {
                done = &mut running => return Ok(done?),
                () = prepared.watch.failed(), if !self.task.all_cells => {
                    if !kills(&Report::of(prepared.runner.folder())?.changes(name)).is_empty() {
                        // Returning ends the guests that still run.
                        self.progress.event(Event::CellsStopped);
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The result of a mutant from the report of its run.
fn conclude(judged: Judged, report: &Report, prepared: &Prepared<'_>, took: Duration) -> Judged {
    let changes = report.changes(&judged.name);
    let killed_by = kills(&changes);
    let (outcome, why) = match (killed_by.is_empty(), unanswered(&changes)) {
        (false, _) => (Outcome::Killed, None),
        (true, Some(why)) => (Outcome::NoAnswer, Some(why)),
        (true, None) => (Outcome::Survived, None),
    };
    let cells = &report.run().cells;
    Judged {
        outcome,
        killed_by,
        why,
        says: says(&changes),
        cells: cells.iter().filter(|cell| cell.finished).count(),
        of: cells.len(),
        build_seconds: prepared.watch.built().map(|took| took.as_secs_f64()),
        cells_seconds: took.as_secs_f64(),
        run: Some(report.run().path.clone()),
        ..judged
    }
}

/// The cells that fail and are worse than on the base. A cell without a verdict kills nothing.
fn kills(changes: &[CellChange]) -> Vec<Kill> {
    let worse = changes.iter().filter(|cell| cell.change == Change::Regressed);
    let kill = |cell: &CellChange| {
        let failure = cell.failure.as_ref()?;
        Some(Kill {
            scenario: cell.scenario.clone(),
            topology: cell.topology.clone(),
            trigger: cell.trigger.to_owned(),
            how: failure.to_string(),
        })
    };
    worse.filter_map(kill).collect()
}

/// The error messages that the base does not have.
fn says(changes: &[CellChange]) -> Vec<String> {
    let of = |cell: &CellChange| match cell.trigger {
        "none" => format!("{} ({})", cell.scenario, cell.topology),
        trigger => format!("{} ({}, {trigger})", cell.scenario, cell.topology),
    };
    by_message(changes.iter().map(|cell| (of(cell), cell.new_errors.as_slice())))
}

/// Why it is not known whether a mutant that no cell has killed is different from its base. None if it is known.
fn unanswered(changes: &[CellChange]) -> Option<String> {
    if changes.iter().all(|cell| cell.change == Change::NotCompared) {
        return Some("no cell has a verdict on the base".to_owned());
    }
    let open = |cell: &&CellChange| matches!(cell.change, Change::NoAnswer | Change::Regressed);
    let first = changes.iter().find(open)?;
    let more = match changes.iter().filter(open).count() {
        1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    Some(format!("{} ({}, {}): {}{more}", first.scenario, first.topology, first.trigger, first.words))
}

#[cfg(test)]
mod tests {
    use kernels::FailureKind;

    use super::*;
    use crate::verdict::Failure;

    fn cell(change: Change, failure: Option<&str>) -> CellChange {
        let failed = |function: &str| Failure {
            kind: FailureKind::Deadlock,
            function: Some(function.to_owned()),
            summary: String::new(),
            cycle: None,
        };
        CellChange {
            scenario: "reset::of_pf".to_owned(),
            topology: "igb".to_owned(),
            trigger: "none",
            change,
            failure: failure.map(failed),
            words: failure.unwrap_or("infra").to_owned(),
            new_errors: Vec::new(),
        }
    }

    #[test]
    fn only_a_failing_verdict_kills() {
        let kills = |cells: &[CellChange]| super::kills(cells).into_iter().map(|kill| kill.how).collect::<Vec<_>>();
        assert_eq!(kills(&[cell(Change::Regressed, Some("f"))]), ["deadlock at f"]);
        assert!(kills(&[cell(Change::StillBroken, Some("f")), cell(Change::ByChance, Some("f"))]).is_empty());
        // A kernel that does not boot counts as regressed, and has no failure.
        assert!(kills(&[cell(Change::Regressed, None), cell(Change::NoAnswer, None)]).is_empty());
    }

    #[test]
    fn a_mutant_survives_only_if_every_compared_cell_has_an_answer() {
        let unchanged = || cell(Change::Unchanged, None);
        assert_eq!(unanswered(&[unchanged(), cell(Change::NotCompared, None)]), None);
        assert_eq!(unanswered(&[unchanged(), cell(Change::StillBroken, Some("f"))]), None);
        let open = unanswered(&[unchanged(), cell(Change::NoAnswer, None), cell(Change::Regressed, None)]);
        assert_eq!(open.unwrap(), "reset::of_pf (igb, none): infra, and 1 more");
        assert!(unanswered(&[cell(Change::NotCompared, None)]).unwrap().contains("on the base"));
    }
}
