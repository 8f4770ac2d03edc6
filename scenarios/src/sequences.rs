//! The uevents of an operation: all of them, each once, in order, and each true when it arrives
//! (`Documentation/ABI/testing/sysfs-uevent`; `drivers/base/core.c`, `drivers/base/dd.c`, `drivers/pci/iov.c`).

use std::collections::BTreeMap;

use guest_protocol::{Message, Progress, Source, Uevent};
use harness::guest::{Device, Error, Guest, Pf};
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use kernels::FailureKind;

use crate::numvfs_rounds::{READER, WRITER};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "sequences::operations",
        about: "VFs are enabled and disabled, and their PF is unbound, bound, removed and found again. Each operation \
                sends the uevents of PF and VFs once and in order, with the variables of a PCI device.",
        also: &["virtio-net"],
        ..Scenario::of(|guest| Box::pin(operations(guest)))
    },
    Scenario {
        name: "sequences::promises",
        about: "A reader woken by the uevents of a VF must find what each announces: the attributes at add, the links \
                between PF and VF at change, the driver at bind.",
        also: &["nvme", "virtio-net"],
        append: &["preempt=full"],
        ..Scenario::of(|guest| Box::pin(promises(guest)))
    },
];

/// What is expected of a device in an operation. A PF may send `change` at any time.
struct Expected<'a> {
    device: &'a Device,
    actions: &'static [&'static str],
    /// It must also send `change`, at least once.
    changes: bool,
}

/// `pci_iov_add_virtfn()` sends `change` when the links are there.
const VF_COMES: &[&str] = &["add", "change", "bind"];
const GOES: &[&str] = &["unbind", "remove"];

async fn operations(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    // Their addresses are known only when they have been there.
    let vfs = guest.enable_vfs(pf, 2).await?;
    guest.set(pf.numvfs(), 0).await?;
    let pf_does = |actions| Expected { device: &pf.device, actions, changes: false };
    let changes = || Expected { changes: true, ..pf_does(&[]) };
    let with_vfs = |own, actions| {
        let each = vfs.iter().map(|device| Expected { device, actions, changes: false });
        each.chain([own]).collect::<Vec<_>>()
    };
    let steps = [
        ("enabling 2 VFs", pf.numvfs(), "2", with_vfs(changes(), VF_COMES)),
        ("disabling the VFs", pf.numvfs(), "0", with_vfs(pf_does(&[]), GOES)),
        ("unbinding the PF", pf.attribute("driver/unbind"), "", with_vfs(pf_does(&["unbind"]), &[])),
        ("binding the PF", pf.driver_attribute("bind"), "", with_vfs(pf_does(&["bind"]), &[])),
        ("enabling 2 VFs again", pf.numvfs(), "2", with_vfs(changes(), VF_COMES)),
        ("removing the PF with its VFs", pf.attribute("remove"), "1", with_vfs(pf_does(GOES), GOES)),
        ("a rescan", pf.slot.port.attribute("rescan"), "1", with_vfs(pf_does(&["add", "bind"]), &[])),
        ("enabling 2 VFs at last", pf.numvfs(), "2", with_vfs(changes(), VF_COMES)),
    ];
    for (what, path, data, expected) in steps {
        let from = guest.agent().messages().position();
        let data = if data.is_empty() { pf.device.bdf.to_string() } else { data.to_owned() };
        guest.set(path, data).await?;
        let events = events(guest, pf, from).await?;
        let verdict = Verdict::first([
            Verdict::first(expected.iter().map(|one| complete(what, one, &events))),
            in_order(what, &events),
            with_variables(what, &events),
        ]);
        if verdict != Verdict::Pass {
            return Ok(verdict);
        }
    }
    Ok(Verdict::Pass)
}

/// The uevents since a position. The kernel sends uevents in order, so one of the port, which is asked for, comes after
/// all of them.
async fn events(guest: &Guest, pf: &Pf, from: usize) -> Result<Vec<Uevent>, Error> {
    let port = &pf.slot.port;
    let asked = guest.agent().messages().position();
    guest.set(port.attribute("uevent"), "change").await?;
    let is_last = |uevent: &Uevent| uevent.devpath == port.devpath && uevent.action == "change";
    let last = |message: &Message| matches!(message, Message::Uevent { uevent, .. } if is_last(uevent)).then_some(());
    guest.agent().messages().wait(asked, guest.prompt(), "the change uevent of the port", last).await?;
    guest.heard_all("uevent", from)?;
    let all = guest.agent().messages().collect(from, |message| match message {
        Message::Uevent { uevent, .. } => Some(uevent.clone()),
        _ => None,
    });
    Ok(all.into_iter().filter(|uevent| !is_last(uevent)).collect())
}

fn complete(what: &str, expected: &Expected<'_>, events: &[Uevent]) -> Verdict {
    let Expected { device, actions, changes } = expected;
    let own = events.iter().filter(|uevent| uevent.devpath == device.devpath);
    let all: Vec<&str> = own.map(|uevent| uevent.action.as_str()).collect();
    let may_change = !actions.contains(&"change");
    let came: Vec<&str> = all.iter().copied().filter(|action| !may_change || *action != "change").collect();
    let lacks_change = *changes && !all.contains(&"change");
    if came == *actions && !lacks_change {
        return Verdict::Pass;
    }
    let in_words = |list: &[&str]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let must = if *changes { "change at least once".to_owned() } else { in_words(actions) };
    let summary = format!("{what} sent these uevents of {}: {}; it must send {must}", device.bdf, in_words(&all));
    let kind =
        if came.len() < actions.len() || lacks_change { FailureKind::LostEvent } else { FailureKind::WrongState };
    Verdict::fail(kind, "kobject_uevent", summary)
}

/// A device comes after its parent and goes before it, and sends nothing else before it comes or after it has gone.
fn in_order(what: &str, events: &[Uevent]) -> Verdict {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    let mut sequence = 0;
    for uevent in events {
        let (path, action) = (uevent.devpath.as_str(), uevent.action.as_str());
        let above = last.iter().find(|(other, action)| {
            **action == "remove" && path.strip_prefix(**other).is_some_and(|rest| rest.starts_with('/'))
        });
        let wrong = match (last.get(path).copied(), action, above) {
            (_, _, Some((parent, _))) => Some(format!("after {parent} was removed")),
            (Some("remove"), "add", _) => None,
            (Some("remove"), ..) => Some("after it was removed".to_owned()),
            (Some(_), "add", _) => Some("although it was there".to_owned()),
            _ if uevent.seqnum <= sequence => Some(format!("with number {} after {sequence}", uevent.seqnum)),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let summary = format!("{what} sent {action} of {path} {wrong}");
            return Verdict::fail(FailureKind::WrongState, "kobject_uevent", summary);
        }
        sequence = uevent.seqnum;
        last.insert(path, action);
    }
    Verdict::Pass
}

const VARIABLES: &[&str] = &["PCI_ID", "PCI_CLASS", "MODALIAS"];

/// Each uevent of a PCI device has its address, and that of a bind the driver (`drivers/pci/pci-driver.c`,
/// `pci_uevent()`; `drivers/base/core.c`, `dev_uevent()`).
fn with_variables(what: &str, events: &[Uevent]) -> Verdict {
    for uevent in events.iter().filter(|uevent| uevent.env.get("SUBSYSTEM").is_some_and(|name| name == "pci")) {
        let name = uevent.devpath.rsplit('/').next().unwrap_or_default();
        let slot = uevent.env.get("PCI_SLOT_NAME").map(String::as_str);
        // The kernel leaves MODALIAS out of unbind (`lib/kobject_uevent.c`, `zap_modalias_env()`).
        let variables = if uevent.action == "unbind" { &VARIABLES[..2] } else { VARIABLES };
        let lacks = variables.iter().copied().find(|variable| !uevent.env.contains_key(*variable));
        let lacks = lacks.or((slot != Some(name)).then_some("PCI_SLOT_NAME"));
        let lacks = lacks.or((uevent.action == "bind" && !uevent.env.contains_key("DRIVER")).then_some("DRIVER"));
        if let Some(variable) = lacks {
            let summary = format!("{what} sent {} of {name} without the right {variable}", uevent.action);
            return Verdict::fail(FailureKind::WrongState, "kobject_uevent", summary);
        }
    }
    Verdict::Pass
}

/// A folder that a link leads to exists, but cannot be read as a file.
const IS_FOLDER: &str = "EISDIR";

async fn promises(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let vf = &guest.enable_vfs(pf, 1).await?[0];
    guest.set(pf.numvfs(), 0).await?;
    for (action, paths) in [
        ("add", vec![vf.attribute("vendor"), vf.attribute("resource"), vf.attribute("modalias")]),
        ("change", vec![vf.attribute("physfn"), pf.attribute("virtfn0")]),
        ("bind", vec![vf.attribute("driver")]),
    ] {
        let verdict = promise(guest, pf, vf, action, paths).await?;
        if verdict != Verdict::Pass {
            return Ok(verdict);
        }
    }
    Ok(Verdict::Pass)
}

/// The reader preempts the writer at the event, and so reads before the writer's next statement.
async fn promise(guest: &Guest, pf: &Pf, vf: &Device, action: &str, paths: Vec<String>) -> Result<Verdict, Error> {
    let source = Source::Uevent { action: Some(action.to_owned()), devpath: Some(vf.devpath.clone()) };
    let reader = guest.watch(source, paths, READER).await?;
    guest.granted(&guest.write(pf.numvfs(), 1, WRITER).await?).await?;
    guest.stop(&reader).await?;
    guest.set(pf.numvfs(), 0).await?;
    let reads = reader.steps(|_, progress| match progress {
        Progress::Saw { reads, .. } => Some(reads.clone()),
        _ => None,
    });
    let Some(reads) = reads.first() else {
        let summary = format!("VF {} was enabled and sent no {action} uevent", vf.bdf);
        return Ok(Verdict::fail(FailureKind::LostEvent, "kobject_uevent", summary));
    };
    for read in reads {
        let missing = read.value.as_ref().err().filter(|errno| errno.name != IS_FOLDER);
        if let Some(errno) = missing {
            let name = read.path.rsplit('/').next().unwrap_or(&read.path);
            let summary = format!(
                "a reader woken by the {action} uevent of VF {} read {}: {}; it must be there when the event comes",
                vf.bdf, read.path, errno.name
            );
            return Ok(Verdict::fail(FailureKind::WrongState, name, summary));
        }
    }
    Ok(Verdict::Pass)
}
