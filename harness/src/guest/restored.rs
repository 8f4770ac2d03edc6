//! Whether the hardware is after a scenario what it was before: a guest's functions, and their registers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use guest_protocol::Inventory;

use super::agreement::Disagreement;
use super::registers::{Use, differences};
use super::{Device, Error, Guest};
use crate::vm::config_space::ConfigSpace;

/// The driver of ports (`drivers/pci/pcie/portdrv.c`).
const PORT_DRIVER: &str = "pcieport";

/// Command, and its bit Bus Master (`PCI_COMMAND`, `PCI_COMMAND_MASTER`): a driver has the function.
const COMMAND: u16 = 0x04;
const MASTER: u32 = 0x4;

/// A function before the scenario.
#[derive(Clone, Debug)]
pub struct Before {
    device: Device,
    space: ConfigSpace,
    /// The driver that it had, if it had one.
    driver: Option<&'static str>,
    /// Whether there were functions behind it.
    is_full: bool,
}

impl Guest {
    /// Remembers the registers of all ports and PFs of the topology.
    ///
    /// # Errors
    /// QMP's.
    pub(crate) async fn remember_registers(&self) -> Result<(), Error> {
        let mut before = Vec::new();
        for (device, driver) in self.functions() {
            let Some(space) = self.vm.config_space(device.bdf).await? else { continue };
            let driver = driver.filter(|_| space.read(COMMAND, 2) & MASTER != 0);
            let below = format!("{}/", device.devpath);
            let is_full = self.pfs().iter().any(|pf| pf.device.devpath.starts_with(&below));
            before.push(Before { device, space, driver, is_full });
        }
        // A panic in another thread cannot leave a list half changed.
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = before;
        Ok(())
    }

    /// All ports and PFs of the topology, each once, with the driver that is theirs.
    fn functions(&self) -> impl Iterator<Item = (Device, Option<&'static str>)> {
        let mut all: BTreeMap<_, (Device, Option<&'static str>)> = BTreeMap::new();
        for slot in &self.hardware.slots {
            let mut port = Some(slot.port.clone());
            while let Some(device) = port {
                port = device.parent();
                all.insert(device.bdf, (device, Some(PORT_DRIVER)));
            }
        }
        for pf in self.pfs() {
            all.insert(pf.device.bdf, (pf.device.clone(), Some(pf.model().driver.name)));
        }
        all.into_values()
    }

    /// The registers that are not as they must be, of the functions that are in the inventory and were there before the
    /// scenario.
    ///
    /// # Errors
    /// QMP's.
    pub(super) async fn not_restored(&self, inventory: &Inventory) -> Result<BTreeSet<Disagreement>, Error> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found = BTreeSet::new();
        for Before { device, space, driver, is_full } in before {
            let Some(function) = inventory.functions.get(&device.bdf.to_string()) else { continue };
            let Some(now) = self.vm.config_space(device.bdf).await? else { continue };
            let below = format!("{}/", device.devpath);
            let used = Use {
                as_before: driver.is_some()
                    && function.driver.as_deref() == driver
                    && function.numvfs.as_deref().is_none_or(|vfs| vfs == "0"),
                as_full: is_full == inventory.folders.iter().any(|folder| folder.starts_with(&below)),
            };
            let differences = differences(&device.bdf.to_string(), &space, &now, used);
            found.extend(
                differences
                    .into_iter()
                    .map(|difference| Disagreement { attribute: difference.name, what: difference.to_string() }),
            );
        }
        Ok(found)
    }
}
