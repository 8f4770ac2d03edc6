//! A rescan of the bus while VFs are added and removed.
//!
//! A rescan adds each device that it finds on a bus and that is not marked as added. A VF that is being added or
//! removed is on the bus and not marked. Only `pci_rescan_remove_lock` protects it from a rescan, if the code takes the
//! lock. User space cannot control the order, so both sides run at the same time for a number of rounds.

use harness::guest::{Ending, Error, Guest, Pf};
use harness::notes::{Note, Rounds};
use harness::scenario::{Needs, Places, Scenario};
use harness::verdict::Verdict;
use kernels::FailureKind;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "rescan_race::enable_and_disable",
        about: "VFs are enabled and disabled repeatedly while the bus is rescanned all the time. No VF may be added \
                twice.",
        detects: &["numvfs-vs-rescan-dup-add"],
        // In so many rounds it shows in every held guest: no time passes there while the harness starts a write, so both
        // sides really run at the same time.
        needs: Needs { places: Places { functions: &[], show: &["numvfs-vs-rescan-dup-add"] }, ..Needs::NOTHING },
        ..Scenario::of(|guest| Box::pin(numvfs(guest)))
    },
    Scenario {
        name: "rescan_race::unbind_and_bind",
        about: "A PF with VFs is unbound and bound repeatedly while the bus is rescanned all the time. No VF may be \
                added again while it is being removed.",
        detects: &["pf-unbind-vs-rescan-readd", "pf-unbind-without-rescan-lock"],
        ..Scenario::of(|guest| Box::pin(unbind(guest)))
    },
];

/// The number of rounds.
const ROUNDS: u32 = 10;

/// A write makes the kernel look for devices on all buses.
const RESCAN: &str = "/sys/bus/pci/rescan";

/// All VFs that the driver allows: more VFs take longer, which widens the window.
fn all_vfs(pf: &Pf) -> String {
    pf.model().vfs_of_driver.to_string()
}

async fn numvfs(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    rescanning(guest, &[(pf.numvfs(), &all_vfs(pf)), (pf.numvfs(), "0")]).await
}

async fn unbind(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let bdf = pf.device.bdf.to_string();
    let (unbind, bind) = (pf.driver_attribute("unbind"), pf.driver_attribute("bind"));
    rescanning(guest, &[(pf.numvfs(), &all_vfs(pf)), (unbind, &bdf), (bind, &bdf)]).await
}

/// Repeats these writes while the bus is rescanned, until all rounds are done or the kernel reports a splat.
async fn rescanning(guest: &Guest, writes: &[(String, &str)]) -> Result<Verdict, Error> {
    guest.set(guest.pf()?.attribute("sriov_drivers_autoprobe"), 0).await?;
    let rescan = guest.cycle(&[(RESCAN.to_owned(), "1")], None).await?;
    let mut refused = 0;
    for round in 1..=ROUNDS {
        guest.note(Note::Rounds(Rounds::Begun(round)));
        let once = guest.cycle(writes, Some(1)).await?;
        if let Ending::Stuck(stuck) = guest.ending(&[&once]).await? {
            return Ok(guest.deadlock(&stuck, &[]));
        }
        if let Some(splat) = guest.complaint() {
            return Err(Error::Complaint(splat.title));
        }
        refused += once.cycled(guest.prompt()).await?.refused;
    }
    let rescans = guest.stop_cycle(&rescan).await?;
    guest.note(Note::Rescans(rescans.rounds));
    let mut written: Vec<_> = writes.iter().map(|(path, _)| path.as_str()).collect();
    written.dedup();
    Ok(granted(refused, &written).or_else(|| granted(rescans.refused, &[RESCAN])).unwrap_or(Verdict::Pass))
}

/// The failure if writes were refused. A write during a rescan may wait, but must succeed.
fn granted(refused: u32, paths: &[&str]) -> Option<Verdict> {
    let attribute = paths.first()?.rsplit('/').next()?;
    let summary = format!("the kernel refused {refused} of the writes to {}", paths.join(", "));
    (refused > 0).then(|| Verdict::fail(FailureKind::WrongState, attribute, summary))
}
