//! Reading `sriov_numvfs` of a PF that is being removed while a vfio user has it open.
//!
//! If the show function takes the device lock (35ff867b7657), the reader waits for the remover. The remover holds that
//! lock, and waits for the owner to release the device. If owner and reader are the same thread, this is a deadlock.

use guest_protocol::{Access, Sched, Step};
use harness::guest::{Came, Error, Guest, Stuck};
use harness::notes::{Note, Read};
use harness::scenario::Scenario;
use harness::text::duration;
use harness::trigger::Trigger;
use harness::verdict::Verdict;
use harness::vm::agent::Operation;
use kernels::FailureKind;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "numvfs_read::owner_rescans_on_removal",
        about: "vfio notifies a single-threaded owner of the removal. The owner reads sriov_numvfs before it releases \
                the PF. The read must return, and the removal must complete.",
        detects: &["numvfs-show-vfio-remove"],
        also: &["igb+amd-iommu", "igb+virtio-iommu", "nvme", "virtio-net"],
        triggers: Trigger::ALL,
        ..Scenario::of(|guest| Box::pin(owner_reads_numvfs(guest)))
    },
    Scenario {
        name: "numvfs_read::bystander_reads_during_removal",
        about: "The PF is being removed, and its owner has not released it yet. Another process reads sriov_numvfs. \
                The read must not wait for the owner.",
        detects: &["numvfs-show-bystander"],
        also: &["nvme", "virtio-net"],
        triggers: Trigger::ALL,
        ..Scenario::of(|guest| Box::pin(bystander_reads_during_removal(guest)))
    },
    Scenario {
        name: "numvfs_read::vf_owner_reads_during_disable",
        about: "vfio notifies the owner of a VF that VFs are being disabled. The owner reads the PF's sriov_numvfs \
                before it releases the VF. The read must return, and the VFs must be removed.",
        detects: &["numvfs-show-vf-busy-disable"],
        also: &["nvme", "virtio-net"],
        ..Scenario::of(|guest| Box::pin(vf_owner_reads_during_disable(guest)))
    },
];

/// The correct value of `sriov_numvfs`: no VF was ever enabled.
const NO_VFS: &str = "0";

async fn owner_reads_numvfs(guest: &Guest) -> Result<Verdict, Error> {
    owner_reads_on_removal(guest, guest.pf()?.numvfs(), NO_VFS).await
}

/// Removes the PF. When vfio asks the owner for the PF, the owner first reads an attribute, which must have the
/// expected value, and then releases the PF.
pub(crate) async fn owner_reads_on_removal(guest: &Guest, path: String, expected: &str) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.bind(pf, "vfio-pci").await?;
    let owner = guest.own(pf, vec![Step::Read { path: path.clone() }, Step::Release]).await?;

    guest.remove(pf).await?;
    owner.requested(guest.prompt()).await?;
    match guest.unless_stuck(owner.operation(), async |within| owner.has_read(&path, within).await).await? {
        Came::Stuck(stuck) => return Ok(guest.deadlock(&[stuck], &[])),
        Came::Yes(access) => {
            guest.note_read(&access, expected);
            if let Some(verdict) = wrong_value(&access, expected) {
                return Ok(verdict);
            }
        }
    }
    owner.released(guest.prompt()).await?;
    guest.passes_unless_stuck(&[], &[]).await
}

async fn bystander_reads_during_removal(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let numvfs = pf.attribute("sriov_numvfs");
    guest.bind(pf, "vfio-pci").await?;
    let owner = guest.own(pf, vec![Step::Hold, Step::Release]).await?;

    guest.remove(pf).await?;
    owner.holding(guest.prompt()).await?;
    let reader = guest.read(numvfs).await?;
    let read = guest.unless_stuck(&reader, async |within| Ok(reader.accessed(within).await?)).await?;

    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    match (guest.passes_unless_stuck(&[], &[]).await?, read) {
        (Verdict::Pass, Came::Yes(access)) => {
            guest.note_read(&access, NO_VFS);
            Ok(wrong_value(&access, NO_VFS).unwrap_or(Verdict::Pass))
        }
        (Verdict::Pass, Came::Stuck(stuck)) => blocked(guest, stuck, &reader).await,
        (failed, _) => Ok(failed),
    }
}

async fn vf_owner_reads_during_disable(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let vfs = guest.enable_vfs_for_vfio(pf, 1).await?;
    let owner = guest.own(&vfs[0], vec![Step::Read { path: pf.numvfs() }, Step::Release]).await?;

    let disable = guest.write(pf.numvfs(), 0, Sched::default()).await?;
    guest.unless_refused(&disable, owner.requested(guest.prompt())).await?;
    match guest.unless_stuck(owner.operation(), async |within| owner.has_read(&pf.numvfs(), within).await).await? {
        Came::Stuck(stuck) => Ok(guest.deadlock(&[stuck], &[])),
        Came::Yes(access) => {
            guest.note(Note::Read(Read::Any(access.shown().to_owned())));
            guest.passes_unless_stuck(&[owner.operation(), &disable], &[]).await
        }
    }
}

/// The reader was stuck while the owner held the device. Now the device is removed: either the read returned, or it is
/// a deadlock.
async fn blocked(guest: &Guest, stuck: Stuck, reader: &Operation) -> Result<Verdict, Error> {
    guest.note_tasks(Note::Stuck, std::slice::from_ref(&stuck.task));
    let Stuck { task, function, held_up } = stuck;
    let who = held_up.unwrap_or_else(|| format!("reader {} (pid {}) in D state in {function}", task.comm, task.pid));
    match guest.unless_stuck(reader, async |within| Ok(reader.accessed(within).await?)).await? {
        Came::Yes(access) => {
            guest.note_read(&access, NO_VFS);
            let summary = format!("{who}: for {}, until the owner released the device", duration(access.latency()));
            Ok(Verdict::fail(FailureKind::Blocked, &function, summary))
        }
        // The owner has released the device, and the device was removed.
        Came::Stuck(stuck) => Ok(guest.deadlock(&[stuck], &[])),
    }
}

/// The failure of a read that returned another value or an error.
fn wrong_value(access: &Access, expected: &str) -> Option<Verdict> {
    if access.value.as_deref() == Ok(expected) {
        return None;
    }
    let attribute = access.path.rsplit('/').next().unwrap_or(&access.path);
    let summary = format!("{attribute} read as {}, not {expected}", access.shown());
    Some(Verdict::fail(FailureKind::WrongState, attribute, summary))
}
