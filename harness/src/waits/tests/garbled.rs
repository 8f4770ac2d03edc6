//! Memory that makes no sense: an error or a graph, and never a panic, a hang, or a deadlock that is none.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// What happens to recorded memory. Pages and words are chosen by these numbers, modulo how many there are.
#[derive(Clone, Debug)]
enum Damage {
    /// A word becomes another one.
    Word { at: usize, value: u64 },
    /// A word becomes a copy of another one, so pointers lead astray, and lists become loops.
    Copy { from: usize, to: usize },
    /// All words of a page become one word.
    Fill { page: usize, value: u64 },
    /// A page becomes a copy of another one.
    Swap { one: usize, other: usize },
    /// A page cannot be read.
    Lose { page: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let value = prop_oneof![
        Just(0),
        Just(u64::MAX),
        any::<u64>(),
        (0u64..0x2000_0000).prop_map(|at| 0xffff_8880_0000_0000 + at)
    ];
    prop_oneof![
        4 => (any::<usize>(), value.clone()).prop_map(|(at, value)| Damage::Word { at, value }),
        8 => (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Damage::Copy { from, to }),
        1 => (any::<usize>(), value).prop_map(|(page, value)| Damage::Fill { page, value }),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Damage::Swap { one, other }),
        1 => any::<usize>().prop_map(|page| Damage::Lose { page }),
    ]
}

impl Recorded {
    fn number(&self, index: usize) -> u64 {
        *self.pages.keys().nth(index % self.pages.len()).unwrap()
    }

    /// A word of any page that is not 0, if the page has one: most of the others mean nothing.
    fn word(&mut self, index: usize) -> &mut [u8] {
        let number = self.number(index);
        let mut words: Vec<&mut [u8]> = self.pages.get_mut(&number).unwrap().chunks_exact_mut(8).collect();
        let set: Vec<usize> = (0..words.len()).filter(|at| words[*at].iter().any(|byte| *byte != 0)).collect();
        let within = index / 1009;
        let at = if set.is_empty() { within % words.len() } else { set[within % set.len()] };
        words.swap_remove(at)
    }

    fn suffer(&mut self, damage: &Damage) {
        match *damage {
            Damage::Word { at, value } => self.word(at).copy_from_slice(&value.to_le_bytes()),
            Damage::Copy { from, to } => {
                let word = self.word(from).to_vec();
                self.word(to).copy_from_slice(&word);
            }
            Damage::Fill { page, value } => {
                let page = self.number(page);
                self.pages.insert(page, value.to_le_bytes().repeat(PAGE / 8));
            }
            Damage::Swap { one, other } => {
                let (one, other) = (self.number(one), self.number(other));
                let copy = self.pages[&other].clone();
                self.pages.insert(one, copy);
            }
            Damage::Lose { page } => drop(self.pages.remove(&self.number(page))),
        }
    }
}

/// Looks at a damaged guest, and writes all that can be said of it.
fn look_at_damaged((memory, kernel): &(Recorded, Kernel), damages: &[Damage]) -> Option<Graph> {
    let mut memory = memory.clone();
    damages.iter().for_each(|damage| memory.suffer(damage));
    let graph = look(&memory, kernel).ok()?;
    let _ = words::text(&graph);
    Some(graph)
}

static NOTHING_WAITS: LazyLock<(Recorded, Kernel)> = LazyLock::new(|| fixture(LINUX_6_12, "nothing-waits"));
static RWSEM_READER: LazyLock<(Recorded, Kernel)> = LazyLock::new(|| fixture(LINUX_6_12, "rwsem-reader"));
static KERNFS: LazyLock<(Recorded, Kernel)> = LazyLock::new(|| fixture(LINUX_6_12, "kernfs"));
static DEBIAN: LazyLock<(Recorded, Kernel)> = LazyLock::new(|| fixture(DEBIAN_6_12, "vfio-user-debian"));

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_guest_that_was_not_deadlocked_shows_no_deadlock(damages in prop::collection::vec(damage(), 1..30)) {
        let deadlocks = look_at_damaged(&NOTHING_WAITS, &damages).map_or(0, |graph| graph.deadlocks().len());
        prop_assert_eq!(deadlocks, 0);
    }

    #[test]
    fn a_damaged_guest_never_ends_a_look_by_a_panic(damages in prop::collection::vec(damage(), 1..30)) {
        look_at_damaged(&RWSEM_READER, &damages);
        look_at_damaged(&KERNFS, &damages);
        look_at_damaged(&DEBIAN, &damages);
    }
}
