//! Writes to `/proc/bus/pci/BUS/DEVICE.FUNCTION`, the configuration space of a function (`drivers/pci/proc.c`,
//! `proc_bus_pci_write()`). It ends after [`SIZE`] bytes. What is written beyond its end must go nowhere.

use guest_protocol::{Sched, TaskState};
use harness::classify::stack;
use harness::guest::{Guest, Halt, Pf, RUNNING, judged, must, register};
use harness::notes::Note;
use harness::scenario::Scenario;
use harness::vm::agent::{AgentError, Operation};

use crate::check::{accepts, wrong};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "proc_pci::write_beyond_2_gib",
        about: "A few bytes are written to the file of a PF in /proc/bus/pci, at an offset beyond 2 GiB. The write must \
                end.",
        detects: &["proc-write-offset-truncated"],
        ..Scenario::of(|guest| Box::pin(judged(beyond_2_gib(guest))))
    },
    Scenario {
        name: "proc_pci::write_beyond_4_gib",
        about: "A byte is written to the file of a PF in /proc/bus/pci, at offsets around 4 GiB. No register may \
                change.",
        detects: &["proc-write-offset-truncated"],
        ..Scenario::of(|guest| Box::pin(judged(beyond_4_gib(guest))))
    },
];

/// The size of the configuration space of a PCI Express function.
const SIZE: u64 = 4096;

/// The function that writes.
const WRITES: &str = "proc_bus_pci_write";

/// Its caller (`fs/proc/inode.c`). Mostly only this one is on the stack of the task: the write reads beyond its data, and
/// faults in `__get_user`, which has no stack frame and so hides who called it.
const CALLS_IT: &str = "proc_reg_write";

/// A multiple of 4, which is far enough above 2 GiB: the kernel counts the bytes up to the end of the configuration
/// space with 31 bits.
const BEYOND_2_GIB: u64 = (1 << 31) + (1 << 20);

const FOUR_GIB: u64 = 1 << 32;

/// The upper byte of Command, whose only bit that counts is Interrupt Disable (PCI Express 5.0, section 7.5.1.1.3).
/// That bit is clear while the PF has no driver.
const UPPER_COMMAND: u64 = 0x05;
const INTERRUPT_DISABLE: u32 = 0x0400;
/// Written to it, this sets the bit.
const DISABLES_INTX: &str = "\x04";
/// Written a byte before the configuration space, this ends in Command, and sets the bit too.
const ENDS_IN_COMMAND: &str = "\0\0\0\0\0\0\x04";

/// A write of some bytes takes microseconds. If it has not ended after this many seconds (scaled to the speed of the
/// guest), it does not end.
const LONG: f64 = 2.0;

/// A PF without a driver, and its file. A driver could fail because of what a bad write leaves in the registers.
async fn prepared(guest: &Guest) -> Result<(&Pf, String), Halt> {
    let pf = guest.pf()?;
    accepts(guest, &pf.driver_attribute("unbind"), pf.device.bdf, "while the PF is bound").await?;
    let name = pf.device.bdf.to_string();
    let without_segment = name.split_once(':').map_or("", |(_, rest)| rest);
    Ok((pf, format!("/proc/bus/pci/{}", without_segment.replace(':', "/"))))
}

/// The kernel takes the offset for a negative number, and then writes everything from there to the end of the
/// configuration space: 2 GiB.
async fn beyond_2_gib(guest: &Guest) -> Result<(), Halt> {
    let (_, path) = prepared(guest).await?;
    let write = guest.write_at(path.clone(), BEYOND_2_GIB, "\0\0\0\0\0\0\0\0", Sched::default()).await?;
    let ended = guest.vm().time().timeout(guest.seconds(LONG), took_nothing(guest, &write, &path, BEYOND_2_GIB)).await;
    if let Ok(answer) = ended {
        return answer;
    }
    let writes = |task: &TaskState| {
        let is_there = [WRITES, CALLS_IT].iter().any(|function| stack::is_in(task, function));
        (task.state == RUNNING && is_there).then(|| task.clone())
    };
    match guest.find_running(&write, writes).await? {
        Some(task) => {
            let summary = format!("a write of 8 bytes at {BEYOND_2_GIB:#x} of {path} keeps running in {WRITES}");
            guest.note_tasks(Note::Busy, &[task]);
            Err(wrong(WRITES, summary))
        }
        None => took_nothing(guest, &write, &path, BEYOND_2_GIB).await,
    }
}

/// The kernel forgets the upper half of an offset: what is written 4 GiB further goes to the same register.
async fn beyond_4_gib(guest: &Guest) -> Result<(), Halt> {
    let (pf, path) = prepared(guest).await?;
    let before = guest.registers(pf).await?;
    for (at, data) in [(FOUR_GIB + UPPER_COMMAND, DISABLES_INTX), (FOUR_GIB - 1, ENDS_IN_COMMAND)] {
        let write = guest.write_at(path.clone(), at, data, Sched::default()).await?;
        took_nothing(guest, &write, &path, at).await?;
        let changes = guest.registers(pf).await?.changes_since(&before, &[register::COMMAND]);
        must(changes.is_empty(), WRITES, || format!("after a write at {at:#x} of {path}, {}", changes.join("; ")))?;
    }
    // The same write within the configuration space shows that it would have had an effect.
    for (data, set) in [(DISABLES_INTX, INTERRUPT_DISABLE), ("\0", 0)] {
        let write = guest.write_at(path.clone(), UPPER_COMMAND, data, Sched::default()).await?;
        let answer = write.accessed(guest.prompt()).await?;
        let command = guest.registers(pf).await?.value(register::COMMAND)?;
        must(answer.value.is_ok() && command & INTERRUPT_DISABLE == set, WRITES, || {
            format!("after {data:?} was written at {UPPER_COMMAND:#x} of {path}, Command is {command:#06x}")
        })?;
    }
    Ok(guest.bind(pf, pf.model().driver.name).await?)
}

/// Waits for a write at an offset that the file does not have. The kernel may return an error, or that it took no bytes.
async fn took_nothing(guest: &Guest, write: &Operation, path: &str, at: u64) -> Result<(), Halt> {
    match write.accessed(guest.prompt()).await {
        Ok(access) => must(access.value.is_err(), WRITES, || {
            format!("a write at {at:#x} of {path} succeeds, and the file has {SIZE} bytes")
        }),
        // The agent says so if the kernel took fewer bytes than it was given.
        Err(AgentError::Failed { failure, .. }) if failure.errno.is_none() => {
            must(failure.message.contains("the kernel took 0 of"), WRITES, || failure.message.clone())
        }
        Err(error) => Err(error.into()),
    }
}
