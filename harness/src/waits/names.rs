//! Names that people know, for locks and other objects.

use super::error::LookError;
use super::scene::Scene;
use super::symbols::KERNEL_MAP;
use super::view::{is_kernel_address, is_object};

/// The most parts of a path in kernfs.
const DEEPEST: usize = 32;

/// A global variable's name, with the distance from its begin.
fn global(scene: &Scene<'_>, address: u64) -> Option<String> {
    if address < KERNEL_MAP {
        return None;
    }
    let (name, distance) = scene.kernel().symbols.at(address)?;
    Some(if distance == 0 { name.to_owned() } else { format!("{name}+{distance:#x}") })
}

/// A global variable's name, or what it is, with its address.
pub(super) fn of_address(scene: &Scene<'_>, address: u64, what: &str) -> String {
    global(scene, address).unwrap_or_else(|| format!("{what} ({address:#x})"))
}

/// A mutex: global, `device_lock`, `state_lock` of a slot of pciehp, or the mutex of an open file of kernfs.
pub(super) fn mutex(scene: &Scene<'_>, lock: u64) -> String {
    let known = global(scene, lock)
        .or_else(|| Some(format!("device_lock of {}", device(scene, within(scene, lock, "device", "mutex")?)?)))
        .or_else(|| {
            Some(format!("state_lock of slot {}", slot(scene, within(scene, lock, "controller", "state_lock")?)?))
        })
        .or_else(|| {
            Some(format!("of->mutex of {}", open_file(scene, within(scene, lock, "kernfs_open_file", "mutex")?)?))
        });
    known.unwrap_or_else(|| format!("a mutex ({lock:#x})"))
}

/// An rwsem: global, `reset_lock` of a slot of pciehp, or `mmap_lock` of a process.
pub(super) fn rwsem(scene: &Scene<'_>, lock: u64) -> String {
    let known = global(scene, lock)
        .or_else(|| {
            Some(format!("reset_lock of slot {}", slot(scene, within(scene, lock, "controller", "reset_lock")?)?))
        })
        .or_else(|| {
            Some(format!("mmap_lock of {}", address_space(scene, within(scene, lock, "mm_struct", "mmap_lock")?)?))
        });
    known.unwrap_or_else(|| format!("an rwsem ({lock:#x})"))
}

/// The begin of the structure whose member has this address.
pub(super) fn within(scene: &Scene<'_>, address: u64, structure: &str, member: &str) -> Option<u64> {
    Some(address.wrapping_sub(scene.kernel().offset_if_any(structure, member)?)).filter(|begin| is_object(*begin))
}

/// The name of a `struct kobject`.
fn kobject(scene: &Scene<'_>, at: u64) -> Option<String> {
    scene.view.string(scene.view.member(at, "kobject", "name").ok()?)
}

/// Whether there is a `struct device`: all have the same type of kobject.
pub(super) fn is_device(scene: &Scene<'_>, at: u64) -> bool {
    let ktype = scene.kernel().symbols.address("device_ktype");
    ktype.is_some() && scene.view.member(at, "device", "kobj.ktype").ok() == ktype
}

/// A device's name. The bus of a device that is not on PCI comes before it.
pub(super) fn device(scene: &Scene<'_>, at: u64) -> Option<String> {
    if !is_device(scene, at) {
        return None;
    }
    let name = kobject(scene, at.wrapping_add(scene.kernel().offset_if_any("device", "kobj")?))?;
    let bus = scene.view.member(at, "device", "bus").ok().filter(|bus| is_object(*bus));
    let bus = bus.and_then(|bus| scene.view.string(scene.view.member(bus, "bus_type", "name").ok()?));
    Some(match bus {
        Some(bus) if bus != "pci" => format!("{bus} device {name}"),
        _ => name,
    })
}

/// The name of the slot that a `struct controller` of pciehp controls. The slot points back to the controller.
pub(super) fn slot(scene: &Scene<'_>, controller: u64) -> Option<String> {
    let kernel = scene.kernel();
    let hotplug = controller.wrapping_add(kernel.offset_if_any("controller", "hotplug_slot")?);
    let slot = scene.view.member(hotplug, "hotplug_slot", "pci_slot").ok().filter(|slot| is_object(*slot))?;
    if scene.view.member(slot, "pci_slot", "hotplug").ok()? != hotplug {
        return None;
    }
    kobject(scene, slot.wrapping_add(kernel.offset_if_any("pci_slot", "kobj")?))
}

/// The path of the file that a `struct kernfs_open_file` belongs to.
fn open_file(scene: &Scene<'_>, at: u64) -> Option<String> {
    let file = scene.view.member(at, "kernfs_open_file", "file").ok()?;
    let node = scene.view.member(at, "kernfs_open_file", "kn").ok()?;
    (is_object(file) && is_object(node)).then(|| path(scene, node))?
}

/// The process with this `struct mm_struct`.
fn address_space(scene: &Scene<'_>, at: u64) -> Option<String> {
    let mm_of = |address| scene.view.member(address, "task_struct", "mm").ok();
    let task = scene.tasks.iter().find(|task| mm_of(task.address) == Some(at))?;
    Some(format!("{} (pid {})", task.comm, task.tgid))
}

/// The path of a node of kernfs in `/sys`. `None` if it has no name.
pub(super) fn path(scene: &Scene<'_>, node: u64) -> Option<String> {
    let own = kernfs_name(scene, node)?;
    let mut parts = vec![own];
    let mut at = node;
    // Parents of damaged memory may form a loop, and a node may have no name.
    for _ in 0..DEEPEST {
        let Ok(parent) = kernfs_parent(scene, at) else { break };
        if !is_object(parent) {
            break;
        }
        // The root has an empty name.
        parts.extend(kernfs_name(scene, parent));
        at = parent;
    }
    parts.reverse();
    Some(format!("/sys/{}", parts.join("/")))
}

fn kernfs_name(scene: &Scene<'_>, node: u64) -> Option<String> {
    let name = scene.view.member(node, "kernfs_node", "name").ok()?;
    is_kernel_address(name).then(|| scene.view.string(name))?
}

fn kernfs_parent(scene: &Scene<'_>, node: u64) -> Result<u64, LookError> {
    // Linux 6.15 renamed it (633488947ef6 "kernfs: Use RCU to access kernfs_node::parent.").
    let member = if scene.kernel().offset_if_any("kernfs_node", "parent").is_some() { "parent" } else { "__parent" };
    scene.view.member(node, "kernfs_node", member)
}
