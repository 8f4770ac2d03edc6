//! Writers of `sriov_numvfs` that are killed while they wait in the kernel, as by a program that gives up after a time.
//!
//! A write that disables VFs waits until the owners of the VFs release them (`drivers/vfio/vfio_main.c`,
//! `vfio_unregister_group_dev()`), with the PF's device lock and `pci_rescan_remove_lock` held. Since 5.13 a signal does
//! not end that wait. Whatever a kernel does with the killed writer: vfio must go on asking the owner for the VF, and
//! when the owner has released it, nothing of the writer may be left.

use guest_protocol::{Access, Ask, Sched};
use harness::guest::{Device, ENABLES_VFS, Guest, Halt, Pf, RESCAN_LOCK, UserDriver, WAITS_FOR_OWNER, judged, must};
use harness::notes::{Note, Place};
use harness::scenario::Scenario;
use harness::trigger::Trigger;
use harness::vm::agent::Operation;

use crate::check::{accepts, have_driver, passed, wrong};
use crate::registers::REQ;
use crate::unbind;
use crate::vfio_lifetime::REQUEST;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "numvfs_killed::others_wait",
        about: "A process that disables VFs is killed while the kernel waits for the owner of a VF. Others read and \
                write sriov_numvfs, and one of them is killed too. When the owner releases the VF, all must end, and \
                the number of VFs must be one that was written last.",
        ..Scenario::of(|guest| Box::pin(judged(others_wait(guest))))
    },
    Scenario {
        name: "numvfs_killed::pf_goes",
        about: "A process that disables VFs is killed while the kernel waits for the owner of a VF. Then the PF is \
                removed. When the owner releases the VF, all must end, and the card must work when it is put back.",
        detects: &["numvfs-disable-vs-removal"],
        triggers: &[Trigger::DeviceDelAcpi, Trigger::SysfsRemove],
        ..Scenario::of(|guest| Box::pin(judged(card_goes(guest))))
    },
    Scenario {
        name: "numvfs_killed::card_is_unplugged",
        about: "As before, but pciehp removes the card: first the VFs, and then the PF. Each VF must be removed only \
                once, and the PF must be freed.",
        detects: &[
            "numvfs-disable-vs-removal",
            "numvfs-disable-vs-unplug-double-del",
            "numvfs-disable-overtaken-by-unplug",
        ],
        triggers: Trigger::PCIEHP,
        ..Scenario::of(|guest| Box::pin(judged(card_goes(guest))))
    },
    Scenario {
        name: "numvfs_killed::enables",
        about: "A process that enables VFs is killed before the kernel looks for them. Either there must be no VFs, or \
                all of them with their driver.",
        ..Scenario::of(|guest| Box::pin(judged(enables(guest))))
    },
];

/// Starts to disable VFs while a process has one of them open, and kills the writer when vfio has asked for the VF. Then
/// vfio must ask again. Returns the write.
async fn killed_while_it_waits(
    guest: &Guest,
    pf: &Pf,
    driver: &UserDriver<'_>,
    vf: &Device,
) -> Result<Operation, Halt> {
    let device = driver.device(vf);
    device.opens().await?;
    device.does(Ask::Arm { index: REQ, count: 1 }).await?;
    let disable = guest.write(pf.numvfs(), 0, Sched::default()).await?;
    asked(driver, vf, "after 0 was written to sriov_numvfs").await?;
    guest.kill(&disable).await?;
    // A kernel may also let the writer go. Then nobody wants the VF any more.
    if guest.waits_in(&disable, WAITS_FOR_OWNER, guest.prompt()).await? != Place::Over {
        device.does(Ask::Arm { index: REQ, count: 1 }).await?;
        asked(driver, vf, "after the writer was killed").await?;
    }
    Ok(disable)
}

/// vfio must ask the owner for a VF.
async fn asked(driver: &UserDriver<'_>, vf: &Device, when: &str) -> Result<(), Halt> {
    let came = driver.signals(vf, REQ, 0, REQUEST).await?;
    must(came > 0, WAITS_FOR_OWNER[0], || {
        format!("{when}, no request for the VF came to its owner within {} s", REQUEST.as_secs())
    })
}

/// The functions of `sriov_numvfs` (`drivers/pci/iov.c`). Who waits for a lock there, or for what holds the lock, has
/// them on its stack.
const IN_NUMVFS: &[&str] = &["sriov_numvfs_store", "sriov_numvfs_show"];

/// The numbers that others write.
const OTHERS: [u16; 2] = [3, 0];

/// The errors of a write that finds VFs. One that finds none succeeds.
const BUSY: &[&str] = &["EBUSY"];

async fn others_wait(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let vf = &guest.enable_vfs_for_vfio(pf, 1).await?[0];
    let driver = guest.user_driver(&[]).await?;
    let disable = killed_while_it_waits(guest, pf, &driver, vf).await?;

    let [three, none] = OTHERS;
    let others = [
        guest.write(pf.numvfs(), three, Sched::default()).await?,
        guest.write(pf.numvfs(), none, Sched::default()).await?,
    ];
    let dead = guest.write(pf.numvfs(), three, Sched::default()).await?;
    let reader = guest.read(pf.numvfs()).await?;
    for waiter in [&others[0], &others[1], &dead, &reader] {
        let place = guest.waits_in(waiter, IN_NUMVFS, guest.prompt()).await?;
        guest.note(Note::Store(place));
    }
    guest.kill(&dead).await?;

    driver.device(vf).does(Ask::Close).await?;
    let all = [&disable, &others[0], &others[1], &dead, &reader];
    passed(guest.passes_unless_stuck(&all, &[RESCAN_LOCK]).await?)?;
    passed(guest.agreement().await?)?;
    for write in &others {
        agreed(&write.accessed(guest.prompt()).await?)?;
    }
    one_of(guest, pf, &OTHERS).await?;
    driver.end().await?;
    works(guest, pf).await
}

/// A write that was not killed must succeed, or find VFs.
fn agreed(access: &Access) -> Result<(), Halt> {
    match &access.value {
        Err(errno) if !BUSY.contains(&errno.name.as_str()) => {
            let must = BUSY.join(" or ");
            Err(wrong("sriov_numvfs", format!("a write fails with {}, and must succeed or give {must}", errno.name)))
        }
        _ => Ok(()),
    }
}

/// `sriov_numvfs` must be one of these numbers.
async fn one_of(guest: &Guest, pf: &Pf, numbers: &[u16]) -> Result<(), Halt> {
    let read = guest.read_now(pf.numvfs()).await?;
    let numbers: Vec<_> = numbers.iter().map(u16::to_string).collect();
    if read.value.as_ref().is_ok_and(|value| numbers.contains(value)) {
        return Ok(());
    }
    let must = numbers.join(" or ");
    Err(wrong("sriov_numvfs", format!("sriov_numvfs reads {}, and must read {must}", read.shown())))
}

/// VFs must go on and off as on a PF that no writer died on.
async fn works(guest: &Guest, pf: &Pf) -> Result<(), Halt> {
    for vfs in [0, 2, 0] {
        accepts(guest, &pf.numvfs(), vfs, "after a writer was killed").await?;
        passed(guest.agreement().await?)?;
    }
    Ok(())
}

/// The removal waits for a lock that the writer holds: in [`RESCAN_LOCK`], or for a device lock.
async fn card_goes(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let vf = &guest.enable_vfs_for_vfio(pf, 1).await?[0];
    let driver = guest.user_driver(&[]).await?;
    let disable = killed_while_it_waits(guest, pf, &driver, vf).await?;
    guest.remove(pf).await?;
    let waits = guest.task_at(unbind::WAITS, guest.prompt()).await?;
    guest.note_tasks(Note::Remover, &[waits]);
    driver.device(vf).does(Ask::Close).await?;
    passed(guest.passes_unless_stuck(&[&disable], &[RESCAN_LOCK]).await?)?;
    driver.end().await?;
    passed(guest.put_back_and_use().await?)
}

/// How many VFs are enabled.
const VFS: u16 = 2;

async fn enables(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let enable = guest.write(pf.numvfs(), VFS, Sched::default()).await?;
    let place = guest.waits_in(&enable, ENABLES_VFS, guest.prompt()).await?;
    guest.note(Note::Store(place));
    guest.kill(&enable).await?;
    passed(guest.passes_unless_stuck(&[&enable], &[RESCAN_LOCK]).await?)?;
    passed(guest.agreement().await?)?;
    one_of(guest, pf, &[0, VFS]).await?;
    if guest.read_now(pf.numvfs()).await?.shown() != "0" {
        have_driver(guest, pf, &guest.vfs(pf, VFS).await?, "after the process that enabled it was killed").await?;
    }
    works(guest, pf).await
}
