//! `results.json`.

use serde_json::{Map, Value, json};

use super::Report;
use crate::evidence::{RunCell, RunInfo};
use crate::verdict::Verdict;

/// The version of the format. New keys do not change it.
const SCHEMA: u32 = 2;

pub fn render(report: &Report) -> Value {
    let cells: Vec<_> = report.run.cells.iter().map(cell).collect();
    json!({
        "schema": SCHEMA,
        "run": run(report),
        "cells": cells,
        "against": report.against.as_ref().map(|against| against.results(&report.run)),
        "summary": summary(report),
    })
}

fn run(report: &Report) -> Value {
    let RunInfo {
        started,
        command,
        harness,
        qemu,
        accel,
        accel_reason,
        clock,
        jobs,
        variants,
        scenarios,
        bugs,
        planned: _,
        part,
        merged,
    } = &report.run.info;
    json!({
        "evidence": report.run.path,
        "others": report.run.others,
        "missing": report.run.missing,
        "started": started,
        "command": command,
        "harness": harness,
        "qemu": qemu,
        "accel": accel,
        "accel_reason": accel_reason,
        "clock": clock,
        "jobs": jobs,
        "part": part,
        "merged": merged,
        "variants": variants,
        "scenarios": scenarios,
        "bugs": bugs,
    })
}

fn cell(cell: &RunCell) -> Value {
    let record = &cell.record;
    let failure = match &record.verdict {
        Verdict::Fail(failure) => {
            json!({
                "kind": failure.kind,
                "function": failure.function,
                "summary": failure.summary,
                "cycle": failure.cycle,
            })
        }
        _ => Value::Null,
    };
    json!({
        "scenario": record.cell.scenario,
        "variant": record.cell.variant,
        "topology": record.cell.topology,
        "trigger": record.cell.trigger_name(),
        "repeat": record.cell.repeat,
        "outcome": record.verdict.outcome(),
        "failure": failure,
        "reason": record.verdict.reason(),
        "expected": record.expected.word(),
        "as_expected": record.is_as_expected(),
        "missed": record.is_missed(),
        "seconds": record.seconds,
        "evidence": cell.evidence,
        "trigger_proof": record.trigger_proof,
        "splats": record.splats,
        "retries": record.retries,
        "said": record.said,
        "errors": record.errors,
        "observations": record.observations,
    })
}

fn summary(report: &Report) -> Value {
    let counts = report.counts();
    let mut summary = Map::new();
    let numbers = [
        ("cells", counts.cells),
        ("as_expected", counts.as_expected),
        ("missed", counts.missed),
        ("unexpected", counts.cells - counts.as_expected),
        ("retried", report.run.cells.iter().filter(|cell| !cell.record.retries.is_empty()).count()),
    ];
    summary.extend(numbers.map(|(name, count)| (name.to_owned(), count.into())));
    for outcome in ["pass", "fail", "skip", "build-failed", "boot-failed", "infra"] {
        let count = report.run.cells.iter().filter(|cell| cell.record.verdict.outcome() == outcome).count();
        summary.insert(outcome.to_owned(), count.into());
    }
    summary.insert("exit_code".to_owned(), report.exit_code().into());
    summary.into()
}
