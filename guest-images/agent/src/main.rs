//! The guest agent: one static binary in three roles. As PID 1 it sets the machine up, starts the server and reaps; as
//! `serve` it talks to the host; as `op` it is one operation on the kernel.

use std::process::ExitCode;

use guest_agent::{init, op, serve_port};

fn main() -> ExitCode {
    // The kernel hands its own unknown parameters to PID 1 as arguments, so its role does not depend on them.
    if std::process::id() == 1 {
        return init::run();
    }
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve_port(),
        Some("op") => op::main(),
        _ => {
            eprintln!("iov-agent: this is PID 1 of a guest of iov-regress; it is of no use on a host");
            ExitCode::from(2)
        }
    }
}
