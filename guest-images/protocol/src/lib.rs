//! The messages that the harness and the guest agent exchange.
//!
//! The channel is a virtio-serial port named [`PORT_NAME`]; each message is one line of JSON. The guest speaks first,
//! with [`Message::Hello`]; the host may ask for it again with [`Command::Hello`] (after restoring a snapshot).
//! Every [`Request`] carries an id of the host's choosing and is answered by exactly one [`Message::Done`] with that
//! id, however long that takes: an operation stuck in the kernel is one whose `Done` does not come. Requests are served
//! concurrently, each operation on the kernel in a process of its own, so that a stuck one never delays another.
//!
//! All times are nanoseconds of the guest's `CLOCK_MONOTONIC`.

mod facts;
mod inventory;
mod line;
mod message;
mod request;
mod text;
mod words;

pub use facts::Control;
pub use inventory::{Inventory, PciFunction};
pub use line::{LineError, VERSION, decode, encode};
pub use message::{
    Access, Errno, Failure, LinkEvent, Message, Outcome, Progress, Reply, Sighting, Swept, TaskState, Uevent, Waiting,
};
pub use request::{AttributeWrite, Command, OpId, Policy, Request, Sched, Source, Step, Sweep, VfioDevice};

/// Name of the virtio-serial port, as in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "iov-regress.agent";
