//! The guest agent: carries out requests of the host on the guest's kernel, and reports what happens.
//!
//! It is one program with three kinds of process:
//! - [`init`]: PID 1. It mounts the kernel's file systems, starts the server, and then only reaps.
//! - [`server`]: reads requests from the host, starts a process for each operation, and sends messages of these
//!   processes and of the kernel to the host.
//! - [`op`]: one operation on the kernel. It may get stuck in the kernel; the other processes never do.
//!
//! Under the name `iov` it is a program for scripts in the guest ([`iov`]).

pub mod init;
pub mod iov;
pub mod op;
pub mod outbox;
pub mod server;

mod alarm;
mod clock;
mod error;
mod job;
mod kmsg;
mod link;
mod marker;
mod modules;
mod netlink;
mod port;
mod procfs;
mod program;
mod relay;
mod sched;
mod streams;
mod uevent;
mod upload;
mod vfio;
mod words;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use error::AgentError;
use outbox::Outbox;
use server::Server;

/// The server of a guest: opens the port to the host, sends hello, streams the kernel's events and log, and serves
/// requests as long as the guest runs.
pub fn serve_port() -> ExitCode {
    let Err(error) = serve_port_or_fail();
    eprintln!("iov-agent: the server ends: {}", error::chain(&error));
    ExitCode::FAILURE
}

fn serve_port_or_fail() -> Result<std::convert::Infallible, AgentError> {
    error::doing("name the server", || program::name_process("iov-serve"))?;
    let port = port::open()?;
    // The streams are armed before hello and started after it, so that nothing is missed that happens after hello.
    let streams = streams::Streams::arm();
    let writer = port.try_clone().map_err(|source| AgentError::io("duplicate the port's descriptor", source))?;
    let outbox = Arc::new(Outbox::new(writer));
    outbox.hello();
    streams.start(&outbox);
    let requests = port::Requests::new(port, outbox.clone());
    Server::new(outbox, Path::new(program::SELF)).serve(requests)?;
    Err(AgentError::Refused("the port to the host was closed".to_owned()))
}
