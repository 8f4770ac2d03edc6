//! A kernel's reports of its own faults on the console.
//!
//! [`classify`] finds the *splats* in a log: the reports that the kernel prints about its own faults. The headlines of
//! splats are data ([`rules::RULES`]). The format of the lines that follow determines where a splat ends. The formats
//! are those of `kernel/panic.c`, `lib/bug.c`, `kernel/hung_task.c`, `kernel/watchdog.c`, `kernel/locking/lockdep.c`,
//! `kernel/rcu/tree_stall.h`, `mm/kasan/report.c` and `arch/x86/kernel/dumpstack.c`.

pub mod console;
mod frame;
mod line;
mod nmi;
mod report;
pub mod rules;
pub mod stack;
mod starved;

use std::fmt;
use std::ops::Range;

use kernels::KnownReport;
use serde::{Deserialize, Serialize};

use line::Message;
pub use nmi::backtrace;
use report::Open;
use rules::Rule;
pub use starved::blame_host;

/// The kind of a splat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplatKind {
    /// A fault in kernel mode.
    Oops,
    /// `BUG()`, and the reports that begin with `BUG:` and have no kind of their own.
    Bug,
    /// `WARN()`, UBSAN.
    Warning,
    /// A task in D state for too long.
    HungTask,
    /// A CPU or a workqueue that makes no progress.
    SoftLockup,
    /// RCU waits for a CPU or a task.
    RcuStall,
    /// A violation of a locking rule.
    Lockdep,
    /// An invalid memory access, found by KASAN or KFENCE.
    Kasan,
    /// The kernel panicked.
    Panic,
    /// The kernel restarted without a report: a triple fault, or a reset.
    Reboot,
    /// The test bed is at fault: host starvation, a broken initramfs, a crash of the agent, or a table of lockdep that
    /// is too small.
    TestBed,
}

/// What a splat means for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The kernel is at fault: the cell fails.
    Fatal,
    /// Evidence that a task is stuck. The scenario decides whether that is a failure.
    Witness,
    /// It says nothing about the kernel.
    TestBed,
}

impl SplatKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            SplatKind::Oops => "oops",
            SplatKind::Bug => "bug",
            SplatKind::Warning => "warning",
            SplatKind::HungTask => "hung-task",
            SplatKind::SoftLockup => "soft-lockup",
            SplatKind::RcuStall => "rcu-stall",
            SplatKind::Lockdep => "lockdep",
            SplatKind::Kasan => "kasan",
            SplatKind::Panic => "panic",
            SplatKind::Reboot => "reboot",
            SplatKind::TestBed => "test-bed",
        }
    }

    /// What it means for a verdict.
    pub fn severity(self) -> Severity {
        match self {
            SplatKind::HungTask => Severity::Witness,
            SplatKind::TestBed => Severity::TestBed,
            _ => Severity::Fatal,
        }
    }

    /// Whether the kernel usually kills the task after this report. The task keeps its locks then.
    pub fn kills(self) -> bool {
        matches!(self, SplatKind::Oops | SplatKind::Bug | SplatKind::Panic)
    }
}

impl fmt::Display for SplatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One report of a kernel about its own fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splat {
    /// Its kind.
    pub kind: SplatKind,
    /// Its headline, without timestamp.
    pub title: String,
    /// The kernel function at fault, without compiler suffixes: the function that the report names, or else that of the
    /// innermost frame.
    pub function: Option<String>,
    /// The stack, innermost first, without functions that only wait, functions that report, and the system call entry.
    pub frames: Vec<String>,
    /// The task in which it happened, as `comm:pid`.
    pub task: Option<String>,
    /// Its lines in the log, counted from 0 as by [`str::lines`].
    pub lines: Range<usize>,
    /// The report is truncated or garbled: the guest ended in the middle of it, or its stack is missing.
    pub corrupted: bool,
    /// Why it makes no cell fail, if the kernel's profile lists it as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
}

impl Splat {
    /// Whether it makes a cell fail by itself.
    pub fn is_fatal(&self) -> bool {
        self.known.is_none() && self.kind.severity() == Severity::Fatal
    }
}

impl fmt::Display for Splat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.title)?;
        if let Some(function) = self.function.as_ref().filter(|function| !self.title.contains(*function)) {
            write!(f, " (in {function})")?;
        }
        Ok(())
    }
}

/// The kind of splat that a line without its timestamp begins.
pub fn headline(text: &str) -> Option<SplatKind> {
    rules::matching(text).map(|rule| rule.kind)
}

/// The splats of a console log, in order. The log may be truncated or interleaved, may have CRLF line ends, and may
/// contain several boots.
pub fn classify(log: &str) -> Vec<Splat> {
    let mut scan = Scan::default();
    for (number, raw) in log.lines().enumerate() {
        for message in line::messages(raw) {
            scan.take(number, message);
        }
    }
    let mut found = scan.finish(log.lines().count(), log.is_empty() || log.ends_with('\n'));
    starved::blame(&mut found, log);
    found
}

/// The splats of a console log. Sets [`Splat::known`] in those that match a known report.
pub fn classify_knowing(log: &str, known: &[KnownReport]) -> Vec<Splat> {
    let mut found = classify(log);
    if known.is_empty() || found.is_empty() {
        return found;
    }
    let lines: Vec<_> = log.lines().collect();
    for splat in &mut found {
        let report = lines[splat.lines.clone()].join("\n");
        splat.known = known.iter().find(|known| known.is(&report)).map(|known| known.why.clone());
    }
    found
}

/// The headline follows `cut here` within this many lines. `WARN()` prints the caller's message in between.
const CUT_REACH: usize = 16;

#[derive(Default)]
struct Scan {
    found: Vec<Splat>,
    open: Option<Open>,
    /// The line of the last `cut here`, until a headline follows.
    cut: Option<usize>,
    /// The last line that consists of `=`. Lockdep and KASAN print one before the headline.
    ruler: Option<usize>,
    /// The kernel has printed a message. (The log of a restored guest has no banner.)
    booted: bool,
}

impl Scan {
    fn take(&mut self, number: usize, message: Message<'_>) {
        let text = message.text;
        if line::is_banner(text) {
            return self.banner(number, text);
        }
        self.booted |= message.is_stamped;
        if line::is_cut_here(text) {
            self.close();
            self.cut = Some(number);
            return;
        }
        if let Some(rule) = rules::matching(text) {
            if self.open.as_mut().is_some_and(|open| open.absorbs(rule, number, text)) {
                return;
            }
            return self.begin(rule, number, text);
        }
        if self.open.as_mut().is_some_and(|open| open.take(number, text)) {
            return;
        }
        self.close();
        if line::is_ruler(text) {
            self.ruler = Some(number);
        }
    }

    fn begin(&mut self, rule: &'static Rule, number: usize, text: &str) {
        self.close();
        let cut = self.cut.take().filter(|cut| number - cut <= CUT_REACH);
        let ruler = self.ruler.take().filter(|ruler| number - ruler <= 1);
        self.open = Some(Open::new(rule, cut.or(ruler).unwrap_or(number), number, text, cut.is_some()));
    }

    /// Takes the first line of a boot. A second boot is an unexpected reboot.
    fn banner(&mut self, number: usize, text: &str) {
        self.cut_off(number);
        self.ruler = None;
        if std::mem::replace(&mut self.booted, true) {
            self.found.push(Splat {
                kind: SplatKind::Reboot,
                title: format!("the kernel started again: {text}"),
                function: None,
                frames: Vec::new(),
                task: None,
                lines: number..number + 1,
                corrupted: false,
                known: None,
            });
        }
    }

    fn close(&mut self) {
        self.found.extend(self.open.take().map(|open| open.close(false)));
    }

    /// Closes the open splat, because the log ends here or another boot begins.
    fn cut_off(&mut self, end: usize) {
        self.found.extend(self.open.take().map(|open| open.close(true)));
        if let Some(cut) = self.cut.take().filter(|cut| end - cut <= CUT_REACH) {
            self.found.push(Splat {
                kind: SplatKind::Warning,
                title: "a report was cut off before its headline".to_owned(),
                function: None,
                frames: Vec::new(),
                task: None,
                lines: cut..end.max(cut + 1),
                corrupted: true,
                known: None,
            });
        }
    }

    fn finish(mut self, end: usize, whole_lines: bool) -> Vec<Splat> {
        let last_is_cut = !whole_lines && self.open.as_ref().is_some_and(|open| open.end() == end);
        self.cut_off(end);
        if let Some(last) = self.found.last_mut().filter(|_| last_is_cut) {
            last.corrupted = true;
        }
        blame_lost_timer(&mut self.found);
        self.found
    }
}

/// Attributes all stalls in a log to the test bed if the log reports a timer that never fired, at any place. The host
/// lost the timer interrupt, and CPUs that wait for it seem to be stuck.
fn blame_lost_timer(found: &mut [Splat]) {
    let lost = |splat: &Splat| splat.kind == SplatKind::TestBed && splat.title.contains("timer wakeup didn't happen");
    if found.iter().any(lost) {
        let stalls = found.iter_mut().filter(|s| matches!(s.kind, SplatKind::RcuStall | SplatKind::SoftLockup));
        stalls.for_each(|splat| splat.kind = SplatKind::TestBed);
    }
}

#[cfg(test)]
mod tests;
