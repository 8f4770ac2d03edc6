//! A kernel's reports of its own faults on the console.
//!
//! [`classify`] finds the *splats* in a log: the reports that the kernel prints about its own faults. The headlines of
//! splats are data ([`rules::RULES`]). The format of the lines that follow determines where a splat ends. The formats
//! are those of `kernel/panic.c`, `lib/bug.c`, `kernel/hung_task.c`, `kernel/watchdog.c`, `kernel/locking/lockdep.c`,
//! `kernel/rcu/tree_stall.h`, `mm/kasan/report.c`, `mm/slub.c` and `arch/*/kernel/{dumpstack,traps}.c`.
//!
//! The log may be that of a serial console, or have been stored or shown by another program: `prefix` lists the forms.

mod body;
pub mod console;
mod culprit;
pub mod errors;
mod frame;
mod holder;
mod kind;
mod line;
mod nmi;
mod prefix;
mod removal;
mod report;
mod reporters;
pub mod rules;
mod scan;
mod splat;
pub mod stack;
mod starved;
mod trace;

use kernels::KnownReport;

pub use holder::Holder;
pub use kind::{Severity, SplatKind};
pub use nmi::backtrace;
use removal::Removals;
use scan::Scan;
pub use splat::Splat;
pub use starved::blame_host;
pub use trace::add_lines;

/// The kind of splat that a line without its timestamp begins, if the kernel usually kills the task after it.
pub fn headline_of_death(text: &str) -> Option<SplatKind> {
    rules::matching(text).filter(|rule| rule.kills).map(|rule| rule.kind)
}

/// The splats of a log, in order. The log may be truncated or interleaved, may have CRLF line ends, and may contain
/// several boots.
pub fn classify(log: &str) -> Vec<Splat> {
    let mut scan = Scan::default();
    let mut removals = Removals::default();
    let mut lines = 0;
    for (number, raw) in log.lines().enumerate() {
        lines = number + 1;
        for message in line::messages(&line::without_colours(raw)) {
            removals.take(number, &message);
            scan.take(number, &message);
        }
    }
    let mut found = scan.finish(lines, log.is_empty() || log.ends_with('\n'));
    starved::blame_lost_timer(&mut found);
    removals.excuse(&mut found);
    found
}

/// The splats of a console log. Sets [`Splat::known`] in those that match a known report.
pub fn classify_knowing(log: &str, known: &[KnownReport]) -> Vec<Splat> {
    let mut found = classify(log);
    if known.is_empty() || found.is_empty() {
        return found;
    }
    let lines: Vec<_> = log.lines().collect();
    for splat in found.iter_mut().filter(|splat| splat.known.is_none()) {
        let report = lines[splat.lines.clone()].join("\n");
        splat.known = known.iter().find(|known| known.is(&report)).map(|known| known.why.clone());
    }
    found
}

#[cfg(test)]
mod tests;
