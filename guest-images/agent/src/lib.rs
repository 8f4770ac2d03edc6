//! PID 1 of the guest: does to the kernel what the host asks, and tells what happened.
//!
//! Three kinds of process, all of this one program:
//! - [`init`]: PID 1, which mounts what the kernel offers, starts the server and from then on only reaps;
//! - [`server`]: reads requests from the host, starts a process for each, and sends what they and the kernel say;
//! - [`op`]: one operation on the kernel. It may get stuck there for good, and nothing else does.

pub mod init;
pub mod op;
pub mod outbox;
pub mod server;

mod clock;
mod error;
mod job;
mod kmsg;
mod link;
mod modules;
mod netlink;
mod port;
mod procfs;
mod program;
mod relay;
mod sched;
mod streams;
mod uevent;
mod vfio;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use error::AgentError;
use outbox::Outbox;
use server::Server;

/// The server of a guest: finds the port to the host, says hello, streams what the kernel says, and serves requests for
/// as long as the machine runs.
pub fn serve_port() -> ExitCode {
    let Err(error) = serve_port_or_fail();
    eprintln!("iov-agent: the server cannot go on: {}", error::chain(&error));
    ExitCode::FAILURE
}

fn serve_port_or_fail() -> Result<std::convert::Infallible, AgentError> {
    error::doing("name the server", || program::name_process("iov-serve"))?;
    let port = port::open()?;
    // Streams are armed before hello, and flow after it: what happens once the host has heard hello is not missed.
    let streams = streams::Streams::arm();
    let writer = port.try_clone().map_err(|source| AgentError::io("duplicate the port's descriptor", source))?;
    let outbox = Arc::new(Outbox::new(writer));
    outbox.hello();
    streams.start(&outbox);
    let requests = port::Requests::new(port, outbox.clone());
    Server::new(outbox, Path::new(program::SELF)).serve(requests)?;
    Err(AgentError::Refused("the port to the host came to its end".to_owned()))
}
