//! The results of a run, on stdout.

use std::io::stdout;
use std::path::Path;

use anyhow::Result;
use harness::report::{Report, SeriesReport, Terminal};

use crate::out;
use crate::select::Format;

/// How much of the results is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The unexpected cells, and the summary.
    Brief,
    /// The table, or the comparison with a reference if there is one.
    Usual,
    /// All rows of the table, and the comparison.
    All,
}

impl Extent {
    /// The extent with or without `--verbose`.
    pub fn of(verbose: bool) -> Extent {
        if verbose { Extent::All } else { Extent::Usual }
    }
}

/// Prints the results of a run.
///
/// # Errors
/// Writing to stdout failed.
pub fn print(report: &Report, format: Format, extent: Extent) -> Result<()> {
    out::print(&match format {
        Format::Human => text(report, extent),
        Format::Json => format!("{:#}", report.results()),
    })
}

fn text(report: &Report, extent: Extent) -> String {
    let terminal = Terminal { whole: extent == Extent::All, ..Terminal::of_stdout(&stdout()) };
    let table = || if extent == Extent::Brief { report.brief() } else { report.table(terminal) };
    match report.comparison() {
        Some(comparison) if extent == Extent::All => format!("{}\n{comparison}", table()),
        Some(comparison) => comparison,
        None => table(),
    }
}

/// Prints the table of a series and the summary for a reply.
///
/// # Errors
/// Writing to stdout failed.
pub fn print_series(report: &SeriesReport, run: &Path, format: Format) -> Result<()> {
    out::print(&match format {
        Format::Human => {
            let table = report.table(Terminal::of_stdout(&stdout()));
            let rule = "-".repeat(72);
            let place = run.display();
            format!(
                "{table}\nevidence in {place}; for a reply (summary.txt there):\n{rule}\n{}{rule}",
                report.summary()
            )
        }
        Format::Json => format!("{:#}", report.results()),
    })
}
