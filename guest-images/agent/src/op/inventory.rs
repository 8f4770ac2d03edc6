//! Lists all PCI functions, from all places where sysfs has them.
//!
//! The places are read one after the other. If functions change meanwhile, the places may disagree. The host then asks
//! again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use guest_protocol::{Inventory, PciFunction};

use super::attribute;
use crate::error::AgentError;

/// Takes the inventory of a machine with this root folder.
pub fn take(root: &Path) -> Result<Inventory, AgentError> {
    let sys = root.join("sys");
    let mut functions = BTreeMap::new();
    for (bdf, devpath) in links(&sys.join("bus/pci/devices"))? {
        functions.insert(bdf, function(root, &devpath)?);
    }
    let mut folders = Vec::new();
    walk(&sys.join("devices"), "/devices", &mut folders)?;
    let interfaces = links(&sys.join("class/net"))?.into_iter().filter_map(|(name, devpath)| {
        let (function, _) = devpath.rsplit_once("/net/")?;
        let bdf = last(function);
        is_address(bdf).then(|| (name, bdf.to_owned()))
    });
    Ok(Inventory {
        functions,
        folders,
        groups: members(&sys.join("kernel/iommu_groups"), "devices")?,
        drivers: members(&sys.join("bus/pci/drivers"), "")?,
        interfaces: interfaces.collect(),
        debug_locks: debug_locks(&fs::read_to_string(root.join("proc/lockdep_stats")).unwrap_or_default()),
    })
}

fn function(root: &Path, devpath: &str) -> Result<PciFunction, AgentError> {
    let folder = root.join("sys").join(devpath.trim_start_matches('/'));
    let mut function = PciFunction {
        devpath: devpath.to_owned(),
        numvfs: numvfs(&folder.join("sriov_numvfs")),
        interfaces: names(&folder.join("net"))?,
        ..PciFunction::default()
    };
    for (name, target) in links(&folder)? {
        let target = last(&target).to_owned();
        match name.as_str() {
            "physfn" => function.physfn = Some(target),
            "driver" => function.driver = Some(target),
            "iommu_group" => function.group = Some(target),
            _ => {
                if let Some(number) = name.strip_prefix("virtfn") {
                    function.virtfns.insert(number.to_owned(), target);
                }
            }
        }
    }
    Ok(function)
}

/// The value of the attribute, or the name of the errno. None if there is no such attribute.
fn numvfs(path: &Path) -> Option<String> {
    match attribute::read(&path.to_string_lossy()).value {
        Ok(value) => Some(value),
        Err(errno) if errno.code == nix::libc::ENOENT => None,
        Err(errno) => Some(errno.name),
    }
}

/// Finds the folders of PCI functions below this folder, also those behind bridges.
fn walk(folder: &Path, devpath: &str, found: &mut Vec<String>) -> Result<(), AgentError> {
    for name in names(folder)? {
        let folder = folder.join(&name);
        let devpath = format!("{devpath}/{name}");
        if is_address(&name) {
            found.push(devpath.clone());
        } else if !name.starts_with("pci0") {
            continue;
        }
        walk(&folder, &devpath, found)?;
    }
    Ok(())
}

/// The PCI functions in the folder `below` of each folder in `folder`.
fn members(folder: &Path, below: &str) -> Result<BTreeMap<String, Vec<String>>, AgentError> {
    let devices = |name: String| {
        let mut devices = names(&folder.join(&name).join(below))?;
        devices.retain(|device| is_address(device));
        Ok((name, devices))
    };
    names(folder)?.into_iter().map(devices).collect()
}

/// The symbolic links in a folder, and their targets below `/sys`.
fn links(folder: &Path) -> Result<Vec<(String, String)>, AgentError> {
    let target = |name: String| {
        // Files that are no links, and links that are gone meanwhile, are left out.
        let target = fs::read_link(folder.join(&name)).ok()?;
        Some((name, format!("/{}", target.to_string_lossy().trim_start_matches("../"))))
    };
    Ok(names(folder)?.into_iter().filter_map(target).collect())
}

/// The names in a folder, sorted. Empty if the folder does not exist, or is being removed.
fn names(folder: &Path) -> Result<Vec<String>, AgentError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(AgentError::io(format!("list {}", folder.display()), error)),
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a name has the form `0000:01:00.0`.
fn is_address(name: &str) -> bool {
    name.len() == 12
        && name.bytes().enumerate().all(|(position, byte)| match position {
            4 | 7 => byte == b':',
            10 => byte == b'.',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The value in the line ` debug_locks:                              1` (`kernel/locking/lockdep_proc.c`,
/// `lockdep_stats_show()`).
fn debug_locks(stats: &str) -> Option<bool> {
    let value = stats.lines().find_map(|line| line.trim().strip_prefix("debug_locks:"))?;
    Some(value.trim() == "1")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PF: &str = "devices/pci0000:00/0000:00:10.0/0000:01:00.0";
    const VF: &str = "devices/pci0000:00/0000:00:10.0/0000:01:10.0";

    /// The sysfs of a machine with a PF and one VF.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().join("sys");
        let folder = |path: &str| fs::create_dir_all(sys.join(path)).unwrap();
        let link = |path: &str, target: &str| {
            fs::create_dir_all(sys.join(path).parent().unwrap()).unwrap();
            symlink(target, sys.join(path)).unwrap();
        };
        folder(&format!("{PF}/net/eth0"));
        folder("devices/pci0000:00/0000:00:10.0/0000:00:10.0:pcie004");
        folder("devices/virtual/net/lo");
        fs::write(sys.join(PF).join("sriov_numvfs"), "1\n").unwrap();
        link(&format!("{PF}/virtfn0"), "../0000:01:10.0");
        link(&format!("{PF}/driver"), "../../../../bus/pci/drivers/igb");
        link(&format!("{VF}/physfn"), "../0000:01:00.0");
        link(&format!("{VF}/iommu_group"), "../../../../kernel/iommu_groups/14");
        link("bus/pci/devices/0000:01:00.0", &format!("../../../{PF}"));
        link("bus/pci/devices/0000:01:10.0", &format!("../../../{VF}"));
        link("bus/pci/drivers/igb/0000:01:00.0", &format!("../../../../{PF}"));
        link("kernel/iommu_groups/14/devices/0000:01:10.0", &format!("../../../../{VF}"));
        link("class/net/eth0", &format!("../../{PF}/net/eth0"));
        link("class/net/lo", "../../devices/virtual/net/lo");
        root
    }

    fn map<V: Clone>(entries: &[(&str, V)]) -> BTreeMap<String, V> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_pf_with_a_vf_is_found_in_all_places() {
        let found = take(machine().path()).unwrap();
        let pf = PciFunction {
            devpath: format!("/{PF}"),
            numvfs: Some("1".to_owned()),
            virtfns: map(&[("0", "0000:01:10.0".to_owned())]),
            driver: Some("igb".to_owned()),
            interfaces: vec!["eth0".to_owned()],
            ..PciFunction::default()
        };
        let vf = PciFunction {
            devpath: format!("/{VF}"),
            physfn: Some("0000:01:00.0".to_owned()),
            group: Some("14".to_owned()),
            ..PciFunction::default()
        };
        assert_eq!(found.functions, map(&[("0000:01:00.0", pf), ("0000:01:10.0", vf)]));
        assert_eq!(found.folders, ["/devices/pci0000:00/0000:00:10.0", &format!("/{PF}"), &format!("/{VF}")]);
        assert_eq!(found.groups, map(&[("14", vec!["0000:01:10.0".to_owned()])]));
        assert_eq!(found.drivers, map(&[("igb", vec!["0000:01:00.0".to_owned()])]));
        assert_eq!(found.interfaces, map(&[("eth0", "0000:01:00.0".to_owned())]));
        assert_eq!(found.debug_locks, None);
    }

    #[test]
    fn a_machine_without_pci_has_an_empty_inventory() {
        assert_eq!(take(tempfile::tempdir().unwrap().path()).unwrap(), Inventory::default());
    }

    #[test]
    fn the_state_of_lockdep_is_read() {
        let stats =
            " lock-classes:                         1203 [max: 8192]\n debug_locks:                             0\n";
        assert_eq!(debug_locks(stats), Some(false));
        assert_eq!(debug_locks(&stats.replace("  0\n", "  1\n")), Some(true));
        assert_eq!(debug_locks(""), None);
    }
}
