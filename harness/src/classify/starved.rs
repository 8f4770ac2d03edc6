//! Stalls that the host caused.

use std::sync::LazyLock;

use regex::Regex;

use super::{Splat, SplatKind};

/// A CPU was starved if it had less than one tick in this many jiffies.
const RARE: u64 = 10;

static TICKS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\((\d+) ticks this GP\)").expect("a constant expression"));
static JIFFIES: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\(t=(\d+) jiffies ").expect("a constant expression"));

/// Attributes all stalls to the test bed, in a guest that the host kept from running: its clock went on, its CPUs did not.
pub fn blame_host(found: &mut [Splat]) {
    found.iter_mut().filter(|splat| splat.kind.is_stall()).for_each(|splat| splat.kind = SplatKind::TestBed);
}

/// The timer ticks of a CPU in the grace period that does not end (`kernel/rcu/tree_stall.h`,
/// `print_cpu_stall_info()`), as far as a report tells them. A CPU that is stuck in the kernel still gets all ticks. A CPU
/// that detects its own stall and got almost no ticks was not running, while the guest's clock advanced.
#[derive(Debug, Default)]
pub struct Ticks {
    ticks: Option<u64>,
    jiffies: Option<u64>,
}

impl Ticks {
    /// Takes a line of the report.
    pub fn take(&mut self, text: &str) {
        let number = |pattern: &Regex| pattern.captures(text)?[1].parse().ok();
        self.ticks = self.ticks.or_else(|| number(&TICKS));
        self.jiffies = self.jiffies.or_else(|| number(&JIFFIES));
    }

    /// Whether the CPU did not run.
    pub fn are_rare(&self) -> bool {
        matches!((self.ticks, self.jiffies), (Some(ticks), Some(jiffies)) if ticks.saturating_mul(RARE) < jiffies)
    }
}

/// Attributes all stalls in a log to the test bed if the log reports a timer that never fired, at any place. The host
/// lost the timer interrupt, and CPUs that wait for it seem to be stuck.
pub fn blame_lost_timer(found: &mut [Splat]) {
    let lost = |splat: &Splat| splat.kind == SplatKind::TestBed && splat.title.contains("timer wakeup didn't happen");
    if found.iter().any(lost) {
        found.iter_mut().filter(|splat| splat.kind.is_stall()).for_each(|splat| splat.kind = SplatKind::TestBed);
    }
}
