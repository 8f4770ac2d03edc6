//! Stalls of a virtual CPU that the host did not run.
//!
//! RCU counts the timer ticks of a CPU in the grace period that does not end (`kernel/rcu/tree_stall.h`,
//! `print_cpu_stall_info()`). A CPU that is stuck in the kernel still gets all ticks. A CPU that detects its own stall
//! and got almost no ticks was not running, while the guest's clock advanced.

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
    let stalls = found.iter_mut().filter(|splat| matches!(splat.kind, SplatKind::RcuStall | SplatKind::SoftLockup));
    stalls.for_each(|splat| splat.kind = SplatKind::TestBed);
}

/// Attributes such stalls to the test bed.
pub fn blame(found: &mut [Splat], log: &str) {
    let is_own = |splat: &&mut Splat| splat.kind == SplatKind::RcuStall && splat.title.contains("self-detected stall");
    for splat in found.iter_mut().filter(is_own) {
        let report = || log.lines().skip(splat.lines.start).take(splat.lines.len());
        let first = |pattern: &Regex| report().find_map(|line| pattern.captures(line)?[1].parse::<u64>().ok());
        if let (Some(ticks), Some(jiffies)) = (first(&TICKS), first(&JIFFIES))
            && ticks * RARE < jiffies
        {
            splat.kind = SplatKind::TestBed;
        }
    }
}
