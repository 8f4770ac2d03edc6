//! Cards that are added to a slot, or removed from it, at critical moments.

use std::pin::pin;

use guest_protocol::{Sched, Step, TaskState};
use harness::guest::{ENABLES_VFS, Ending, Error, Guest, RUNNING, Slot};
use harness::notes::Note;
use harness::scenario::{Needs, Places, Scenario};
use harness::trigger::Trigger;
use harness::verdict::Verdict;
use kernels::FailureKind;

use crate::slot_state::{BEGINS, State, WILL_GO, busy_for_ever, comes_up, empties};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "slot::yanked_while_vfs_are_enabled",
        about: "A PF is yanked after its VFs were enabled and before they are added. The write must fail, and the PF \
                must be removed.",
        detects: &["vf-setup-fail-null-deref", "enabling-pf-not-freed"],
        triggers: &[Trigger::Yank],
        ..Scenario::of(|guest| Box::pin(yanked_while_vfs_are_enabled(guest)))
    },
    Scenario {
        name: "slot::port_bound_again_while_removed",
        about: "A switch is being removed. One of its ports has lost its driver, and is bound to it again. Its new \
                slot outlives its bus. The removal must end.",
        detects: &["slot-bus-uaf"],
        topology: "two-port-switch",
        // Without this, freed memory keeps its contents, and a use after free goes unnoticed.
        append: &["init_on_free=1"],
        ..Scenario::of(|guest| Box::pin(port_bound_again_while_removed(guest)))
    },
    Scenario {
        name: "slot::yanked_during_link_check",
        about: "A card is yanked before pciehp has enumerated it. The slot must end up empty, and the next card must \
                come up.",
        detects: &["iov-restore-vs-yank"],
        topology: "empty-slot",
        ..Scenario::of(|guest| Box::pin(yanked_during_link_check(guest)))
    },
    Scenario {
        name: "slot::yanked_during_probe",
        about: "A card is yanked while its driver probes it. The slot must end up empty, and the next card must come \
                up.",
        detects: &["igb-waits-for-absent-card", "iov-restore-vs-yank"],
        topology: "empty-slot",
        needs: Needs {
            places: Places { functions: &[RELEASES], show: &["igb-waits-for-absent-card"] },
            ..Needs::NOTHING
        },
        ..Scenario::of(|guest| Box::pin(yanked_during_probe(guest)))
    },
    Scenario {
        name: "slot::yanked_while_phy_is_read",
        about: "A card is yanked while a process reads its PHY, as mii-tool does. The process must make progress, and \
                the card must be removed.",
        detects: &["igb-phy-read-vs-yank"],
        triggers: &[Trigger::Yank],
        needs: Needs { places: Places { functions: &[RELEASES], show: &["igb-phy-read-vs-yank"] }, ..Needs::NOTHING },
        ..Scenario::of(|guest| Box::pin(yanked_while_phy_is_read(guest)))
    },
    Scenario {
        name: "slot::card_added_right_after_unplug",
        about: "A card is added to a slot at the moment when the guest has powered it off. The card must come up.",
        triggers: &[Trigger::DeviceDel],
        ..Scenario::of(|guest| Box::pin(added_right_after_unplug(guest)))
    },
    Scenario {
        name: "slot::card_exchanged",
        about: "A card is yanked, and another is added at once. pciehp powers the slot off because of the first card, \
                which ejects the second. The slot must end up empty, and a third card must come up.",
        ..Scenario::of(|guest| Box::pin(card_exchanged(guest)))
    },
    Scenario {
        name: "slot::button_pressed_twice",
        about: "The attention button of a slot is pressed again within five seconds: the card must stay. When it is \
                pressed a third time, the card must be removed.",
        detects: &["pciehp-cancel-forgets-state"],
        topology: "two-functions",
        ..Scenario::of(|guest| Box::pin(button_pressed_twice(guest)))
    },
];

/// How many times to try to hit the window.
const ATTEMPTS: u32 = 5;

/// The kernel logs this for a VF whose config space reads as all ones (`drivers/pci/probe.c`, `pci_setup_device()`):
/// the yank hit the window.
const NO_VF: &str = "unknown header type 7f";

/// The kernel logs this when igb begins to probe a card. The probe takes seconds here.
const PROBES: &str = "enabling device";

/// igb's function that releases a semaphore of the card. It first waits for another one, and of a card that is absent it
/// waits for ever (`drivers/net/ethernet/intel/igb/e1000_82575.c`).
const RELEASES: &str = "igb_release_swfw_sync_82575";

/// igb tries for up to three seconds to get its semaphore, on any machine. If it is still busy after this many seconds
/// (scaled to the speed of the guest), it does not give up.
const LONG_IN_IGB: f64 = 8.0;

/// Register of a PHY's status: `MII_BMSR` in `include/uapi/linux/mii.h`.
const PHY_STATUS: u16 = 1;

/// The window is the 100 ms that the kernel waits for VFs (`drivers/pci/iov.c`, `sriov_enable()`).
async fn yanked_while_vfs_are_enabled(guest: &Guest) -> Result<Verdict, Error> {
    let mut pf = guest.pf()?.clone();
    for attempt in 1..=ATTEMPTS {
        guest.note(Note::Attempts(attempt));
        let from = guest.agent().messages().position();
        let store = guest.write(pf.numvfs(), 2, Sched::default()).await?;
        guest.waits_in(&store, ENABLES_VFS, guest.prompt()).await?;
        guest.remove(&pf).await?;
        // If an oops killed the writing process, there is no answer, and the verdict comes from the console.
        let access = store.accessed(guest.prompt()).await?;
        if let Ending::Stuck(stuck) = guest.ending(&[]).await? {
            return Ok(guest.deadlock(&stuck, &[]));
        }
        guest.note(Note::Written(access.shown().to_owned()));
        if !guest.said(from, NO_VF).is_empty() {
            return Ok(Verdict::Pass);
        }
        // A card that is added before the guest powers the slot off would be ejected with the old one.
        let verdict = empties(guest, &pf.slot, guest.prompt()).await?;
        if verdict != Verdict::Pass {
            return Ok(verdict);
        }
        let card = guest.plug(&pf.slot, &pf.function.id).await?;
        pf = guest.plugged(&card, guest.prompt()).await?;
    }
    Err(Error::Unprepared(format!("in {ATTEMPTS} attempts no VF was set up after the PF was yanked")))
}

async fn port_bound_again_while_removed(guest: &Guest) -> Result<Verdict, Error> {
    let (pf, port) = (guest.pf()?, &guest.slot("up0-dp1")?.port);
    let upstream = port.parent().ok_or_else(|| Error::Unprepared("there is no switch".to_owned()))?;
    guest.bind(pf, "vfio-pci").await?;
    let owner = guest.own(pf, vec![Step::Hold, Step::Release]).await?;
    // The last port loses its driver first. Then the removal waits for the PF's owner.
    let removal = guest.write(upstream.attribute("remove"), 1, Sched::default()).await?;
    guest.unless_refused(&removal, owner.holding(guest.prompt())).await?;
    let bind = guest.write_now("/sys/bus/pci/drivers/pcieport/bind".to_owned(), port.bdf).await?;
    if let Err(errno) = bind.value {
        // A kernel may refuse this. Then the bug cannot occur.
        return Err(Error::Unprepared(format!(
            "the kernel refused to bind a port that is being removed: {}",
            errno.name
        )));
    }
    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    removal.accessed(guest.prompt()).await?;
    Ok(Verdict::Pass)
}

async fn yanked_during_link_check(guest: &Guest) -> Result<Verdict, Error> {
    let slot = guest.slot("rp0")?;
    let from = guest.agent().messages().position();
    guest.plug(slot, "pf0").await?;
    guest.says(from, BEGINS, guest.prompt()).await?;
    yanked(guest, slot).await
}

async fn yanked_during_probe(guest: &Guest) -> Result<Verdict, Error> {
    let slot = guest.slot("rp0")?;
    let from = guest.agent().messages().position();
    guest.plug(slot, "pf0").await?;
    match guest.stop_at(RELEASES).await? {
        Some(place) => place.stopped(guest.prompt()).await?,
        None => drop(guest.says(from, PROBES, guest.prompt()).await?),
    }
    yanked(guest, slot).await
}

/// Yanks the card of a slot that is being brought up.
async fn yanked(guest: &Guest, slot: &Slot) -> Result<Verdict, Error> {
    guest.yank(slot).await?;
    match empties(guest, slot, guest.seconds(LONG_IN_IGB)).await? {
        Verdict::Pass => comes_up(guest, slot, "pf1").await,
        failed => Ok(failed),
    }
}

/// A process that reads the PHY holds igb's semaphore most of the time, and `rtnl_lock` with it
/// (`net/core/dev_ioctl.c`, `dev_ioctl()`).
async fn yanked_while_phy_is_read(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let reader = guest.read_phy(&guest.interface(pf).await?, PHY_STATUS).await?;
    // On the host's clock, the exact position of a running task is not known. This process only reads the PHY, so it is
    // mostly in the driver.
    let patience = guest.vm().time().patience(guest.prompt());
    while !reader.whereabouts(guest.prompt()).await?.iter().any(|task| task.state == RUNNING) {
        if patience.is_over().is_some() {
            return Err(Error::Unprepared("the process that reads the PHY was never seen running".to_owned()));
        }
    }
    if let Some(place) = guest.stop_at(RELEASES).await? {
        place.stopped(guest.prompt()).await?;
    }
    guest.remove(pf).await?;
    let still_reads =
        |task: &TaskState| busy_for_ever(guest, task, "the card is absent, but its device is not removed");
    let operations = [&reader];
    let mut ending = pin!(guest.ending(&operations));
    let ended = match guest.vm().time().timeout(guest.seconds(LONG_IN_IGB), &mut ending).await {
        Ok(ended) => ended?,
        Err(_) => match guest.find_running(&reader, still_reads).await? {
            Some(verdict) => return Ok(verdict),
            None => ending.await?,
        },
    };
    match ended {
        Ending::Done => guest.put_back_and_use().await,
        Ending::Stuck(stuck) => Ok(guest.deadlock(&stuck, &[])),
    }
}

async fn added_right_after_unplug(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let events = guest.vm().qmp().events().position();
    guest.remove(pf).await?;
    guest.vm().qmp().device_deleted(events, &pf.function.id, guest.prompt()).await?;
    comes_up(guest, &pf.slot, "pf1").await
}

/// When the guest powers a slot off, QEMU removes the card in it (`hw/pci/pcie.c`, `pcie_cap_slot_write_config()`). So
/// the second card cannot stay, whatever pciehp does.
async fn card_exchanged(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.yank(&pf.slot).await?;
    let events = guest.vm().qmp().events().position();
    guest.plug(&pf.slot, "pf1").await?;
    guest.vm().qmp().device_deleted(events, "pf1", guest.prompt()).await?;
    match empties(guest, &pf.slot, guest.prompt()).await? {
        Verdict::Pass => comes_up(guest, &pf.slot, "pf2").await,
        failed => Ok(failed),
    }
}

/// What it logs at the second press.
const WILL_STAY: [&str; 2] = ["Button press: canceling request to power off", "Action canceled due to button press"];
/// What it logs at a press that it does not expect.
const IGNORED: [&str; 2] = ["Button press: ignoring invalid state", "Ignoring invalid state"];

/// QEMU accepts one press for each function, so the second press of the slot's button goes to the second function.
async fn button_pressed_twice(guest: &Guest) -> Result<Verdict, Error> {
    let slot = &guest.pf_named("pf0")?.slot;
    let from = guest.agent().messages().position();
    guest.press_button("pf0").await?;
    answer(guest, from).await?;
    let from = guest.agent().messages().position();
    guest.press_button_again(slot, "pf1").await?;
    let second = answer(guest, from).await?;
    if !is_one_of(&second, &WILL_STAY) {
        return Ok(not_taken("second", &second));
    }

    let from = guest.agent().messages().position();
    let pressed = guest.press_button_when_taken("pf0").await?;
    let third = answer(guest, from).await?;
    if !is_one_of(&third, &WILL_GO) {
        return Ok(not_taken("third", &third));
    }
    let state = State::of(guest, slot).await?;
    if state.adapter != "1" || state.power != "1" || state.devices.len() < 2 {
        return Ok(state.wrong());
    }
    match guest.ending_with(&[], async |within| guest.unplugged(&pressed, within).await).await? {
        Ending::Done => empties(guest, slot, guest.prompt()).await,
        Ending::Stuck(stuck) => Ok(guest.deadlock(&stuck, &[])),
    }
}

/// What pciehp logs at a press of the button.
async fn answer(guest: &Guest, from: usize) -> Result<String, Error> {
    let answers = [WILL_GO, WILL_STAY, IGNORED].concat();
    guest.says_one_of(from, &answers, guest.prompt()).await
}

fn is_one_of(said: &str, texts: &[&str]) -> bool {
    texts.iter().any(|text| said.contains(text))
}

fn not_taken(which: &str, answer: &str) -> Verdict {
    let summary = format!("at the {which} press of the button pciehp logged {answer:?}");
    Verdict::fail(FailureKind::WrongState, "pciehp_handle_button_press", summary)
}
