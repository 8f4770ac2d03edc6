//! SR-IOV of a PF that is bound to vfio-pci.
//!
//! `vfio_pci_core_sriov_configure()` (`drivers/vfio/pci/vfio_pci_core.c`) enables the VFs, and vfio-pci binds to them
//! while they are added. So a lock of the PF that is held at that time comes before all locks that the probe of a VF
//! takes.

use guest_protocol::Step;
use harness::guest::{Error, Guest};
use harness::scenario::{Needs, Scenario};
use harness::verdict::Verdict;
use kernels::FailureKind;

use crate::check::bound;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "vfio_sriov::enable_under_vfio",
    about: "A PF under vfio-pci is opened and closed. Then its VFs are enabled and disabled. vfio-pci must bind to the \
            VFs.",
    detects: &["vfio-memlock-across-enable-sriov"],
    topology: "igb",
    also: &["nvme", "virtio-net"],
    triggers: &[],
    append: &[],
    needs: Needs::NOTHING,
    run: |guest| Box::pin(enable_under_vfio(guest)),
}];

/// How many VFs.
const VFS: u16 = 2;

/// The close comes first, so that lockdep has seen the other order. The close takes the PF's `memory_lock` under the
/// lock of the device set (`vfio_pci_core_disable()`), which the probe of a VF takes too (`vfio_assign_device_set()`).
async fn enable_under_vfio(guest: &Guest) -> Result<Verdict, Error> {
    let pf = bound(guest).await?;
    let owner = guest.open(&[pf.as_ref()], vec![Step::Release]).await?;
    owner.released(guest.prompt()).await?;
    for vf in guest.enable_vfs(pf, VFS).await? {
        let driver = guest.read_link(&vf.attribute("driver")).await?;
        if !driver.ends_with("/vfio-pci") {
            let summary = format!("{}, a VF of a PF under vfio-pci, has the driver {driver}", vf.bdf);
            return Ok(Verdict::fail(FailureKind::WrongState, "driver", summary));
        }
    }
    guest.set(pf.numvfs(), 0).await?;
    Ok(Verdict::Pass)
}
