//! The state of a slot, and the words of scenarios that wait for one.

use std::fmt;
use std::time::Duration;

use guest_protocol::TaskState;
use harness::classify::stack;
use harness::guest::{Ending, Error, Guest, RUNNING, Slot};
use harness::notes::Note;
use harness::verdict::Verdict;
use harness::vm::pci::Bdf;
use kernels::FailureKind;

/// Time between two checks of a slot. No event says when a slot is empty and idle, so it is polled.
const LOOK: Duration = Duration::from_millis(200);

/// This many checks in a row must find it empty and idle.
const LOOKS: usize = 2;

/// The function on the stack of a port's interrupt thread while the thread works (`drivers/pci/hotplug/pciehp_hpc.c`).
const PORT_THREAD: &str = "pciehp_ist";

/// What pciehp logs at the first press of the button of a powered slot (`drivers/pci/hotplug/pciehp_ctrl.c`,
/// `pciehp_handle_button_press()`), in 6.12 and in 6.1.
pub const WILL_GO: [&str; 2] = ["Button press: will power off", "Powering off due to button press"];

/// The kernel logs this when pciehp begins to bring up a card, at least 100 ms before it enumerates the card.
pub const BEGINS: &str = "Link Up";

/// pciehp acts on a press of the button after five seconds; this is a bit longer.
pub const AFTER_BUTTON: Duration = Duration::from_secs(6);

/// Adds a card to a slot. A driver must bind to it, and all removals must end.
pub async fn comes_up(guest: &Guest, slot: &Slot, id: &str) -> Result<Verdict, Error> {
    let card = guest.plug(slot, id).await?;
    match guest.ending_with(&[], async |within| guest.plugged(&card, within).await.map(drop)).await {
        Ok(ending) => Ok(guest.verdict_on(&ending, &[])),
        Err(error) if error.is_deadline() => {
            let state = State::of(guest, slot).await?;
            let is_lost = state.adapter == "1" && (state.power == "0" || state.devices.is_empty());
            if is_lost { Ok(state.wrong()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

/// Waits until the guest shows a slot as empty and its port's thread is idle. The thread turns the power indicator off
/// one second after the power, and QEMU ejects whatever is in the slot at that time.
pub async fn empties(guest: &Guest, slot: &Slot, within: Duration) -> Result<Verdict, Error> {
    let patience = guest.vm().time().patience(within);
    let (mut looks, mut busy) = (0, None);
    while looks < LOOKS {
        let state = State::of(guest, slot).await?;
        let tasks = guest.agent().tasks(&[PORT_THREAD], guest.prompt()).await?;
        let is_busy = thread_works(&tasks);
        let is_empty = state.adapter == "0" && state.power == "0" && state.devices.is_empty();
        looks = if is_empty && !is_busy { looks + 1 } else { 0 };
        busy = tasks.into_iter().find(|task| task.state == RUNNING).or(busy);
        if looks == 0 && patience.is_over().is_some() {
            return Ok(match guest.ending(&[]).await? {
                Ending::Done => {
                    let busy = busy.and_then(|task| busy_for_ever(guest, &task, &state.to_string()));
                    busy.unwrap_or_else(|| state.wrong())
                }
                Ending::Stuck(stuck) => guest.deadlock(&stuck, &[]),
            });
        }
        guest.vm().time().pause(LOOK).await;
    }
    Ok(Verdict::Pass)
}

/// Waits until the threads of all ports are idle. They still set indicators after the event of a new device. No event
/// says when they have, so they are polled.
pub async fn idle(guest: &Guest) -> Result<(), Error> {
    let patience = guest.vm().time().patience(guest.prompt());
    let mut looks = 0;
    while looks < LOOKS {
        looks = if thread_works(&guest.agent().tasks(&[PORT_THREAD], guest.prompt()).await?) { 0 } else { looks + 1 };
        if looks == 0 && patience.is_over().is_some() {
            return Err(Error::Unprepared("the thread of a port is still busy".to_owned()));
        }
        guest.vm().time().pause(LOOK).await;
    }
    Ok(())
}

fn thread_works(tasks: &[TaskState]) -> bool {
    tasks.iter().any(|task| task.stack.iter().any(|frame| frame == PORT_THREAD))
}

/// The failure of a task that is still running after more time than it can need; `None` if it is not running.
pub fn busy_for_ever(guest: &Guest, task: &TaskState, so: &str) -> Option<Verdict> {
    let function = stack::busy_in(&task.stack).filter(|_| task.state == RUNNING)?;
    guest.note_tasks(Note::Busy, std::slice::from_ref(task));
    let summary = format!("{} (pid {}) keeps running in {function}: {so}", task.comm, task.pid);
    Some(Verdict::fail(FailureKind::WrongState, function, summary))
}

/// The state of a slot as the guest shows it.
#[derive(Debug)]
pub struct State {
    /// Whether a card is in it, according to the hardware.
    pub adapter: String,
    /// Whether it has power.
    pub power: String,
    /// The devices behind its port.
    pub devices: Vec<String>,
}

impl State {
    pub async fn of(guest: &Guest, slot: &Slot) -> Result<State, Error> {
        let adapter = guest.read_now(slot.attribute("adapter")).await?.shown().to_owned();
        let power = guest.read_now(slot.attribute("power")).await?.shown().to_owned();
        let mut devices = guest.list(&slot.port.attribute("")).await?;
        devices.retain(|name| name.parse::<Bdf>().is_ok());
        Ok(State { adapter, power, devices })
    }

    /// The failure of a slot that is still in this state after more time than the guest can need.
    pub fn wrong(&self) -> Verdict {
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
    fn the_state_of_a_slot_lists_its_devices() {
        let state = |devices: &[&str]| {
            let devices = devices.iter().map(|&bdf| bdf.to_owned()).collect();
            State { adapter: "1".to_owned(), power: "0".to_owned(), devices }.to_string()
        };
        assert_eq!(state(&[]), "the slot stays with adapter 1, power 0 and no device");
        let two = "the slot stays with adapter 1, power 0 and the devices 0000:01:00.0, 0000:01:00.1";
        assert_eq!(state(&["0000:01:00.0", "0000:01:00.1"]), two);
    }
}
