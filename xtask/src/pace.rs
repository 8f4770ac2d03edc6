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

    /// How long each second cell took of 161 cells of a real run, in seconds, longest first as cells begin.
    const RECORDED: &[f64] = &[
        57.1, 42.6, 35.3, 33.9, 31.9, 29.3, 28.5, 25.1, 24.8, 24.3, 24.2, 24.1, 23.9, 23.4, 22.8, 22.3, 21.5, 21.4,
        20.2, 20.0, 19.9, 19.7, 19.4, 18.6, 18.3, 17.8, 17.1, 17.0, 15.9, 15.7, 14.9, 14.8, 14.6, 14.5, 14.3, 13.5,
        13.2, 12.5, 12.0, 11.2, 10.7, 10.6, 10.3, 10.0, 9.8, 9.7, 9.3, 9.2, 8.9, 8.7, 8.5, 8.3, 8.2, 8.1, 7.9, 7.9,
        7.7, 7.5, 7.4, 7.1, 7.0, 6.9, 6.8, 6.8, 6.7, 6.6, 6.6, 6.5, 6.4, 6.3, 6.0, 5.8, 5.2, 4.9, 4.7, 4.6, 3.8, 3.3,
        3.0, 2.4, 0.0,
    ];

    /// The seconds from each moment, in which something ended, to the end of a run, as estimated and as they were.
    fn estimated(takes: impl Fn(usize, f64) -> f64, jobs: usize) -> Vec<(f64, f64, f64)> {
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let seconds = RECORDED.iter().enumerate().map(|(number, seconds)| (number.to_string(), *seconds)).collect();
        let mut pace = Pace::new(seconds, RECORDED.len(), jobs);
        let (mut free, mut ends) = (vec![0.0_f64; jobs], Vec::new());
        for (number, seconds) in RECORDED.iter().enumerate() {
            free.sort_by(f64::total_cmp);
            ends.push((free[0], free[0] + takes(number, *seconds), number));
            free[0] = ends[number].1;
        }
        let over = free.into_iter().fold(0.0, f64::max);
        let mut events: Vec<_> =
            ends.iter().flat_map(|(from, to, number)| [(*from, true, *number), (*to, false, *number)]).collect();
        events.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let mut all = Vec::new();
        for (at, begins, number) in events {
            match begins {
                true => pace.started(&number.to_string(), after(at)),
                false => pace.finished(&number.to_string(), after(at)),
            }
            if let Some(left) = pace.left(after(at)) {
                all.push((at, left.as_secs_f64(), over - at));
            }
        }
        all
    }

    #[test]
    fn after_a_minute_the_estimate_holds_within_a_third() {
        // On hosts that are faster or slower than that of the times, and where each cell takes up to a third more or less.
        for host in [0.6, 1.0, 1.5] {
            let takes = |number: usize, seconds: f64| seconds * host * (1.0 + ((number * 7 % 13) as f64 - 6.0) / 18.0);
            let told = estimated(takes, 4);
            let told: Vec<_> = told.into_iter().filter(|(at, _, rest)| *at >= 60.0 && *rest >= 20.0).collect();
            assert!(told.len() > 30, "{told:?}");
            for (at, left, rest) in told {
                assert!(
                    (left - rest).abs() <= rest / 3.0,
                    "host {host}: after {at:.0} s: {left:.0} s, not {rest:.0} s"
                );
            }
        }
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
