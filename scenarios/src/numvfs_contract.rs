//! The contract of writes to `sriov_numvfs` (`Documentation/PCI/pci-iov-howto.rst`; `drivers/pci/iov.c`,
//! `sriov_numvfs_store()`).

use harness::guest::{ENABLES_VFS, Error, Guest, Pf};
use harness::notes::Note;
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use harness::vm::model::Row;
use kernels::FailureKind;

use crate::numvfs_rounds::{READER, WRITER};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "numvfs_contract::counts",
        about: "VFs can be enabled in any number that the driver allows, and disabled. A write is refused and changes \
                nothing if VFs are enabled in another number, if the number is too large, or if it is not a number.",
        also: &["nvme", "virtio-net"],
        ..Scenario::of(|guest| Box::pin(counts(guest)))
    },
    Scenario {
        name: "numvfs_contract::without_driver",
        about: "A PF without a driver refuses to enable VFs; its limit is then the TotalVFs of the hardware. With a \
                driver it enables VFs again.",
        also: &["nvme", "virtio-net"],
        ..Scenario::of(|guest| Box::pin(without_driver(guest)))
    },
    Scenario {
        name: "numvfs_contract::refused_by_driver",
        about: "igb without MSI-X refuses to enable VFs, repeatedly and without side effects. vfio-pci then enables \
                them.",
        append: &["pci=nomsi"],
        ..Scenario::of(|guest| Box::pin(refused_by_driver(guest)))
    },
    Scenario {
        name: "numvfs_contract::failed_probe",
        about: "igb limits the number of VFs, and then its probe fails. The limit must be reset, so that the next \
                driver can enable all VFs of the hardware.",
        detects: &["totalvfs-of-failed-probe"],
        topology: "igb-multicast",
        ..Scenario::of(|guest| Box::pin(failed_probe(guest)))
    },
    Scenario {
        name: "numvfs_contract::vfs_do_not_answer",
        about: "The enabled VFs do not answer when the kernel looks for them. The write must fail, sriov_numvfs must \
                read as 0, igb's interface must come up and go down, and the next write must succeed.",
        detects: &["numvfs-early-not-undone", "vf-setup-fail-null-deref"],
        also: &["nvme", "virtio-net"],
        append: &["preempt=full"],
        ..Scenario::of(|guest| Box::pin(vfs_do_not_answer(guest)))
    },
];

/// A write, the answer that it must get, and the value that must be there afterwards.
struct Rule {
    data: String,
    /// The allowed errors; empty if the write must succeed.
    answer: &'static [&'static str],
    leaves: u16,
}

fn accepts(vfs: u16) -> Rule {
    Rule { data: vfs.to_string(), answer: &[], leaves: vfs }
}

fn refuses(data: impl ToString, with: &'static [&'static str], leaves: u16) -> Rule {
    Rule { data: data.to_string(), answer: with, leaves }
}

const BUSY: &[&str] = &["EBUSY"];
const INVALID: &[&str] = &["EINVAL"];
const NO_DRIVER: &[&str] = &["ENOENT"];
const NOT_ALLOWED: &[&str] = &["EPERM"];
const OUT_OF_RANGE: &[&str] = &["ERANGE"];
/// More than 16 bits: 5.10 returns the error of `kstrtou16()`, later kernels return EINVAL.
const TOO_LONG: &[&str] = &["EINVAL", "ERANGE"];

async fn counts(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let all = pf.model().vfs_of_driver;
    let rules = [
        refuses(all + 1, OUT_OF_RANGE, 0),
        refuses(u16::MAX, OUT_OF_RANGE, 0),
        refuses(u32::from(u16::MAX) + 1, TOO_LONG, 0),
        refuses(-1, INVALID, 0),
        refuses("two", INVALID, 0),
        accepts(0),
        accepts(2),
        accepts(2),
        refuses(3, BUSY, 2),
        refuses(1, BUSY, 2),
        refuses(all + 1, OUT_OF_RANGE, 2),
        refuses("2 VFs", INVALID, 2),
        accepts(0),
        accepts(all),
        accepts(0),
    ];
    obey(guest, pf, &rules).await
}

async fn without_driver(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.set(pf.attribute("driver/unbind"), pf.device.bdf).await?;
    let Row { vfs, vfs_of_driver, driver, .. } = pf.model();
    let rules = [refuses(1, NO_DRIVER, 0), refuses(vfs + 1, OUT_OF_RANGE, 0), refuses(vfs, NO_DRIVER, 0), accepts(0)];
    let verdict = obey(guest, pf, &rules).await?;
    if verdict != Verdict::Pass {
        return Ok(verdict);
    }
    guest.bind(pf, driver.name).await?;
    obey(guest, pf, &[refuses(vfs_of_driver + 1, OUT_OF_RANGE, 0), accepts(1)]).await
}

async fn refused_by_driver(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let verdict = obey(guest, pf, &[refuses(2, NOT_ALLOWED, 0), refuses(3, NOT_ALLOWED, 0), accepts(0)]).await?;
    if verdict != Verdict::Pass {
        return Ok(verdict);
    }
    guest.bind(pf, "vfio-pci").await?;
    obey(guest, pf, &[accepts(2), refuses(3, BUSY, 2), accepts(0)]).await
}

async fn failed_probe(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let from = guest.agent().messages().position();
    let hardware = pf.model().vfs;
    let bound = guest.write_now(pf.driver_attribute("bind"), pf.device.bdf).await?;
    guest.note(Note::Bind(bound.shown().to_owned()));
    guest.says(from, "Invalid MAC Address", guest.prompt()).await?;
    let total = guest.read_now(pf.attribute("sriov_totalvfs")).await?;
    if total.value.as_deref() != Ok(hardware.to_string().as_str()) {
        let summary = format!(
            "sriov_totalvfs reads as {} after a failed probe, but the hardware has {hardware} VFs",
            total.shown()
        );
        return Ok(Verdict::fail(FailureKind::WrongState, "sriov_totalvfs", summary));
    }
    guest.bind(pf, "vfio-pci").await?;
    obey(guest, pf, &[accepts(hardware), accepts(0)]).await
}

/// How many times to try to hit the window. On a busy host every third attempt is too late.
const ATTEMPTS: u32 = 12;

/// SR-IOV Control in the SR-IOV capability (PCI Express 5.0, section 9.3.3.3).
const SRIOV_CONTROL: u64 = 8;

/// VF Enable and VF MSE clear: the hardware has no VFs.
const NO_VFS: &str = "\0\0";

/// The kernel logs this for a VF that does not answer: its config space reads as all ones (`drivers/pci/probe.c`,
/// `pci_setup_device()`).
const NO_VF: &str = "unknown header type 7f";

/// The driver whose interface is used after VFs could not be enabled.
const IGB: &str = "igb";

/// The kernel waits 100 ms before it looks for the VFs, and blocks config accesses for that time (`drivers/pci/iov.c`,
/// `sriov_enable()`). Here a real-time task on the writer's CPU waits with a config write. It runs as soon as config
/// accesses are unblocked, so the VFs are gone before the kernel looks for the first one.
async fn vfs_do_not_answer(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    for attempt in 1..=ATTEMPTS {
        guest.note(Note::Attempts(attempt));
        let from = guest.agent().messages().position();
        let store = guest.write(pf.numvfs(), 2, WRITER).await?;
        guest.waits_in(&store, ENABLES_VFS, guest.prompt()).await?;
        let config = guest.write_config(pf, pf.model().sriov_at + SRIOV_CONTROL, NO_VFS, READER).await?;
        let written = store.accessed(guest.prompt()).await?;
        config.accessed(guest.prompt()).await?;
        guest.note(Note::Written(written.shown().to_owned()));
        if guest.said(from, NO_VF).is_empty() {
            guest.set(pf.numvfs(), 0).await?;
            continue;
        }
        if written.value.is_ok() {
            let summary = "the write succeeded, although the VFs do not answer".to_owned();
            return Ok(Verdict::fail(FailureKind::WrongState, "sriov_numvfs", summary));
        }
        let left = guest.read_now(pf.numvfs()).await?;
        if left.value.as_deref() != Ok("0") {
            let summary = format!("sriov_numvfs reads as {} after no VF could be enabled", left.shown());
            return Ok(Verdict::fail(FailureKind::WrongState, "sriov_numvfs", summary));
        }
        if pf.model().driver.name == IGB {
            // Both use what the driver knows of its VFs (`igb_down()`, `igb_reset()`).
            let ifname = guest.interface(pf).await?;
            guest.set_link(&ifname, true).await?;
            guest.set_link(&ifname, false).await?;
        }
        return obey(guest, pf, &[accepts(0), accepts(2), accepts(0)]).await;
    }
    Err(Error::Unprepared(format!("in {ATTEMPTS} attempts the VFs were never gone before the kernel looked for them")))
}

/// Makes the writes. After each, reads the value and checks that the whole guest agrees on the number of VFs.
async fn obey(guest: &Guest, pf: &Pf, rules: &[Rule]) -> Result<Verdict, Error> {
    for rule in rules {
        let written = guest.write_now(pf.numvfs(), &rule.data).await?;
        let refused = written.value.as_ref().err().map(|errno| errno.name.as_str());
        let is_right = refused.map_or(rule.answer.is_empty(), |errno| rule.answer.contains(&errno));
        let left = guest.read_now(pf.numvfs()).await?;
        if !is_right || left.value.as_deref() != Ok(rule.leaves.to_string().as_str()) {
            let must = if rule.answer.is_empty() { "success".to_owned() } else { rule.answer.join(" or ") };
            let summary = format!(
                "a write of {:?} returned {} and left {}; it must return {} and leave {}",
                rule.data,
                refused.unwrap_or("success"),
                left.shown(),
                must,
                rule.leaves
            );
            return Ok(Verdict::fail(FailureKind::WrongState, "sriov_numvfs", summary));
        }
        match guest.agreement().await? {
            Verdict::Pass => {}
            failed => return Ok(failed),
        }
    }
    Ok(Verdict::Pass)
}
