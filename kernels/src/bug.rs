//! The bugs of the catalogue, and the ways in which a kernel that has one fails.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A bug of the catalogue. Variants have it, scenarios detect it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// Its name in the manifest, in scenarios and in reports.
    pub id: String,
    /// What it is, in one line.
    pub title: String,
    /// Upstream commits, messages and reports.
    #[serde(default)]
    pub references: Vec<String>,
    /// How a kernel that has it fails. With several ways, the trigger or the interleaving decides which one shows. In
    /// the manifest, a single way needs no brackets. Empty for a bug that only shows under a profile.
    #[serde(default, deserialize_with = "one_or_several", skip_serializing_if = "Vec::is_empty")]
    pub fails: Vec<Fails>,
    /// How it fails under a profile, by the profile's name. A profile that is not in here shows the ways in `fails`.
    #[serde(default, deserialize_with = "by_profile", skip_serializing_if = "BTreeMap::is_empty")]
    pub under: BTreeMap<String, Vec<Fails>>,
    /// The tasks that wait for each other when it shows as a deadlock. With several cycles, the trigger or the kernel
    /// decides which one closes. Empty for a bug that is no deadlock, or whose cycle cannot be proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cycles: Vec<Cycle>,
    /// Why no cycle proves its deadlock: which of the waits nothing in the kernel's memory explains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<String>,
    /// How reliably a scenario that detects the bug makes it show.
    #[serde(default)]
    pub chance: Chance,
    /// Whether every kernel has it by design. Users must know of it, but it is no fault of a kernel under test.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_design: bool,
}

/// A cycle of tasks that wait for each other, beginning with any of them. Each wait is a glob for
/// `TASK waits in FUNCTION for WHAT`, in the words of `waits.txt` without pids, states and lines. The next wait is that of
/// the task that has it.
pub type Cycle = Vec<String>;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// How reliably a scenario makes a bug show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chance {
    /// Every time: the order of the scenario's steps is enough.
    #[default]
    Certain,
    /// Nearly every time: the scenario must hit a window inside the kernel, and the window is wide.
    Window,
    /// Sometimes: the scenario tries many times. A kernel that has only such bugs may pass, and then the scenario says
    /// nothing about it.
    Random,
    /// Seldom, in scenarios that are there for something else. A kernel that has only such bugs usually passes.
    Rare,
}

impl Chance {
    /// Whether a kernel that has the bug may pass.
    pub fn may_be_missed(self) -> bool {
        matches!(self, Chance::Random | Chance::Rare)
    }
}

/// One way in which a kernel that has a bug fails. Any other failure is not this bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fails {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The kernel function at which it shows. For a stale read, the attribute.
    pub function: String,
}

/// Reads a table, or a list of tables. serde's `untagged` would do the same, but its errors do not say what is wrong in
/// the table, and where.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Fails>, D::Error> {
    struct Ways;

    impl<'de> Visitor<'de> for Ways {
        type Value = Vec<Fails>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table with `kind` and `function`, or a list of such tables")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Fails>, A::Error> {
            Ok(vec![Fails::deserialize(MapAccessDeserializer::new(map))?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<Fails>, A::Error> {
            let ways = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
            if ways.is_empty() { Err(A::Error::invalid_length(0, &"at least one way to fail")) } else { Ok(ways) }
        }
    }

    deserializer.deserialize_any(Ways)
}

/// Reads the ways to fail under each profile.
fn by_profile<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<Fails>>, D::Error> {
    #[derive(Deserialize)]
    struct Ways(#[serde(deserialize_with = "one_or_several")] Vec<Fails>);

    let all = BTreeMap::<String, Ways>::deserialize(deserializer)?;
    Ok(all.into_iter().map(|(profile, Ways(ways))| (profile, ways)).collect())
}

/// The kinds of failure of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Tasks wait for each other, and none of them can ever go on.
    Deadlock,
    /// A task waits until user space lets it go on.
    Blocked,
    /// A reader that was woken by an event read the value from before the event.
    StaleRead,
    /// An event that should have been sent was not.
    LostEvent,
    /// The kernel reported a problem in its log: oops, BUG, WARNING, lockdep, KASAN, panic.
    KernelSplat,
    /// The kernel shows another state than the one that the scenario set up.
    WrongState,
}

impl Bug {
    /// The ways in which it shows, as text: `deadlock at f, g or blocked at h; under debug: kernel-splat at i`.
    pub fn shows_as(&self) -> String {
        let usual = (!self.fails.is_empty()).then(|| words(&self.fails));
        let under = self.under.iter().map(|(profile, ways)| format!("under {profile}: {}", words(ways)));
        usual.into_iter().chain(under).collect::<Vec<_>>().join("; ")
    }

    /// Whether it shows as a deadlock, with or without a profile.
    pub fn deadlocks(&self) -> bool {
        self.fails.iter().chain(self.under.values().flatten()).any(|way| way.kind == FailureKind::Deadlock)
    }

    /// The ways in which it shows on a kernel of a profile. Empty if it does not show there.
    pub fn ways(&self, profile: Option<&str>) -> &[Fails] {
        profile.and_then(|profile| self.under.get(profile)).unwrap_or(&self.fails)
    }
}

/// Ways to fail as text. What follows each other and is of one kind names the kind once.
fn words(ways: &[Fails]) -> String {
    let same_kind = ways.chunk_by(|one, next| one.kind == next.kind);
    let places = |ways: &[Fails]| ways.iter().map(|way| way.function.as_str()).collect::<Vec<_>>().join(", ");
    same_kind.map(|ways| format!("{} at {}", ways[0].kind, places(ways))).collect::<Vec<_>>().join(" or ")
}

impl FailureKind {
    /// All of them.
    pub const ALL: [FailureKind; 6] = [
        FailureKind::Deadlock,
        FailureKind::Blocked,
        FailureKind::StaleRead,
        FailureKind::LostEvent,
        FailureKind::KernelSplat,
        FailureKind::WrongState,
    ];

    /// Its name in `kernels.toml` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Deadlock => "deadlock",
            FailureKind::Blocked => "blocked",
            FailureKind::StaleRead => "stale-read",
            FailureKind::LostEvent => "lost-event",
            FailureKind::KernelSplat => "kernel-splat",
            FailureKind::WrongState => "wrong-state",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_of_one_kind_name_it_once() {
        let way = |kind, function: &str| Fails { kind, function: function.to_owned() };
        let ways =
            [way(FailureKind::WrongState, "a"), way(FailureKind::WrongState, "b"), way(FailureKind::Deadlock, "c")];
        assert_eq!(words(&ways), "wrong-state at a, b or deadlock at c");
    }

    #[test]
    fn all_kinds_of_failures_are_there_by_the_names_that_the_manifest_has() {
        // serde names all that there are.
        let error = serde_json::from_str::<FailureKind>("\"?\"").unwrap_err().to_string();
        let names = FailureKind::ALL.map(|kind| format!("`{}`", kind.name())).join(", ");
        assert!(error.contains(&format!("expected one of {names} at line")), "{error}");
    }
}
