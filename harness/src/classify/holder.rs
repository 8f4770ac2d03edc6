//! The task that holds the lock for which a hung task waits, as the kernel's detector of hung tasks names it.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// The holder of a lock (`kernel/hung_task.c`, `debug_show_blocker()`, since 6.15). The kernel prints it only with
/// `CONFIG_DETECT_HUNG_TASK_BLOCKER`. For a semaphore it is the task that took it last, and for an rw-semaphore with
/// several readers one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The kind of the lock: `mutex`, `semaphore` or `rw-semaphore`.
    pub lock: String,
    /// The task that likely holds it, as `comm:pid`.
    pub task: String,
}

static HOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^INFO: task .* blocked on an? (?P<lock>mutex|semaphore|rw-semaphore) likely (?:owned|last held) by task (?P<task>.+:\d+)(?: <\w+>|\.)?$",
    )
    .expect("a constant expression")
});

impl Holder {
    /// The holder that a line names.
    pub(crate) fn of(text: &str) -> Option<Holder> {
        let captures = HOLDER.captures(text)?;
        Some(Holder { lock: captures["lock"].to_owned(), task: captures["task"].to_owned() })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let article = if self.lock.starts_with('r') { "an" } else { "a" };
        write!(f, "{article} {}, which {} likely holds", self.lock, self.task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_linux_7_3_are_parsed() {
        let words = |line: &str| Holder::of(line).map(|holder| holder.to_string());
        for (line, expected) in [
            (
                "INFO: task iov-own:56 is blocked on a mutex likely owned by task irq/25-pciehp:39.",
                Some("a mutex, which irq/25-pciehp:39 likely holds"),
            ),
            (
                "INFO: task a b:1 blocked on a semaphore likely last held by task c d:2",
                Some("a semaphore, which c d:2 likely holds"),
            ),
            (
                "INFO: task a:1 <writer> blocked on an rw-semaphore likely owned by task b:2 <reader>",
                Some("an rw-semaphore, which b:2 likely holds"),
            ),
            ("INFO: task a:1 is blocked on a mutex, but the owner is not found.", None),
            ("INFO: task a:1 blocked for more than 10 seconds.", None),
        ] {
            assert_eq!(words(line).as_deref(), expected, "{line}");
        }
    }
}
