//! A rescan of the bus while VFs come and go.
//!
//! A rescan adds each device that it finds on a bus and that is not marked as added. A VF that is being made, or taken away,
//! is on the bus and not marked. What keeps a rescan away is `pci_rescan_remove_lock`, where it is taken. None of this can be
//! ordered from outside: both sides run until they meet, for so many rounds.

use harness::guest::{Ending, Error, Guest, Pf};
use harness::notes::{Note, Rounds};
use harness::scenario::Scenario;
use harness::verdict::Verdict;

/// What every scenario of this family has in common.
const BASE: Scenario = Scenario {
    name: "",
    about: "",
    detects: &[],
    topology: "igb",
    also: &[],
    triggers: &[],
    append: &[],
    run: |guest| Box::pin(numvfs(guest)),
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "rescan_race::enable_and_disable",
        about: "VFs are enabled and disabled again and again while the bus is rescanned all the time; no VF may be added \
                twice.",
        detects: &["numvfs-vs-rescan-dup-add"],
        run: |guest| Box::pin(numvfs(guest)),
        ..BASE
    },
    Scenario {
        name: "rescan_race::unbind_and_bind",
        about: "A PF with VFs is unbound and bound again and again while the bus is rescanned all the time; no VF may be \
                added again that is about to go.",
        detects: &["pf-unbind-vs-rescan-readd"],
        run: |guest| Box::pin(unbind(guest)),
        ..BASE
    },
];

/// How many rounds a kernel has to survive.
const ROUNDS: u32 = 10;

/// All VFs that the driver allows: the more, the longer they take.
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

/// Does all this again and again while the bus is rescanned, until the rounds are over or the kernel complains.
async fn rescanning(guest: &Guest, writes: &[(String, &str)]) -> Result<Verdict, Error> {
    guest.set(guest.pf()?.attribute("sriov_drivers_autoprobe"), 0).await?;
    let rescan = guest.cycle(&[("/sys/bus/pci/rescan".to_owned(), "1")], None).await?;
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
    // Writes that the kernel refused raced with nothing.
    let rescans = guest.stop_cycle(&rescan).await?;
    guest.note(Note::Rescans(rescans.rounds));
    match refused + rescans.refused {
        0 => Ok(Verdict::Pass),
        refused => Err(Error::Unprepared(format!("the kernel refused {refused} writes, and said nothing else"))),
    }
}
