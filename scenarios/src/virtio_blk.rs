//! Disks that are yanked while a request is under way. A driver must end it, as the device no longer can.

use guest_protocol::{Policy, Sched};
use harness::guest::{Error, Guest};
use harness::scenario::{Needs, Places, Scenario};
use harness::trigger::Trigger;
use harness::verdict::Verdict;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "virtio_blk::yanked_with_a_request",
    about: "A virtio disk is yanked while a process writes to it. The write must end, and the disk must be removed.",
    detects: &["virtio-blk-lost-request"],
    topology: "virtio-blk",
    triggers: &[Trigger::Yank],
    // Its two kernels have block drivers, and take as long to build as ten others.
    needs: Needs {
        places: Places { functions: &[STARTS], show: &["virtio-blk-lost-request"] },
        to_be_named: true,
        ..Needs::NOTHING
    },
    ..Scenario::of(|guest| Box::pin(yanked_with_a_request(guest)))
}];

/// The function that a driver calls for each request, before it tells the device (`block/blk-mq.c`).
const STARTS: &str = "blk_mq_start_request";

/// The disk, and an offset in its middle. The kernel has not read there: it looks for partitions at the beginning.
const DISK: &str = "/dev/vda";
const MIDDLE: u64 = 512 << 10;

/// The function in which the removal of a disk waits for its requests, and for the pages that they read or write
/// (`block/genhd.c`).
const WAITS: &[&str] = &["del_gendisk"];

/// The writer must tell the disk of the request before pciehp's thread, which has priority 50, takes the disk's queues.
const WRITER: Sched = Sched { cpu: None, policy: Policy::Fifo(60) };

/// QEMU answers at once, so the guest is stopped just before it tells the disk of a request, which the yanked disk then
/// does not get. To write a byte, the kernel first reads the bytes around it.
async fn yanked_with_a_request(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let place = guest.stop_at(STARTS).await?;
    let write = guest.write_at(DISK.to_owned(), MIDDLE, "x", WRITER).await?;
    if let Some(place) = place {
        place.stopped(guest.prompt()).await?;
    }
    guest.remove(pf).await?;
    guest.passes_unless_stuck(&[&write], WAITS).await
}
