//! What `sriov_numvfs` promises to whoever writes it (`Documentation/PCI/pci-iov-howto.rst`; `drivers/pci/iov.c`,
//! `sriov_numvfs_store()`).

use harness::error::Error;
use harness::guest::{Guest, Pf};
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use kernels::FailureKind;

/// What every scenario of this family has in common.
const BASE: Scenario = Scenario {
    name: "",
    about: "",
    detects: &[],
    topology: "igb",
    also: &[],
    triggers: &[],
    append: &[],
    run: |guest| Box::pin(counts(guest)),
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "numvfs_contract::counts",
        about: "VFs come and go in any number; another number than the present one, one that is too large, or none at all \
                is refused and changes nothing.",
        run: |guest| Box::pin(counts(guest)),
        ..BASE
    },
    Scenario {
        name: "numvfs_contract::without_driver",
        about: "A PF without a driver refuses VFs, allows all that its hardware has, and gives VFs again once it has a \
                driver.",
        run: |guest| Box::pin(without_driver(guest)),
        ..BASE
    },
    Scenario {
        name: "numvfs_contract::refused_by_driver",
        about: "igb without MSI-X refuses VFs, more than once and without traces; vfio-pci then makes them.",
        append: &["pci=nomsi"],
        run: |guest| Box::pin(refused_by_driver(guest)),
        ..BASE
    },
];

/// A write, and what it must answer and leave behind.
struct Rule {
    data: &'static str,
    answer: Result<(), &'static str>,
    leaves: &'static str,
}

const fn accepts(data: &'static str) -> Rule {
    Rule { data, answer: Ok(()), leaves: data }
}

const fn refuses(data: &'static str, with: &'static str, leaves: &'static str) -> Rule {
    Rule { data, answer: Err(with), leaves }
}

/// igb allows 7 VFs (`drivers/net/ethernet/intel/igb/igb.h`, `IGB_MAX_VF_FUNCTIONS`).
const COUNTS: &[Rule] = &[
    refuses("8", "ERANGE", "0"),
    refuses("65535", "ERANGE", "0"),
    refuses("65536", "EINVAL", "0"),
    refuses("-1", "EINVAL", "0"),
    refuses("two", "EINVAL", "0"),
    accepts("0"),
    accepts("2"),
    accepts("2"),
    refuses("3", "EBUSY", "2"),
    refuses("1", "EBUSY", "2"),
    refuses("8", "ERANGE", "2"),
    refuses("2 VFs", "EINVAL", "2"),
    accepts("0"),
    accepts("7"),
    accepts("0"),
];

async fn counts(guest: &Guest) -> Result<Verdict, Error> {
    obey(guest, guest.pf()?, COUNTS).await
}

async fn without_driver(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    guest.set(pf.attribute("driver/unbind"), pf.device.bdf).await?;
    let rules = [refuses("1", "ENOENT", "0"), refuses("9", "ERANGE", "0"), refuses("8", "ENOENT", "0"), accepts("0")];
    let verdict = obey(guest, pf, &rules).await?;
    if verdict != Verdict::Pass {
        return Ok(verdict);
    }
    guest.bind(pf, "igb").await?;
    obey(guest, pf, &[refuses("8", "ERANGE", "0"), accepts("1")]).await
}

async fn refused_by_driver(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let verdict = obey(guest, pf, &[refuses("2", "EPERM", "0"), refuses("3", "EPERM", "0"), accepts("0")]).await?;
    if verdict != Verdict::Pass {
        return Ok(verdict);
    }
    guest.bind(pf, "vfio-pci").await?;
    obey(guest, pf, &[accepts("2"), refuses("3", "EBUSY", "2"), accepts("0")]).await
}

/// Writes and reads, and after each write looks whether the whole machine is in agreement.
async fn obey(guest: &Guest, pf: &Pf, rules: &[Rule]) -> Result<Verdict, Error> {
    for rule in rules {
        let written = guest.write_now(pf.numvfs(), rule.data).await?;
        let answer = written.value.as_ref().map(|_| ()).map_err(|errno| errno.name.as_str());
        let left = guest.read_now(pf.numvfs()).await?;
        if answer != rule.answer || left.value.as_deref() != Ok(rule.leaves) {
            let shown = |answer: Result<(), &str>| answer.err().unwrap_or("yes").to_owned();
            let summary = format!(
                "{:?} was answered with {} and left {}; it must be {} and {}",
                rule.data,
                shown(answer),
                left.shown(),
                shown(rule.answer),
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
