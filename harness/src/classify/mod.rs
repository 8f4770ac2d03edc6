//! What a kernel says on its console when something is wrong with it.
//!
//! [`classify`] finds the *splats* of a log: the reports that the kernel prints about itself. What begins one is data
//! ([`rules::RULES`]); what belongs to it is found by the shape of the lines that follow. The formats are those of
//! `kernel/panic.c`, `lib/bug.c`, `kernel/hung_task.c`, `kernel/watchdog.c`, `kernel/locking/lockdep.c`,
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

/// What a splat is.
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
    /// A CPU, or a workqueue, that does not get on.
    SoftLockup,
    /// RCU waits for a CPU or a task.
    RcuStall,
    /// A locking rule was broken.
    Lockdep,
    /// A memory access was.
    Kasan,
    /// The end.
    Panic,
    /// The kernel started again without having said why: a triple fault, or a reset.
    Reboot,
    /// The test bed is at fault: host starvation, a broken initramfs, the agent's death, a table of lockdep too small.
    TestBed,
}

/// What a splat means for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The kernel is at fault: the cell fails.
    Fatal,
    /// Evidence that a task is stuck. Whether it should be is the scenario's to say.
    Witness,
    /// Nothing is known about the kernel.
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

    /// Whether the task that it happened to is gone, as a rule, with all locks that it had.
    pub fn kills(self) -> bool {
        matches!(self, SplatKind::Oops | SplatKind::Bug | SplatKind::Panic)
    }
}

impl fmt::Display for SplatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One report of a kernel about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splat {
    /// What it is.
    pub kind: SplatKind,
    /// The line that says so, without timestamp.
    pub title: String,
    /// The kernel function at fault, without compiler suffixes: the one that the report names, else the innermost
    /// frame.
    pub function: Option<String>,
    /// The stack, innermost first, without the ways of waiting, the machinery of reporting, and the system call entry.
    pub frames: Vec<String>,
    /// The task that it happened to, as `comm:pid`.
    pub task: Option<String>,
    /// The lines of the log that it takes up, from 0, as [`str::lines`] counts them.
    pub lines: Range<usize>,
    /// The report is cut off or garbled: the guest ended in the middle of it, or its stack is missing.
    pub corrupted: bool,
    /// Why it is held against no cell, if the kernel's profile knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
}

/// How many frames tell one splat from another.
const FINGERPRINT: usize = 5;

impl Splat {
    /// Whether it makes a cell fail by itself.
    pub fn is_fatal(&self) -> bool {
        self.known.is_none() && self.kind.severity() == Severity::Fatal
    }

    /// What two splats of one cause share: the kind and the five innermost frames, else the title.
    pub fn fingerprint(&self) -> String {
        if self.frames.is_empty() {
            return format!("{}: {}", self.kind, self.title);
        }
        let frames = self.frames.iter().take(FINGERPRINT).map(String::as_str);
        format!("{}: {}", self.kind, frames.collect::<Vec<_>>().join(" < "))
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

/// What kind of report this line of a log begins, without its timestamp.
pub fn headline(text: &str) -> Option<SplatKind> {
    rules::matching(text).map(|rule| rule.kind)
}

/// The splats of a console log, in order. The log may be of any quality: cut off, interleaved, with CRLF, of several
/// boots.
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

/// The splats of a console log; those that are known say why that is so.
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

/// How many lines after `cut here` the headline may come: `WARN()` prints the caller's message in between.
const CUT_REACH: usize = 16;

#[derive(Default)]
struct Scan {
    found: Vec<Splat>,
    open: Option<Open>,
    /// The line of a `cut here` that no headline has followed yet.
    cut: Option<usize>,
    /// The last line of nothing but `=`: lockdep and KASAN print one before the headline.
    ruler: Option<usize>,
    /// The kernel said something already. (The log of a restored guest has no banner.)
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

    /// The first line of a boot. The second one is a reboot that nobody asked for.
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

    /// The log ends here, or another one begins.
    fn cut_off(&mut self, end: usize) {
        self.found.extend(self.open.take().map(|open| open.close(true)));
        if let Some(cut) = self.cut.take().filter(|cut| end - cut <= CUT_REACH) {
            self.found.push(Splat {
                kind: SplatKind::Warning,
                title: "a report was cut off before it said what it is".to_owned(),
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
        excuse(&mut self.found);
        self.found
    }
}

/// A timer that never fired explains every stall in its log, wherever between the lines the kernel says so: the host lost
/// it, and CPUs that wait for it look stuck.
fn excuse(found: &mut [Splat]) {
    let lost = |splat: &Splat| splat.kind == SplatKind::TestBed && splat.title.contains("timer wakeup didn't happen");
    if found.iter().any(lost) {
        let stalls = found.iter_mut().filter(|s| matches!(s.kind, SplatKind::RcuStall | SplatKind::SoftLockup));
        stalls.for_each(|splat| splat.kind = SplatKind::TestBed);
    }
}

#[cfg(test)]
mod tests;
