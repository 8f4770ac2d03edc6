//! How far the cells of a run are, what it waits for, and when it will end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Before this, too little has ended to say how fast this host is.
const TOO_EARLY: Duration = Duration::from_secs(20);
/// How many running cells are named.
const NAMED: usize = 3;

/// The cells of a run.
#[derive(Debug, Default)]
pub struct Pace {
    /// About how long each cell takes, in seconds, by its name.
    seconds: BTreeMap<String, f64>,
    jobs: usize,
    began: Option<Instant>,
    running: Vec<(String, Instant)>,
    /// What the cells that ended were expected to take, in seconds.
    done: f64,
    finished: usize,
    count: usize,
    /// When something last began or ended.
    last: Option<Instant>,
}

impl Pace {
    /// Cells that begin now, so many at a time.
    pub fn new(seconds: BTreeMap<String, f64>, count: usize, jobs: usize) -> Pace {
        Pace { seconds, count, jobs, ..Pace::default() }
    }

    /// A cell begins.
    pub fn started(&mut self, cell: &str, now: Instant) {
        self.began.get_or_insert(now);
        self.last = Some(now);
        self.running.push((cell.to_owned(), now));
    }

    /// A cell ended.
    pub fn finished(&mut self, cell: &str, now: Instant) {
        self.finished += 1;
        self.last = Some(now);
        self.running.retain(|(running, _)| running != cell);
        self.done += self.seconds.get(cell).copied().unwrap_or_default();
    }

    /// How many cells ended, and of how many.
    pub fn counts(&self) -> (usize, usize) {
        (self.finished, self.count)
    }

    /// For how long nothing has begun or ended.
    pub fn quiet_for(&self, now: Instant) -> Duration {
        self.last.map(|last| now.saturating_duration_since(last)).unwrap_or_default()
    }

    /// About how long the rest takes: as fast as the cells that ended, beside what an earlier run took for them. None if
    /// nothing is known of an earlier run.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.began?);
        let total: f64 = self.seconds.values().sum();
        if self.seconds.is_empty() {
            return None;
        }
        // Cells that run have done a part of their time.
        let part = |(cell, since): &(String, Instant)| {
            let takes = self.seconds.get(cell).copied().unwrap_or_default();
            now.saturating_duration_since(*since).as_secs_f64().min(takes * 0.9)
        };
        let done = self.done + self.running.iter().map(part).sum::<f64>();
        let speed = match elapsed < TOO_EARLY || self.finished == 0 {
            true => self.jobs.max(1) as f64,
            false => done / elapsed.as_secs_f64(),
        };
        let left = (total - done).max(0.0) / speed.max(1e-3);
        Duration::try_from_secs_f64(left).ok()
    }

    /// What the run waits for: the cells that run, the oldest first, each with its age, and how long the rest takes.
    pub fn waits_for(&self, now: Instant) -> String {
        let age = |since: &Instant| now.saturating_duration_since(*since).as_secs();
        let named: Vec<_> =
            self.running.iter().take(NAMED).map(|(cell, since)| format!("{cell} ({} s)", age(since))).collect();
        let more = self.running.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let left = self.left(now).map(|left| format!("; about {} left", rounded(left))).unwrap_or_default();
        format!("{}{more}{left}", named.join(", "))
    }
}

/// A duration as an estimate gives it.
fn rounded(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..100 => format!("{} s", seconds.max(1)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn the_estimate_follows_the_speed_of_this_host() {
        let start = Instant::now();
        // Ten cells of 10 s, one at a time, on a host that takes twice as long as the one before.
        let seconds = (0..10).map(|number| (number.to_string(), 10.0)).collect();
        let mut pace = Pace::new(seconds, 10, 1);
        assert_eq!(pace.left(start), None);
        pace.started("0", start);
        assert_eq!(pace.left(start), Some(Duration::from_secs(100)));
        for number in 0..3 {
            pace.finished(&number.to_string(), at(start, 20 * (number + 1)));
            pace.started(&(number + 1).to_string(), at(start, 20 * (number + 1)));
        }
        let left = pace.left(at(start, 60)).unwrap().as_secs();
        assert_eq!(left, 140, "seven cells of 20 s");
        assert_eq!(pace.counts(), (3, 10));
    }

    #[test]
    fn what_the_run_waits_for_comes_with_its_age() {
        let start = Instant::now();
        let names = ["a", "b", "c", "d"];
        let mut pace = Pace::new(names.map(|name| (name.to_owned(), 30.0)).into(), 4, 4);
        for (name, second) in names.iter().zip(0..) {
            pace.started(name, at(start, second));
        }
        assert_eq!(pace.waits_for(at(start, 10)), "a (10 s), b (9 s), c (8 s) and 1 more; about 21 s left");
        assert_eq!(pace.quiet_for(at(start, 10)), Duration::from_secs(7));
        pace.finished("b", at(start, 12));
        assert!(pace.waits_for(at(start, 12)).starts_with("a (12 s), c (10 s), d (9 s); about "));
    }
}
