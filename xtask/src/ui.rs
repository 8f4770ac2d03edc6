//! Progress on stderr: bars on a terminal, else plain lines. Results go to stdout.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use harness::progress::{Event, Progress};
use harness::text::counted;
use harness::verdict::Verdict;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kernels::{BuildEvent, Unmet};

use crate::pace::Pace;

/// Shows the progress of a run.
pub struct Ui {
    /// Progress bars; only on a terminal.
    bars: Option<MultiProgress>,
    verbose: bool,
    quiet: bool,
    state: Mutex<State>,
    /// The cells, which a thread of its own looks at while none ends. Dropping the sender ends that thread.
    pace: Arc<Mutex<Pace>>,
    watch: Mutex<Option<Sender<()>>>,
}

#[derive(Default)]
struct State {
    build: Option<ProgressBar>,
    cells: Option<ProgressBar>,
    /// When the last line about the running build was printed.
    last_build_line: Option<Instant>,
    /// Why kernels could not be built, and the first kernel for each reason.
    failures: Vec<(String, String)>,
    /// The kernels that were not built, of which some cell has ended.
    not_built: BTreeSet<String>,
    /// Configuration symbols that were already reported as not set, and whether the kernel has each.
    dropped: BTreeSet<(String, bool)>,
}

/// What a part of a plan says whose kernels are compared with those of other parts.
pub const AWAITS_MERGE: &str = "this is one part of a plan: what got worse is known when `cargo xtask merge` has all parts; the exit code says only \
     whether each cell of this part has a verdict";

/// Without a terminal, a running build prints a line this often.
const REMINDER: Duration = Duration::from_secs(20);
/// Without a terminal, a line says what the run waits for when no cell has begun or ended for so long.
const SILENCE: Duration = Duration::from_secs(60);

impl Ui {
    /// Progress on this process's stderr. `verbose` also prints when each cell begins.
    pub fn new(verbose: bool) -> Ui {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Ui { bars, verbose, ..Ui::quiet() }.loud()
    }

    /// No progress.
    pub fn quiet() -> Ui {
        Ui {
            bars: None,
            verbose: false,
            quiet: true,
            state: Mutex::default(),
            pace: Arc::default(),
            watch: Mutex::default(),
        }
    }

    fn loud(self) -> Ui {
        Ui { quiet: false, ..self }
    }

    /// While cells run, says what the run waits for: on a terminal beside the bar, else in a line now and then.
    fn watch(&self, bar: Option<ProgressBar>) {
        if self.quiet {
            return;
        }
        let (sender, over) = mpsc::channel();
        let pace = self.pace.clone();
        let period = if bar.is_some() { Duration::from_secs(1) } else { REMINDER };
        thread::spawn(move || {
            let mut said = Duration::ZERO;
            while over.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                let pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                let quiet = pace.quiet_for(now);
                match &bar {
                    Some(bar) => bar.set_message(pace.waits_for(now)),
                    // The same wait is told at longer and longer intervals.
                    None if quiet >= SILENCE && (quiet < said || quiet >= said * 2) => {
                        said = quiet;
                        let (finished, count) = pace.counts();
                        eprintln!("[{finished}/{count}] waiting for {}", pace.waits_for(now));
                    }
                    None => {}
                }
            }
        });
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    fn unwatch(&self) {
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a line above the bars.
    pub fn say(&self, line: &str) {
        match &self.bars {
            None if self.quiet => {}
            // Nothing can be done if the terminal is gone.
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }

    fn bar(&self, length: u64, template: &str) -> Option<ProgressBar> {
        let bar = self.bars.as_ref()?.add(ProgressBar::new(length));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Some(bar)
    }

    fn build(&self, state: &mut State, variant: &str, event: BuildEvent) {
        match event {
            BuildEvent::Waiting { what } => self.say(&format!("{variant}: waiting for {what}")),
            BuildEvent::Step { step, what } => {
                self.clear(&mut state.build);
                state.last_build_line = Some(Instant::now());
                self.say(&format!("{variant}: {} {what}", step.verb()));
            }
            BuildEvent::Shelf { what } => self.say(&format!("{variant}: {what}")),
            BuildEvent::Dropped { unmet } => self.dropped(state, variant, &unmet),
            BuildEvent::Built { took } => {
                self.clear(&mut state.build);
                self.say(&format!("{variant}: built in {:.0} s", took.as_secs_f64()));
            }
            BuildEvent::Objects { done, about, elapsed } => {
                if state.build.is_none() {
                    state.build = self.bar(about as u64, "{prefix}: [{bar:30}] {pos}/{len} objects, {elapsed}");
                }
                if let Some(bar) = &state.build {
                    bar.set_prefix(variant.to_owned());
                    bar.set_length(about.max(done) as u64);
                    bar.set_position(done as u64);
                } else if state.last_build_line.is_none_or(|last| last.elapsed() >= REMINDER) {
                    state.last_build_line = Some(Instant::now());
                    self.say(&format!("{variant}: {done} of about {about} objects, {:.0} s", elapsed.as_secs_f64()));
                }
            }
        }
    }

    /// Prints the symbols that the configuration of a kernel lacks, unless that was printed for another kernel already.
    fn dropped(&self, state: &mut State, variant: &str, unmet: &[Unmet]) {
        let new: Vec<_> = unmet.iter().filter(|one| state.dropped.insert((one.symbol.clone(), one.known))).collect();
        let unknown: Vec<_> = new.iter().filter(|one| !one.known).map(|one| one.symbol.as_str()).collect();
        if !unknown.is_empty() {
            self.say(&format!(
                "{variant}: built without symbols that this kernel does not have: {}",
                unknown.join(", ")
            ));
        }
        for one in new.iter().filter(|one| one.known) {
            self.say(&format!("{variant}: built without {}: {}", one.symbol, one.reason));
        }
    }

    fn clear(&self, bar: &mut Option<ProgressBar>) {
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Counts a cell that ended. Prints a line about it, if there is one.
    fn finished(&self, state: &mut State, cell: &str, line: Option<String>) {
        let now = Instant::now();
        let ((finished, count), waits) = {
            let mut pace = self.pace();
            pace.finished(cell, now);
            (pace.counts(), pace.waits_for(now))
        };
        if let Some(line) = line {
            // A single cell is not counted.
            let counter = if count == 0 { String::new() } else { format!("[{finished}/{count}] ") };
            self.say(&format!("{counter}{line}"));
        }
        if let Some(bar) = &state.cells {
            bar.set_position(finished as u64);
            bar.set_message(waits);
        }
        if finished == count {
            self.unwatch();
            self.clear(&mut state.cells);
        }
    }
}

impl Progress for Ui {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        match event {
            Event::Build { variant, event } => self.build(state, variant, event),
            Event::BuildFailed { variant, why } => {
                self.clear(&mut state.build);
                self.say(&build_failed(&mut state.failures, variant, why));
            }
            Event::NoLooks { variant, why } => {
                self.say(&format!("{variant}: no proof of deadlocks by who waits for whom: {why}"));
            }
            Event::Image { line } => self.say(&format!("guest image: {line}")),
            Event::TryingKvm => self.say("accelerator: testing whether a guest boots under KVM (at most 15 s, once)"),
            Event::Accelerator(decision) => {
                let why = if decision.fresh { &decision.why } else { "remembered; `cargo xtask doctor` says why" };
                self.say(&format!("accelerator: {} ({why})", decision.accel.name()));
            }
            Event::Clock { is_held: true, .. } => self.say("clock: the guest's own"),
            Event::Clock { is_held: false, why: None } => self.say("clock: the host's (asked for)"),
            Event::Clock { is_held: false, why: Some(why) } => self.say(&format!("clock: the host's ({why})")),
            Event::Cells { count, jobs, evidence, seconds } => {
                let cells = counted(count, "cell", "cells");
                self.say(&format!("{cells}, {jobs} at a time; evidence in {}", evidence.display()));
                *self.pace() = Pace::new(seconds.clone(), count, jobs);
                state.cells = self.bar(count as u64, "[{bar:30}] {pos}/{len} cells, {elapsed}  {wide_msg}");
                self.watch(state.cells.clone());
            }
            Event::CellsStopped => {
                self.clear(&mut state.cells);
                self.unwatch();
            }
            Event::CellStarted { cell } => {
                self.pace().started(cell, Instant::now());
                if self.verbose {
                    self.say(&format!("        {cell} begins"));
                }
            }
            Event::CellRetried { cell, why } => self.say(&format!("        {cell}: trying again: {why}")),
            Event::CellWithoutKernel { cell, variant } => {
                let line = without_kernel(&mut state.not_built, variant);
                self.finished(state, cell, line);
            }
            Event::CellFinished { cell, verdict, unexpected, took } => {
                self.finished(state, cell, Some(finished_line(cell, verdict, unexpected, took)));
            }
        }
    }
}

/// Says that a kernel was not built. The reason is given once: the kernels of a base may all fail for the same reason.
fn build_failed(known: &mut Vec<(String, String)>, variant: &str, why: &str) -> String {
    if let Some((_, first)) = known.iter().find(|(reason, _)| reason == why) {
        return format!("{variant}: build failed for the same reason as {first}");
    }
    known.push((why.to_owned(), variant.to_owned()));
    format!("{variant}: build failed: {why}")
}

/// The line about the first cell of a kernel that was not built. None for its other cells.
fn without_kernel(known: &mut BTreeSet<String>, variant: &str) -> Option<String> {
    known.insert(variant.to_owned()).then(|| format!("{variant}: its cells have no result, because it was not built"))
}

/// The verdict of a cell, in one line.
fn finished_line(cell: &str, verdict: &Verdict, unexpected: bool, took: Duration) -> String {
    let mark = if unexpected { "  UNEXPECTED" } else { "" };
    let what = match verdict {
        Verdict::Fail(failure) => failure.to_string(),
        other => other.outcome().to_owned(),
    };
    format!("{cell}: {what} ({:.1} s){mark}", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use kernels::FailureKind;

    use super::*;

    #[test]
    fn the_reason_why_kernels_were_not_built_is_given_once() {
        let mut known = Vec::new();
        let mut said = |variant: &str, why: &str| build_failed(&mut known, variant, why);
        assert_eq!(said("a", "no igb"), "a: build failed: no igb");
        assert_eq!(said("b", "no igb"), "b: build failed for the same reason as a");
        assert_eq!(said("c", "no vfio"), "c: build failed: no vfio");
    }

    #[test]
    fn a_kernel_that_was_not_built_is_named_once() {
        let mut known = BTreeSet::new();
        let lines: Vec<_> = ["a", "a", "b", "a"].iter().map(|variant| without_kernel(&mut known, variant)).collect();
        let line = |variant: &str| Some(format!("{variant}: its cells have no result, because it was not built"));
        assert_eq!(lines, [line("a"), None, line("b"), None]);
    }

    #[test]
    fn a_failure_is_marked_only_if_it_is_not_expected() {
        let failed = Verdict::fail(FailureKind::Deadlock, "f", String::new());
        let line =
            |unexpected| finished_line("a::b::igb::yank::mine", &failed, unexpected, Duration::from_millis(1500));
        assert_eq!(line(false), "a::b::igb::yank::mine: deadlock at f (1.5 s)");
        assert_eq!(line(true), "a::b::igb::yank::mine: deadlock at f (1.5 s)  UNEXPECTED");
    }
}
