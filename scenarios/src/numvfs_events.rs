//! Reading `sriov_numvfs` the moment an event tells that it changed.
//!
//! The reader runs under a real-time policy on the writer's CPU, with `preempt=full`: the broadcast of the event wakes it,
//! it preempts the writer at once, and its read lands before the writer's next statement. A kernel that sends the event
//! before it sets the value thus shows the old one every time, unless it makes the reader wait.
//!
//! Only enabling is judged, 0 to N. Between rounds the VFs are disabled again, unjudged.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use guest_protocol::{Access, Message, Policy, Progress, Sched, Sighting, Source};
use harness::error::Error;
use harness::guest::{Guest, Pf};
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use harness::vm::agent::Operation;
use kernels::FailureKind;
use serde_json::{Value, json};

/// What every scenario of this family has in common.
const BASE: Scenario = Scenario {
    name: "",
    about: "",
    detects: &[],
    topology: "igb",
    triggers: &[],
    append: &["preempt=full"],
    run: |guest| Box::pin(pf_uevent(guest)),
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "numvfs_events::pf_uevent",
        about: "A reader woken by the PF's change uevent must read the new sriov_numvfs.",
        detects: &["numvfs-stale-pf-uevent"],
        run: |guest| Box::pin(pf_uevent(guest)),
        ..BASE
    },
    Scenario {
        name: "numvfs_events::vf_netlink",
        about: "A reader woken by the RTM_NEWLINK of each new VF must read the new sriov_numvfs.",
        detects: &["numvfs-stale-vf-netlink"],
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
];

/// VFs to enable, a round each; igb has seven.
const ROUNDS: [usize; 3] = [2, 4, 3];

/// Reader and writer share this CPU.
const CPU: u32 = 0;

const READER: Sched = Sched { cpu: Some(CPU), policy: Policy::Fifo(50) };
const WRITER: Sched = Sched { cpu: Some(CPU), policy: Policy::Other };

/// `IF_OPER_UP` (RFC 2863, `include/uapi/linux/if.h`).
const OPER_UP: u8 = 6;

/// The kernel's second, and some.
const HELD_BACK: Duration = Duration::from_millis(1300);

/// One event that a reader saw, and what it read on it.
struct Seen {
    whose: String,
    at: u64,
    access: Access,
}

/// Takes the events that a scenario judges, and names whose each is.
type Judged<'a> = &'a dyn Fn(&Sighting) -> Option<String>;

async fn pf_uevent(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let source = Source::Uevent { action: Some("change".to_owned()), devpath: Some(pf.devpath().to_owned()) };
    let any = |sighting: &Sighting| matches!(sighting, Sighting::Uevent(_)).then(|| "PF".to_owned());
    let mut rounds = Rounds::new(guest, pf, source, &any);
    for vfs in ROUNDS {
        if rounds.enable(vfs).await? == 0 {
            let summary = format!("the PF sent no change uevent while {vfs} VFs were enabled");
            return Ok(Verdict::fail(FailureKind::LostEvent, "kobject_uevent", summary));
        }
        rounds.disable().await?;
    }
    Ok(rounds.judge())
}

async fn vf_netlink(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let own = interface(guest, pf).await?;
    let of_vf = |sighting: &Sighting| match sighting {
        Sighting::Link(link) if !link.gone && link.ifname != own && link.ifname != "lo" => Some(link.ifname.clone()),
        _ => None,
    };
    let mut rounds = Rounds::new(guest, pf, Source::Rtnetlink, &of_vf);
    for vfs in ROUNDS {
        let seen = rounds.enable(vfs).await?;
        if seen < vfs {
            return Err(Error::Unprepared(format!(
                "{vfs} VFs were enabled, but only {seen} of their interfaces came up"
            )));
        }
        rounds.disable().await?;
    }
    Ok(rounds.judge())
}

/// igb takes its interface down before it enables VFs, and its link goes with it. That is the event that this is about: it
/// comes before there is any VF, and is sent at once if no other link event was sent in the second before.
async fn pf_netlink(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let own = interface(guest, pf).await?;
    let of_pf = |sighting: &Sighting| match sighting {
        Sighting::Link(link) if link.ifname == own => Some("PF".to_owned()),
        _ => None,
    };
    let command = guest_protocol::Command::SetLink { ifname: own.clone(), up: true };
    guest.agent().call(command, guest.prompt()).await?;
    let mut rounds = Rounds::new(guest, pf, Source::Rtnetlink, &of_pf);
    for vfs in ROUNDS {
        link_settled(guest, &own).await?;
        if rounds.enable(vfs).await? == 0 {
            return Err(Error::Unprepared(format!("the link of {own} did not change while {vfs} VFs were enabled")));
        }
        rounds.disable().await?;
    }
    Ok(rounds.judge())
}

/// Rounds of enabling and disabling VFs under the eyes of a reader, and what it read.
struct Rounds<'a> {
    guest: &'a Guest,
    numvfs: String,
    source: Source,
    judged: Judged<'a>,
    told: Vec<Value>,
    stale: Vec<String>,
    reads: usize,
}

impl<'a> Rounds<'a> {
    fn new(guest: &'a Guest, pf: &Pf, source: Source, judged: Judged<'a>) -> Rounds<'a> {
        let numvfs = pf.attribute("sriov_numvfs");
        Rounds { guest, numvfs, source, judged, told: Vec::new(), stale: Vec::new(), reads: 0 }
    }

    /// Enables VFs and takes down what the reader read on each event that came during the write; returns of how many
    /// different devices these were. An event after the write's end proves nothing: everyone reads the new value then.
    async fn enable(&mut self, vfs: usize) -> Result<usize, Error> {
        let reader = self.guest.watch(self.source.clone(), vec![self.numvfs.clone()], READER).await?;
        let written = set_numvfs(self.guest, &self.numvfs, vfs).await?;
        self.guest.stop(&reader).await?;
        let seen = seen_during(&reader, self.judged, &written);
        let expected = vfs.to_string();
        let stale = seen.iter().filter(|seen| seen.access.value.as_ref() != Ok(&expected));
        self.stale.extend(
            stale.map(|seen| format!("read {} on the event of {}, expected {vfs}", seen.access.shown(), seen.whose)),
        );
        self.reads += seen.len();
        self.told.push(round(vfs, &written, &seen));
        Ok(seen.iter().map(|seen| &seen.whose).collect::<BTreeSet<_>>().len())
    }

    async fn disable(&self) -> Result<(), Error> {
        set_numvfs(self.guest, &self.numvfs, 0).await?;
        Ok(())
    }

    fn judge(self) -> Verdict {
        self.guest.note("rounds", self.told);
        let Some(first) = self.stale.first() else { return Verdict::Pass };
        let summary = format!("{} of {} event-driven reads were stale: {first}", self.stale.len(), self.reads);
        Verdict::fail(FailureKind::StaleRead, "sriov_numvfs", summary)
    }
}

async fn set_numvfs(guest: &Guest, numvfs: &str, vfs: usize) -> Result<Access, Error> {
    let access = guest.write(numvfs.to_owned(), vfs, WRITER).await?.accessed(guest.prompt()).await?;
    match &access.value {
        Ok(_) => Ok(access),
        Err(errno) => Err(Error::Refused { path: access.path, errno: errno.clone() }),
    }
}

fn seen_during(reader: &Operation, judged: Judged<'_>, written: &Access) -> Vec<Seen> {
    reader.steps(|_, progress| match progress {
        Progress::Saw { event, seen, reads } if (written.started..=written.finished).contains(seen) => {
            judged(event).zip(reads.first()).map(|(whose, access)| Seen { whose, at: *seen, access: access.clone() })
        }
        _ => None,
    })
}

/// Name of the PF's network interface.
async fn interface(guest: &Guest, pf: &Pf) -> Result<String, Error> {
    let mut names = guest.agent().list(&pf.attribute("net"), guest.prompt()).await?;
    match (names.pop(), names.as_slice()) {
        (Some(name), []) => Ok(name),
        (last, rest) => {
            Err(Error::Unprepared(format!("the PF has network interfaces {rest:?} and {last:?}, expected just one")))
        }
    }
}

/// Waits until an interface's link is up and has not changed for long enough that its next change is sent at once: the
/// kernel holds link events back for a second after the last (`net/core/link_watch.c`, `linkwatch_nextevent`). No event
/// tells of the end of that second, so the absence of events does.
async fn link_settled(guest: &Guest, ifname: &str) -> Result<(), Error> {
    let messages = guest.agent().messages();
    let operstate = |message: &Message| match message {
        Message::Link { link, .. } if link.ifname == ifname => Some(link.operstate),
        _ => None,
    };
    let began = Instant::now();
    loop {
        let position = messages.position();
        let is_up = messages.collect(0, operstate).last() == Some(&Some(OPER_UP));
        let quiet = messages.wait(position, HELD_BACK, "silence of the link", operstate).await;
        match quiet {
            Err(error) if error.is_deadline() && is_up => return Ok(()),
            Err(error) if error.is_deadline() && began.elapsed() > guest.prompt() => {
                return Err(Error::Unprepared(format!("the link of {ifname} did not come up in {:?}", guest.prompt())));
            }
            Err(error) if !error.is_deadline() => return Err(error.into()),
            _ => {}
        }
    }
}

fn round(vfs: usize, written: &Access, seen: &[Seen]) -> Value {
    let events: Vec<_> = seen
        .iter()
        .map(|seen| {
            json!({"of": seen.whose, "value": seen.access.shown(), "expected": vfs.to_string(),
                   "after-write-began": Duration::from_nanos(seen.at.saturating_sub(written.started)).as_secs_f64(),
                   "waited": seen.access.latency().as_secs_f64()})
        })
        .collect();
    json!({"vfs": vfs, "write-took": written.latency().as_secs_f64(), "events": events})
}
