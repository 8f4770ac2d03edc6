//! Whether a guest's functions are after a scenario what they were before: their registers, and who refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use guest_protocol::Inventory;

use super::agreement::Disagreement;
use super::registers::{Use, differences};
use super::{Device, Error, Guest};
use crate::vm::config_space::ConfigSpace;
use crate::waits::{Referenced, referenced};

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
    /// How many functions were right behind it.
    behind: usize,
    /// What the kernel had of it. None if the guest's memory cannot be read.
    kept: Option<Referenced>,
}

impl Guest {
    /// Remembers the registers of all ports and PFs of the topology, and what the kernel counts for them.
    ///
    /// # Errors
    /// QMP's.
    pub(crate) async fn remember_functions(&self) -> Result<(), Error> {
        let mut before = Vec::new();
        let mut known = self.referenced().await;
        let functions: Vec<_> = self.functions().collect();
        for (device, driver) in functions.iter().cloned() {
            let Some(space) = self.vm.config_space(device.bdf).await? else { continue };
            let driver = driver.filter(|_| space.read(COMMAND, 2) & MASTER != 0);
            let behind = behind(&device, functions.iter().map(|(other, _)| &other.devpath));
            let kept = known.remove(&device.bdf.to_string());
            before.push(Before { device, space, driver, behind, kept });
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

    /// What the kernel has of each PCI device, by its name. Empty if the guest's memory cannot be read: then a look for
    /// what is left says why.
    async fn referenced(&self) -> BTreeMap<String, Referenced> {
        let Some(kernel) = self.of_kernel.looks.as_ref() else { return BTreeMap::new() };
        let found = self.vm.look(kernel, referenced).await.unwrap_or_default();
        found.into_iter().map(|one| (one.name.clone(), one)).collect()
    }

    /// The registers that are not as they must be, of the functions that are in the inventory and were there before the
    /// scenario, and what is counted up and not down for them, or down once too often.
    ///
    /// # Errors
    /// QMP's.
    pub(super) async fn not_restored(&self, inventory: &Inventory) -> Result<BTreeSet<Disagreement>, Error> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found = BTreeSet::new();
        let known = self.referenced().await;
        for Before { device, space, driver, behind: before, kept } in before {
            let Some(function) = inventory.functions.get(&device.bdf.to_string()) else { continue };
            let Some(now) = self.vm.config_space(device.bdf).await? else { continue };
            let behind = behind(&device, inventory.functions.values().map(|function| &function.devpath));
            let used = Use {
                as_before: driver.is_some()
                    && function.driver.as_deref() == driver
                    && function.numvfs.as_deref().is_none_or(|vfs| vfs == "0"),
                as_full: (before == 0) == (behind == 0),
            };
            let differences = differences(&device.bdf.to_string(), &space, &now, used);
            found.extend(
                differences
                    .into_iter()
                    .map(|difference| Disagreement { attribute: difference.name, what: difference.to_string() }),
            );
            let kept = kept.zip(known.get(&device.bdf.to_string()));
            let same = kept.filter(|_| used.as_before && before == behind);
            found.extend(same.map(|(old, now)| lost(&old, now)).unwrap_or_default());
        }
        Ok(found)
    }
}

/// How many of the functions with these folders are right behind a port.
fn behind<'a>(port: &Device, folders: impl Iterator<Item = &'a String>) -> usize {
    folders.filter(|folder| is_right_behind(port, folder)).count()
}

/// Whether the function with this folder is right behind a port.
pub(super) fn is_right_behind(port: &Device, folder: &str) -> bool {
    let rest = folder.strip_prefix(&port.devpath).and_then(|rest| rest.strip_prefix('/'));
    rest.is_some_and(|name| !name.contains('/'))
}

/// What is not counted for a device as before. A device that was replaced by another one of the same name is not compared.
fn lost(before: &Referenced, now: &Referenced) -> Vec<Disagreement> {
    let (old, new) = (before.counts, now.counts);
    let counts = [
        ("pci_dev_get", "references", Some(old.references), Some(new.references)),
        ("pci_enable_device", "users that enabled it", old.enabled, new.enabled),
    ];
    let differ = counts.into_iter().filter(|(_, _, old, new)| before.at == now.at && old != new);
    let said = |(attribute, what, old, new): (_, _, Option<u32>, Option<u32>)| {
        let (old, new) = old.zip(new)?;
        Some(Disagreement { attribute, what: format!("{} has {new} {what}; it had {old}", now.name) })
    };
    differ.filter_map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waits::Counts;

    #[test]
    fn functions_right_behind_a_port_count() {
        let port = Device { bdf: "0000:00:10.0".parse().unwrap(), devpath: "/pci/rp0".to_owned() };
        let folders = ["/pci/rp0", "/pci/rp0/pf", "/pci/rp0/vf", "/pci/rp0/up/down", "/pci/rp01/pf"].map(str::to_owned);
        assert_eq!(behind(&port, folders.iter()), 2);
    }

    #[test]
    fn counts_of_the_same_device_are_compared() {
        let device = |at, references, enabled| {
            let counts = Counts { references, enabled: Some(enabled) };
            Referenced { at: (at, 7), name: "0000:00:10.0".to_owned(), counts }
        };
        assert_eq!(lost(&device(1, 9, 1), &device(1, 9, 1)), []);
        assert_eq!(lost(&device(1, 9, 1), &device(2, 10, 2)), []);
        let lost: Vec<String> = lost(&device(1, 9, 1), &device(1, 10, 2)).iter().map(ToString::to_string).collect();
        let expected =
            ["0000:00:10.0 has 10 references; it had 9", "0000:00:10.0 has 2 users that enabled it; it had 1"];
        assert_eq!(lost, expected);
    }
}
