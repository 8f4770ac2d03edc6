//! A comparison of the kernels that were proposed for the read side of `sriov_numvfs`, and of the candidate.

use harness::scenario::Comparison;

/// The kernels, and the scenarios that discriminate them. Rows are in the order of the mailing list discussion: reads
/// during a removal and during a disable, events while VFs are enabled, and writes during a removal.
pub const PROPOSALS: Comparison = Comparison {
    title: "What discriminates the proposals",
    kernels: &["stock", "revert-only", "v2-series", "early-num-vfs", "sriov-mutex", "candidate"],
    rows: &[
        ("PF's owner reads during a removal", &["numvfs_read::owner_rescans_on_removal"]),
        ("bystander reads during a removal", &["numvfs_read::bystander_reads_during_removal"]),
        ("VF's owner reads during a disable", &["numvfs_read::vf_owner_reads_during_disable"]),
        ("value at the PF's uevent", &["numvfs_events::pf_uevent"]),
        ("value at a VF's netlink event", &["numvfs_events::vf_netlink"]),
        ("value at the PF's netlink event", &["numvfs_events::pf_netlink"]),
        ("value when VFs go", &["numvfs_events::vf_uevent_on_disable"]),
        ("PF's uevent when VFs have gone", &["numvfs_events::pf_uevent_on_disable"]),
        ("write during a removal through sysfs", &["rescan_lock::store_during_sysfs_removal"]),
        ("write during an unplug", &["rescan_lock::store_during_unplug", "rescan_lock::store_during_surprise_removal"]),
    ],
};

#[cfg(test)]
mod tests {
    use harness::matrix::plan::{Selection, plan};

    use super::*;

    #[test]
    fn a_default_run_has_every_cell_of_the_table() {
        let manifest = kernels::Manifest::of_project().unwrap();
        let selection = Selection { compared: Some(PROPOSALS), ..Selection::default() };
        let cells = plan(&manifest, &crate::all(), &selection, 1).unwrap();
        for scenario in PROPOSALS.rows.iter().flat_map(|(_, scenarios)| *scenarios) {
            for kernel in PROPOSALS.kernels {
                let has = cells.iter().any(|cell| cell.id.scenario == *scenario && cell.id.variant == *kernel);
                assert!(has, "no cell of {scenario} on {kernel}");
            }
        }
    }

    #[test]
    fn kernels_and_scenarios_exist() {
        let manifest = kernels::Manifest::of_project().unwrap();
        for kernel in PROPOSALS.kernels {
            manifest.variant(kernel).unwrap();
        }
        let scenarios = crate::all();
        for scenario in PROPOSALS.rows.iter().flat_map(|(_, scenarios)| *scenarios) {
            assert!(scenarios.iter().any(|known| known.name == *scenario), "no scenario {scenario}");
        }
    }
}
