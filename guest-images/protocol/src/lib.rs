//! The messages that the harness and the guest agent exchange.
//!
//! The channel is a virtio-serial port named [`PORT_NAME`]. Each message is one line of JSON. The guest sends the first
//! message, [`Message::Hello`]. After a snapshot was restored, the host asks for it again with [`Command::Hello`].
//!
//! The bytes of a file follow the line of their request ([`Command::PutFile`]) as they are.
//!
//! Each [`Request`] has an id that the host chooses, and is answered by exactly one [`Message::Done`] with this id.
//! There is no time limit: if an operation is stuck in the kernel, its `Done` does not come. Each operation on the
//! kernel runs in a process of its own, so a stuck operation never delays another one.
//!
//! After each line that it sends, the guest executes [`MARKER`]. A host may stop the guest there.
//!
//! All times are nanoseconds of the guest's `CLOCK_MONOTONIC`.

mod call;
mod facts;
mod inventory;
mod line;
mod message;
mod request;
mod text;
mod word;
mod words;

pub use call::{Ask, Call, Returned, VfioDevice};
pub use facts::{Control, PROCESS_PREFIX};
pub use inventory::{Inventory, PciFunction};
pub use line::{LineError, VERSION, decode, encode};
pub use message::{
    Access, Errno, Failure, LinkEvent, Message, Outcome, ProgramEnd, Progress, Reply, Sighting, Swept, TaskState,
    Uevent, Waiting,
};
pub use request::{AttributeWrite, Command, OpId, Policy, Request, Sched, Source, Step, Sweep};
pub use word::{Answer, Function, SlotName, Word, WordId};

/// Name of the virtio-serial port, as in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "iov-regress.agent";

/// Name of the socket, in the guest's abstract namespace (unix(7)), on which the agent hears the words of a script.
pub const WORDS_SOCKET: &str = "iov-regress.words";

/// An instruction of x86-64 that does nothing, and that no compiler emits: `nopl 0x1c0ffee1(%rax,%rax,1)`. QEMU's plugin
/// knows it too (`harness/plugin/gate.c`).
pub const MARKER: [u8; 8] = [0x0f, 0x1f, 0x84, 0x00, 0xe1, 0xfe, 0x0f, 0x1c];
