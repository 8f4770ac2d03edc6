//! The answer as evidence, from which reports are drawn.

use super::{Answer, Asked, Found, Judged, Revision};
use crate::evidence::{BisectionNote, BisectionStep};

/// The note of an answer.
pub fn note(answer: &Answer, asked: &Asked) -> BisectionNote {
    BisectionNote {
        answer: conclusion(answer),
        wanted: answer.wanted.to_string(),
        cell: asked.cell.clone(),
        steps: answer.judged.iter().map(|judged| step(judged, &answer.found)).collect(),
        log: answer.log.clone(),
    }
}

fn conclusion(answer: &Answer) -> String {
    let kind = if answer.reverse { "fixed" } else { "bad" };
    let what = |revision: &Revision| if revision.is_of_series() { "patch of the series" } else { "commit" };
    match &answer.found {
        Found::First(revision) => {
            format!("{} is the first {kind} {}: {}", revision.short, what(revision), revision.subject)
        }
        Found::OneOf(revisions) => {
            let names: Vec<_> = revisions.iter().map(|revision| revision.short.as_str()).collect();
            let what = revisions.first().map_or("commit", what);
            format!("The first {kind} {what} is one of {}: some of them could not be judged", names.join(", "))
        }
    }
}

fn step(judged: &Judged, found: &Found) -> BisectionStep {
    let Judged { revision, ruling, observed, remembered } = judged;
    let is = |other: &Revision| other.id == revision.id;
    BisectionStep {
        commit: revision.short.clone(),
        subject: revision.subject.clone(),
        mark: ruling.mark,
        why: ruling.why.clone(),
        flaky: ruling.flaky,
        remembered: *remembered,
        found: match found {
            Found::First(first) => is(first),
            Found::OneOf(revisions) => revisions.iter().any(is),
        },
        cells: observed.iter().filter_map(|observed| observed.evidence.clone()).collect(),
    }
}
