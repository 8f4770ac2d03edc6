//! Reading `sriov_numvfs` at the moment of an event that announces its change.
//!
//! The reader runs under a real-time policy on the writer's CPU, with `preempt=full`: the broadcast of the event wakes
//! it, it preempts the writer at once, and it reads before the writer's next statement. So a kernel that sends the
//! event before it sets the value shows the old value every time, unless it makes the reader wait.
//!
//! A scenario judges either enabling (0 to N) or disabling (N to 0), not both.

use std::time::Duration;

use guest_protocol::{Message, Sighting, Source};
use harness::guest::{Device, Error, Guest};
use harness::notes::{EventOfPf, Note};
use harness::scenario::Scenario;
use harness::text::duration;
use harness::verdict::Verdict;
use kernels::FailureKind;

use crate::numvfs_rounds::Rounds;

/// The metadata that all scenarios of this family share.
const BASE: Scenario = Scenario { append: &["preempt=full"], ..Scenario::of(|guest| Box::pin(pf_uevent(guest))) };

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "numvfs_events::pf_uevent",
        about: "A reader woken by the PF's change uevent must read the new sriov_numvfs.",
        detects: &["numvfs-stale-pf-uevent"],
        also: &["nvme", "virtio-net"],
        run: |guest| Box::pin(pf_uevent(guest)),
        ..BASE
    },
    Scenario {
        name: "numvfs_events::vf_netlink",
        about: "A reader woken by the RTM_NEWLINK of each new VF must read the new sriov_numvfs.",
        detects: &["numvfs-stale-vf-netlink"],
        also: &["virtio-net"],
        run: |guest| Box::pin(vf_netlink(guest)),
        ..BASE
    },
    Scenario {
        name: "numvfs_events::pf_netlink",
        about: "A reader woken by the PF's own RTM_NEWLINK while VFs are enabled must read the new sriov_numvfs.",
        detects: &["numvfs-stale-pf-netlink"],
        run: |guest| Box::pin(pf_netlink(guest)),
        ..BASE
    },
    Scenario {
        name: "numvfs_events::pf_uevent_on_disable",
        about: "The PF must send a change uevent when VFs are disabled, and a reader woken by it must read 0.",
        detects: &["numvfs-no-uevent-on-disable"],
        also: &["nvme", "virtio-net"],
        run: |guest| Box::pin(pf_uevent_on_disable(guest)),
        ..BASE
    },
    Scenario {
        name: "numvfs_events::vf_uevent_on_disable",
        about: "A reader woken by the remove uevent of a VF that is being disabled must read 0.",
        detects: &["numvfs-stale-on-disable"],
        also: &["nvme", "virtio-net"],
        run: |guest| Box::pin(vf_uevent_on_disable(guest)),
        ..BASE
    },
];

/// The number of VFs to enable in each round. igb has at most seven, the other devices four.
const ROUNDS: [usize; 3] = [2, 4, 3];

/// `IF_OPER_UP` (RFC 2863, `include/uapi/linux/if.h`).
const OPER_UP: u8 = 6;

/// The kernel delays link events for up to one second; this is a bit longer.
const HELD_BACK: Duration = Duration::from_millis(1300);

async fn pf_uevent(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let mut rounds = Rounds::new(guest, pf, uevent("change", pf), &device);
    for vfs in ROUNDS {
        if rounds.watched(vfs).await? == 0 {
            return Ok(no_uevent(&format!("{vfs} VFs were enabled")));
        }
        rounds.unwatched(0).await?;
    }
    Ok(rounds.judge())
}

async fn pf_uevent_on_disable(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let mut rounds = Rounds::new(guest, pf, uevent("change", pf), &device);
    for vfs in ROUNDS {
        rounds.unwatched(vfs).await?;
        if rounds.watched(0).await? == 0 {
            return Ok(no_uevent(&format!("{vfs} VFs were disabled")));
        }
    }
    Ok(rounds.judge())
}

/// Judges the events of one VF only. If the kernel makes the reader wait at the first event, the reader sees the others
/// too late to judge them.
async fn vf_uevent_on_disable(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let vf = &guest.enable_vfs(pf, 1).await?[0];
    guest.set(pf.numvfs(), 0).await?;
    let mut rounds = Rounds::new(guest, pf, uevent("remove", vf), &device);
    for vfs in ROUNDS {
        rounds.unwatched(vfs).await?;
        if rounds.watched(0).await? == 0 {
            return Err(Error::Unprepared(format!("{vfs} VFs were disabled, but {} sent no remove uevent", vf.bdf)));
        }
    }
    Ok(rounds.judge())
}

fn uevent(action: &str, device: impl AsRef<Device>) -> Source {
    Source::Uevent { action: Some(action.to_owned()), devpath: Some(device.as_ref().devpath.clone()) }
}

/// Takes all uevents, as the source is filtered already. Returns the name of the device.
fn device(sighting: &Sighting) -> Option<String> {
    match sighting {
        Sighting::Uevent(uevent) => Some(uevent.devpath.rsplit('/').next().unwrap_or_default().to_owned()),
        Sighting::Link(_) => None,
    }
}

fn no_uevent(during: &str) -> Verdict {
    let summary = format!("the PF sent no change uevent while {during}");
    Verdict::fail(FailureKind::LostEvent, "kobject_uevent", summary)
}

async fn vf_netlink(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let own = guest.interface(pf).await?;
    let of_vf = |sighting: &Sighting| match sighting {
        Sighting::Link(link) if !link.gone && link.ifname != own && link.ifname != "lo" => Some(link.ifname.clone()),
        _ => None,
    };
    let mut rounds = Rounds::new(guest, pf, Source::Rtnetlink, &of_vf);
    for vfs in ROUNDS {
        let seen = rounds.watched(vfs).await?;
        if seen < vfs {
            return Err(Error::Unprepared(format!(
                "{vfs} VFs were enabled, but only {seen} of their interfaces came up"
            )));
        }
        rounds.unwatched(0).await?;
    }
    Ok(rounds.judge())
}

/// igb takes its interface down before it enables VFs, so its link goes down. The scenario judges this event. It comes
/// before any VF exists, and is sent at once if no other link event was sent in the second before.
async fn pf_netlink(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let own = guest.interface(pf).await?;
    let of_pf = |sighting: &Sighting| match sighting {
        Sighting::Link(link) if link.ifname == own => Some("PF".to_owned()),
        _ => None,
    };
    guest.set_link(&own, true).await?;
    let mut rounds = Rounds::new(guest, pf, Source::Rtnetlink, &of_pf);
    for vfs in ROUNDS {
        link_settled(guest, &own).await?;
        let position = guest.agent().messages().position();
        if rounds.watched(vfs).await? == 0 {
            link_changed(guest, &own, position).await?;
        }
        rounds.unwatched(0).await?;
    }
    Ok(rounds.judge())
}

/// Waits for an event of an interface's link. In 6.1 igb takes its interface down only after it has enabled its VFs.
/// Then the event comes after the write, when every reader reads the new value; but the event must come.
async fn link_changed(guest: &Guest, ifname: &str, since: usize) -> Result<(), Error> {
    let of_it =
        |message: &Message| matches!(message, Message::Link { link, .. } if link.ifname == ifname).then_some(());
    let messages = guest.agent().messages();
    messages.wait(since, guest.prompt(), &format!("an event of the link of {ifname}"), of_it).await?;
    guest.note(Note::EventOfPf(EventOfPf::AfterTheWrite));
    Ok(())
}

/// Waits until an interface's link is up, and has not changed for so long that its next change is sent at once. The
/// kernel delays link events for a second after the last one (`net/core/link_watch.c`, `linkwatch_nextevent`). No event
/// marks the end of that second, so this waits for a time without events.
async fn link_settled(guest: &Guest, ifname: &str) -> Result<(), Error> {
    let messages = guest.agent().messages();
    let operstate = |message: &Message| match message {
        Message::Link { link, .. } if link.ifname == ifname => Some(link.operstate),
        _ => None,
    };
    let patience = guest.vm().time().patience(guest.prompt());
    loop {
        let position = messages.position();
        let is_up = messages.collect(0, operstate).last() == Some(&Some(OPER_UP));
        let quiet = messages.wait(position, HELD_BACK, "a second without link events", operstate).await;
        match quiet {
            Err(error) if error.is_deadline() && is_up => return guest.heard_all("link", position),
            Err(error) if error.is_deadline() && patience.is_over().is_some() => {
                let within = duration(guest.prompt());
                return Err(Error::Unprepared(format!("the link of {ifname} did not come up in {within}")));
            }
            Err(error) if !error.is_deadline() => return Err(error.into()),
            _ => {}
        }
    }
}
