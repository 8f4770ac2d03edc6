//! Whether the kernel has freed the PCI devices that it removed.

use std::collections::BTreeSet;
use std::time::Duration;

use kernels::FailureKind;

use super::{Error, Guest};
use crate::notes::Note;
use crate::verdict::Verdict;
use crate::waits::{Unfreed, unfreed};

/// The function that frees a PCI device when its last user has gone (`drivers/pci/probe.c`).
const FREES: &str = "pci_release_dev";

/// How long a removed device may still have users, on a machine with KVM, in seconds. All operations have ended. But the
/// kernel puts some references later: after an RCU grace period, or in a work item.
const PATIENCE: f64 = 5.0;

/// Time between two looks. Nothing tells the end of a device.
const INTERVAL: Duration = Duration::from_millis(200);

impl Guest {
    /// Whether the kernel has freed all PCI devices that it removed, at once or after a short time. Passes if the guest
    /// cannot be looked at; a note says why.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn all_freed(&self) -> Result<Verdict, Error> {
        let Some(kernel) = self.of_kernel.looks.as_ref() else { return Ok(Verdict::Pass) };
        let patience = self.vm.time().patience(self.seconds(PATIENCE));
        let mut standing: Option<BTreeSet<Unfreed>> = None;
        loop {
            let now: BTreeSet<Unfreed> = match self.vm.look(kernel, unfreed).await {
                Ok(now) => now.into_iter().collect(),
                Err(error) => {
                    self.note(Note::NoGraph(error.to_string()));
                    return Ok(Verdict::Pass);
                }
            };
            // Others may come meanwhile, and go soon.
            let stay = standing.take().map_or_else(|| now.clone(), |before| &before & &now);
            if stay.is_empty() {
                return Ok(Verdict::Pass);
            }
            if patience.is_over().is_some() {
                return Ok(self.kept(&stay).await);
            }
            standing = Some(stay);
            self.vm.time().pause(INTERVAL).await;
        }
    }

    async fn kept(&self, kept: &BTreeSet<Unfreed>) -> Verdict {
        let each = |one: &Unfreed| match one.references {
            1 => format!("{} (1 reference is left)", one.name),
            several => format!("{} ({several} references are left)", one.name),
        };
        let all: Vec<String> = kept.iter().map(each).collect();
        let how = self
            .first_removed()
            .await
            .map_or_else(String::new, |(pf, trigger)| format!("; {} was removed by {}", pf.device.bdf, trigger.name()));
        let summary = format!("removed PCI devices are never freed: {}{how}", all.join(", "));
        Verdict::fail(FailureKind::WrongState, FREES, summary)
    }
}
