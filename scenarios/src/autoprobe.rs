//! VFs that no driver may probe: `sriov_drivers_autoprobe` is 0.

use harness::guest::{Error, Guest};
use harness::scenario::{Needs, Scenario};
use harness::verdict::Verdict;
use kernels::FailureKind;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "autoprobe::vfs_without_driver",
    about: "VFs are enabled with sriov_drivers_autoprobe off. None of them may have a driver.",
    detects: &["vf-autoprobe-bind-lie"],
    topology: "igb",
    also: &[],
    triggers: &[],
    append: &[],
    needs: Needs::NOTHING,
    run: |guest| Box::pin(vfs_without_driver(guest)),
}];

/// How many VFs.
const VFS: u16 = 3;

async fn vfs_without_driver(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.set(pf.attribute("sriov_drivers_autoprobe"), 0).await?;
    let vfs = guest.enable_vfs(pf, VFS).await?;
    let mut bound = Vec::new();
    for vf in &vfs {
        let names = guest.list(&vf.attribute("")).await?;
        if names.iter().any(|name| name == "driver") {
            bound.push(format!("{} shows {}", vf.bdf, guest.read_link(&vf.attribute("driver")).await?));
        }
    }
    if bound.is_empty() {
        return Ok(Verdict::Pass);
    }
    let summary =
        format!("sriov_drivers_autoprobe is off, but {} of {VFS} VFs have a driver: {}", bound.len(), bound.join(", "));
    Ok(Verdict::fail(FailureKind::WrongState, "driver", summary))
}
