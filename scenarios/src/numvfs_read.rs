//! Reading `sriov_numvfs` while the PF is being removed from under its vfio user.
//!
//! A kernel whose show function takes the device lock (35ff867b7657) makes the reader wait for the remover, which holds
//! that lock and waits for the owner to release the device. If owner and reader are one thread, that is for ever.

use guest_protocol::{Access, Sched, Step};
use harness::guest::{Came, Ending, Error, Guest, Stuck};
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
        about: "A single-threaded owner, told by vfio of the removal, reads sriov_numvfs before it releases the PF; \
                the read must return and the removal complete.",
        detects: &["numvfs-show-vfio-remove"],
        topology: "igb",
        also: &["igb+amd-iommu", "igb+virtio-iommu", "nvme"],
        triggers: Trigger::ALL,
        append: &[],
        run: |guest| Box::pin(owner_reads_numvfs(guest)),
    },
    Scenario {
        name: "numvfs_read::bystander_reads_during_removal",
        about: "Another process reads sriov_numvfs while the owner takes its time to release the PF; \
                the read must not wait for the owner.",
        detects: &["numvfs-show-bystander"],
        topology: "igb",
        also: &["nvme"],
        triggers: Trigger::ALL,
        append: &[],
        run: |guest| Box::pin(bystander_reads_during_removal(guest)),
    },
    Scenario {
        name: "numvfs_read::vf_owner_reads_during_disable",
        about: "The owner of a VF, told by vfio that VFs are being disabled, reads the PF's sriov_numvfs before it \
                releases the VF; the read must return and the VFs go away.",
        detects: &["numvfs-show-vf-busy-disable"],
        topology: "igb",
        also: &["nvme"],
        triggers: &[],
        append: &[],
        run: |guest| Box::pin(vf_owner_reads_during_disable(guest)),
    },
];

/// What `sriov_numvfs` reads as: no VF was ever enabled.
const NO_VFS: &str = "0";

async fn owner_reads_numvfs(guest: &Guest) -> Result<Verdict, Error> {
    owner_reads_on_removal(guest, guest.pf()?.numvfs(), NO_VFS).await
}

/// The PF is removed; its owner, when asked for it, reads one of its attributes, which should have this value, and only
/// then releases it.
pub(crate) async fn owner_reads_on_removal(guest: &Guest, path: String, expected: &str) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.bind(pf, "vfio-pci").await?;
    let owner = guest.own(pf, vec![Step::Read { path: path.clone() }, Step::Release]).await?;

    guest.remove(pf).await?;
    owner.requested(guest.prompt()).await?;
    match guest.unless_stuck(owner.operation(), async |within| owner.has_read(&path, within).await).await? {
        Came::Stuck(stuck) => return deadlock(guest, stuck).await,
        Came::Yes(access) => {
            guest.note_read(&access, expected);
            if let Some(verdict) = wrong_value(&access, expected) {
                return Ok(verdict);
            }
        }
    }
    owner.released(guest.prompt()).await?;
    completed(guest).await
}

/// The owner has let go: the removal must complete, and nobody stay stuck in it.
async fn completed(guest: &Guest) -> Result<Verdict, Error> {
    Ok(match guest.ending(&[]).await? {
        Ending::Done => Verdict::Pass,
        Ending::Stuck(stuck) => guest.deadlock(&stuck, &[]),
    })
}

/// The owner is stuck. That is a deadlock if the remover waits for this very owner, the device's only one.
async fn deadlock(guest: &Guest, stuck: Stuck) -> Result<Verdict, Error> {
    let removers = guest.removers_waiting().await?;
    guest.note_tasks(Note::Stuck, std::slice::from_ref(&stuck.task));
    guest.note_tasks(Note::Removers, &removers);
    let Some(remover) = removers.first() else {
        return Err(Error::Unprepared(format!(
            "the owner is stuck in {}, but no task waits for it to release the device",
            stuck.function
        )));
    };
    let summary = format!(
        "owner {} (pid {}) in D state in {} while {} (pid {}) waits in vfio for this owner: neither can go on",
        stuck.task.comm, stuck.task.pid, stuck.function, remover.comm, remover.pid
    );
    Ok(Verdict::fail(FailureKind::Deadlock, &stuck.function, summary))
}

async fn bystander_reads_during_removal(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let numvfs = pf.attribute("sriov_numvfs");
    guest.bind(pf, "vfio-pci").await?;
    let owner = guest.own(pf, vec![Step::Hold, Step::Release]).await?;

    guest.remove(pf).await?;
    owner.holding(guest.prompt()).await?;
    let reader = guest.read(numvfs).await?;
    let read = guest.unless_stuck(&reader, async |within| reader.accessed(within).await).await?;

    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    match (completed(guest).await?, read) {
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
    owner.requested(guest.prompt()).await?;
    match guest.unless_stuck(owner.operation(), async |within| owner.has_read(&pf.numvfs(), within).await).await? {
        Came::Stuck(stuck) => deadlock(guest, stuck).await,
        Came::Yes(access) => {
            guest.note(Note::Read(Read::Any(access.shown().to_owned())));
            Ok(match guest.ending(&[owner.operation(), &disable]).await? {
                Ending::Done => Verdict::Pass,
                Ending::Stuck(stuck) => guest.deadlock(&stuck, &[]),
            })
        }
    }
}

/// The reader was stuck for as long as the owner held the device. Now that the device has gone it came back, or it never
/// will.
async fn blocked(guest: &Guest, stuck: Stuck, reader: &Operation) -> Result<Verdict, Error> {
    guest.note_tasks(Note::Stuck, std::slice::from_ref(&stuck.task));
    let Stuck { task, function, .. } = stuck;
    let who = format!("reader {} (pid {}) in D state in {function}", task.comm, task.pid);
    match guest.unless_stuck(reader, async |within| reader.accessed(within).await).await? {
        Came::Yes(access) => {
            guest.note_read(&access, NO_VFS);
            let summary = format!("{who} for {}, until the owner released the device", duration(access.latency()));
            Ok(Verdict::fail(FailureKind::Blocked, &function, summary))
        }
        Came::Stuck(_) => {
            let summary = format!("{who}, and still there after the owner released the device and it was removed");
            Ok(Verdict::fail(FailureKind::Deadlock, &function, summary))
        }
    }
}

/// Whoever reads another value, or an error, was told something wrong.
fn wrong_value(access: &Access, expected: &str) -> Option<Verdict> {
    if access.value.as_deref() == Ok(expected) {
        return None;
    }
    let attribute = access.path.rsplit('/').next().unwrap_or(&access.path);
    let summary = format!("{attribute} read as {}, not {expected}", access.shown());
    Some(Verdict::fail(FailureKind::WrongState, attribute, summary))
}
