//! A shell in the guest with a terminal of the user's.
//!
//! QEMU gets one more console while it runs, so the machine and its snapshots are those of other cells. In the guest it is
//! a terminal of its own (`drivers/tty/hvc/hvc_console.c`), whose line discipline turns Ctrl-C into a signal.

use guest_protocol::{Command, Message};

use super::script::SHELL;
use super::{Error, Guest, Program};
use crate::script::Terminal;

/// The id of the console and of its channel.
const ID: &str = "terminal";

/// The bus on which the agent's port is, too.
const BUS: &str = "serial0.0";

/// The name of the terminal in the guest.
const TTY: &str = "hvc0";

impl Guest {
    /// Connects a terminal to the guest, and starts a shell on it. The program ends with the shell.
    ///
    /// # Errors
    /// QMP's and the agent's; [`Error::Unprepared`] if QEMU refuses the console.
    pub(super) async fn terminal(&self, terminal: &Terminal) -> Result<Program, Error> {
        let from = self.agent().messages().position();
        // In an option of QEMU, a comma is doubled.
        let path = terminal.socket.display().to_string().replace(',', ",,");
        for command in [
            format!("chardev-add socket,id={ID},path={path}"),
            format!("device_add virtconsole,id={ID},chardev={ID},bus={BUS}"),
        ] {
            let answer = self.vm().qmp().monitor(&command).await?;
            if !answer.is_empty() {
                return Err(Error::Unprepared(format!("QEMU refused `{command}`: {answer}")));
            }
        }
        let there = |message: &Message| match message {
            Message::Uevent { uevent, .. } => {
                (uevent.action == "add" && uevent.devpath.ends_with(&format!("/{TTY}"))).then_some(())
            }
            _ => None,
        };
        let messages = self.agent().messages();
        if !self.list("/dev").await?.iter().any(|name| name == TTY) {
            messages.wait(from, self.prompt(), &format!("the terminal {TTY} in the guest"), there).await?;
        }
        let (rows, columns) = terminal.size;
        let line = format!(
            "exec <>/dev/{TTY} >&0 2>&0; stty sane rows {rows} cols {columns}; cd /tmp; exec setsid -c {SHELL} -i"
        );
        let trigger = self.trigger.map(|trigger| ("TRIGGER".to_owned(), trigger.name().to_owned()));
        let env = [("TERM".to_owned(), "linux".to_owned()), ("PS1".to_owned(), "guest# ".to_owned())];
        let env = env.into_iter().chain(trigger).collect();
        let args = vec!["-c".to_owned(), line];
        Ok(Program::of(self.agent().start(Command::Run { program: SHELL.to_owned(), args, env, socket: true }).await?))
    }
}
