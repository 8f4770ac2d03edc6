//! Reading `driver_override` of a device that is being removed.
//!
//! This is like reading `sriov_numvfs`, but every PCI device has this attribute. In 6.1 the show function takes the
//! device lock, which a removal holds while it waits for the device's user. In 6.12 it takes a lock of its own
//! (`drivers/base/bus.c`, `drivers/pci/pci-sysfs.c`).

use harness::guest::{Error, Guest};
use harness::scenario::{Needs, Scenario};
use harness::trigger::Trigger;
use harness::verdict::Verdict;

use crate::numvfs_read::owner_reads_on_removal;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "driver_override::owner_reads_on_removal",
    about: "vfio notifies a single-threaded owner of the removal. The owner reads driver_override before it releases \
            the device. The read must return, and the removal must complete.",
    detects: &["driver-override-show-vfio-remove"],
    topology: "igb",
    also: &[],
    triggers: Trigger::ALL,
    append: &[],
    needs: Needs::NOTHING,
    run: |guest| Box::pin(owner_reads_driver_override(guest)),
}];

/// The attribute reads as `vfio-pci`: the harness has bound the device with it.
async fn owner_reads_driver_override(guest: &Guest) -> Result<Verdict, Error> {
    let path = guest.pf()?.attribute("driver_override");
    owner_reads_on_removal(guest, path, "vfio-pci").await
}
