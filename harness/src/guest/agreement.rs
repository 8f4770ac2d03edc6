//! Whether the places in which a kernel shows its PCI functions agree with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use guest_protocol::{Inventory, PciFunction};

/// Two places that must show the same, and do not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disagreement {
    /// The sysfs attribute, link or folder concerned.
    pub attribute: &'static str,
    /// The difference, in one line.
    pub what: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// All disagreements of an inventory, in order.
pub fn disagreements(inventory: &Inventory) -> BTreeSet<Disagreement> {
    let mut audit = Audit { inventory, found: BTreeSet::new() };
    audit.bus_and_tree();
    for (bdf, function) in &inventory.functions {
        audit.vfs_of(bdf, function);
        audit.pf_of(bdf, function);
    }
    audit.memberships();
    audit.found
}

struct Audit<'a> {
    inventory: &'a Inventory,
    found: BTreeSet<Disagreement>,
}

impl Audit<'_> {
    fn note(&mut self, attribute: &'static str, what: String) {
        self.found.insert(Disagreement { attribute, what });
    }

    /// `/sys/bus/pci/devices` has a link to the folder of each function, and the folder of each link exists.
    fn bus_and_tree(&mut self) {
        let linked: BTreeSet<_> = self.inventory.functions.values().map(|function| &function.devpath).collect();
        let folders: BTreeSet<_> = self.inventory.folders.iter().collect();
        for devpath in folders.difference(&linked) {
            self.note("devices", format!("{devpath} is not in /sys/bus/pci/devices"));
        }
        for devpath in linked.difference(&folders) {
            self.note("devices", format!("/sys/bus/pci/devices has a link to {devpath}, which does not exist"));
        }
    }

    /// `sriov_numvfs` equals the number of `virtfn` links. The links are numbered from 0, and each leads to a VF whose
    /// `physfn` is this PF.
    fn vfs_of(&mut self, bdf: &str, function: &PciFunction) {
        let Some(numvfs) = &function.numvfs else { return };
        let links = function.virtfns.len();
        if numvfs != &links.to_string() {
            self.note("sriov_numvfs", format!("sriov_numvfs of {bdf} reads {numvfs}, but it has {links} virtfn links"));
        }
        for number in 0..links {
            if !function.virtfns.contains_key(&number.to_string()) {
                self.note("virtfn", format!("{bdf} has {links} virtfn links, but virtfn{number} is missing"));
            }
        }
        for (number, vf) in &function.virtfns {
            let physfn = self.inventory.functions.get(vf).map(|vf| vf.physfn.as_deref());
            match physfn {
                Some(Some(physfn)) if physfn == bdf => {}
                Some(other) => {
                    let other = other.unwrap_or("nothing");
                    self.note("virtfn", format!("virtfn{number} of {bdf} is {vf}, whose physfn is {other}"));
                }
                None => self.note("virtfn", format!("virtfn{number} of {bdf} is {vf}, which is not on the bus")),
            }
        }
    }

    /// A VF's PF is on the bus, and has a `virtfn` link to the VF.
    fn pf_of(&mut self, bdf: &str, function: &PciFunction) {
        let Some(physfn) = &function.physfn else { return };
        match self.inventory.functions.get(physfn) {
            None => self.note("physfn", format!("the physfn of {bdf} is {physfn}, which is not on the bus")),
            Some(pf) if !pf.virtfns.values().any(|vf| vf == bdf) => {
                self.note("physfn", format!("the physfn of {bdf} is {physfn}, which has no virtfn link to it"));
            }
            Some(_) => {}
        }
    }

    /// IOMMU groups, drivers and interfaces list the same functions as the functions' own links say. No group is empty.
    fn memberships(&mut self) {
        let Inventory { functions, groups, drivers, interfaces, .. } = self.inventory;
        let own = |of: fn(&PciFunction) -> Vec<&String>| -> Pairs<'_> {
            functions.iter().flat_map(|(bdf, function)| of(function).into_iter().map(move |of| (of, bdf))).collect()
        };
        // The kernel removes a group with its last device (`drivers/iommu/iommu.c`, `iommu_group_release()`).
        for (group, _) in groups.iter().filter(|(_, members)| members.is_empty()) {
            self.note("iommu_groups", format!("IOMMU group {group} has no device any more"));
        }
        let facts = [
            ("iommu_group", own(|function| function.group.iter().collect()), pairs(groups)),
            ("driver", own(|function| function.driver.iter().collect()), pairs(drivers)),
            ("net", own(|function| function.interfaces.iter().collect()), interfaces.iter().collect()),
        ];
        for (name, own, members) in facts {
            for (of, bdf) in own.difference(&members) {
                self.note(name, format!("the {name} of {bdf} is {of}, which does not list {bdf}"));
            }
            for (of, bdf) in members.difference(&own) {
                self.note(name, format!("{name} {of} lists {bdf}, but {bdf} has no link to it"));
            }
        }
    }
}

/// Pairs of an owner (a group, driver or interface) and a function.
type Pairs<'a> = BTreeSet<(&'a String, &'a String)>;

fn pairs(of: &BTreeMap<String, Vec<String>>) -> Pairs<'_> {
    of.iter().flat_map(|(name, functions)| functions.iter().map(move |function| (name, function))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: &str = "0000:00:10.0";
    const PF: &str = "0000:01:00.0";
    const VFS: [&str; 2] = ["0000:01:10.0", "0000:01:10.2"];

    fn devpath(bdf: &str) -> String {
        let above = format!("/devices/pci0000:00/{PORT}");
        if bdf == PORT { above } else { format!("{above}/{bdf}") }
    }

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    /// The inventory of a PF with two VFs, one of them with a driver.
    fn consistent() -> Inventory {
        let of = |bdf: &str, group: &str| PciFunction {
            devpath: devpath(bdf),
            group: Some(group.to_owned()),
            ..PciFunction::default()
        };
        let mut pf = PciFunction { numvfs: Some("2".to_owned()), ..of(PF, "2") };
        pf.virtfns = (0..).map(|number: u8| number.to_string()).zip(strings(&VFS)).collect();
        (pf.driver, pf.interfaces) = (Some("igb".to_owned()), strings(&["eth0"]));
        let vf = |bdf, group| PciFunction { physfn: Some(PF.to_owned()), ..of(bdf, group) };
        let idle = vf(VFS[1], "4");
        let busy = PciFunction { driver: Some("vfio-pci".to_owned()), ..vf(VFS[0], "3") };
        let functions = [(PORT, of(PORT, "1")), (PF, pf), (VFS[0], busy), (VFS[1], idle)];
        let members = |of: &[(&str, &str)]| {
            of.iter().map(|(name, bdf)| ((*name).to_owned(), strings(&[bdf]))).collect::<BTreeMap<_, _>>()
        };
        Inventory {
            folders: functions.iter().map(|(bdf, _)| devpath(bdf)).collect(),
            functions: functions.into_iter().map(|(bdf, function)| (bdf.to_owned(), function)).collect(),
            groups: members(&[("1", PORT), ("2", PF), ("3", VFS[0]), ("4", VFS[1])]),
            drivers: members(&[("igb", PF), ("vfio-pci", VFS[0])]),
            interfaces: BTreeMap::from([("eth0".to_owned(), PF.to_owned())]),
            debug_locks: None,
        }
    }

    /// The disagreements after one change.
    fn after(change: impl FnOnce(&mut Inventory)) -> Vec<String> {
        let mut inventory = consistent();
        change(&mut inventory);
        let found = disagreements(&inventory);
        found.iter().map(|found| format!("{}: {found}", found.attribute)).collect()
    }

    fn function<'a>(inventory: &'a mut Inventory, bdf: &str) -> &'a mut PciFunction {
        inventory.functions.get_mut(bdf).unwrap()
    }

    #[test]
    fn a_consistent_inventory_has_no_disagreements() {
        assert_eq!(after(|_| ()), [""; 0]);
        assert_eq!(disagreements(&Inventory::default()), BTreeSet::new());
    }

    #[test]
    fn each_inconsistency_is_found() {
        let found = [
            after(|i| function(i, PF).numvfs = Some("0".to_owned())),
            after(|i| function(i, PF).numvfs = Some("ENODEV".to_owned())),
            after(|i| drop(function(i, PF).virtfns.remove("0"))),
            after(|i| drop(function(i, PF).virtfns.insert("1".to_owned(), PORT.to_owned()))),
            after(|i| function(i, VFS[1]).physfn = None),
            after(|i| drop(i.functions.remove(VFS[1]))),
            after(|i| drop(i.functions.remove(PF))),
            after(|i| drop(i.folders.pop())),
            after(|i| function(i, VFS[0]).group = None),
            after(|i| drop(i.groups.remove("3"))),
            after(|i| drop(i.groups.insert("9".to_owned(), vec![]))),
            after(|i| function(i, VFS[1]).driver = Some("igbvf".to_owned())),
            after(|i| function(i, VFS[0]).driver = None),
            after(|i| function(i, PF).interfaces.clear()),
            after(|i| i.interfaces.clear()),
        ];
        insta::assert_snapshot!(found.map(|found| found.join("\n")).join("\n\n"));
    }
}
