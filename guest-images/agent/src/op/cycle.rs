//! Writing attributes by turns, as fast as the kernel takes them.

use guest_protocol::{AttributeWrite, Reply, Sched};

use super::attribute;
use crate::error::{AgentError, doing};
use crate::job::Controls;

/// Writes until the rounds are over or the host says so.
pub fn cycle(writes: &[AttributeWrite], rounds: Option<u32>, controls: &Controls) -> Result<Reply, AgentError> {
    let (mut done, mut refused) = (0, 0);
    while rounds.is_none_or(|rounds| done < rounds) {
        for write in writes {
            // Whatever the host says means stop; the server lets nothing else through.
            if doing("look for the host's word", || controls.is_told())? {
                return Ok(Reply::Cycled { rounds: done, refused });
            }
            let access = attribute::write(&write.path, &write.data, 0, Sched::default())?;
            refused += u32::from(access.value.is_err());
        }
        done += 1;
    }
    Ok(Reply::Cycled { rounds: done, refused })
}
