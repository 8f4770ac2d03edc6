//! PCI devices that the kernel has removed and cannot free, as somebody still counts as their user.

use super::error::LookError;
use super::kernel::Kernel;
use super::memory::Memory;
use super::slabs::Slabs;
use super::view::{View, is_kernel_address};

/// The caches of `kzalloc()`, which makes each `struct pci_dev` (`drivers/pci/probe.c`, `pci_alloc_dev()`).
const CACHES: &str = "kmalloc";

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

/// The PCI devices that were removed and are not freed. The guest should be stopped meanwhile.
///
/// A device that has references and is not in sysfs has gone (`device_del()`), or is not there yet, for some
/// microseconds. Freed memory is not taken for a device: the kernel frees one after its reference count has become 0,
/// and whoever gets the memory next overwrites it.
///
/// # Errors
/// As [`look()`](super::look()).
pub fn unfreed(memory: &dyn Memory, kernel: &Kernel) -> Result<Vec<Unfreed>, LookError> {
    let view = View::new(memory, kernel)?;
    let ktype = kernel.symbol("device_ktype")?;
    let to_ktype = kernel.offset("device", "kobj.ktype")?;
    let slabs = Slabs::find(&view)?;
    let is_kmalloc = |cache: u64| slabs.caches.get(&cache).is_some_and(|name| name.contains(CACHES));
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    for slab in slabs.slabs.iter().filter(|slab| is_kmalloc(slab.cache)) {
        bytes.resize(slab.size as usize, 0);
        view.read(slab.at, &mut bytes)?;
        for (at, word) in (0..).step_by(8).zip(bytes.chunks_exact(8)) {
            if word == ktype.to_le_bytes() {
                found.extend(removed(&view, slab.at.wrapping_add(at).wrapping_sub(to_ktype))?);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The device at an address, if it is a PCI device that was removed and has references.
fn removed(view: &View<'_>, at: u64) -> Result<Option<Unfreed>, LookError> {
    let kernel = view.kernel();
    let references = view.u32(at.wrapping_add(kernel.offset("device", "kobj.kref")?))?;
    let is_pci = view.member(at, "device", "bus")? == kernel.symbol("pci_bus_type")?;
    let folder = view.member(at, "device", "kobj.sd")?;
    if !is_pci || references == 0 || folder != 0 {
        return Ok(None);
    }
    let name = view.member(at.wrapping_add(kernel.offset("device", "kobj")?), "kobject", "name")?;
    let name = Some(name).filter(|name| is_kernel_address(*name)).and_then(|name| view.string(name));
    Ok(Some(Unfreed { at, name: name.unwrap_or_else(|| format!("the PCI device at {at:#x}")), references }))
}
