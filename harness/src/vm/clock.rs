//! Whose clock a guest runs on: the host's, or its own, which stands still whenever the harness wants it to.

use std::fmt;
use std::path::PathBuf;

/// The clock of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The guest's time goes on as the host's does.
    #[default]
    Host,
    /// The guest's time is the number of its instructions. While all its CPUs are idle, it jumps to the next timer. A
    /// plugin stops the guest after each line of its agent, until the harness says go ([`super::gate`]). Only for TCG.
    Held(Held),
}

/// What a machine with a held clock needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The plugin that stops the guest, compiled for the QEMU of the machine ([`crate::vm::gate`]).
    pub plugin: PathBuf,
    /// Where else the guest is stopped. They do not change the guest, so they are not part of what a snapshot depends
    /// on.
    pub places: Vec<Place>,
}

/// An instruction of the kernel at which the guest is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its virtual address: guests have no KASLR.
    pub address: u64,
    /// At which of its executions the guest is stopped, counted from 1 since QEMU was started. None for each.
    pub hit: Option<u64>,
}

impl Clock {
    /// Its name, as in the record of a run.
    pub fn name(&self) -> &'static str {
        match self {
            Clock::Host => "host",
            Clock::Held(_) => "guest",
        }
    }

    /// The same clock, without places.
    pub fn without_places(&self) -> Clock {
        match self {
            Clock::Host => Clock::Host,
            Clock::Held(held) => Clock::Held(Held { places: Vec::new(), ..held.clone() }),
        }
    }
}

/// As in the plugin's argument `at=`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)?;
        self.hit.map_or(Ok(()), |hit| write!(f, ":{hit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_the_plugin_reads_it() {
        let place = |hit| Place { address: 0xffff_ffff_814c_0a30, hit }.to_string();
        assert_eq!(place(None), "0xffffffff814c0a30");
        assert_eq!(place(Some(4)), "0xffffffff814c0a30:4");
    }
}
