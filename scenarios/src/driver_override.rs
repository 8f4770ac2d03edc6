//! Reading `driver_override` of a device that is being removed.
//!
//! Like `sriov_numvfs`, but every PCI device has it. 6.1 shows it under the device lock, which a removal holds while it
//! waits for the device's user; 6.12 under a lock of its own (`drivers/base/bus.c`, `drivers/pci/pci-sysfs.c`).

use harness::guest::{Error, Guest};
use harness::scenario::Scenario;
use harness::trigger::Trigger;
use harness::verdict::Verdict;

use crate::numvfs_read::owner_reads_on_removal;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "driver_override::owner_reads_on_removal",
    about: "A single-threaded owner, told by vfio of the removal, reads driver_override before it releases the device; \
            the read must return and the removal complete.",
    detects: &["driver-override-show-vfio-remove"],
    topology: "igb",
    also: &[],
    triggers: Trigger::ALL,
    append: &[],
    run: |guest| Box::pin(owner_reads_driver_override(guest)),
}];

/// The device was given to vfio-pci by just this attribute.
async fn owner_reads_driver_override(guest: &Guest) -> Result<Verdict, Error> {
    let path = guest.pf()?.attribute("driver_override");
    owner_reads_on_removal(guest, path, "vfio-pci").await
}
