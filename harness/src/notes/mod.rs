//! The observations of a cell: values read, waits, tasks and their stacks. They are `observations` in the evidence and
//! in `results.json`.

mod operation;
mod phases;

use std::mem::discriminant;

use guest_protocol::TaskState;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

pub use operation::{Cycled, Place};
pub use phases::{Phases, Steps};

/// One observation. Its key in the evidence is the variant's name, with hyphens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// The tasks that the verdict calls stuck.
    Stuck(Vec<TaskState>),
    /// For how long they were seen to stay stuck, in seconds of the guest's time.
    StuckFor(f64),
    /// The function at which the guest should have been stopped, and which the kernel does not have.
    NoPlace(String),
    /// The tasks that wait for an owner to release a vfio device.
    Removers(Vec<TaskState>),
    /// The task of a removal that waits for an unbind.
    Remover(Vec<TaskState>),
    /// The tasks of the accesses in [`Note::Waits`].
    Waiting(Vec<TaskState>),
    /// A task that keeps running and does not finish.
    Busy(Vec<TaskState>),
    /// All tasks in D state after a scenario that did not pass.
    TasksInDState(Vec<TaskState>),
    /// The result of the read that a scenario is about.
    Read(Read),
    /// The result of the last write to `sriov_numvfs`: empty, or the name of the errno.
    Written(String),
    /// The result of binding a driver: empty, or the name of the errno.
    Bind(String),
    /// The accesses of a sweep that waited until an owner released its device.
    Waits(Vec<Wait>),
    /// How many accesses a sweep made.
    Accesses(Accesses),
    /// The accesses of a sweep that took longest.
    Slowest(Vec<Slow>),
    /// The accesses of a sweep that the kernel refused: path and errno.
    Refused(Vec<String>),
    /// The rounds of a scenario that repeats its steps.
    Rounds(Rounds),
    /// The results of test programs.
    Tests(Vec<TestRun>),
    /// How often a scenario tried to hit a timing window of the kernel.
    Attempts(u32),
    /// How often the bus was rescanned during the scenario.
    Rescans(u32),
    /// How often a device was reset during the scenario.
    Resets(Cycled),
    /// Where the reset was after it began.
    Reset(Place),
    /// Where a write to `sriov_numvfs` was after it began.
    Store(Place),
    /// Where the write that enables VFs was, while a sweep reads.
    Enable(Place),
    /// Where the owner that removes its own device was.
    Owner(Place),
    /// When the event of the PF came, if not during the write.
    EventOfPf(EventOfPf),
    /// Whether lockdep was still on at the end.
    Lockdep(Lockdep),
    /// The known report after which lockdep was off.
    LockdepOffAfter(String),
    /// How long the checks took until the guest was found in order, in seconds.
    Aftermath(f64),
    /// How long it took to put a removed card back, in seconds.
    PutBack(f64),
    /// Why the kernel could not be told to list its blocked tasks (SysRq-w).
    NoSysrq(String),
    /// How often the guest was looked at for who waits for whom.
    Looks(Looks),
    /// Why there was no look.
    NoGraph(String),
    /// Why there is no dump of the guest.
    NoDump(String),
    /// Why the source lines of a look are not known.
    NoLines(String),
    /// How QEMU ended, if not because the harness ended it.
    QemuEnd(String),
    /// How long each phase took.
    Phases(Phases),
}

/// A value that was read, or the name of the errno if the read failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Read {
    /// Any value was acceptable.
    Any(String),
    /// A certain value was expected.
    Compared {
        /// The value that was read.
        value: String,
        /// The expected value.
        expected: String,
        /// How long the read took, in seconds.
        waited: f64,
    },
}

/// An access that waited until an owner released its device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Path of the attribute.
    pub attribute: String,
    /// The kind of access.
    pub access: Access,
    /// The kernel function that waited.
    pub function: String,
}

/// What is done to an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It is read.
    Read,
    /// It is written.
    Write,
}

/// The number of accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accesses {
    /// Reads.
    pub reads: usize,
    /// Writes.
    pub writes: usize,
}

/// Looks at a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Looks {
    /// How many.
    pub taken: u32,
    /// How many of them found tasks that wait for each other in a closed cycle.
    pub with_cycle: u32,
}

/// The results of a test program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestRun {
    /// Its name.
    pub program: String,
    /// The source that it comes from.
    pub of: String,
    /// How many test cases passed.
    pub passed: usize,
    /// The test cases that failed, with what they printed.
    pub failed: Vec<String>,
    /// The test cases that were not run, with the reason.
    pub skipped: Vec<String>,
}

/// An access that took long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    /// Path of the attribute.
    pub attribute: String,
    /// Whether it was a write, not a read.
    pub write: bool,
    /// What was read, or the name of the errno.
    pub value: String,
    /// How long it took, in seconds.
    pub took: f64,
}

/// Rounds of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rounds {
    /// The number of rounds that began.
    Begun(u32),
    /// What a reader saw in each round.
    Watched(Vec<Round>),
}

/// One write to `sriov_numvfs`, watched by a reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Round {
    /// The number that was written.
    pub vfs: usize,
    /// How long the write took, in seconds.
    pub write_took: f64,
    /// The events that came during the write.
    pub events: Vec<Seen>,
}

/// An event, and what a reader that it woke read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Seen {
    /// Whose event it was.
    pub of: String,
    /// What was read, or the name of the errno.
    pub value: String,
    /// What should have been read.
    pub expected: String,
    /// When the event came, in seconds since the write began.
    pub after_write_began: f64,
    /// How long the read took, in seconds.
    pub waited: f64,
}

/// When an event came that did not come during the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventOfPf {
    /// After the write, when every reader sees the new value.
    #[serde(rename = "not before the end of the write")]
    AfterTheWrite,
}

/// Whether lockdep is on. It turns itself off after its first report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lockdep {
    /// It is on.
    On,
    /// It is off.
    Off,
}

/// All observations of a cell, at most one note of each kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub struct Notes {
    notes: Vec<Note>,
    /// Notes of another version of the harness that this one cannot read.
    others: Map<String, Value>,
}

impl Notes {
    /// Adds a note. It replaces an earlier one of its kind.
    pub fn add(&mut self, note: Note) {
        self.notes.retain(|other| discriminant(other) != discriminant(&note));
        self.notes.push(note);
    }

    /// All notes, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Note> {
        self.notes.iter()
    }

    /// The tasks with stacks, each once, with the key of their note. Stuck tasks come first, and tasks that were in D
    /// state at the end come last.
    pub fn tasks(&self) -> Vec<(&'static str, &TaskState)> {
        let mut lists: Vec<_> = self.notes.iter().filter_map(Note::tasks).collect();
        lists.sort_by_key(|(what, _)| (*what != STUCK, *what == IN_D_STATE, *what));
        let mut found: Vec<(&str, &TaskState)> = Vec::new();
        for (what, task) in lists.into_iter().flat_map(|(what, tasks)| tasks.iter().map(move |task| (what, task))) {
            if !task.stack.is_empty() && !found.iter().any(|(_, known)| known.tid == task.tid) {
                found.push((what, task));
            }
        }
        found
    }
}

const STUCK: &str = "stuck";
const IN_D_STATE: &str = "tasks-in-d-state";

impl Note {
    /// Its tasks, and its key.
    fn tasks(&self) -> Option<(&'static str, &[TaskState])> {
        match self {
            Note::Stuck(tasks) => Some((STUCK, tasks)),
            Note::Removers(tasks) => Some(("removers", tasks)),
            Note::Remover(tasks) => Some(("remover", tasks)),
            Note::Waiting(tasks) => Some(("waiting", tasks)),
            Note::Busy(tasks) => Some(("busy", tasks)),
            Note::TasksInDState(tasks) => Some((IN_D_STATE, tasks)),
            _ => None,
        }
    }
}

/// The order of the notes does not matter.
impl PartialEq for Notes {
    fn eq(&self, other: &Notes) -> bool {
        self.others == other.others
            && self.notes.len() == other.notes.len()
            && self.notes.iter().all(|note| other.notes.contains(note))
    }
}

/// As one object, or null if nothing was noted.
impl Serialize for Notes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = self.others.clone();
        for note in &self.notes {
            if let Value::Object(entry) = serde_json::to_value(note).map_err(S::Error::custom)? {
                all.extend(entry);
            }
        }
        if all.is_empty() { serializer.serialize_unit() } else { all.serialize(serializer) }
    }
}

/// Reads each entry by itself. An entry that cannot be read is kept as it is.
impl From<Value> for Notes {
    fn from(value: Value) -> Notes {
        let mut notes = Notes::default();
        let entries = if let Value::Object(entries) = value { entries } else { Map::new() };
        for (key, value) in entries {
            let entry = Map::from_iter([(key.clone(), value.clone())]);
            match serde_json::from_value(entry.into()) {
                Ok(note) => notes.add(note),
                Err(_) => drop(notes.others.insert(key, value)),
            }
        }
        notes
    }
}

impl FromIterator<Note> for Notes {
    fn from_iter<I: IntoIterator<Item = Note>>(all: I) -> Notes {
        let mut notes = Notes::default();
        all.into_iter().for_each(|note| notes.add(note));
        notes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(tid: i32, stack: &[&str]) -> TaskState {
        let stack = stack.iter().map(|&frame| frame.to_owned()).collect();
        TaskState { pid: tid, tid, comm: "a".to_owned(), state: 'D', wchan: "f".to_owned(), stack }
    }

    fn read(value: Value) -> Notes {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn notes_are_written_with_stable_keys_and_read_back() {
        let tasks = || vec![task(7, &["f", "g"])];
        let seen = Seen {
            of: "PF".to_owned(),
            value: "0".to_owned(),
            expected: "2".to_owned(),
            after_write_began: 0.5,
            waited: 0.25,
        };
        let wait = Wait { attribute: "/sys/a".to_owned(), access: Access::Read, function: "f".to_owned() };
        let slow = Slow { attribute: "/sys/a".to_owned(), write: true, value: "EIO".to_owned(), took: 1.5 };
        let tests = TestRun {
            program: "vfio_test".to_owned(),
            of: "linux 7.3".to_owned(),
            passed: 4,
            failed: vec!["f.a: Expected 0 == 1".to_owned()],
            skipped: vec!["f.b: none".to_owned()],
        };
        let steps = Steps { restore: Some(0.5), ..Steps::default() };
        let notes = Notes::from_iter([
            Note::Stuck(tasks()),
            Note::Removers(tasks()),
            Note::Remover(tasks()),
            Note::Waiting(tasks()),
            Note::Busy(tasks()),
            Note::TasksInDState(tasks()),
            Note::Read(Read::Compared { value: "2".to_owned(), expected: "0".to_owned(), waited: 0.25 }),
            Note::Written("EBUSY".to_owned()),
            Note::Bind("EIO".to_owned()),
            Note::Waits(vec![wait]),
            Note::Accesses(Accesses { reads: 5, writes: 1 }),
            Note::Slowest(vec![slow]),
            Note::Refused(vec!["/sys/a: EIO".to_owned()]),
            Note::Rounds(Rounds::Watched(vec![Round { vfs: 2, write_took: 1.5, events: vec![seen] }])),
            Note::Tests(vec![tests]),
            Note::Attempts(3),
            Note::Rescans(4),
            Note::Resets(Cycled { rounds: 9, refused: 1 }),
            Note::Reset(Place::Over),
            Note::Store(Place::In("pci_wait_cfg".to_owned())),
            Note::Enable(Place::Elsewhere),
            Note::Owner(Place::Over),
            Note::EventOfPf(EventOfPf::AfterTheWrite),
            Note::Lockdep(Lockdep::Off),
            Note::LockdepOffAfter("a report".to_owned()),
            Note::StuckFor(3600.0),
            Note::NoPlace("f".to_owned()),
            Note::Aftermath(0.5),
            Note::PutBack(1.5),
            Note::NoSysrq("no answer".to_owned()),
            Note::Looks(Looks { taken: 9, with_cycle: 2 }),
            Note::NoGraph("why".to_owned()),
            Note::NoDump("why".to_owned()),
            Note::NoLines("why".to_owned()),
            Note::QemuEnd("killed".to_owned()),
            Note::Phases(Phases { boot: 0.5, steps, scenario: 2.5, starved: 0.25, teardown: 0.5 }),
        ]);
        let task = json!([{"comm": "a", "pid": 7, "tid": 7, "state": "D", "wchan": "f", "stack": ["f", "g"]}]);
        let event = json!({"of": "PF", "value": "0", "expected": "2", "after-write-began": 0.5, "waited": 0.25});
        let written = json!({
            "stuck": task, "removers": task, "remover": task, "waiting": task, "busy": task, "tasks-in-d-state": task,
            "read": {"value": "2", "expected": "0", "waited": 0.25}, "written": "EBUSY", "bind": "EIO",
            "waits": [{"attribute": "/sys/a", "access": "read", "function": "f"}],
            "accesses": {"reads": 5, "writes": 1},
            "slowest": [{"attribute": "/sys/a", "write": true, "value": "EIO", "took": 1.5}], "refused": ["/sys/a: EIO"],
            "rounds": [{"vfs": 2, "write-took": 1.5, "events": [event]}],
            "tests": [{
                "program": "vfio_test", "of": "linux 7.3", "passed": 4, "failed": ["f.a: Expected 0 == 1"],
                "skipped": ["f.b: none"],
            }],
            "attempts": 3, "rescans": 4,
            "resets": "9 rounds, 1 refused", "reset": "over", "store": "in pci_wait_cfg", "enable": "elsewhere",
            "owner": "over", "event-of-pf": "not before the end of the write", "lockdep": "off",
            "lockdep-off-after": "a report", "stuck-for": 3600.0, "no-place": "f", "aftermath": 0.5, "put-back": 1.5, "no-sysrq": "no answer",
            "looks": {"taken": 9, "with-cycle": 2}, "no-graph": "why", "no-dump": "why", "no-lines": "why",
            "qemu-end": "killed", "phases": {"boot": 0.5, "restore": 0.5, "scenario": 2.5, "starved": 0.25, "teardown": 0.5},
        });
        assert_eq!(serde_json::to_value(&notes).unwrap(), written);
        let back = read(written);
        assert_eq!((back.notes.len(), &back), (36, &notes));
        // The same keys with values of another shape.
        for note in [Note::Read(Read::Any("0".to_owned())), Note::Rounds(Rounds::Begun(10))] {
            let notes = Notes::from_iter([note]);
            assert_eq!(read(serde_json::to_value(&notes).unwrap()), notes);
        }
    }

    #[test]
    fn notes_of_earlier_versions_are_read() {
        let notes = read(json!({
            "store": "In(\"pci_lock_rescan_remove\")", "owner": "Over", "reset": "Elsewhere",
            "resets": "Cycled { rounds: 12, refused: 3 }",
        }));
        let expected = Notes::from_iter([
            Note::Store(Place::In("pci_lock_rescan_remove".to_owned())),
            Note::Owner(Place::Over),
            Note::Reset(Place::Elsewhere),
            Note::Resets(Cycled { rounds: 12, refused: 3 }),
        ]);
        assert_eq!(notes, expected);
        assert_eq!(read(Value::Null), Notes::default());
    }

    #[test]
    fn unreadable_notes_are_kept_as_they_are() {
        let other = json!({"attempts": "many", "store": "on the moon", "waited": 0.25, "written": "EBUSY"});
        let notes = read(other.clone());
        assert_eq!(notes.iter().collect::<Vec<_>>(), [&Note::Written("EBUSY".to_owned())]);
        assert_eq!(serde_json::to_value(&notes).unwrap(), other);
    }

    #[test]
    fn a_note_replaces_an_earlier_one_and_the_order_does_not_matter() {
        let mut notes = Notes::from_iter([Note::Attempts(1), Note::Rescans(4)]);
        notes.add(Note::Attempts(2));
        assert_eq!(notes, Notes::from_iter([Note::Attempts(2), Note::Rescans(4)]));
        assert_ne!(notes, Notes::from_iter([Note::Attempts(2)]));
        assert_ne!(notes, Notes::from_iter([Note::Attempts(1), Note::Rescans(4)]));
    }

    #[test]
    fn each_task_is_listed_once_and_stuck_tasks_come_first() {
        let notes = Notes::from_iter([
            Note::TasksInDState(vec![task(1, &["f"]), task(3, &["f"]), task(4, &[])]),
            Note::Removers(vec![task(2, &["f"])]),
            Note::Busy(vec![task(5, &["f"])]),
            Note::Stuck(vec![task(1, &["f"])]),
        ]);
        let named: Vec<_> = notes.tasks().iter().map(|(what, task)| format!("{what} {}", task.tid)).collect();
        assert_eq!(named, ["stuck 1", "busy 5", "removers 2", "tasks-in-d-state 3"]);
    }
}
