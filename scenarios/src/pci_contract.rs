//! What the PCI core promises about the files of a device: the answers to writes, what a VF has, and what is left when
//! a device has gone (`drivers/pci/pci-sysfs.c`, `drivers/pci/probe.c`, `drivers/pci/remove.c`, `drivers/pci/iov.c`;
//! `Documentation/ABI/testing/sysfs-bus-pci`).

use guest_protocol::Sched;
use harness::guest::{Device, Ending, Error, Guest, Pf};
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use harness::vm::agent::AgentError;
use kernels::FailureKind;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "pci_contract::writes",
        about: "Each attribute of a PF takes what it must take and refuses what it must refuse: with a driver, and \
                without one. A refused write changes nothing.",
        ..Scenario::of(|guest| Box::pin(writes(guest)))
    },
    Scenario {
        name: "pci_contract::vfs_are_complete",
        about: "VFs have all of their configuration space, a reset and an entry in /proc/bus/pci. The SR-IOV capability \
                of the PF has what was asked for, and nothing of it when the VFs are disabled.",
        also: &["nvme", "virtio-net"],
        ..Scenario::of(|guest| Box::pin(vfs_are_complete(guest)))
    },
    Scenario {
        name: "pci_contract::rescan_of_empty_bus",
        about: "The empty bus of a port is rescanned twice. Both rescans must end, and a card that is then plugged in \
                must come up.",
        topology: "empty-slot",
        ..Scenario::of(|guest| Box::pin(rescan_of_empty_bus(guest)))
    },
    Scenario {
        name: "pci_contract::after_failed_probe",
        about: "igb's probe of a PF fails. The PF has no driver then: VFs cannot be enabled, and a reset succeeds \
                without one.",
        topology: "igb-multicast",
        ..Scenario::of(|guest| Box::pin(after_failed_probe(guest)))
    },
    Scenario {
        name: "pci_contract::functions_go_one_by_one",
        about: "The two PFs of a card have VFs. The second PF is removed, and the first still works. When both are gone, \
                nothing of the card is left, and a rescan finds all of it.",
        topology: "two-functions",
        // Without this, freed memory keeps its contents, and a use after free goes unnoticed.
        append: &["init_on_free=1"],
        ..Scenario::of(|guest| Box::pin(functions_go_one_by_one(guest)))
    },
    Scenario {
        name: "pci_contract::switch_is_found_again",
        about: "A switch with a card is removed through sysfs. Nothing of it is left, and a rescan finds all of it at \
                the same addresses, twice.",
        topology: "switch",
        append: &["init_on_free=1"],
        ..Scenario::of(|guest| Box::pin(switch_is_found_again(guest)))
    },
    Scenario {
        name: "pci_contract::removal_and_rescan_at_once",
        about: "A PF is removed and the bus rescanned at the same time, repeatedly. Both must end, and the PF must be \
                there after a further rescan.",
        append: &["init_on_free=1"],
        ..Scenario::of(|guest| Box::pin(removal_and_rescan_at_once(guest)))
    },
];

/// A write to an attribute and the answer that it must get.
struct Rule {
    attribute: &'static str,
    data: &'static str,
    /// The errno; `None` if the write must succeed.
    errno: Option<&'static str>,
    /// The value that must be there afterwards. `None`: the one before if the write must fail, and else any.
    leaves: Option<&'static str>,
}

const fn refuses(attribute: &'static str, data: &'static str, errno: &'static str) -> Rule {
    Rule { attribute, data, errno: Some(errno), leaves: None }
}

const fn accepts(attribute: &'static str, data: &'static str, leaves: Option<&'static str>) -> Rule {
    Rule { attribute, data, errno: None, leaves }
}

/// With igb. `enable_store()` refuses a device that has a driver, `reset_store()` all but 1, `reset_method_store()` what
/// it does not know and what the device does not support: the machine's ACPI tables have no `_RST`.
const BOUND: &[Rule] = &[
    refuses("enable", "0", "EBUSY"),
    refuses("enable", "1", "EBUSY"),
    refuses("enable", "x", "EINVAL"),
    refuses("remove", "x", "EINVAL"),
    accepts("remove", "0", None),
    refuses("rescan", "x", "EINVAL"),
    accepts("rescan", "0", None),
    accepts("rescan", "1", None),
    refuses("reset", "2", "EINVAL"),
    refuses("reset", "x", "EINVAL"),
    accepts("reset", "1", None),
    refuses("reset_method", "bogus", "EINVAL"),
    refuses("reset_method", "acpi", "EINVAL"),
    accepts("reset", "1", None),
    refuses("sriov_drivers_autoprobe", "x", "EINVAL"),
    accepts("sriov_drivers_autoprobe", "0", Some("0")),
    accepts("sriov_drivers_autoprobe", "1", Some("1")),
    accepts("driver_override", "vfio-pci", Some("vfio-pci")),
    accepts("driver_override", "\n", Some("(null)")),
];

/// Without a driver. `enable_store()` counts, and refuses to disable what is not enabled.
const UNBOUND: &[Rule] = &[
    refuses("enable", "0", "EIO"),
    accepts("enable", "1", Some("1")),
    accepts("enable", "0", Some("0")),
    refuses("enable", "0", "EIO"),
    accepts("reset", "1", None),
];

/// Attributes that have no value to read.
const WRITE_ONLY: &[&str] = &["remove", "rescan", "reset"];

async fn writes(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let bound = obey(guest, &pf.device, BOUND).await?;
    if bound != Verdict::Pass {
        return Ok(bound);
    }
    guest.set(pf.attribute("driver/unbind"), pf.device.bdf).await?;
    let unbound = obey(guest, &pf.device, UNBOUND).await?;
    if unbound != Verdict::Pass {
        return Ok(unbound);
    }
    guest.bind(pf, pf.model().driver.name).await?;
    guest.enable_vfs(pf, 1).await?;
    guest.set(pf.numvfs(), 0).await?;
    Ok(Verdict::Pass)
}

async fn obey(guest: &Guest, device: &Device, rules: &[Rule]) -> Result<Verdict, Error> {
    for Rule { attribute, data, errno, leaves } in rules {
        let path = device.attribute(attribute);
        let is_readable = !WRITE_ONLY.contains(attribute);
        let before = if is_readable { guest.read_now(path.clone()).await?.shown().to_owned() } else { String::new() };
        let answer = match write(guest, path.clone(), data).await? {
            Ok(answer) => answer,
            Err(stuck) => return Ok(stuck),
        };
        let must = errno.unwrap_or(SUCCESS);
        if answer != must {
            let summary = format!("a write of {data:?} to {attribute} returned {answer}; it must return {must}");
            return Ok(Verdict::fail(FailureKind::WrongState, attribute, summary));
        }
        let left = match (leaves, errno) {
            (Some(leaves), _) => *leaves,
            (None, Some(_)) if is_readable => &before,
            (None, _) => continue,
        };
        let now = guest.read_now(path).await?;
        if now.shown() != left {
            let shown = now.shown();
            let summary = format!("a write of {data:?} to {attribute} left {shown}; it must leave {left}");
            return Ok(Verdict::fail(FailureKind::WrongState, attribute, summary));
        }
    }
    Ok(Verdict::Pass)
}

const SUCCESS: &str = "success";

/// Writes to an attribute: success, or the errno, or how many bytes the kernel took. A verdict if the write is stuck.
async fn write(guest: &Guest, path: String, data: &str) -> Result<Result<String, Verdict>, Error> {
    let write = guest.write(path, data, Sched::default()).await?;
    if let Ending::Stuck(stuck) = guest.ending(&[&write]).await? {
        return Ok(Err(guest.deadlock(&stuck, &[])));
    }
    match write.accessed(guest.prompt()).await {
        Ok(access) => Ok(Ok(access.value.map_or_else(|errno| errno.name, |_| SUCCESS.to_owned()))),
        Err(AgentError::Failed { failure, .. }) if failure.errno.is_none() => Ok(Ok(failure.message)),
        Err(error) => Err(error.into()),
    }
}

/// The SR-IOV capability's Control and NumVFs, from its beginning (PCI Express 5.0, section 9.3.3).
const SRIOV_CONTROL: u64 = 0x08;
const SRIOV_NUM_VFS: u64 = 0x10;
/// VF Enable and VF Memory Space Enable.
const ENABLED: u16 = 0x1 | 0x8;

/// The size of the configuration space of a PCI Express function, and where its extended capabilities begin.
const CONFIG_SIZE: u32 = 4096;
const EXTENDED: usize = 0x100;

/// What the kernel says if the driver's `sriov_configure` returns less than it was asked for
/// (`drivers/pci/iov.c`, `sriov_numvfs_store()`).
const ONLY: &str = "VFs requested; only";

async fn vfs_are_complete(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let all = pf.model().vfs_of_driver;
    // A driver may refuse or delay a reset.
    guest.set(pf.attribute("sriov_drivers_autoprobe"), 0).await?;
    for vfs in [2, all] {
        let from = guest.agent().messages().position();
        let devices = guest.enable_vfs(pf, vfs).await?;
        let verdict = Verdict::first([
            hardware_has(guest, pf, vfs).await?,
            are_complete(guest, &devices).await?,
            are_in_proc(guest, &devices, true).await?,
        ]);
        if verdict != Verdict::Pass {
            return Ok(verdict);
        }
        if let Some(said) = guest.said(from, ONLY).first() {
            let summary = format!("{vfs} VFs were enabled, and all are there, but the kernel said \"{said}\"");
            return Ok(Verdict::fail(FailureKind::WrongState, "sriov_numvfs", summary));
        }
        guest.set(pf.numvfs(), 0).await?;
        let verdict = Verdict::first([hardware_has(guest, pf, 0).await?, are_in_proc(guest, &devices, false).await?]);
        if verdict != Verdict::Pass {
            return Ok(verdict);
        }
    }
    Ok(Verdict::Pass)
}

/// The SR-IOV capability shows this number of VFs.
async fn hardware_has(guest: &Guest, pf: &Pf, vfs: u16) -> Result<Verdict, Error> {
    let at = pf.model().sriov_at;
    let bytes = guest.read_bytes(pf.attribute("config"), at, 0x20).await?;
    let word = |at: u64| bytes.get(at as usize..at as usize + 2).map(|two| u16::from(two[0]) | u16::from(two[1]) << 8);
    let (Some(control), Some(number)) = (word(SRIOV_CONTROL), word(SRIOV_NUM_VFS)) else {
        let summary = format!("the configuration space of {} ends at {:#x}", pf.device.bdf, at + bytes.len() as u64);
        return Ok(Verdict::fail(FailureKind::WrongState, "config", summary));
    };
    let must = if vfs == 0 { 0 } else { ENABLED };
    if control & ENABLED == must && number == vfs {
        return Ok(Verdict::Pass);
    }
    let summary = format!(
        "{vfs} VFs are enabled, but SR-IOV Control is {control:#06x} and NumVFs is {number}; VF Enable and VF MSE must be \
         {}",
        if vfs == 0 { "off" } else { "on" }
    );
    Ok(Verdict::fail(FailureKind::WrongState, "config", summary))
}

async fn are_complete(guest: &Guest, vfs: &[Device]) -> Result<Verdict, Error> {
    for vf in vfs {
        let config = guest.read_bytes(vf.attribute("config"), 0, CONFIG_SIZE).await?;
        let extended = config.get(EXTENDED..EXTENDED + 4).is_some_and(|header| header != [0; 4]);
        if config.len() != CONFIG_SIZE as usize || !extended {
            let has = if extended { "has" } else { "has no" };
            let summary = format!(
                "VF {} shows {} bytes of its configuration space and {has} extended capabilities; it must show {CONFIG_SIZE}",
                vf.bdf,
                config.len()
            );
            return Ok(Verdict::fail(FailureKind::WrongState, "config", summary));
        }
        let names = guest.list(&vf.attribute("")).await?;
        for name in ["reset", "reset_method", "physfn"] {
            if !names.iter().any(|have| have == name) {
                let summary = format!("VF {} has no {name}", vf.bdf);
                return Ok(Verdict::fail(FailureKind::WrongState, name, summary));
            }
        }
        match write(guest, vf.attribute("reset"), "1").await? {
            Ok(answer) if answer == SUCCESS => {}
            Ok(answer) => {
                let summary = format!("a reset of VF {} returned {answer}; it must succeed", vf.bdf);
                return Ok(Verdict::fail(FailureKind::WrongState, "reset", summary));
            }
            Err(stuck) => return Ok(stuck),
        }
    }
    Ok(Verdict::Pass)
}

/// Devices are, or are no longer, in `/proc/bus/pci` (`drivers/pci/proc.c`, `pci_proc_attach_device()`).
async fn are_in_proc(guest: &Guest, devices: &[Device], expected: bool) -> Result<Verdict, Error> {
    for device in devices {
        let name = device.bdf.to_string();
        let (_, within) = name.split_once(':').unwrap_or(("", &name));
        let (bus, function) = within.split_once(':').unwrap_or((within, ""));
        let buses = guest.list("/proc/bus/pci").await?;
        let is_there = buses.iter().any(|one| one == bus)
            && guest.list(&format!("/proc/bus/pci/{bus}")).await?.iter().any(|one| one == function);
        if is_there != expected {
            let (is, must) =
                if expected { ("is not in", "must be") } else { ("is still in", "has gone and must not be") };
            let summary = format!("{name} {is} /proc/bus/pci; it {must} there");
            return Ok(Verdict::fail(FailureKind::WrongState, "/proc/bus/pci", summary));
        }
    }
    Ok(Verdict::Pass)
}

/// Nothing of these devices is left in `/proc/iomem` and `/proc/bus/pci`.
async fn have_gone(guest: &Guest, devices: &[Device]) -> Result<Verdict, Error> {
    let bytes = guest.read_bytes("/proc/iomem".to_owned(), 0, 1 << 20).await?;
    let iomem = String::from_utf8_lossy(&bytes);
    for device in devices {
        let name = device.bdf.to_string();
        if let Some(line) = iomem.lines().find(|line| line.ends_with(&name)) {
            let summary = format!("{name} was removed, and /proc/iomem still has \"{}\"", line.trim());
            return Ok(Verdict::fail(FailureKind::WrongState, "/proc/iomem", summary));
        }
    }
    are_in_proc(guest, devices, false).await
}

async fn rescan_of_empty_bus(guest: &Guest) -> Result<Verdict, Error> {
    let slot = guest.slot("rp0")?;
    let folder = slot.port.attribute("pci_bus");
    let Some(bus) = guest.list(&folder).await?.into_iter().next() else {
        return Err(Error::Unprepared(format!("{folder} is empty")));
    };
    for _ in 0..2 {
        match write(guest, format!("{folder}/{bus}/rescan"), "1").await? {
            Ok(answer) if answer == SUCCESS => {}
            Ok(answer) => {
                let summary = format!("a rescan of the empty bus {bus} returned {answer}; it must succeed");
                return Ok(Verdict::fail(FailureKind::WrongState, "rescan", summary));
            }
            Err(stuck) => return Ok(stuck),
        }
    }
    let card = guest.plug(slot, "pf0").await?;
    let pf = guest.plugged(&card, guest.prompt()).await?;
    let vfs = guest.enable_vfs(&pf, 2).await?;
    are_in_proc(guest, &[vec![pf.device.clone()], vfs].concat(), true).await
}

async fn after_failed_probe(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let from = guest.agent().messages().position();
    guest.write_now(pf.driver_attribute("bind"), pf.device.bdf).await?;
    guest.says(from, "Invalid MAC Address", guest.prompt()).await?;
    if guest.list(&pf.attribute("")).await?.iter().any(|name| name == "driver") {
        let summary = "igb's probe failed, and the PF has a driver link".to_owned();
        return Ok(Verdict::fail(FailureKind::WrongState, "driver", summary));
    }
    let rules = [refuses("sriov_numvfs", "1", "ENOENT"), accepts("reset", "1", None), refuses("enable", "0", "EIO")];
    obey(guest, &pf.device, &rules).await
}

/// The second PF has a reference on the first (`drivers/pci/iov.c`, `sriov_init()`).
async fn functions_go_one_by_one(guest: &Guest) -> Result<Verdict, Error> {
    let (first, second) = (guest.pf_named("pf0")?, guest.pf_named("pf1")?);
    for _ in 0..2 {
        for pf in [second, first] {
            let mut vfs = guest.enable_vfs(pf, 2).await?;
            guest.set(pf.numvfs(), 0).await?;
            vfs.extend(guest.enable_vfs(pf, 3).await?);
            guest.set(pf.attribute("remove"), 1).await?;
            vfs.push(pf.device.clone());
            let verdict = have_gone(guest, &vfs).await?;
            if verdict != Verdict::Pass {
                return Ok(verdict);
            }
        }
        guest.set(first.slot.port.attribute("rescan"), 1).await?;
    }
    for pf in [first, second] {
        guest.enable_vfs(pf, 2).await?;
    }
    guest.agreement().await
}

/// What the kernel says if it cannot give a bus its number, because another one has it (`drivers/pci/probe.c`,
/// `pci_bus_insert_busn_res()`).
const NUMBER_TAKEN: &str = "can not insert";

async fn switch_is_found_again(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf_named("pf1")?;
    let port = guest.slot("rp1")?.port.clone();
    let downstream = pf.slot.port.clone();
    let Some(upstream) = downstream.parent() else {
        return Err(Error::Unprepared("there is no switch".to_owned()));
    };
    let from = guest.agent().messages().position();
    for _ in 0..2 {
        let vfs = guest.enable_vfs(pf, 2).await?;
        guest.set(upstream.attribute("remove"), 1).await?;
        let card = vec![upstream.clone(), downstream.clone(), pf.device.clone()];
        let verdict = have_gone(guest, &[card.clone(), vfs].concat()).await?;
        if verdict != Verdict::Pass {
            return Ok(verdict);
        }
        guest.set(port.attribute("rescan"), 1).await?;
        let verdict = are_in_proc(guest, &card, true).await?;
        if verdict != Verdict::Pass {
            return Ok(verdict);
        }
    }
    if let Some(said) = guest.said(from, NUMBER_TAKEN).first() {
        let summary = format!("a bus that was removed still has its number: \"{said}\"");
        return Ok(Verdict::fail(FailureKind::WrongState, "pci_bus", summary));
    }
    guest.enable_vfs(pf, 1).await?;
    guest.agreement().await
}

/// How often both happen at the same time. Who comes first alternates.
const ATTEMPTS: u32 = 6;

async fn removal_and_rescan_at_once(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let remove = (pf.attribute("remove"), Sched { cpu: Some(0), ..Sched::default() });
    let rescan = (pf.slot.port.attribute("rescan"), Sched { cpu: Some(1), ..Sched::default() });
    for attempt in 0..ATTEMPTS {
        let pair = if attempt % 2 == 0 { [&remove, &rescan] } else { [&rescan, &remove] };
        let [(one, on), (other, beside)] = pair;
        let first = guest.write(one.clone(), 1, *on).await?;
        let second = guest.write(other.clone(), 1, *beside).await?;
        if let Ending::Stuck(stuck) = guest.ending(&[&first, &second]).await? {
            return Ok(guest.deadlock(&stuck, &[]));
        }
        guest.set(rescan.0.clone(), 1).await?;
        guest.enable_vfs(pf, 1).await?;
        match guest.agreement().await? {
            Verdict::Pass => {}
            failed => return Ok(failed),
        }
        guest.set(pf.numvfs(), 0).await?;
    }
    Ok(Verdict::Pass)
}
