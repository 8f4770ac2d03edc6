//! Causes that a report names elsewhere than on its stack.

use std::sync::LazyLock;

use regex::Regex;

use super::frame::{self, Frame};
use super::rules::Culprit;
use super::{reporters, stack};

/// A handler of the interrupt (`kernel/irq/spurious.c`, `__report_bad_irq()`).
static HANDLER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^\[<[0-9a-fp]+>\] (?P<name>[A-Za-z_]\w*)").expect("a constant expression"));

/// The work items of a pool (`kernel/workqueue.c`, `show_pwq()`).
static WORK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s+(?:(?P<runs>in-flight): \d+\S*?:|pending: (?:\d+\*)?)(?P<name>[A-Za-z_]\w*)")
        .expect("a constant expression")
});

/// The pool of the report, and of a list of work items.
static POOL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?:^BUG: workqueue lockup - pool |^\s+pwq \d+: )(?P<pool>cpus=\S+(?: node=\S+)?(?: flags=\S+)? nice=\S+)",
    )
    .expect("a constant expression")
});

/// Where an object was allocated and freed (`mm/slub.c`, `print_track()`).
static TRACK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:INFO: )?(?P<what>Allocated|Freed) in (?P<name>[A-Za-z_][\w.]*)\+0x")
        .expect("a constant expression")
});

/// Where a lock was taken (`kernel/locking/lockdep.c`, `print_lock()`).
static HOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r", at: (?:\[<[0-9a-fp]+>\] )?(?P<name>[A-Za-z_][\w.]*)\+0x").expect("a constant expression")
});

/// Looks for the cause in the lines of one report.
#[derive(Debug)]
pub struct Search {
    by: Culprit,
    /// The pools that are stuck.
    stuck: Vec<String>,
    /// The lines are about such a pool.
    in_stuck_pool: bool,
    /// The handlers of the interrupt follow.
    in_handlers: bool,
    /// The stack of whoever allocated (0) or freed (1) the object, until one of its functions is the cause.
    track: Option<u8>,
    /// The next line says where a lock is released that is not held.
    releases: bool,
    /// The cause, and how likely it is one. The lowest number is the most likely.
    found: Option<(u8, String)>,
}

/// More stuck pools than these say nothing more.
const POOLS: usize = 64;

/// Whether the stack of whoever allocated or freed an object follows.
pub fn is_track(text: &str) -> bool {
    TRACK.is_match(text)
}

impl Search {
    /// A search for a report whose headline this is.
    pub fn new(by: Culprit, headline: &str) -> Search {
        let mut search = Search {
            by,
            stuck: Vec::new(),
            in_stuck_pool: false,
            in_handlers: false,
            track: None,
            releases: false,
            found: None,
        };
        search.add_pool(headline);
        search
    }

    /// Takes the headline of another stuck pool.
    pub fn add_pool(&mut self, headline: &str) {
        if let Some(captures) = POOL.captures(headline).filter(|_| self.stuck.len() < POOLS) {
            self.stuck.push(captures["pool"].to_owned());
        }
    }

    /// Takes a line.
    pub fn take(&mut self, text: &str) {
        match self.by {
            Culprit::Innermost | Culprit::Beyond(_) => {}
            Culprit::Handlers => {
                if let Some(captures) = HANDLER.captures(text).filter(|_| self.in_handlers) {
                    self.note(0, &captures["name"]);
                }
                self.in_handlers |= text.starts_with("handlers:");
            }
            Culprit::Work => self.take_work(text),
            Culprit::Object => self.take_track(text),
            Culprit::Locker if self.releases => {
                self.releases = false;
                if let Some(Frame::Function(name)) = frame::frame(text) {
                    self.note(0, name);
                }
            }
            Culprit::Holder | Culprit::Locker => {
                self.releases = text.contains("is trying to release lock");
                if let Some(captures) = HOLDER.captures(text) {
                    self.note(1, &captures["name"]);
                }
            }
        }
    }

    /// Takes a line of the stack of whoever allocated or freed an object. An allocator did so for its caller.
    fn take_track(&mut self, text: &str) {
        let name = if let Some(captures) = TRACK.captures(text) {
            self.track = Some(u8::from(&captures["what"] == "Freed"));
            stack::base(captures.name("name").map_or("", |name| name.as_str()))
        } else if let Some(Frame::Function(name)) = frame::frame(text) {
            name
        } else {
            return;
        };
        if !reporters::is_of(reporters::ALLOCATORS, name)
            && !reporters::is_reporter(name)
            && let Some(rank) = self.track.take()
        {
            self.note(rank, name);
        }
    }

    fn take_work(&mut self, text: &str) {
        if let Some(captures) = POOL.captures(text) {
            self.in_stuck_pool = self.stuck.iter().any(|pool| *pool == captures["pool"]);
        } else if let Some(captures) = WORK.captures(text) {
            let (elsewhere, waits) = (!self.in_stuck_pool, captures.name("runs").is_none());
            self.note(2 * u8::from(elsewhere) + u8::from(waits), &captures["name"]);
        }
    }

    fn note(&mut self, rank: u8, name: &str) {
        if self.found.as_ref().is_none_or(|(best, _)| rank < *best) {
            self.found = Some((rank, name.to_owned()));
        }
    }

    /// The cause, if the report named one.
    pub fn found(self) -> Option<String> {
        self.found.map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(by: Culprit, report: &str) -> Option<String> {
        let mut search = Search::new(by, report.lines().next().unwrap_or_default());
        report.lines().skip(1).for_each(|line| search.take(line));
        search.found()
    }

    #[test]
    fn the_work_that_runs_in_the_stuck_pool_is_the_cause() {
        let report = "\
BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 41s!
Showing busy workqueues and worker pools:
workqueue events: flags=0x0
  pwq 2: cpus=0 node=0 flags=0x0 nice=0 active=1 refcnt=2
    in-flight: 9:elsewhere
  pwq 6: cpus=1 node=0 flags=0x0 nice=0 active=2/256 refcnt=3
    in-flight: 57:pciehp_work BAR(12), 58:other
    pending: vmstat_shepherd
";
        assert_eq!(found(Culprit::Work, report).as_deref(), Some("pciehp_work"));
        let waiting = report.replace("    in-flight: 57:pciehp_work BAR(12), 58:other\n", "");
        assert_eq!(found(Culprit::Work, &waiting).as_deref(), Some("vmstat_shepherd"));
        assert_eq!(found(Culprit::Work, "BUG: workqueue lockup - pool cpus=1 nice=0 stuck for 41s!"), None);
    }

    #[test]
    fn handlers_are_not_confused_with_frames() {
        let report = "\
irq 16: nobody cared (try booting with the \"irqpoll\" option)
Call Trace:
 [<ffffffff81463cb5>] note_interrupt+0x2e1/0x320
[<ffffffff81463cb5>] handle_irq_event+0x79/0x80
handlers:
[<0000000067e8c516>] i801_isr [i2c_i801]
[<0000000067e8c517>] other
";
        assert_eq!(found(Culprit::Handlers, report).as_deref(), Some("i801_isr"));
    }

    #[test]
    fn whoever_allocated_comes_before_whoever_freed() {
        let report = "BUG x\nFreed in g+0x1/0x2 age=1\nAllocated in f+0x1/0x2 age=2\n";
        assert_eq!(found(Culprit::Object, report).as_deref(), Some("f"));
        let report = "BUG x\nAllocated in kzalloc+0x1/0x2 age=1\n\t__kmalloc+0x1/0x2\n\tkzalloc+0x1/0x2\n\tg+0x1/0x2\n\th+0x1/0x2\n";
        assert_eq!(found(Culprit::Object, report).as_deref(), Some("g"));
    }
}
