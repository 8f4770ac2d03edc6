//! Measuring the harness itself. All that is said about speed is a ratio of things measured in one run on one machine:
//! seconds alone say more about the host than about the harness.

pub mod builds;
pub mod leaks;
pub mod matrix;
pub mod starts;
pub mod vng;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// What a benchmark found.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// What was run, exactly, and on what: one line each.
    pub setup: Vec<String>,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// How much it was.
    pub value: f64,
    /// In what.
    pub unit: Unit,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Seconds on the wall's clock.
    Seconds,
    /// Seconds of CPU time: they change less with the load of the host.
    CpuSeconds,
    /// One figure over another of the same run.
    Ratio,
    /// Things.
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
    /// A measurement that begins now: says how busy the host is, which is most of what spoils one.
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

    /// For people.
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

/// The middle one of some values; none of none.
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

/// The CPU time of all processes that this one started and saw end, with theirs, in seconds: `cutime` and `cstime` of
/// proc_pid_stat(5). They are counted in hundredths of a second (`USER_HZ`, 100 on x86).
pub(crate) fn cpu_of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before may hold anything, a parenthesis and spaces too.
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
    fn a_busy_child_is_seen() {
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
