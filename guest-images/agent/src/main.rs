//! The guest agent: one static program with four roles. As PID 1 it sets up the guest, starts the server and reaps. As
//! `serve` it is the server. As `op` it is one operation on the kernel. Under the name `iov` it is for scripts.

use std::process::ExitCode;

use guest_agent::{init, iov, op, serve_port};

fn main() -> ExitCode {
    // The kernel passes parameters that it does not know to PID 1 as arguments, so this role must not depend on them.
    if std::process::id() == 1 {
        return init::run();
    }
    if iov::is_called() {
        return iov::main();
    }
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve_port(),
        Some("op") => op::main(),
        _ => {
            eprintln!("iov-agent: this program is PID 1 of a guest of iov-regress and does nothing on a host");
            ExitCode::from(2)
        }
    }
}
