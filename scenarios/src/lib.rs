//! The scenarios: what the harness does to a kernel. There is one file per family of bugs.
//!
//! A scenario is an async function over [`harness::guest::Guest`], with a few lines of metadata. To add one, write it
//! in the file of its family, and put its metadata into the family's `ALL`. A new family is a `mod` and a line in
//! [`all`]: the compiler warns of an `ALL` that is not in it.

use std::path::{Path, PathBuf};

use harness::scenario::Scenario;
use harness::script::{self, Script, ScriptError};

mod acpi_slot_files;
mod aer;
mod aer_state;
mod autoprobe;
mod bridge_slot;
mod check;
mod driver_ids;
mod driver_override;
mod igb_contract;
mod leaks;
mod load;
mod nested_hotplug;
mod numvfs_contract;
mod numvfs_events;
mod numvfs_killed;
mod numvfs_read;
mod numvfs_rounds;
mod pci_contract;
mod port;
mod proc_pci;
pub mod proposals;
mod recovery;
mod registers;
mod rescan_lock;
mod rescan_race;
mod reset;
mod reset_state;
mod sequences;
mod slot;
mod slot_files;
mod slot_state;
mod sweep;
mod unbind;
mod vfio;
mod vfio_config;
mod vfio_device;
mod vfio_dma;
mod vfio_irqs;
mod vfio_lifetime;
mod vfio_selftests;
mod vfio_sriov;
mod virtio_blk;

/// All scenarios, family by family.
pub fn all() -> Vec<Scenario> {
    [
        numvfs_read::ALL,
        driver_override::ALL,
        numvfs_events::ALL,
        rescan_lock::ALL,
        rescan_race::ALL,
        unbind::ALL,
        autoprobe::ALL,
        vfio_sriov::ALL,
        vfio_selftests::ALL,
        sweep::ALL,
        reset::ALL,
        aer::ALL,
        nested_hotplug::ALL,
        slot::ALL,
        slot_files::ALL,
        acpi_slot_files::ALL,
        bridge_slot::ALL,
        virtio_blk::ALL,
        port::ALL,
        recovery::ALL,
        reset_state::ALL,
        numvfs_contract::ALL,
        numvfs_killed::ALL,
        pci_contract::ALL,
        driver_ids::ALL,
        proc_pci::ALL,
        sequences::ALL,
        leaks::ALL,
        load::ALL,
        igb_contract::ALL,
        vfio::ALL,
        vfio_device::ALL,
        vfio_config::ALL,
        vfio_irqs::ALL,
        vfio_dma::ALL,
        vfio_lifetime::ALL,
    ]
    .concat()
}

/// The folder with bug reports of the catalogue as scripts.
pub fn folder_of_scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// Bug reports of the catalogue as scripts of a few lines. They are examples of what a script can do, and are no part of
/// [`all`].
///
/// # Errors
/// A script cannot be read, or its head is wrong.
pub fn scripts() -> Result<Vec<Scenario>, ScriptError> {
    let read = |path: &PathBuf| Script::read(path).map(|(script, header)| Scenario::of_script(script, header));
    script::paths(&folder_of_scripts())?.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use harness::vm::topology::Topology;

    use super::*;

    #[test]
    fn scripts_are_short_and_name_existing_bugs() {
        let manifest = kernels::Manifest::of_project().unwrap();
        let scripts = scripts().unwrap();
        assert!(scripts.len() >= 5);
        for scenario in scripts {
            let name = scenario.name;
            let text = String::from_utf8(scenario.needs.script.unwrap().text.clone()).unwrap();
            assert!(text.lines().count() <= 15, "{name} has more than 15 lines");
            assert!(!scenario.detects.is_empty(), "{name} detects nothing");
            for bug in scenario.detects {
                assert!(manifest.bug(bug).is_ok(), "{name}: no bug {bug}");
            }
        }
    }

    #[test]
    fn scenarios_name_existing_topologies_and_bugs() {
        let manifest = kernels::Manifest::of_project().unwrap();
        let mut names = BTreeSet::new();
        for scenario in all() {
            let name = scenario.name;
            assert!(names.insert(name), "there are two scenarios {name}");
            assert!(name.split("::").count() == 2 && !scenario.about.is_empty(), "{name}");
            for topology in scenario.topologies() {
                assert!(Topology::named(topology).is_some(), "{name}: no topology {topology}");
            }
            for bug in scenario.detects {
                assert!(manifest.bug(bug).is_ok(), "{name}: no bug {bug}");
            }
        }
        let detected: BTreeSet<_> = all().iter().flat_map(|scenario| scenario.detects).copied().collect();
        for bug in &manifest.bugs {
            assert!(detected.contains(bug.id.as_str()), "no scenario detects {}", bug.id);
        }
    }
}
