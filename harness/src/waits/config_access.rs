//! Blocked accesses to a device's configuration space.
//!
//! The kernel does not record who has blocked them. The functions that do are known, and a task that is in one of them
//! with the same device on its stack is a guess.

use super::error::LookError;
use super::graph::{Certainty, Object};
use super::locks::{Found, has};
use super::names;
use super::scene::{Scene, Waiter};
use super::task::Task;
use super::view::is_object;

/// The function that waits (`drivers/pci/access.c`).
pub(super) const WAITS: &str = "pci_wait_cfg";
/// Functions that call `pci_cfg_access_lock` and go on (`drivers/pci/pci.c`).
const BLOCKS: &[&str] = &[
    "pci_bus_lock",
    "pci_dev_lock",
    "pci_dev_save_and_disable",
    "pci_dev_trylock",
    "pci_reset_bus",
    "pci_reset_function",
    "pci_slot_lock",
    "pci_try_reset_function",
];

pub(super) fn blocked(scene: &Scene<'_>, task: &Task) -> Result<Option<Found>, LookError> {
    if scene.node(task, Waiter::Wait).is_none() {
        return Ok(None);
    }
    let Some((device, name)) = waited_for(scene, task) else {
        return Ok(Some((
            Object::Unknown { what: "config accesses of a device to be unblocked".to_owned() },
            Vec::new(),
        )));
    };
    let blocks = |other: &Task| other.pid != task.pid && other.stack.words_up_to(BLOCKS).any(|word| word == device);
    let edges = (0..scene.tasks.len())
        .filter(|index| blocks(&scene.tasks[*index]))
        .map(|index| has(scene, index, Certainty::Guess))
        .collect();
    Ok(Some((Object::ConfigAccess { device: name }, edges)))
}

/// The `struct pci_dev` on the stack of the task, in the frames of the function that waits and of its caller.
fn waited_for(scene: &Scene<'_>, task: &Task) -> Option<(u64, String)> {
    let frames = &task.stack.frames;
    let at = frames.iter().position(|frame| frame.function == WAITS)?;
    let caller = frames.get(at + 1).map_or(WAITS, |frame| frame.function.as_str());
    let kernel = scene.kernel();
    let (within, bus) = (kernel.offset_if_any("pci_dev", "dev")?, kernel.symbols.address("pci_bus_type")?);
    task.stack.words_up_to(&[WAITS, caller]).filter(|word| is_object(*word)).find_map(|word| {
        let device = word.wrapping_add(within);
        let name = names::device(scene, device)?;
        (scene.view.member(device, "device", "bus") == Ok(bus)).then_some((word, name))
    })
}
