//! PCI devices and their reference counts: those that the kernel has, and those that it has removed and cannot free, as
//! somebody still counts as their user.

use super::error::LookError;
use super::kernel::Kernel;
use super::memory::Memory;
use super::slabs::Slabs;
use super::view::{View, is_kernel_address};

/// A PCI device that was removed and is not freed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unfreed {
    /// Where its `struct pci_dev` has its `struct device`.
    pub at: u64,
    /// The name that it had.
    pub name: String,
    /// How many references keep it.
    pub references: u32,
}

/// Those of these devices that are PCI devices, were removed, and are not freed.
///
/// A device that has references and is not in sysfs has gone (`device_del()`), or is not there yet, for some
/// microseconds. Freed memory is not taken for a device: the kernel frees one after its reference count has become 0,
/// and whoever gets the memory next overwrites it.
pub(super) fn unfreed(view: &View<'_>, devices: &[u64]) -> Result<Vec<Unfreed>, LookError> {
    let removed = devices.iter().map(|device| removed(view, *device));
    removed.filter_map(Result::transpose).collect()
}

/// The devices in all memory that may be a `struct pci_dev`. Devices of other kinds, and some that were freed, may be among
/// them.
pub(super) fn devices(view: &View<'_>) -> Result<Vec<u64>, LookError> {
    let kernel = view.kernel();
    let ktype = kernel.symbol("device_ktype")?.to_le_bytes();
    let to_ktype = kernel.offset("device", "kobj.ktype")?;
    let size = kernel.layout.size("pci_dev").ok_or(LookError::NoMember { structure: "pci_dev", member: "dev" })?;
    let slabs = Slabs::find(view, |cache| holds(cache, size.into()))?;
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    for slab in slabs.slabs {
        bytes.resize(slab.size as usize, 0);
        view.read(slab.at, &mut bytes)?;
        let words = (0..).step_by(8).zip(bytes.chunks_exact(8)).filter(|(_, word)| *word == ktype);
        found.extend(words.map(|(at, _)| slab.at.wrapping_add(at).wrapping_sub(to_ktype)));
    }
    Ok(found)
}

/// Whether `kzalloc()` takes objects of this size from a cache of this name: `kmalloc-2k` has those above 1024 bytes
/// (`mm/slab_common.c`, `kmalloc_info`). `pci_alloc_dev()` of `drivers/pci/probe.c` makes each `struct pci_dev` so.
fn holds(cache: &str, size: u64) -> bool {
    let capacity = || {
        let text = cache.contains("kmalloc").then(|| cache.rsplit_once('-'))??.1;
        match text.strip_suffix('k') {
            Some(kib) => kib.parse::<u64>().ok()?.checked_mul(1024),
            None => text.parse().ok(),
        }
    };
    capacity().is_some_and(|capacity: u64| capacity == size.next_power_of_two())
}

/// The device at an address, if it is a PCI device that was removed and has references.
fn removed(view: &View<'_>, at: u64) -> Result<Option<Unfreed>, LookError> {
    let unfreed = |device: Device| Unfreed { at, name: device.name, references: device.references };
    Ok(device(view, at)?.filter(|device| device.folder == 0).map(unfreed))
}

/// A PCI device that is in sysfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referenced {
    /// Where the kernel has it and its folder in sysfs. Another device of the same name has others.
    pub at: (u64, u64),
    /// Its name.
    pub name: String,
    /// What the kernel counts for it.
    pub counts: Counts,
}

/// What the kernel counts up and down for a PCI device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Its references (`get_device()`).
    pub references: u32,
    /// How many have enabled it (`pci_enable_device()`).
    pub enabled: Option<u32>,
}

/// The PCI devices that are in sysfs. The guest should be stopped meanwhile.
///
/// # Errors
/// As [`look()`](super::look()).
pub fn referenced(memory: &dyn Memory, kernel: &Kernel) -> Result<Vec<Referenced>, LookError> {
    let view = View::new(memory, kernel)?;
    let known = |at: u64| {
        let Some(device) = device(&view, at)?.filter(|device| device.folder != 0) else { return Ok(None) };
        let counts = counts(&view, at, device.references)?;
        Ok(Some(Referenced { at: (at, device.folder), name: device.name, counts }))
    };
    devices(&view)?.into_iter().map(known).filter_map(Result::transpose).collect()
}

fn counts(view: &View<'_>, at: u64, references: u32) -> Result<Counts, LookError> {
    let kernel = view.kernel();
    let within = kernel.offset_if_any("pci_dev", "enable_cnt").zip(kernel.offset_if_any("pci_dev", "dev"));
    let enabled = within.map(|(offset, dev)| view.u32(at.wrapping_sub(dev).wrapping_add(offset)));
    Ok(Counts { references, enabled: enabled.transpose()? })
}

struct Device {
    name: String,
    references: u32,
    /// Its folder in sysfs. 0 if it has none.
    folder: u64,
}

/// The PCI device at an address, if it is one that has references.
fn device(view: &View<'_>, at: u64) -> Result<Option<Device>, LookError> {
    let kernel = view.kernel();
    let references = view.u32(at.wrapping_add(kernel.offset("device", "kobj.kref")?))?;
    let is_pci = view.member(at, "device", "bus")? == kernel.symbol("pci_bus_type")?;
    if !is_pci || references == 0 {
        return Ok(None);
    }
    let folder = view.member(at, "device", "kobj.sd")?;
    let name = view.member(at.wrapping_add(kernel.offset("device", "kobj")?), "kobject", "name")?;
    let name = Some(name).filter(|name| is_kernel_address(*name)).and_then(|name| view.string(name));
    Ok(Some(Device { name: name.unwrap_or_else(|| format!("the PCI device at {at:#x}")), references, folder }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_a_size_is_known() {
        assert!(holds("kmalloc-4k", 2100) && holds("kmalloc-rnd-07-4k", 4096) && holds("kmalloc-256", 200));
        for other in ["kmalloc-2k", "kmalloc-8k", "kmalloc-", "task_struct", "ext4-4k", ""] {
            assert!(!holds(other, 2100), "{other}");
        }
    }
}
