//! Whether cards still work after a scenario that passed: what can be done once can be done again.

use guest_protocol::Inventory;
use kernels::FailureKind;

use super::{Ending, Error, Guest};
use crate::verdict::Verdict;

/// How often each card is used.
const ROUNDS: u32 = 2;

/// The driver whose cards are used: it enables VFs for whoever asks, at any time (`drivers/net/ethernet/intel/igb/`,
/// `igb_pci_sriov_configure()`).
const DRIVER: &str = "igb";

/// What is written in each round, by attribute. No driver is probed for the VF: it would be most of what this costs.
const WRITES: [(&str, &str); 4] =
    [("sriov_drivers_autoprobe", "0"), ("sriov_numvfs", "1"), ("sriov_numvfs", "0"), ("reset", "1")];

impl Guest {
    /// Enables a VF of each card that is left with its driver and without VFs, disables it, and resets the card: twice.
    /// The kernel must not refuse any of it.
    ///
    /// # Errors
    /// The agent's. A deadline if it does not end and no task is stuck: then there is no verdict.
    pub(super) async fn works_again(&self, inventory: &Inventory) -> Result<Verdict, Error> {
        for devpath in idle(inventory) {
            let writes = WRITES.map(|(attribute, data)| (format!("/sys{devpath}/{attribute}"), data));
            let rounds = self.cycle(&writes, Some(ROUNDS)).await?;
            if let Ending::Stuck(stuck) = self.ending(&[&rounds]).await? {
                return Ok(self.deadlock(&stuck, &[]));
            }
            let refused = rounds.cycled(self.prompt()).await?.refused;
            if refused > 0 {
                let summary = format!(
                    "after the scenario, of {} writes that enable a VF of {devpath}, disable it and reset the card, the \
                     kernel refuses {refused}",
                    ROUNDS as usize * WRITES.len()
                );
                return Ok(Verdict::fail(FailureKind::WrongState, "sriov_numvfs", summary));
            }
        }
        Ok(Verdict::Pass)
    }
}

/// The folders of the cards that can be used.
fn idle(inventory: &Inventory) -> impl Iterator<Item = &str> {
    let is_idle = |driver: Option<&str>, numvfs: Option<&str>| (driver, numvfs) == (Some(DRIVER), Some("0"));
    let functions = inventory.functions.values();
    functions
        .filter(move |function| is_idle(function.driver.as_deref(), function.numvfs.as_deref()))
        .map(|function| function.devpath.as_str())
}

#[cfg(test)]
mod tests {
    use guest_protocol::PciFunction;

    use super::*;

    #[test]
    fn cards_without_their_driver_or_with_vfs_are_left_alone() {
        let mut inventory = Inventory::default();
        for (bdf, driver, numvfs) in [
            ("0000:01:00.0", Some("igb"), Some("0")),
            ("0000:02:00.0", Some("igb"), Some("2")),
            ("0000:03:00.0", Some("vfio-pci"), Some("0")),
            ("0000:04:00.0", None, Some("0")),
            ("0000:05:00.0", Some("igb"), None),
        ] {
            let (devpath, driver, numvfs) = (format!("/{bdf}"), driver.map(str::to_owned), numvfs.map(str::to_owned));
            inventory.functions.insert(bdf.to_owned(), PciFunction { devpath, driver, numvfs, ..Default::default() });
        }
        assert_eq!(idle(&inventory).collect::<Vec<_>>(), ["/0000:01:00.0"]);
    }
}
