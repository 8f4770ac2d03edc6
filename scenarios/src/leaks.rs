//! What is left of an operation that is undone again, over many rounds: objects of the kernel, resources, interrupts,
//! IOMMU groups. A kernel that leaks something in each round has more of it after each further round.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use guest_protocol::Step;
use harness::guest::{Error, Guest};
use harness::notes::{Note, Rounds};
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use kernels::FailureKind;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "leaks::vfs",
        about: "VFs are enabled with their driver and disabled, for many rounds. Nothing may grow with the rounds.",
        also: &["nvme", "virtio-net"],
        ..Scenario::of(|guest| Box::pin(vfs(guest)))
    },
    Scenario {
        name: "leaks::drivers_and_owner",
        about: "A PF goes from its driver to vfio-pci, is opened and closed, and goes back, for many rounds. Nothing may \
                grow with the rounds.",
        also: &["nvme", "virtio-net"],
        ..Scenario::of(|guest| Box::pin(drivers_and_owner(guest)))
    },
    Scenario {
        name: "leaks::removal_and_rescan",
        about: "A PF is removed through sysfs and found again, for many rounds. Nothing may grow with the rounds.",
        also: &["nvme", "virtio-net"],
        ..Scenario::of(|guest| Box::pin(removal_and_rescan(guest)))
    },
    Scenario {
        name: "leaks::port_driver",
        about: "A port loses its driver and gets it back, for many rounds. Nothing may grow with the rounds.",
        topology: "empty-slot",
        ..Scenario::of(|guest| Box::pin(port_driver(guest)))
    },
];

/// Rounds before the first count: caches fill, and what is made only once is made.
const FIRST: u32 = 4;
/// Rounds from one count to the next.
const ROUNDS: u32 = 10;
/// How often something must grow by one in each round.
const TIMES: u32 = 3;
/// Objects that the kernel has for a moment, whatever the rounds do. As many of a growth may be hidden by them.
const NOISE: u32 = 2;

/// How long the kernel may take to free what is left of the last rounds, on a machine with KVM, in seconds: some is freed
/// after a grace period of RCU, or by a work item some seconds later (`kernel/rcu/tree.c`, `kvfree_call_rcu()`).
const PATIENCE: f64 = 10.0;
const INTERVAL: Duration = Duration::from_millis(500);

/// Caches whose objects stay until memory is scarce: names of files, and the pages of files. Or until there are many:
/// areas of `vmalloc()`, in which the stacks of processes are (`mm/vmalloc.c`, `lazy_max_pages()`).
fn stays(cache: &str) -> bool {
    ["dentry", "radix_tree_node", "vmap_area"].contains(&cache) || cache.ends_with("inode_cache")
}

/// Files of which each line is one thing.
const FILES: &[&str] = &["/proc/iomem", "/proc/ioports", "/proc/interrupts", "/proc/bus/pci/devices"];
const GROUPS: &str = "/sys/kernel/iommu_groups";

/// Numbers of things, by what they are.
type Counts = BTreeMap<String, u64>;

async fn vfs(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    judge(guest, "enabling and disabling 2 VFs", async || {
        guest.set(pf.numvfs(), 2).await?;
        guest.set(pf.numvfs(), 0).await.map(drop)
    })
    .await
}

async fn drivers_and_owner(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    judge(guest, "binding a PF to vfio-pci, opening it, and binding it back", async || {
        guest.bind(pf, "vfio-pci").await?;
        let owner = guest.open(&[&pf.device], vec![Step::Release]).await?;
        owner.released(guest.prompt()).await?;
        owner.operation().done(guest.prompt()).await?;
        guest.bind(pf, pf.model().driver.name).await
    })
    .await
}

async fn removal_and_rescan(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    judge(guest, "removing a PF and finding it again", async || {
        guest.set(pf.attribute("remove"), 1).await?;
        guest.set(pf.slot.port.attribute("rescan"), 1).await.map(drop)
    })
    .await
}

/// `drivers/pci/pcie/portdrv.c` has the ports.
const PORT_DRIVER: &str = "/sys/bus/pci/drivers/pcieport";

async fn port_driver(guest: &Guest) -> Result<Verdict, Error> {
    let port = &guest.slot("rp0")?.port;
    judge(guest, "unbinding a port and binding it again", async || {
        guest.set(format!("{PORT_DRIVER}/unbind"), port.bdf).await?;
        guest.set(format!("{PORT_DRIVER}/bind"), port.bdf).await.map(drop)
    })
    .await
}

/// Something grows if there is one more of it for each round, several times in a row.
async fn judge(guest: &Guest, what: &str, round: impl AsyncFn() -> Result<(), Error>) -> Result<Verdict, Error> {
    for _ in 0..FIRST {
        round().await?;
    }
    // What is freed only now must not hide what grows later. No event tells the end of that.
    guest.vm().time().pause(guest.seconds(PATIENCE)).await;
    let mut before = counts(guest).await?;
    let first = before.clone();
    let mut suspects: Option<BTreeSet<String>> = None;
    for times in 1..=TIMES {
        for _ in 0..ROUNDS {
            round().await?;
        }
        guest.note(Note::Rounds(Rounds::Begun(FIRST + times * ROUNDS)));
        let (after, grown) = settled(guest, &before).await?;
        let grown = suspects.map_or_else(|| grown.clone(), |suspects| &suspects & &grown);
        if grown.is_empty() {
            return Ok(Verdict::Pass);
        }
        (before, suspects) = (after, Some(grown));
    }
    let grown: Vec<String> = suspects.into_iter().flatten().collect();
    let rounds = TIMES * ROUNDS;
    let each = |name: &String| format!("{name} from {} to {}", number(&first, name), number(&before, name));
    let all: Vec<String> = grown.iter().map(each).collect();
    let summary = format!("{what} for {rounds} rounds leaves something each time: {}", all.join(", "));
    Ok(Verdict::fail(FailureKind::WrongState, grown.first().map_or("", String::as_str), summary))
}

fn number(counts: &Counts, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}

/// Counts until nothing has grown by about one for each round, or the kernel has had its time.
async fn settled(guest: &Guest, before: &Counts) -> Result<(Counts, BTreeSet<String>), Error> {
    let patience = guest.vm().time().patience(guest.seconds(PATIENCE));
    loop {
        let now = counts(guest).await?;
        let has_grown = |name: &&String| number(&now, name) >= number(before, name) + u64::from(ROUNDS - NOISE);
        let grown: BTreeSet<String> = now.keys().filter(has_grown).cloned().collect();
        if grown.is_empty() || patience.is_over().is_some() {
            return Ok((now, grown));
        }
        guest.vm().time().pause(INTERVAL).await;
    }
}

async fn counts(guest: &Guest) -> Result<Counts, Error> {
    let mut counts = Counts::new();
    for file in FILES {
        let bytes = guest.read_bytes((*file).to_owned(), 0, 1 << 20).await?;
        counts.insert((*file).to_owned(), bytes.iter().filter(|byte| **byte == b'\n').count() as u64);
    }
    counts.insert(GROUPS.to_owned(), guest.list(GROUPS).await?.len() as u64);
    let objects = guest.census().await?;
    counts.extend(objects.into_iter().filter(|(cache, _)| !stays(cache)));
    Ok(counts)
}
