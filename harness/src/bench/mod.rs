//! Measuring the harness itself: how long it takes, and how much its scenarios notice. All claims about speed are ratios
//! of times that were measured in one run on one machine, because times in seconds depend more on the host than on the
//! harness.

pub mod builds;
pub mod leaks;
pub mod matrix;
pub mod mutants;
pub mod starts;
pub mod vng;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// The result of a benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// What exactly was run, and on which machine. One line each.
    pub setup: Vec<String>,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The value.
    pub value: f64,
    /// The unit of the value.
    pub unit: Unit,
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Seconds of wall time.
    Seconds,
    /// Seconds of CPU time, which depends less on the load of the host.
    CpuSeconds,
    /// The quotient of two figures of the same run.
    Ratio,
    /// A number of things.
    Count,
    /// MiB of memory.
    Mebibytes,
}

impl Figure {
    /// A figure.
    pub fn new(what: impl Into<String>, value: f64, unit: Unit) -> Figure {
        Figure { what: what.into(), value, unit }
    }

    fn value(&self) -> String {
        match self.unit {
            Unit::Seconds => format!("{:.3} s", self.value),
            Unit::CpuSeconds => format!("{:.3} CPU s", self.value),
            Unit::Ratio => format!("{:.3}", self.value),
            Unit::Count => format!("{:.0}", self.value),
            Unit::Mebibytes => format!("{:.1} MiB", self.value),
        }
    }
}

impl Measurement {
    /// A measurement that begins now. Records the load of the host, which is the main source of error.
    pub fn begin() -> Measurement {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let load = load.split_whitespace().next().unwrap_or("unknown");
        Measurement { setup: vec![format!("{cpus} CPUs, load average {load} at the beginning")], figures: Vec::new() }
    }

    /// Adds a figure.
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: Unit) {
        self.figures.push(Figure::new(what, value, unit));
    }

    /// The measurement as a table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for figure in &self.figures {
            table.add_row([figure.what.clone(), figure.value()]);
        }
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        format!("{}\n\n{table}\n", self.setup.join("\n"))
    }
}

/// The median of some values. None if there are no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The CPU time of all children of this process that it has waited for, and of their children, in seconds: `cutime` and
/// `cstime` of proc_pid_stat(5). They count hundredths of a second (`USER_HZ`, 100 on x86).
pub(crate) fn cpu_of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The field `comm` before the other fields may contain any character, even parentheses and spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn the_cpu_time_of_a_child_is_counted() {
        let before = cpu_of_children();
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", spin]).status().unwrap().success());
        assert!(cpu_of_children() > before);
    }

    #[test]
    fn a_table_has_the_setup_above_the_figures() {
        let mut measurement = Measurement { setup: vec!["a machine".to_owned()], figures: Vec::new() };
        measurement.add("cold boot", 4.0, Unit::Seconds);
        measurement.add("restored start / cold boot", 0.125, Unit::Ratio);
        let text = measurement.table();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "a machine");
        assert!(lines[2].starts_with("cold boot") && lines[2].ends_with("4.000 s"), "{text}");
        assert!(lines[3].ends_with("0.125"), "{text}");
    }
}
