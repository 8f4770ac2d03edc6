//! Accesses every sysfs attribute while the kernel waits for a vfio user, to find those that wait too, and where.
//!
//! A process that reads sysfs does not know who holds which lock. A monitor that walks the tree must finish, whatever
//! the owner of some device does. An access that waits and is not in the lists below is a failure that names the
//! attribute.

use std::collections::BTreeSet;
use std::time::Duration;

use guest_protocol::{Sched, Step, Swept, Waiting};
use harness::classify::stack;
use harness::guest::{Ending, Error, Guest, Pf, Sweeping};
use harness::notes::{Access, Accesses, Note, Slow, Wait as WaitNote};
use harness::scenario::Scenario;
use harness::trigger::Trigger;
use harness::verdict::Verdict;
use kernels::FailureKind;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "sweep::during_removal",
        about: "A PF is being removed, and its owner has not released it yet. Every access to an attribute of the PF, \
                its port and its slot must return.",
        detects: &[
            "vf-total-msix-show-bystander",
            "numvfs-show-bystander",
            "uevent-show-bystander",
            "driver-override-show-bystander",
        ],
        triggers: Trigger::ALL,
        ..Scenario::of(|guest| Box::pin(during_removal(guest)))
    },
    Scenario {
        name: "sweep::during_disable",
        about: "VFs are being disabled by a write of 0 to sriov_numvfs, and the owner of a VF has not released it yet. \
                Every access to an attribute of the PF, the VFs, their port and their slot must return.",
        detects: &[
            "vf-total-msix-show-bystander",
            "numvfs-show-vf-busy-bystander",
            "uevent-show-bystander",
            "driver-override-show-bystander",
        ],
        ..Scenario::of(|guest| Box::pin(during_disable(guest)))
    },
    Scenario {
        name: "sweep::during_enable",
        about: "VFs of one PF are being enabled while another PF is being removed, and the owner of that PF has not \
                released it yet. Every access to an attribute of the first PF, its port and its slot must return.",
        detects: &[
            "vf-total-msix-show-store-bystander",
            "numvfs-show-store-bystander",
            "uevent-show-bystander",
            "driver-override-show-bystander",
        ],
        topology: "two-slots",
        ..Scenario::of(|guest| Box::pin(during_enable(guest)))
    },
];

/// Attributes that the sweep does not access. Those that act on a device (`remove`, `rescan`, `reset`, `bind`,
/// `unbind`) are write-only, and a sweep accesses only readable attributes.
pub const LEFT_OUT: &[&str] = &[
    // A read of an I/O BAR reads the device's registers, and clears some of them.
    "resource0",
    "resource1",
    "resource2",
    "resource3",
    "resource4",
    "resource5",
    // Can be read only after a write that enables the ROM's decoder.
    "rom",
];

/// Attributes to which the sweep writes the value that it read, which changes nothing. These writable ones are not in
/// the list: `sriov_numvfs` (the old value would be a new request), `enable` (it counts), `power` of a slot (removes
/// and adds cards), `config`, `numa_node` (taints the kernel), and all attributes of a network interface but those
/// below.
const WRITTEN_BACK: &[&str] = &[
    "control",
    "d3cold_allowed",
    "msi_bus",
    "broken_parity_status",
    "driver_override",
    "sriov_drivers_autoprobe",
    "reset_method",
    "attention",
    "mtu",
    "tx_queue_len",
    "l0s_aspm",
    "l1_aspm",
    "clkpm",
];

/// How to judge a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// A bug: a `[[bug]]` of kernels.toml fails at this function.
    Bug,
    /// By design: the attribute is meant to wait.
    Design,
}

/// The known waits: attribute, function, and how to judge it. The verdict names the first one that is a bug.
const KNOWN: &[(&str, &str, Meaning)] = &[
    ("sriov_numvfs", "sriov_numvfs_show", Meaning::Bug),
    ("sriov_vf_total_msix", "sriov_vf_total_msix_show", Meaning::Bug),
    // In 6.1 (`drivers/base/core.c`, `drivers/pci/pci-sysfs.c`).
    ("uevent", "uevent_show", Meaning::Bug),
    ("driver_override", "driver_override_show", Meaning::Bug),
    // A write that takes the device lock (`drivers/base/power/sysfs.c`); only kernels with CONFIG_PM have it.
    ("control", "control_store", Meaning::Design),
];

/// How long a store may take to reach the function in which it waits, if it waits.
const PATIENCE: Duration = Duration::from_secs(3);

async fn during_removal(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.bind(pf, "vfio-pci").await?;
    let owner = guest.own(pf, vec![Step::Hold, Step::Release]).await?;
    guest.remove(pf).await?;
    owner.holding(guest.prompt()).await?;
    let sweeping = sweep(guest, pf).await?;
    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    let ending = guest.ending(&[sweeping.operation()]).await?;
    judge(guest, &sweeping, ending).await
}

async fn during_disable(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let vfs = guest.enable_vfs_for_vfio(pf, 2).await?;
    let hold = guest.hold_disable(pf, &vfs[0]).await?;
    let sweeping = sweep(guest, pf).await?;
    hold.release(guest).await?;
    let ending = guest.ending(&[sweeping.operation(), hold.holder()]).await?;
    judge(guest, &sweeping, ending).await
}

async fn during_enable(guest: &Guest) -> Result<Verdict, Error> {
    let (pf, other) = (guest.pf_named("pf0")?, guest.pf_named("pf1")?);
    let hold = guest.hold_rescan_lock(other).await?;
    let enable = guest.write(pf.numvfs(), 2, Sched::default()).await?;
    let place = guest.waits_in(&enable, &["pci_lock_rescan_remove"], PATIENCE).await?;
    guest.note(Note::Enable(place));
    let sweeping = sweep(guest, pf).await?;
    hold.release(guest).await?;
    let ending = guest.ending(&[sweeping.operation(), hold.holder(), &enable]).await?;
    judge(guest, &sweeping, ending).await
}

/// All slots. Their names differ: pciehp uses the port's number, acpiphp its own numbers.
const SLOTS: &str = "/sys/bus/pci/slots/";

/// Sweeps a port, the devices below it, and the slots.
async fn sweep(guest: &Guest, pf: &Pf) -> Result<Sweeping, Error> {
    guest.sweep(vec![pf.slot.port.attribute(""), SLOTS.to_owned()], LEFT_OUT, WRITTEN_BACK).await
}

/// Judges the accesses that waited, after all locks are released.
async fn judge(guest: &Guest, sweeping: &Sweeping, ending: Ending) -> Result<Verdict, Error> {
    let waits: Vec<_> = sweeping.waiting.iter().map(Wait::of).collect();
    guest.note(Note::Waits(waits.iter().map(Wait::noted).collect()));
    let tasks: Vec<_> = sweeping.waiting.iter().map(|waiting| waiting.task.clone()).collect();
    guest.note_tasks(Note::Waiting, &tasks);
    if let Ending::Stuck(stuck) = ending {
        return Ok(guest.deadlock(&stuck, &[]));
    }
    note_accesses(guest, &sweeping.accesses(guest.prompt()).await?);
    Ok(verdict(&waits))
}

/// An access that waited.
struct Wait<'a> {
    path: &'a str,
    name: &'a str,
    write: bool,
    function: &'a str,
}

impl Wait<'_> {
    fn of(waiting: &Waiting) -> Wait<'_> {
        let name = waiting.path.rsplit('/').next().unwrap_or_default();
        let function = stack::function(&waiting.task.stack).unwrap_or("an unknown place");
        Wait { path: &waiting.path, name, write: waiting.write, function }
    }

    fn meaning(&self) -> Option<Meaning> {
        KNOWN.iter().find(|(name, function, _)| (*name, *function) == (self.name, self.function)).map(|known| known.2)
    }

    fn noted(&self) -> WaitNote {
        let access = if self.write { Access::Write } else { Access::Read };
        WaitNote { attribute: self.path.to_owned(), access, function: self.function.to_owned() }
    }

    fn described(&self) -> String {
        format!("a {} of {} in {}", if self.write { "write" } else { "read" }, self.path, self.function)
    }
}

/// Unknown waits come first, then the first bug in the list of known waits.
fn verdict(waits: &[Wait<'_>]) -> Verdict {
    let described = |waits: &[&Wait<'_>]| waits.iter().map(|wait| wait.described()).collect::<Vec<_>>().join("; ");
    let unknown: Vec<_> = waits.iter().filter(|wait| wait.meaning().is_none()).collect();
    if let Some(first) = unknown.first() {
        let place = format!("{}: {}", first.name, first.function);
        let summary = format!("waited until the owner released the device; not a known wait: {}", described(&unknown));
        return Verdict::fail(FailureKind::Blocked, &place, summary);
    }
    let bugs: Vec<_> = waits.iter().filter(|wait| wait.meaning() == Some(Meaning::Bug)).collect();
    let worst = KNOWN.iter().find(|known| bugs.iter().any(|wait| wait.function == known.1));
    worst.map_or(Verdict::Pass, |(_, function, _)| {
        let summary = format!("waited until the owner released the device: {}", described(&bugs));
        Verdict::fail(FailureKind::Blocked, function, summary)
    })
}

/// Notes the number of accesses, the slowest ones, and those that failed.
fn note_accesses(guest: &Guest, accesses: &[Swept]) {
    let writes = accesses.iter().filter(|swept| swept.write).count();
    let mut slowest: Vec<_> = accesses.iter().collect();
    slowest.sort_by_key(|swept| std::cmp::Reverse(swept.access.latency()));
    let slow = |swept: &&Swept| Slow {
        attribute: swept.access.path.clone(),
        write: swept.write,
        value: swept.access.shown().to_owned(),
        took: swept.access.latency().as_secs_f64(),
    };
    let slowest = slowest.iter().take(10).map(slow).collect();
    let refused: BTreeSet<_> = accesses
        .iter()
        .filter_map(|swept| Some(format!("{}: {}", swept.access.path, swept.access.value.as_ref().err()?.name)))
        .collect();
    guest.note(Note::Accesses(Accesses { reads: accesses.len() - writes, writes }));
    guest.note(Note::Slowest(slowest));
    guest.note(Note::Refused(refused.into_iter().collect()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(name: &'static str, function: &'static str) -> Wait<'static> {
        Wait { path: name, name, write: false, function }
    }

    fn place(waits: &[Wait<'_>]) -> Option<String> {
        match verdict(waits) {
            Verdict::Fail(failure) => failure.function,
            _ => None,
        }
    }

    #[test]
    fn unknown_waits_come_first() {
        let total = || wait("sriov_vf_total_msix", "sriov_vf_total_msix_show");
        let numvfs = || wait("sriov_numvfs", "sriov_numvfs_show");
        assert_eq!(place(&[]), None);
        assert_eq!(place(&[wait("control", "control_store")]), None);
        assert_eq!(place(&[numvfs()]).as_deref(), Some("sriov_numvfs_show"));
        assert_eq!(place(&[total()]).as_deref(), Some("sriov_vf_total_msix_show"));
        assert_eq!(place(&[total(), numvfs()]).as_deref(), Some("sriov_numvfs_show"));
        let unknown = wait("config", "pci_wait_cfg");
        assert_eq!(place(&[numvfs(), unknown]).as_deref(), Some("config: pci_wait_cfg"));
        // A known attribute that waits in another function is unknown too.
        assert_eq!(place(&[wait("sriov_numvfs", "pci_wait_cfg")]).as_deref(), Some("sriov_numvfs: pci_wait_cfg"));
    }

    #[test]
    fn the_page_lists_the_known_bugs() {
        let page = include_str!("../../docs/sysfs-sweep.md");
        let mut in_page: Vec<_> =
            page.lines().filter_map(|line| line.split(" | ").nth(1).zip(line.split(" | ").nth(2))).collect();
        in_page.retain(|(attribute, _)| attribute.starts_with('`'));
        in_page.sort_unstable();
        in_page.dedup();
        let bugs = KNOWN.iter().filter(|known| known.2 == Meaning::Bug);
        let mut listed: Vec<_> =
            bugs.map(|(name, function, _)| (format!("`{name}`"), format!("`{function}`"))).collect();
        listed.sort_unstable();
        let listed: Vec<_> = listed.iter().map(|(name, function)| (name.as_str(), function.as_str())).collect();
        assert_eq!(in_page, listed);
    }
}
