//! A shell in the guest with a terminal of the user's.
//!
//! QEMU gets one more console while it runs, so the machine and its snapshots are those of other cells. In the guest it is
//! a terminal of its own (`drivers/tty/hvc/hvc_console.c`), whose line discipline turns Ctrl-C into a signal.

use std::convert::Infallible;

use guest_protocol::{Command, Message};
use tokio::sync::watch::Receiver;

use super::place::over;
use super::script::SHELL;
use super::{Error, FOREVER, Guest, Program};
use crate::script::{Begins, Debugger, Terminal};
use crate::verdict::Verdict;
use crate::vm::argv::text;
use crate::vm::qmp::QmpEvent;

/// The id of the console and of its channel.
const ID: &str = "terminal";

/// The bus on which the agent's port is, too.
const BUS: &str = "serial0.0";

/// The name of the terminal in the guest.
const TTY: &str = "hvc0";

impl Guest {
    /// If the user wants to look at the guest of a scenario that failed: a shell on the terminal, until the user ends it.
    ///
    /// # Errors
    /// QMP's and the agent's; [`Error::Unprepared`] if QEMU refuses the console.
    pub(crate) async fn shell_after_failure(&self) -> Result<(), Error> {
        let Some(terminal) = self.terminal.filter(|terminal| terminal.begins == Begins::AfterFailure) else {
            return Ok(());
        };
        self.hear_words().await?;
        self.shell(terminal, self.agent().messages().position()).await.map(drop)
    }

    /// A shell on a terminal, until the user ends it. `from` is a position of the messages before its first word.
    ///
    /// # Errors
    /// QMP's and the agent's; [`Error::Unprepared`] if QEMU refuses the console.
    pub(super) async fn shell(&self, terminal: &Terminal, from: usize) -> Result<Verdict, Error> {
        if let Some(debugger) = &terminal.debugger {
            self.await_debugger(debugger).await?;
        }
        let mut size = terminal.size.follow();
        let program = self.on_terminal(terminal, *size.borrow_and_update()).await?;
        tokio::select! {
            biased;
            said = self.serve_words(from) => said,
            ended = over(program.operation(), FOREVER) => ended.map(|()| Verdict::Pass),
            () = terminal.left.told() => Ok(Verdict::Pass),
            never = self.follow_size(size) => match never? {},
        }
    }

    /// Gives the guest's terminal each new size of the user's. The kernel then tells the programs on it (SIGWINCH).
    async fn follow_size(&self, mut size: Receiver<(u16, u16)>) -> Result<Infallible, Error> {
        while size.changed().await.is_ok() {
            let (rows, columns) = *size.borrow_and_update();
            // Only a process that leads no session does not make the terminal its own: the shell forks for all but the last
            // command.
            let line = format!("stty rows {rows} cols {columns} <>/dev/{TTY}; true");
            // A guest that stands in a debugger takes the size later.
            let stty = self.run(SHELL, &["-c", &line]).await?;
            let _ = stty.ended(self.prompt()).await;
        }
        // The size has its sender.
        std::future::pending().await
    }

    /// Has QEMU listen for a debugger, and the guest stand until the debugger lets it go on.
    async fn await_debugger(&self, debugger: &Debugger) -> Result<(), Error> {
        let (qmp, from) = (self.vm().qmp(), self.vm().qmp().events().position());
        let command = format!("gdbserver unix:{},server=on,wait=off", text(&debugger.socket));
        let answer = qmp.monitor(&command).await?;
        if !answer.starts_with("Waiting for gdb connection") {
            return Err(Error::Unprepared(format!("QEMU refused `{command}`: {answer}")));
        }
        qmp.execute(qapi::qmp::stop {}).await?;
        debugger.awaited.tell();
        let goes_on = |event: &QmpEvent| match event {
            QmpEvent::Sent(qapi::qmp::Event::RESUME { .. }) => Some(()),
            _ => None,
        };
        qmp.events().wait(from, FOREVER, "the debugger to let the guest go on", goes_on).await?;
        Ok(())
    }

    /// Connects a terminal to the guest, and starts a shell on it. The program ends with the shell.
    async fn on_terminal(&self, terminal: &Terminal, (rows, columns): (u16, u16)) -> Result<Program, Error> {
        let from = self.agent().messages().position();
        let path = text(&terminal.socket);
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
