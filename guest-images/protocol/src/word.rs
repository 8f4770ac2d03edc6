//! The words of a script that only the host can carry out, and its answers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Identifies a word that a script has said. The agent chooses it, and never uses one twice in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WordId(pub u64);

/// A word of a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Word {
    /// Name a PF of the topology. Answered with [`Answer::Function`].
    Pf {
        /// Its number, from 0.
        number: usize,
    },
    /// Name a slot of the topology. Answered with [`Answer::Slot`].
    Slot {
        /// Its number, from 0.
        number: usize,
    },
    /// Remove a PF. Answered with [`Answer::Done`] when the removal is complete.
    Remove {
        /// Its address.
        bdf: String,
        /// The trigger. None for that of the cell.
        by: Option<String>,
    },
    /// Plug a card into an empty slot. Answered with [`Answer::Function`] when the card has its driver.
    Plug {
        /// The id of the slot, or the address of its port. None for the first slot.
        slot: Option<String>,
    },
    /// Have a port report an error. Answered with [`Answer::Done`].
    Inject {
        /// The id of its slot, or its address.
        slot: String,
        /// QEMU's name of the error.
        error: String,
    },
    /// End the script with a verdict. The script is killed before it hears an answer.
    End {
        /// The kind of failure. None if the script cannot run here.
        kind: Option<String>,
        /// The attribute or the function.
        at: String,
        /// What came, and what must come.
        summary: String,
    },
}

/// What the host answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// It is done.
    Done,
    /// A function.
    Function(Function),
    /// A slot.
    Slot(SlotName),
    /// It cannot be done.
    Refused(String),
}

/// A function of the topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Function {
    /// Its address.
    pub bdf: String,
    /// Its folder in sysfs.
    pub sysfs: String,
    /// Its slot.
    pub slot: SlotName,
}

/// A slot of the topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SlotName {
    /// QEMU's id of its port.
    pub id: String,
    /// Its number, as in `/sys/bus/pci/slots`.
    pub number: u8,
    /// The address of its port.
    pub port: String,
}

/// What the script says, as in "the script said `remove 0000:01:00.0 by yank`".
impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Pf { number } => write!(f, "pf {number}"),
            Word::Slot { number } => write!(f, "slot {number}"),
            Word::Remove { bdf, by: None } => write!(f, "remove {bdf}"),
            Word::Remove { bdf, by: Some(by) } => write!(f, "remove {bdf} by {by}"),
            Word::Plug { slot: None } => f.write_str("plug"),
            Word::Plug { slot: Some(slot) } => write!(f, "plug {slot}"),
            Word::Inject { slot, error } => write!(f, "inject {slot} {error}"),
            Word::End { kind: Some(kind), at, .. } => write!(f, "end with {kind} at {at}"),
            Word::End { kind: None, .. } => f.write_str("end with a skip"),
        }
    }
}

/// The answer in one line of words.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => f.write_str("done"),
            Answer::Function(function) => f.write_str(&function.bdf),
            Answer::Slot(slot) => f.write_str(&slot.id),
            Answer::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}
