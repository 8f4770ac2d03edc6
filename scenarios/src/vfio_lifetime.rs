//! Opening, resetting and closing devices through vfio, and what is left afterwards (`drivers/vfio/group.c`,
//! `vfio_main.c`, `pci/vfio_pci_core.c`).

use std::time::Duration;

use guest_protocol::{Ask, Call, Sched};
use harness::guest::{ENABLES_VFS, Error, Guest, Halt, OpenDevice, Pf, UserDriver, WAITS_FOR_OWNER, judged, must};
use harness::notes::Place;
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use harness::vm::agent::Operation;

use crate::check::bound;
use crate::registers::{COMMAND_MEMORY, FCTTV, REQ, command};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "vfio_lifetime::opened_twice",
        about: "While a device is open, its group cannot be opened again or leave its container, but the group gives a \
                second descriptor of the device. Afterwards all can be done again.",
        also: &["nvme", "virtio-net"],
        ..Scenario::of(|guest| Box::pin(judged(opened_twice(guest))))
    },
    Scenario {
        name: "vfio_lifetime::failed_opens",
        about: "Opening a device fails, because it has another name, or because its lock is taken. Nothing must be left: \
                it can be opened, closed, unbound and removed.",
        ..Scenario::of(|guest| Box::pin(judged(failed_opens(guest))))
    },
    Scenario {
        name: "vfio_lifetime::asked_again",
        about: "An owner does nothing when vfio asks for the device, and registers another eventfd. vfio must ask again, \
                and the unbind must end when the device is closed.",
        ..Scenario::of(|guest| Box::pin(judged(asked_again(guest))))
    },
    Scenario {
        name: "vfio_lifetime::token_of_closed_vf",
        about: "A VF is opened with the token of its PF, and closed. The PF must then open without the token.",
        ..Scenario::of(|guest| Box::pin(judged(token_of_closed_vf(guest))))
    },
    Scenario {
        name: "vfio_lifetime::hot_reset",
        about: "A slot with two functions is reset by an owner of both, and an owner who has one is refused. Both \
                functions must work afterwards.",
        topology: "two-functions",
        ..Scenario::of(|guest| Box::pin(judged(hot_reset(guest))))
    },
    Scenario {
        name: "vfio_lifetime::close_one_of_two",
        about: "A slot has two functions that cannot be reset alone. Their owner can reset them together. When one of \
                them is closed, the other is in use and must keep its state. When both are closed, the slot must be \
                reset.",
        detects: &["hot-reset-needs-own-resets"],
        topology: "two-functions",
        ..Scenario::of(|guest| Box::pin(judged(close_one_of_two(guest))))
    },
];

async fn opened_twice(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[]).await?;
    let device = driver.device(pf);
    let group = || Call::OpenGroup { bdf: device.bdf().to_owned() };
    for _ in 0..2 {
        driver.does(group()).await?;
        device.opens().await?;
        driver.refused(group(), "EBUSY").await?;
        device.refused(Ask::UnsetContainer, "EBUSY").await?;
        device.does(Ask::OpenAgain { name: device.bdf().to_owned() }).await?;
        device.does(Ask::CloseAgain).await?;
        device.refused(Ask::UnsetContainer, "EBUSY").await?;
        command(&device, COMMAND_MEMORY, 0).await?;
        device.does(Ask::Close).await?;
    }
    let other = guest.user_driver(&[&pf.device]).await?;
    driver.refused(group(), "EBUSY").await?;
    other.end().await?;
    device.opens().await?;
    driver.end().await
}

async fn failed_opens(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    device.refused(Ask::OpenAgain { name: "0000:ff:1f.7".to_owned() }, "ENODEV").await?;
    device.does(Ask::Close).await?;

    // A write to `sriov_numvfs` holds the device's lock, and vfio resets the device when it opens it. It gives up if the
    // lock is taken (`vfio_pci_core_enable()`). A kernel whose write does not hold the lock opens it.
    let store = guest.write(pf.numvfs(), 2, Sched::default()).await?;
    guest.waits_in(&store, ENABLES_VFS, guest.prompt()).await?;
    match device.open(None).await? {
        Ok(_) => drop(device.does(Ask::Close).await?),
        Err(errno) => must(errno.name == "EAGAIN", "VFIO_GROUP_GET_DEVICE_FD", || {
            format!("opening a device whose lock is taken gave {}, and must give EAGAIN", errno.name)
        })?,
    }
    guest.granted(&store).await?;
    guest.set(pf.numvfs(), 0).await?;
    device.opens().await?;
    works(&device).await?;
    device.does(Ask::Close).await?;
    driver.end().await?;

    let driver = guest.user_driver(&[&pf.device]).await?;
    works(&driver.device(pf)).await?;
    driver.end().await?;
    unbinds(guest, pf).await
}

/// Reads a register of an open device.
async fn works(device: &OpenDevice<'_>) -> Result<(), Halt> {
    command(device, COMMAND_MEMORY, 0).await?;
    device.read32(0, FCTTV).await.map(drop)
}

/// How long an unbind may be where it waits for an owner, on a machine with KVM, in seconds.
const PATIENCE: f64 = 1.5;

/// Unbinds a device that nobody has open. That must end.
async fn unbinds(guest: &Guest, pf: &Pf) -> Result<(), Halt> {
    let unbind = unbind(guest, pf).await?;
    if let Place::In(function) = guest.waits_in(&unbind, WAITS_FOR_OWNER, guest.prompt()).await? {
        let place = guest.waits_in(&unbind, &[], guest.seconds(PATIENCE)).await?;
        must(place == Place::Over, &function, || {
            format!("an unbind of {}, which nobody has open, waits for an owner", pf.device.bdf)
        })?;
    }
    guest.granted(&unbind).await?;
    Ok(())
}

async fn unbind(guest: &Guest, pf: &Pf) -> Result<Operation, Error> {
    guest.write("/sys/bus/pci/drivers/vfio-pci/unbind".to_owned(), pf.device.bdf, Sched::default()).await
}

/// How long an owner may wait for a request. vfio asks every ten seconds (`vfio_unregister_group_dev()`).
pub const REQUEST: Duration = Duration::from_secs(25);

async fn asked_again(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    device.does(Ask::Arm { index: REQ, count: 1 }).await?;
    let unbind = unbind(guest, pf).await?;
    for time in ["first", "second", "third"] {
        let came = driver.signals(pf, REQ, 0, REQUEST).await?;
        must(came > 0, "eventfd", || {
            format!("the {time} request for the device did not come within {} s", REQUEST.as_secs())
        })?;
        device.does(Ask::Arm { index: REQ, count: 1 }).await?;
    }
    device.does(Ask::Close).await?;
    match guest.passes_unless_stuck(&[&unbind], WAITS_FOR_OWNER).await? {
        Verdict::Pass => guest.granted(&unbind).await?,
        failed => return Err(Halt::Failed(failed)),
    };
    driver.end().await
}

/// Any UUID.
const TOKEN: &str = "14d63f20-8445-11ea-8900-1f9ce7d5650d";

/// `vfio_pci_validate_vf_token()`: a PF needs the token as long as VFs are in use.
async fn token_of_closed_vf(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[]).await?;
    let device = driver.device(pf);
    driver.does(device.opening(Some(TOKEN))).await?;
    let vfs = guest.enable_vfs(pf, 1).await?;
    let vf = driver.device(&vfs[0]);
    driver.refused(vf.opening(None), "EACCES").await?;
    driver.does(vf.opening(Some(TOKEN))).await?;
    device.does(Ask::Close).await?;
    driver.refused(device.opening(None), "EACCES").await?;
    driver.does(device.opening(Some(TOKEN))).await?;
    device.does(Ask::Close).await?;
    vf.does(Ask::Close).await?;
    driver.does(device.opening(None)).await?;
    device.does(Ask::Close).await?;
    driver.end().await?;
    guest.set(pf.numvfs(), 0).await?;
    unbinds(guest, pf).await
}

/// A value of a register that igb's reset clears.
const MARK: u32 = 0x1234;

/// Opens all functions of the slot, and marks them.
async fn marked<'a>(driver: &'a UserDriver<'_>, pfs: &[Pf]) -> Result<Vec<OpenDevice<'a>>, Halt> {
    let devices: Vec<_> = pfs.iter().map(|pf| driver.device(pf)).collect();
    for device in &devices {
        command(device, COMMAND_MEMORY, 0).await?;
        device.write32(0, FCTTV, MARK).await?;
        is_marked(device, true, "after it was written").await?;
    }
    Ok(devices)
}

async fn is_marked(device: &OpenDevice<'_>, marked: bool, when: &str) -> Result<(), Halt> {
    let value = device.read32(0, FCTTV).await?;
    must((value == MARK) == marked, "reset", || {
        let kept = if marked { "must keep its value" } else { "must have been reset" };
        format!("{when}, register FCTTV of {} reads {value:#x}; it {kept}, which was {MARK:#x}", device.bdf())
    })
}

async fn hot_reset(guest: &Guest) -> Result<(), Halt> {
    let pfs = guest.pfs();
    for pf in pfs {
        guest.bind(pf, "vfio-pci").await?;
    }
    let both: Vec<_> = pfs.iter().map(|pf| &pf.device).collect();
    let driver = guest.user_driver(&both).await?;
    let devices = marked(&driver, pfs).await?;
    let all: Vec<_> = devices.iter().map(|device| device.bdf().to_owned()).collect();
    for device in &devices {
        let count = device.hot_reset_devices().await?;
        must(count == all.len() as u64, "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", || {
            format!("a hot reset of {} resets {count} devices; the slot has {}", device.bdf(), all.len())
        })?;
        let own = vec![device.bdf().to_owned()];
        device.refused(Ask::HotReset { groups: own }, "EINVAL").await?;
        device.refused(Ask::HotReset { groups: [all.clone(), all.clone()].concat() }, "EINVAL").await?;
        is_marked(device, true, "after a refused hot reset").await?;
    }
    for device in &devices {
        device.does(Ask::HotReset { groups: all.clone() }).await?;
        for device in &devices {
            command(device, COMMAND_MEMORY, 0).await?;
            is_marked(device, false, "after a hot reset").await?;
            device.write32(0, FCTTV, MARK).await?;
        }
    }
    driver.end().await
}

/// A reset on close is for the last one who closes (`vfio_pci_dev_set_needs_reset()`).
async fn close_one_of_two(guest: &Guest) -> Result<(), Halt> {
    let pfs = guest.pfs();
    for pf in pfs {
        guest.bind(pf, "vfio-pci").await?;
        without_reset(guest, pf).await?;
    }
    let both: Vec<_> = pfs.iter().map(|pf| &pf.device).collect();
    let driver = guest.user_driver(&both).await?;
    let groups = pfs.iter().map(|pf| pf.device.bdf.to_string()).collect();
    driver.device(&pfs[0]).does(Ask::HotReset { groups }).await?;
    let devices = marked(&driver, pfs).await?;
    for number in 0..devices.len() {
        let (closed, open) = (&devices[number], &devices[1 - number]);
        closed.refused(Ask::Reset, "EINVAL").await?;
        closed.does(Ask::Close).await?;
        is_marked(open, true, "after the other function was closed").await?;
        closed.opens().await?;
        command(closed, COMMAND_MEMORY, 0).await?;
        is_marked(closed, true, "after a close while the other function is in use").await?;
    }
    for device in &devices {
        device.does(Ask::Close).await?;
    }
    for device in &devices {
        device.opens().await?;
        command(device, COMMAND_MEMORY, 0).await?;
        is_marked(device, false, "after all functions were closed").await?;
    }
    driver.end().await
}

/// Takes all resets of its own from a function.
async fn without_reset(guest: &Guest, pf: &Pf) -> Result<(), Error> {
    guest.set(pf.attribute("reset_method"), "\n").await.map(drop)
}
