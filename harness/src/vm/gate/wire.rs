//! What the plugin and the host say to each other. `harness/plugin/gate.c` has the same words.

use std::fmt;

/// Where the guest stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the marker: the agent has sent a line.
    Mark {
        /// The virtual CPU.
        vcpu: u32,
    },
    /// At a place.
    Place {
        /// Which one: its position in [`crate::vm::clock::Held::places`].
        place: usize,
        /// The virtual CPU.
        vcpu: u32,
        /// Which execution of the instruction this is in this QEMU, from 1.
        hit: u64,
    },
}

/// A line of the plugin that is not of its protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plugin that stops the guest sent {0:?}, which is no stop")]
pub struct Unknown(String);

/// What the host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on until the next stop.
    Go,
    /// Go on, and do not stop any more.
    Free,
    /// Stop again, from the next marker or place on.
    Hold,
    /// Stop at a place.
    StopAt {
        /// Its position in [`crate::vm::clock::Held::places`].
        place: usize,
        /// At which of its executions from now on, from 1. With 0 it does not stop there.
        hit: u64,
    },
}

/// As it is sent.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Go => f.write_str("g"),
            Order::Free => f.write_str("f"),
            Order::Hold => f.write_str("h"),
            Order::StopAt { place, hit } => writeln!(f, "a{place} {hit}"),
        }
    }
}

/// The longest part of an unknown line that is shown.
const SHOWN: usize = 80;

impl std::str::FromStr for Stop {
    type Err = Unknown;

    /// A line without its newline.
    fn from_str(line: &str) -> Result<Stop, Unknown> {
        let words: Vec<_> = line.split(' ').collect();
        let stop = match words.as_slice() {
            ["mark", vcpu] => vcpu.parse().map(|vcpu| Stop::Mark { vcpu }).ok(),
            ["place", place, vcpu, hit] => match (place.parse(), vcpu.parse(), hit.parse()) {
                (Ok(place), Ok(vcpu), Ok(hit)) => Some(Stop::Place { place, vcpu, hit }),
                _ => None,
            },
            _ => None,
        };
        stop.ok_or_else(|| Unknown(line.chars().take(SHOWN).collect()))
    }
}

/// As the plugin writes it, without the newline.
impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Mark { vcpu } => write!(f, "mark {vcpu}"),
            Stop::Place { place, vcpu, hit } => write!(f, "place {place} {vcpu} {hit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stop() -> impl Strategy<Value = Stop> {
        prop_oneof![
            any::<u32>().prop_map(|vcpu| Stop::Mark { vcpu }),
            (any::<usize>(), any::<u32>(), any::<u64>()).prop_map(|(place, vcpu, hit)| Stop::Place {
                place,
                vcpu,
                hit
            }),
        ]
    }

    #[test]
    fn lines_of_the_plugin_are_understood() {
        assert_eq!("mark 1".parse(), Ok(Stop::Mark { vcpu: 1 }));
        assert_eq!("place 2 0 17".parse(), Ok(Stop::Place { place: 2, vcpu: 0, hit: 17 }));
        for line in ["", "mark", "mark x", "mark 1 2", "place 2 0", "place 2 0 -1", " mark 1", "mark 1\n", "go"] {
            assert_eq!(line.parse::<Stop>(), Err(Unknown(line.to_owned())), "{line:?}");
        }
        let long = "x".repeat(300).parse::<Stop>().unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    proptest! {
        #[test]
        fn a_stop_is_read_as_it_was_written(stop in stop()) {
            prop_assert_eq!(stop.to_string().parse(), Ok(stop));
        }

        #[test]
        fn a_line_that_is_cut_or_changed_is_refused_or_another_stop(stop in stop(), cut: prop::sample::Index) {
            let line = stop.to_string();
            let half = &line[..cut.index(line.len())];
            prop_assert!(half.parse::<Stop>() != Ok(stop), "{half:?}");
        }

        #[test]
        fn no_line_makes_it_panic(line: String) {
            let _ = line.parse::<Stop>();
        }
    }
}
