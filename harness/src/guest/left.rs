//! Whether a kernel leaves nothing behind when all operations have ended: all locks are free, and the PCI devices that it
//! removed are freed.

use std::collections::BTreeSet;
use std::time::Duration;

use kernels::FailureKind;

use super::Guest;
use crate::notes::Note;
use crate::verdict::Verdict;
use crate::waits::{Held, Left, Unfreed, left};

/// The function that frees a PCI device when its last user has gone (`drivers/pci/probe.c`).
const FREES: &str = "pci_release_dev";

/// How long something may stay, on a machine with KVM, in seconds. The kernel does some things later: after an RCU grace
/// period, or in a work item.
const PATIENCE: f64 = 5.0;

/// Time between the first two looks. Nothing tells the end. It doubles, because such a look goes through all slabs of a cache.
const INTERVAL: Duration = Duration::from_millis(200);
/// The longest time between two looks.
const LONGEST: Duration = Duration::from_millis(800);

impl Guest {
    /// Whether nothing is left, at once or after a short time. Passes if the guest cannot be looked at; a note says why.
    pub(crate) async fn nothing_left(&self) -> Verdict {
        let left = self.lasting().await;
        let (mut held, mut unfreed) = (Vec::new(), Vec::new());
        for one in &left {
            match one {
                Left::Held(lock) => held.push(lock),
                Left::Unfreed(device) => unfreed.push(device),
            }
        }
        if !held.is_empty() {
            return still_held(&held);
        }
        if !unfreed.is_empty() {
            return never_freed(
                &unfreed,
                self.first_removed().await.map(|(pf, trigger)| (pf.device.bdf.to_string(), trigger.name())),
            );
        }
        Verdict::Pass
    }

    /// What each look finds for some seconds.
    async fn lasting(&self) -> BTreeSet<Left> {
        let Some(kernel) = self.of_kernel.looks.as_ref() else { return BTreeSet::new() };
        let patience = self.vm.time().patience(self.seconds(PATIENCE));
        let (mut standing, mut pause): (Option<BTreeSet<Left>>, _) = (None, INTERVAL);
        loop {
            let now: BTreeSet<Left> = match self.vm.look(kernel, left).await {
                Ok(now) => now.into_iter().collect(),
                Err(error) => {
                    self.note(Note::NoGraph(error.to_string()));
                    return BTreeSet::new();
                }
            };
            // Others may come meanwhile, and go soon.
            let stay = standing.take().map_or_else(|| now.clone(), |before| &before & &now);
            if stay.is_empty() || patience.is_over().is_some() {
                return stay;
            }
            standing = Some(stay);
            self.vm.time().pause(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }
}

fn still_held(held: &[&Held]) -> Verdict {
    let each = |held: &&Held| format!("{} (by {})", held.lock, held.holder);
    let all: Vec<String> = held.iter().map(each).collect();
    let summary = format!("all operations have ended, and locks are still held: {}", all.join(", "));
    // The lock's name without the device.
    let lock = held.first().map_or("", |held| held.lock.as_str());
    Verdict::fail(FailureKind::WrongState, lock.split_once(" of ").map_or(lock, |(kind, _)| kind), summary)
}

fn never_freed(unfreed: &[&Unfreed], removed: Option<(String, &str)>) -> Verdict {
    let each = |one: &&Unfreed| match one.references {
        1 => format!("{} (1 reference is left)", one.name),
        several => format!("{} ({several} references are left)", one.name),
    };
    let all: Vec<String> = unfreed.iter().map(each).collect();
    let how = removed.map_or_else(String::new, |(bdf, trigger)| format!("; {bdf} was removed by {trigger}"));
    Verdict::fail(
        FailureKind::WrongState,
        FREES,
        format!("removed PCI devices are never freed: {}{how}", all.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_names_what_is_left() {
        let held = |lock: &str, holder: &str| Held { lock: lock.to_owned(), holder: holder.to_owned() };
        let locks = [held("device_lock of 0000:01:00.0", "a task that has ended"), held("pci_bus_sem", "2 readers")];
        insta::assert_snapshot!(said(still_held(&locks.iter().collect::<Vec<_>>())), @"device_lock: all operations have ended, and locks are still held: device_lock of 0000:01:00.0 (by a task that has ended), pci_bus_sem (by 2 readers)");
        let unfreed = Unfreed { at: 0, name: "0000:01:00.0".to_owned(), references: 1 };
        let removed = Some(("0000:01:00.0".to_owned(), "yank"));
        insta::assert_snapshot!(said(never_freed(&[&unfreed], removed)), @"pci_release_dev: removed PCI devices are never freed: 0000:01:00.0 (1 reference is left); 0000:01:00.0 was removed by yank");
    }

    fn said(verdict: Verdict) -> String {
        let Verdict::Fail(failure) = verdict else { panic!("no failure") };
        format!("{}: {}", failure.function.unwrap_or_default(), failure.summary)
    }
}
