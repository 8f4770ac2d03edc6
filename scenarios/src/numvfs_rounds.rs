//! Rounds of writing `sriov_numvfs` while events wake a reader, and the values that it read.

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

/// The reader: a real-time task that preempts the writer on that CPU.
pub const READER: Sched = Sched { cpu: Some(CPU), policy: Policy::Fifo(50) };
/// The writer: an ordinary task.
pub const WRITER: Sched = Sched { cpu: Some(CPU), policy: Policy::Other };

/// One event that a reader saw, and the value that it then read.
struct Seen {
    whose: String,
    at: u64,
    access: Access,
}

/// Selects the events that a scenario judges. Returns the name of the device of each.
pub type Judged<'a> = &'a dyn Fn(&Sighting) -> Option<String>;

/// Rounds of enabling and disabling VFs while a reader watches, and the values that it read.
pub struct Rounds<'a> {
    guest: &'a Guest,
    numvfs: String,
    source: Source,
    judged: Judged<'a>,
    rounds: Vec<Round>,
    stale: Vec<String>,
    reads: usize,
}

impl<'a> Rounds<'a> {
    /// Starts with no rounds. The reader reads at each event from `source`. The events that `judged` selects are
    /// judged.
    pub fn new(guest: &'a Guest, pf: &Pf, source: Source, judged: Judged<'a>) -> Rounds<'a> {
        let numvfs = pf.attribute("sriov_numvfs");
        Rounds { guest, numvfs, source, judged, rounds: Vec::new(), stale: Vec::new(), reads: 0 }
    }

    /// Writes the number of VFs, and records what the reader read on each event during the write. Returns the number of
    /// different devices with such events. Events after the end of the write are ignored, as every reader reads the new
    /// value then.
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
        self.rounds.push(round(vfs, &written, &seen));
        Ok(seen.iter().map(|seen| &seen.whose).collect::<BTreeSet<_>>().len())
    }

    /// Writes the number of VFs without a reader.
    pub async fn unwatched(&self, vfs: usize) -> Result<(), Error> {
        set_numvfs(self.guest, &self.numvfs, vfs).await?;
        Ok(())
    }

    /// The verdict on all values that were read.
    pub fn judge(self) -> Verdict {
        self.guest.note(Note::Rounds(notes::Rounds::Watched(self.rounds)));
        let Some(first) = self.stale.first() else { return Verdict::Pass };
        let summary = format!("{} of {} event-driven reads were stale: {first}", self.stale.len(), self.reads);
        Verdict::fail(FailureKind::StaleRead, "sriov_numvfs", summary)
    }
}

async fn set_numvfs(guest: &Guest, numvfs: &str, vfs: usize) -> Result<Access, Error> {
    guest.granted(&guest.write(numvfs.to_owned(), vfs, WRITER).await?).await
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
