//! What can be wrong with a kernel, and how one sees it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A bug of the catalogue: variants have it, scenarios detect it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// Its name everywhere.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// Upstream commits, messages and reports.
    #[serde(default)]
    pub references: Vec<String>,
    /// How a kernel that has it fails: in one of these ways, if a trigger or an interleaving decides which. In the
    /// manifest one way needs no brackets.
    /// None for a bug that shows under a profile alone.
    #[serde(default, deserialize_with = "one_or_several", skip_serializing_if = "Vec::is_empty")]
    pub fails: Vec<Fails>,
    /// How it fails under a profile, by the profile's name, if not in the same way.
    #[serde(default, deserialize_with = "by_profile", skip_serializing_if = "BTreeMap::is_empty")]
    pub under: BTreeMap<String, Vec<Fails>>,
    /// How surely a scenario that detects it makes it show.
    #[serde(default)]
    pub chance: Chance,
    /// Whether every kernel has it, and is meant to: a hazard that users have to know, and nothing to hold against one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_design: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// How surely a scenario makes a bug show itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chance {
    /// Every time: it follows from the order of what is done.
    #[default]
    Certain,
    /// Nearly every time: a window of the kernel's own is hit, wide enough for that.
    Window,
    /// Now and then: by trying often. A kernel that has only such bugs may pass.
    Random,
}

/// How a kernel that has a bug fails: any other failure is not this bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fails {
    /// In what way.
    pub kind: FailureKind,
    /// At which kernel function or, for a stale read, at which attribute.
    pub function: String,
}

impl fmt::Display for Fails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind, self.function)
    }
}

/// A table, or a list of tables. serde's own way of saying so, `untagged`, forgets what is wrong with either, and where.
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

/// Ways to fail, by profile.
fn by_profile<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<Fails>>, D::Error> {
    #[derive(Deserialize)]
    struct Ways(#[serde(deserialize_with = "one_or_several")] Vec<Fails>);

    let all = BTreeMap::<String, Ways>::deserialize(deserializer)?;
    Ok(all.into_iter().map(|(profile, Ways(ways))| (profile, ways)).collect())
}

/// The ways in which a kernel fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Tasks wait for each other and will for ever.
    Deadlock,
    /// A task waits for as long as someone else likes.
    Blocked,
    /// A reader woken by an event saw the value from before it.
    StaleRead,
    /// An event that should have been sent was not.
    LostEvent,
    /// The kernel reported an error of its own: oops, BUG, WARNING, lockdep, KASAN, panic.
    KernelSplat,
    /// What the kernel shows is not what was done.
    WrongState,
}

impl Bug {
    /// The ways in which it shows, in words: `deadlock at f or blocked at g; under debug: kernel-splat at h`.
    pub fn shows_as(&self) -> String {
        let words = |ways: &[Fails]| ways.iter().map(Fails::to_string).collect::<Vec<_>>().join(" or ");
        let usual = (!self.fails.is_empty()).then(|| words(&self.fails));
        let under = self.under.iter().map(|(profile, ways)| format!("under {profile}: {}", words(ways)));
        usual.into_iter().chain(under).collect::<Vec<_>>().join("; ")
    }

    /// The ways in which it shows on a kernel of a profile; none if it does not show there.
    pub fn ways(&self, profile: Option<&str>) -> &[Fails] {
        profile.and_then(|profile| self.under.get(profile)).unwrap_or(&self.fails)
    }
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
    fn all_kinds_of_failures_are_there_by_the_names_that_the_manifest_has() {
        // serde names all that there are.
        let error = serde_json::from_str::<FailureKind>("\"?\"").unwrap_err().to_string();
        let names = FailureKind::ALL.map(|kind| format!("`{}`", kind.name())).join(", ");
        assert!(error.contains(&format!("expected one of {names} at line")), "{error}");
    }
}
