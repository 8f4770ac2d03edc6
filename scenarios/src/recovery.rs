//! Recovery from errors of ports and cards, and what is left of them (`Documentation/PCI/pcieaer-howto.rst`,
//! `Documentation/PCI/pci-error-recovery.rst`; `drivers/pci/pcie/aer.c`, `err.c`).

use guest_protocol::{Message, Policy, Progress, Sched, Sighting, Source, Step};
use harness::guest::{AerError, Error, Guest, Halt, Pf, judged};
use harness::scenario::Scenario;

use crate::aer_state::{CANNOT, End, GIVES_UP, GOES_ON, Hierarchy};
use crate::check::{accepts, lost, passed, reads, wrong};
use crate::slot_files::{EMPTY, filled, shows};
use crate::slot_state::idle;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "recovery::errors_of_port",
        about: "The port of a PF reports errors of each severity, each of them twice. The kernel must count and clear \
                them and recover, and the PF and its slot must work afterwards.",
        detects: &["aer-no-event-before-reset", "igb-resumes-what-runs"],
        ..Scenario::of(|guest| Box::pin(judged(errors_of_port(guest))))
    },
    Scenario {
        name: "recovery::port_of_owned_card",
        about: "The port of a PF that a process owns through vfio reports errors, each of them twice. The kernel must recover, and igb \
                must be able to use the PF afterwards.",
        ..Scenario::of(|guest| Box::pin(judged(port_of_owned_card(guest))))
    },
    Scenario {
        name: "recovery::without_driver",
        about: "The port of a PF without a driver reports errors. Recovery must fail, twice. With its driver, the PF \
                must recover.",
        detects: &["aer-no-event-before-reset"],
        ..Scenario::of(|guest| Box::pin(judged(without_driver(guest))))
    },
    Scenario {
        name: "recovery::one_without_driver",
        about: "A card has two functions, one of them without a driver. After an error of its port recovery must fail \
                for both. With both drivers it must succeed.",
        detects: &["aer-no-event-before-reset"],
        topology: "two-functions",
        ..Scenario::of(|guest| Box::pin(judged(one_without_driver(guest))))
    },
    Scenario {
        name: "recovery::fails_after_reset",
        about: "A card has two functions, one of them without a driver. After a fatal error of its port recovery must \
                fail for both, although igb asks for a reset. When both were removed and found again, it must succeed.",
        detects: &["igb-disabled-twice-after-failed-recovery"],
        topology: "two-functions",
        ..Scenario::of(|guest| Box::pin(judged(fails_after_reset(guest))))
    },
    Scenario {
        name: "recovery::one_with_vfio_pci",
        about: "A card has two functions, one with igb and one with vfio-pci, which cannot be told of a reset. After \
                errors both must recover.",
        detects: &["aer-no-event-before-reset"],
        topology: "two-functions",
        ..Scenario::of(|guest| Box::pin(judged(one_with_vfio_pci(guest))))
    },
    Scenario {
        name: "recovery::port_above_switch",
        about: "The port of a switch reports errors. All devices behind the switch must recover, and the card in its \
                hotplug slot must stay.",
        detects: &["aer-upstream-port-no-bus-master", "aer-no-event-before-reset"],
        topology: "switch",
        ..Scenario::of(|guest| Box::pin(judged(port_above_switch(guest))))
    },
    Scenario {
        name: "recovery::driver_has_resumed",
        about: "A reader woken by the event of a successful recovery reads the interface of the PF. Its driver must \
                have resumed.",
        detects: &["aer-no-event-before-reset"],
        ..Scenario::of(|guest| Box::pin(judged(driver_has_resumed(guest))))
    },
];

const UNCORRECTABLE: [(AerError, &str); 2] =
    [(AerError::CompletionTimeout, "nonfatal"), (AerError::DataLinkProtocol, "fatal")];

/// How often each error is reported.
const TIMES: usize = 2;

async fn errors_of_port(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let interface = guest.interface(pf).await?;
    guest.set_link(&interface, true).await?;
    let hierarchy = Hierarchy { guest, slot: &pf.slot, functions: vec![&pf.device] };
    for time in 1..=TIMES {
        hierarchy.corrected(&format!("after correctable error {time} of the port")).await?;
    }
    for (error, severity) in UNCORRECTABLE {
        for time in 1..=TIMES {
            let when = format!("after {severity} error {time} of the port");
            hierarchy.recovers(error, End::Successful, &[(&pf.device, GOES_ON)], &when).await?;
        }
    }
    hierarchy.corrected("after a correctable error that follows recoveries").await?;
    works(guest, pf, &interface).await
}

/// Uses a PF, its VFs, the bus and the slot after recovery.
async fn works(guest: &Guest, pf: &Pf, interface: &str) -> Result<(), Halt> {
    let when = "after recovery";
    for up in [false, true] {
        guest.set_link(interface, up).await?;
    }
    for vfs in [2, 0] {
        accepts(guest, &pf.numvfs(), vfs, when).await?;
    }
    accepts(guest, &pf.slot.port.attribute("rescan"), 1, when).await?;
    accepts(guest, &pf.slot.attribute("power"), 0, when).await?;
    shows(guest, &pf.slot, EMPTY, "after 0 was written to power").await?;
    filled(guest, &pf.slot, "pf2", "after a card was plugged in").await
}

async fn port_of_owned_card(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    guest.bind(pf, "vfio-pci").await?;
    let owner = guest.open(&[&pf.device], vec![Step::Hold, Step::Release]).await?;
    owner.holding(guest.prompt()).await?;
    let hierarchy = Hierarchy { guest, slot: &pf.slot, functions: vec![&pf.device] };
    for (error, severity) in UNCORRECTABLE {
        for time in 1..=TIMES {
            let when = format!("after {severity} error {time} of the port of a PF that is owned");
            hierarchy.recovers(error, End::Successful, &[(&pf.device, GOES_ON)], &when).await?;
        }
    }
    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    guest.bind(pf, pf.model().driver.name).await?;
    works(guest, pf, &guest.interface(pf).await?).await
}

async fn without_driver(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    accepts(guest, &pf.driver_attribute("unbind"), pf.device.bdf, "while the PF is bound").await?;
    let hierarchy = Hierarchy { guest, slot: &pf.slot, functions: vec![&pf.device] };
    for time in 1..=TIMES {
        let when = format!("after nonfatal error {time} of the port of a PF without a driver");
        hierarchy.recovers(AerError::CompletionTimeout, End::Failed, &[(&pf.device, CANNOT)], &when).await?;
    }
    guest.bind(pf, pf.model().driver.name).await?;
    for (error, severity) in UNCORRECTABLE {
        let when = format!("after a {severity} error of the port, when its PF has its driver again");
        hierarchy.recovers(error, End::Successful, &[(&pf.device, GOES_ON)], &when).await?;
    }
    works(guest, pf, &guest.interface(pf).await?).await
}

/// Two functions of one card.
fn functions(guest: &Guest) -> Result<(&Pf, &Pf), Halt> {
    Ok((guest.pf_named("pf0")?, guest.pf_named("pf1")?))
}

async fn one_without_driver(guest: &Guest) -> Result<(), Halt> {
    let (first, second) = functions(guest)?;
    // The driver that is asked first must not decide alone.
    accepts(guest, &second.driver_attribute("unbind"), second.device.bdf, "while the function is bound").await?;
    let hierarchy = Hierarchy { guest, slot: &first.slot, functions: vec![&first.device, &second.device] };
    let events = [(&first.device, GIVES_UP), (&second.device, CANNOT)];
    let when = "after a nonfatal error of the port of a card of which one function has no driver";
    hierarchy.recovers(AerError::CompletionTimeout, End::Failed, &events, when).await?;
    guest.bind(second, second.model().driver.name).await?;
    let events = [(&first.device, GOES_ON), (&second.device, GOES_ON)];
    for (error, severity) in UNCORRECTABLE {
        let when = format!("after a {severity} error of the port, when both functions have a driver again");
        hierarchy.recovers(error, End::Successful, &events, &when).await?;
    }
    Ok(())
}

async fn fails_after_reset(guest: &Guest) -> Result<(), Halt> {
    let (first, second) = functions(guest)?;
    accepts(guest, &second.driver_attribute("unbind"), second.device.bdf, "while the function is bound").await?;
    let hierarchy = Hierarchy { guest, slot: &first.slot, functions: vec![&first.device, &second.device] };
    let events = [(&first.device, GIVES_UP), (&second.device, CANNOT)];
    let when = "after a fatal error of the port of a card of which one function has no driver";
    hierarchy.recovers(AerError::DataLinkProtocol, End::Failed, &events, when).await?;
    // Neither function was restored after its reset, so igb needs both to be found again.
    for pf in [second, first] {
        accepts(guest, &pf.attribute("remove"), 1, "after recovery has failed").await?;
    }
    accepts(guest, &first.slot.port.attribute("rescan"), 1, "after both functions were removed").await?;
    passed(guest.agreement().await?)?;
    let events = [(&first.device, GOES_ON), (&second.device, GOES_ON)];
    let when = "after a fatal error of the port, when both functions were found again";
    hierarchy.recovers(AerError::DataLinkProtocol, End::Successful, &events, when).await
}

async fn one_with_vfio_pci(guest: &Guest) -> Result<(), Halt> {
    let (first, second) = functions(guest)?;
    guest.bind(second, "vfio-pci").await?;
    let hierarchy = Hierarchy { guest, slot: &first.slot, functions: vec![&first.device, &second.device] };
    let events = [(&first.device, GOES_ON), (&second.device, GOES_ON)];
    for (error, severity) in UNCORRECTABLE {
        for time in 1..=TIMES {
            let when = format!("after {severity} error {time} of the port of a card with igb and vfio-pci");
            hierarchy.recovers(error, End::Successful, &events, &when).await?;
        }
    }
    passed(guest.agreement().await?)?;
    // A function of vfio-pci that nobody has open loses its BARs in the reset. igb needs it to be found again.
    accepts(guest, &second.attribute("remove"), 1, "after recovery").await?;
    let found = guest.rescan(second).await?;
    guest.plugged(&found, guest.prompt()).await?;
    passed(guest.agreement().await?)
}

async fn port_above_switch(guest: &Guest) -> Result<(), Halt> {
    let (pf, slot) = (guest.pf_named("pf1")?, guest.slot("rp1")?);
    let interface = guest.interface(pf).await?;
    let upstream = pf.slot.port.parent().ok_or_else(|| Error::Unprepared("the topology has no switch".to_owned()))?;
    let hierarchy = Hierarchy { guest, slot, functions: vec![&pf.device] };
    let events = [(&upstream, GOES_ON), (&pf.slot.port, GOES_ON), (&pf.device, GOES_ON)];
    for (error, severity) in UNCORRECTABLE {
        let when = format!("after a {severity} error of the port above a switch");
        let from = guest.agent().messages().position();
        hierarchy.recovers(error, End::Successful, &events, &when).await?;
        idle(guest).await?;
        let removed = |message: &Message| match message {
            Message::Uevent { uevent, .. } => {
                (uevent.action == "remove" && uevent.devpath == pf.devpath()).then_some(())
            }
            _ => None,
        };
        if !guest.agent().messages().collect(from, removed).is_empty() {
            return Err(wrong("devices", format!("{when}, {} was removed, although it recovered", pf.device.bdf)));
        }
    }
    for up in [true, false] {
        guest.set_link(&interface, up).await?;
    }
    passed(guest.agreement().await?)
}

/// Readers that run as soon as an event comes, also if the thread of a port, which has priority 50, sends it on their CPU.
fn reader(cpu: u32) -> Sched {
    Sched { cpu: Some(cpu), policy: Policy::Fifo(60) }
}

/// igb detaches its interface when an error is reported, and attaches it when it resumes. Of a detached interface the
/// speed cannot be read (`net/core/net-sysfs.c`, `speed_show()`).
async fn driver_has_resumed(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let interface = guest.interface(pf).await?;
    guest.set_link(&interface, true).await?;
    let speed = pf.attribute(&format!("net/{interface}/speed"));
    let change = Source::Uevent { action: Some("change".to_owned()), devpath: Some(pf.devpath().to_owned()) };
    let mut readers = Vec::new();
    for cpu in [0, 1] {
        readers.push(guest.watch(change.clone(), vec![speed.clone()], reader(cpu)).await?);
    }
    let hierarchy = Hierarchy { guest, slot: &pf.slot, functions: vec![&pf.device] };
    let when = "after a fatal error";
    hierarchy.recovers(AerError::DataLinkProtocol, End::Successful, &[(&pf.device, GOES_ON)], when).await?;
    for reader in &readers {
        guest.stop(reader).await?;
        let seen = reader.steps(|at, progress| match progress {
            Progress::Saw { event: Sighting::Uevent(uevent), reads, .. }
                if uevent.env.get("ERROR_EVENT").is_some_and(|event| event == "SUCCESSFUL_RECOVERY") =>
            {
                reads.first().map(|read| (at, read.clone()))
            }
            _ => None,
        });
        let Some((_, read)) = seen.first() else {
            return Err(lost("pci_uevent_ers", format!("{when}, a reader saw no SUCCESSFUL_RECOVERY")));
        };
        if let Err(errno) = &read.value {
            let summary = format!("on SUCCESSFUL_RECOVERY, {speed} returns {}: igb has not resumed", errno.name);
            return Err(wrong("speed", summary));
        }
    }
    reads(guest, &pf.attribute("enable"), "1", when).await
}
