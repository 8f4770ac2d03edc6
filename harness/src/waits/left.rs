//! What must not be left when all operations have ended: locks that are held, and removed devices that are not freed.

use super::error::LookError;
use super::held::{Held, held};
use super::kernel::Kernel;
use super::memory::Memory;
use super::scene::Scene;
use super::unfreed::{Unfreed, devices, unfreed};
use super::view::View;

/// Something that is left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// A lock that somebody holds.
    Held(Held),
    /// A removed PCI device that is not freed.
    Unfreed(Unfreed),
}

/// What is left in a guest. It should be stopped meanwhile.
///
/// # Errors
/// As [`look()`](super::look()).
pub fn left(memory: &dyn Memory, kernel: &Kernel) -> Result<Vec<Left>, LookError> {
    let scene = Scene::new(View::new(memory, kernel)?)?;
    let devices = devices(&scene.view)?;
    let held = held(&scene, &devices)?.into_iter().map(Left::Held);
    let unfreed = unfreed(&scene.view, &devices)?.into_iter().map(Left::Unfreed);
    Ok(held.chain(unfreed).collect())
}
