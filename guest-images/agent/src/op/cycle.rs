//! Writes attributes in turn, as fast as possible.

use guest_protocol::{AttributeWrite, Reply, Sched};

use super::attribute;
use crate::error::{AgentError, doing};
use crate::job::Controls;

/// Writes until the number of rounds is reached, or the host says stop.
pub fn cycle(writes: &[AttributeWrite], rounds: Option<u32>, controls: &Controls) -> Result<Reply, AgentError> {
    let mut done = 0;
    let mut refused = 0;
    while rounds.is_none_or(|rounds| done < rounds) {
        for write in writes {
            // The server passes on nothing but stop.
            if doing("check for a stop request", || controls.is_told())? {
                return Ok(Reply::Cycled { rounds: done, refused });
            }
            let access = attribute::write(&write.path, &write.data, 0, Sched::default())?;
            refused += u32::from(access.value.is_err());
        }
        done += 1;
    }
    Ok(Reply::Cycled { rounds: done, refused })
}
