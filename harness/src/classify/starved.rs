//! Stalls of a CPU that the host kept from running.
//!
//! RCU counts the ticks of its timer that a CPU took in the grace period that does not end
//! (`kernel/rcu/tree_stall.h`, `print_cpu_stall_info()`). A CPU that is stuck in the kernel takes them all. One that
//! finds itself stalled and took next to none was not running: its clock went on, and it did not.

use std::sync::LazyLock;

use regex::Regex;

use super::{Splat, SplatKind};

/// Fewer ticks than one in so many jiffies.
const RARE: u64 = 10;

static TICKS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\((\d+) ticks this GP\)").expect("a constant expression"));
static JIFFIES: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\(t=(\d+) jiffies ").expect("a constant expression"));

/// Blames all stalls on the test bed, of a guest that is known to have been kept from running: by its clock, which went
/// on, its CPUs did not get on.
pub fn blame_host(found: &mut [Splat]) {
    let stalls = found.iter_mut().filter(|splat| matches!(splat.kind, SplatKind::RcuStall | SplatKind::SoftLockup));
    stalls.for_each(|splat| splat.kind = SplatKind::TestBed);
}

/// Blames such stalls on the test bed.
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
