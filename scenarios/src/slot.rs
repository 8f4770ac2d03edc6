//! Slots whose cards come and go at bad moments.

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use guest_protocol::{Sched, Step, TaskState};
use harness::classify::stack;
use harness::guest::{ENABLES_VFS, Ending, Error, Guest, Slot};
use harness::notes::Note;
use harness::scenario::Scenario;
use harness::trigger::Trigger;
use harness::verdict::Verdict;
use harness::vm::agent::Operation;
use harness::vm::pci::Bdf;
use kernels::FailureKind;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "slot::yanked_while_vfs_are_enabled",
        about: "A PF is yanked after its VFs were enabled and before they are added; the write must fail, and the PF go.",
        detects: &["vf-setup-fail-null-deref"],
        topology: "igb",
        also: &[],
        triggers: &[Trigger::Yank],
        append: &[],
        run: |guest| Box::pin(yanked_while_vfs_are_enabled(guest)),
    },
    Scenario {
        name: "slot::port_bound_again_while_removed",
        about: "A port of a switch that is being removed has lost its driver and gets it again, with a slot that outlives \
                its bus; the removal must end.",
        detects: &["slot-bus-uaf"],
        topology: "two-port-switch",
        also: &[],
        triggers: &[],
        // Without it, what was freed still looks as it did.
        append: &["init_on_free=1"],
        run: |guest| Box::pin(port_bound_again_while_removed(guest)),
    },
    Scenario {
        name: "slot::yanked_during_link_check",
        about: "A card is yanked before pciehp has enumerated it; the slot must end empty, and take the next card.",
        detects: &[],
        topology: "empty-slot",
        also: &[],
        triggers: &[],
        append: &[],
        run: |guest| Box::pin(yanked_during_bring_up(guest, BEGINS)),
    },
    Scenario {
        name: "slot::yanked_during_probe",
        about: "A card is yanked while its driver probes it; the slot must end empty, and take the next card.",
        detects: &["igb-waits-for-absent-card"],
        topology: "empty-slot",
        also: &[],
        triggers: &[],
        append: &[],
        run: |guest| Box::pin(yanked_during_bring_up(guest, PROBES)),
    },
    Scenario {
        name: "slot::yanked_while_phy_is_read",
        about: "A card is yanked while somebody reads its PHY, as mii-tool does; the reader must go on, and the card go.",
        detects: &["igb-phy-read-vs-yank"],
        topology: "igb",
        also: &[],
        triggers: &[Trigger::Yank],
        append: &[],
        run: |guest| Box::pin(yanked_while_phy_is_read(guest)),
    },
    Scenario {
        name: "slot::card_added_right_after_unplug",
        about: "A card is put into a slot the moment that the guest has cut its power; it must come up.",
        detects: &[],
        topology: "igb",
        also: &[],
        triggers: &[Trigger::DeviceDel],
        append: &[],
        run: |guest| Box::pin(added_right_after_unplug(guest)),
    },
    Scenario {
        name: "slot::card_exchanged",
        about: "A card is yanked and another put into its place at once. pciehp cuts the slot's power on account of the \
                first, which ejects the second; the slot must end empty, and take a third.",
        detects: &[],
        topology: "igb",
        also: &[],
        triggers: &[],
        append: &[],
        run: |guest| Box::pin(card_exchanged(guest)),
    },
    Scenario {
        name: "slot::button_pressed_twice",
        about: "The button of a slot is pressed again within the five seconds: the card must stay. Pressed a third time, it \
                must go.",
        detects: &["pciehp-cancel-forgets-state"],
        topology: "two-functions",
        also: &[],
        triggers: &[],
        append: &[],
        run: |guest| Box::pin(button_pressed_twice(guest)),
    },
];

/// How often to aim at the window.
const ATTEMPTS: u32 = 5;

/// Time between two looks at a slot. No event tells that it is as it should be.
const LOOK: Duration = Duration::from_millis(200);

/// So many looks in a row must find it so.
const LOOKS: usize = 2;

/// What a port's thread does while it has something to do (`drivers/pci/hotplug/pciehp_hpc.c`).
const PORT_THREAD: &str = "pciehp_ist";

/// A VF that answers with all ones (`drivers/pci/probe.c`, `pci_setup_device()`): the yank came in time.
const NO_VF: &str = "unknown header type 7f";

/// The kernel says so when pciehp begins to bring up a card, 100 ms and more before it enumerates it.
const BEGINS: &str = "Link Up";

/// The kernel says so when igb begins to probe a card, which takes seconds here.
const PROBES: &str = "enabling device";

/// igb tries for up to three seconds to get its semaphore, on any machine. After so many, scaled, it does not give up.
const LONG_IN_IGB: f64 = 8.0;

/// How often to look where a running task is.
const STACKS: usize = 20;

/// Register of a PHY's status: `MII_BMSR` in `include/uapi/linux/mii.h`.
const PHY_STATUS: u16 = 1;

/// The window is the 100 ms that VFs are given (`drivers/pci/iov.c`, `sriov_enable()`).
async fn yanked_while_vfs_are_enabled(guest: &Guest) -> Result<Verdict, Error> {
    let mut pf = guest.pf()?.clone();
    for attempt in 1..=ATTEMPTS {
        guest.note(Note::Attempts(attempt));
        let from = guest.agent().messages().position();
        let store = guest.write(pf.numvfs(), 2, Sched::default()).await?;
        guest.waits_in(&store, ENABLES_VFS, guest.prompt()).await?;
        guest.remove(&pf).await?;
        // If the kernel killed its process there is no answer, and the console says why.
        let access = store.accessed(guest.prompt()).await?;
        if let Ending::Stuck(stuck) = guest.ending(&[]).await? {
            return Ok(guest.deadlock(&stuck, &[]));
        }
        guest.note(Note::Written(access.shown().to_owned()));
        if !guest.said(from, NO_VF).is_empty() {
            return Ok(Verdict::Pass);
        }
        // What is put in before the guest has cut the power is ejected with what was taken out.
        let verdict = empties(guest, &pf.slot).await?;
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
    // The last port loses its driver first; then the removal waits for the PF's owner.
    let removal = guest.write(upstream.attribute("remove"), 1, Sched::default()).await?;
    owner.holding(guest.prompt()).await?;
    guest.set("/sys/bus/pci/drivers/pcieport/bind".to_owned(), port.bdf).await?;
    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    removal.accessed(guest.prompt()).await?;
    Ok(Verdict::Pass)
}

/// Takes a card away as soon as the kernel says something.
async fn yanked_during_bring_up(guest: &Guest, text: &str) -> Result<Verdict, Error> {
    let slot = guest.slot("rp0")?;
    let from = guest.agent().messages().position();
    guest.plug(slot, "pf0").await?;
    guest.says(from, text, guest.prompt()).await?;
    guest.yank(slot).await?;
    match empties(guest, slot).await? {
        Verdict::Pass => comes_up(guest, slot, "pf1").await,
        failed => Ok(failed),
    }
}

/// Who reads the PHY has igb's semaphore most of the time, and `rtnl_lock` with it (`net/core/dev_ioctl.c`, `dev_ioctl()`).
async fn yanked_while_phy_is_read(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let reader = guest.read_phy(&guest.interface(pf).await?, PHY_STATUS).await?;
    // Where a running task is cannot be told for sure; a process that reads and does nothing else is mostly in the driver.
    let began = Instant::now();
    while !reader.whereabouts(guest.prompt()).await?.iter().any(|task| task.state == RUNNING) {
        if began.elapsed() > guest.prompt() {
            return Err(Error::Unprepared("whoever is to read the PHY was never seen running".to_owned()));
        }
    }
    guest.remove(pf).await?;
    let operations = [&reader];
    let mut ending = pin!(guest.ending(&operations));
    let ended = match guest.vm().starved().timeout(guest.seconds(LONG_IN_IGB), &mut ending).await {
        Ok(ended) => ended?,
        Err(_) => match still_busy(guest, &reader).await? {
            Some(verdict) => return Ok(verdict),
            None => ending.await?,
        },
    };
    match ended {
        Ending::Done => guest.put_back_and_use().await,
        Ending::Stuck(stuck) => Ok(guest.deadlock(&stuck, &[])),
    }
}

/// Whether whoever reads the PHY is still at it. One look may find nothing on the stack of a running task; if none finds
/// anything, as it runs on the other CPU all the time, that CPU is asked.
async fn still_busy(guest: &Guest, reader: &Operation) -> Result<Option<Verdict>, Error> {
    let busy = |task: &TaskState| busy_for_ever(guest, task, "the card is gone and not removed");
    let mut running = None;
    for _ in 0..STACKS {
        let tasks = reader.whereabouts(guest.prompt()).await?;
        let found = tasks.iter().find_map(busy);
        if found.is_some() {
            return Ok(found);
        }
        running = tasks.into_iter().find(|task| task.state == RUNNING).or(running);
    }
    match running {
        Some(task) => Ok(guest.on_cpu(&task).await?.as_ref().and_then(busy)),
        None => Ok(None),
    }
}

async fn added_right_after_unplug(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let events = guest.vm().qmp().events().position();
    guest.remove(pf).await?;
    guest.vm().qmp().device_deleted(events, &pf.function.id, guest.prompt()).await?;
    comes_up(guest, &pf.slot, "pf1").await
}

/// QEMU takes a powered slot whose power is cut for one whose card may go (`hw/pci/pcie.c`,
/// `pcie_cap_slot_write_config()`): the second card cannot stay, whatever pciehp makes of it.
async fn card_exchanged(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.yank(&pf.slot).await?;
    let events = guest.vm().qmp().events().position();
    guest.plug(&pf.slot, "pf1").await?;
    guest.vm().qmp().device_deleted(events, "pf1", guest.prompt()).await?;
    match empties(guest, &pf.slot).await? {
        Verdict::Pass => comes_up(guest, &pf.slot, "pf2").await,
        failed => Ok(failed),
    }
}

/// What pciehp says of the first press of the button of a slot that has power (`drivers/pci/hotplug/pciehp_ctrl.c`,
/// `pciehp_handle_button_press()`), in 6.12 and in 6.1.
const WILL_GO: [&str; 2] = ["Button press: will power off", "Powering off due to button press"];
/// Of the second.
const WILL_STAY: [&str; 2] = ["Button press: canceling request to power off", "Action canceled due to button press"];
/// Of one that it does not expect.
const IGNORED: [&str; 2] = ["Button press: ignoring invalid state", "Ignoring invalid state"];

/// QEMU takes one press for each function: the second press of the slot's button is for the second function.
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
        Ending::Done => empties(guest, slot).await,
        Ending::Stuck(stuck) => Ok(guest.deadlock(&stuck, &[])),
    }
}

/// What pciehp says of a press of the button.
async fn answer(guest: &Guest, from: usize) -> Result<String, Error> {
    let answers = [WILL_GO, WILL_STAY, IGNORED].concat();
    guest.says_one_of(from, &answers, guest.prompt()).await
}

fn is_one_of(said: &str, texts: &[&str]) -> bool {
    texts.iter().any(|text| said.contains(text))
}

fn not_taken(which: &str, answer: &str) -> Verdict {
    let summary = format!("pciehp answered the {which} press of the button with {answer:?}");
    Verdict::fail(FailureKind::WrongState, "pciehp_handle_button_press", summary)
}

/// Puts a card into a slot. It must get its driver, and all removals be complete.
async fn comes_up(guest: &Guest, slot: &Slot, id: &str) -> Result<Verdict, Error> {
    let card = guest.plug(slot, id).await?;
    match guest.ending_with(&[], async |within| guest.plugged(&card, within).await.map(drop)).await {
        Ok(Ending::Done) => Ok(Verdict::Pass),
        Ok(Ending::Stuck(stuck)) => Ok(guest.deadlock(&stuck, &[])),
        Err(error) if error.is_deadline() => {
            let state = State::of(guest, slot).await?;
            let is_lost = state.adapter == "1" && (state.power == "0" || state.devices.is_empty());
            if is_lost { Ok(state.wrong()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

/// Waits until the guest shows a slot as one that is empty, and its port's thread has nothing more to do: it turns the
/// power indicator off a second after the power, and QEMU ejects whatever is in the slot then.
async fn empties(guest: &Guest, slot: &Slot) -> Result<Verdict, Error> {
    let began = Instant::now();
    let (mut looks, mut busy) = (0, None);
    while looks < LOOKS {
        let state = State::of(guest, slot).await?;
        let tasks = guest.agent().tasks(&[PORT_THREAD], guest.prompt()).await?;
        let is_busy = tasks.iter().any(|task| task.stack.iter().any(|frame| frame == PORT_THREAD));
        let is_empty = state.adapter == "0" && state.power == "0" && state.devices.is_empty();
        looks = if is_empty && !is_busy { looks + 1 } else { 0 };
        busy = tasks.into_iter().find(|task| task.state == RUNNING).or(busy);
        if looks == 0 && began.elapsed() > guest.prompt() {
            return Ok(match guest.ending(&[]).await? {
                Ending::Done => {
                    let busy = busy.and_then(|task| busy_for_ever(guest, &task, &state.to_string()));
                    busy.unwrap_or_else(|| state.wrong())
                }
                Ending::Stuck(stuck) => guest.deadlock(&stuck, &[]),
            });
        }
        guest.vm().starved().pause(LOOK).await;
    }
    Ok(Verdict::Pass)
}

/// A task's state while it runs (proc_pid_stat(5)).
const RUNNING: char = 'R';

/// A task that was running when it was looked at, after more time than it could want; none if it was not.
fn busy_for_ever(guest: &Guest, task: &TaskState, so: &str) -> Option<Verdict> {
    let function = stack::busy_in(&task.stack).filter(|_| task.state == RUNNING)?;
    guest.note_tasks(Note::Busy, std::slice::from_ref(task));
    let summary = format!("{} (pid {}) does not come out of {function}: {so}", task.comm, task.pid);
    Some(Verdict::fail(FailureKind::WrongState, function, summary))
}

/// What the guest shows of a slot.
#[derive(Debug)]
struct State {
    /// Whether a card is in it, as the hardware says.
    adapter: String,
    /// Whether it has power.
    power: String,
    /// The devices behind its port.
    devices: Vec<String>,
}

impl State {
    async fn of(guest: &Guest, slot: &Slot) -> Result<State, Error> {
        let adapter = guest.read_now(slot.attribute("adapter")).await?.shown().to_owned();
        let power = guest.read_now(slot.attribute("power")).await?.shown().to_owned();
        let mut devices = guest.agent().list(&slot.port.attribute(""), guest.prompt()).await?;
        devices.retain(|name| name.parse::<Bdf>().is_ok());
        Ok(State { adapter, power, devices })
    }

    /// The guest has had all the time that it could want, and left the slot like this.
    fn wrong(&self) -> Verdict {
        Verdict::fail(FailureKind::WrongState, "power", self.to_string())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { adapter, power, devices } = self;
        write!(f, "the slot stays with adapter {adapter}, power {power} and ")?;
        match devices.as_slice() {
            [] => f.write_str("no device"),
            devices => write!(f, "the devices {}", devices.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_told_with_its_devices() {
        let state = |devices: &[&str]| {
            let devices = devices.iter().map(|&bdf| bdf.to_owned()).collect();
            State { adapter: "1".to_owned(), power: "0".to_owned(), devices }.to_string()
        };
        assert_eq!(state(&[]), "the slot stays with adapter 1, power 0 and no device");
        let two = "the slot stays with adapter 1, power 0 and the devices 0000:01:00.0, 0000:01:00.1";
        assert_eq!(state(&["0000:01:00.0", "0000:01:00.1"]), two);
    }
}
