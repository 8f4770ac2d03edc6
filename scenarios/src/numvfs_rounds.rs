//! Rounds of setting `sriov_numvfs` while a reader is woken by events, and what it read.

use std::collections::BTreeSet;
use std::time::Duration;

use guest_protocol::{Access, Policy, Progress, Sched, Sighting, Source};
use harness::guest::{Error, Guest, Pf};
use harness::notes::{self, Note, Round};
use harness::verdict::Verdict;
use harness::vm::agent::Operation;
use kernels::FailureKind;

/// Reader and writer share this CPU.
const CPU: u32 = 0;

/// Runs as soon as it can on that CPU, whatever the writer is about.
pub const READER: Sched = Sched { cpu: Some(CPU), policy: Policy::Fifo(50) };
/// The writer.
pub const WRITER: Sched = Sched { cpu: Some(CPU), policy: Policy::Other };

/// One event that a reader saw, and what it read on it.
struct Seen {
    whose: String,
    at: u64,
    access: Access,
}

/// Takes the events that a scenario judges, and names whose each is.
pub type Judged<'a> = &'a dyn Fn(&Sighting) -> Option<String>;

/// Rounds of enabling and disabling VFs under the eyes of a reader, and what it read.
pub struct Rounds<'a> {
    guest: &'a Guest,
    numvfs: String,
    source: Source,
    judged: Judged<'a>,
    told: Vec<Round>,
    stale: Vec<String>,
    reads: usize,
}

impl<'a> Rounds<'a> {
    /// No round yet. The reader reads at events from `source`; those that `judged` takes are judged.
    pub fn new(guest: &'a Guest, pf: &Pf, source: Source, judged: Judged<'a>) -> Rounds<'a> {
        let numvfs = pf.attribute("sriov_numvfs");
        Rounds { guest, numvfs, source, judged, told: Vec::new(), stale: Vec::new(), reads: 0 }
    }

    /// Sets the number of VFs and takes down what the reader read on each event that came during the write; returns of how
    /// many different devices these were. An event after the write's end proves nothing: everyone reads the new value then.
    pub async fn watched(&mut self, vfs: usize) -> Result<usize, Error> {
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

    /// Sets the number of VFs with nobody watching.
    pub async fn unwatched(&self, vfs: usize) -> Result<(), Error> {
        set_numvfs(self.guest, &self.numvfs, vfs).await?;
        Ok(())
    }

    /// The verdict on all that was read.
    pub fn judge(self) -> Verdict {
        self.guest.note(Note::Rounds(notes::Rounds::Watched(self.told)));
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

fn round(vfs: usize, written: &Access, seen: &[Seen]) -> Round {
    let event = |seen: &Seen| notes::Seen {
        of: seen.whose.clone(),
        value: seen.access.shown().to_owned(),
        expected: vfs.to_string(),
        after_write_began: Duration::from_nanos(seen.at.saturating_sub(written.started)).as_secs_f64(),
        waited: seen.access.latency().as_secs_f64(),
    };
    Round { vfs, write_took: written.latency().as_secs_f64(), events: seen.iter().map(event).collect() }
}
