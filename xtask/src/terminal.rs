//! The user's terminal as that of a shell in a guest: bytes go both ways as they are, until the shell ends or the key to
//! leave comes.

use std::cell::Cell;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::thread;

use anyhow::{Context, Result};
use harness::script::{Begins, Debugger, Signal, Size, Terminal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The key to leave: Ctrl-], as in telnet.
const LEAVE: u8 = 0x1d;

/// The end of the input, for a terminal: Ctrl-D.
const END: u8 = 0x04;

/// The name of the socket in its folder.
const SOCKET: &str = "socket";

/// The size of a terminal that is none.
const SIZE: (u16, u16) = (24, 80);

/// A terminal that waits for a guest.
pub struct Waiting {
    listener: UnixListener,
    /// The folder of its sockets.
    folder: TempDir,
    terminal: Terminal,
    /// The kernel for a debugger, if the guest is to wait for one.
    vmlinux: Option<PathBuf>,
}

impl Waiting {
    /// Begins to wait.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn begin(begins: Begins) -> Result<Waiting> {
        let folder =
            tempfile::Builder::new().prefix("iov-regress-terminal-").tempdir().context("cannot make a folder")?;
        let listener = UnixListener::bind(folder.path().join(SOCKET)).context("cannot make a socket")?;
        listener.set_nonblocking(true).context("cannot make a socket")?;
        let (rows, columns) = size().unwrap_or(SIZE);
        let terminal = Terminal {
            socket: folder.path().join(SOCKET),
            qmp: folder.path().join("qmp"),
            size: Size::new(rows, columns),
            begins,
            left: Signal::default(),
            debugger: None,
        };
        Ok(Waiting { listener, folder, terminal, vmlinux: None })
    }

    /// The same for a guest that first waits for a debugger, which needs this vmlinux.
    pub fn with_debugger(mut self, vmlinux: PathBuf) -> Waiting {
        let socket = self.folder.path().join("gdb");
        self.terminal.debugger = Some(Debugger { socket, awaited: Signal::default() });
        self.vmlinux = Some(vmlinux);
        self
    }

    /// What a scenario needs to know of it.
    pub fn terminal(&self) -> Terminal {
        self.terminal.clone()
    }

    /// Runs a future that starts a guest, and is the guest's terminal when it asks for it. Also returns whether it has asked.
    ///
    /// # Errors
    /// The terminal cannot be set up, or not be written to.
    pub async fn during<T>(self, work: impl Future<Output = T>) -> Result<(T, bool)> {
        let (left, asked) = (self.terminal.left.clone(), Cell::new(false));
        let (mut work, mut serving) = (pin!(work), pin!(self.serve(&asked)));
        tokio::select! {
            biased;
            served = &mut serving => served?,
            done = &mut work => return Ok((done, asked.get())),
        }
        left.tell();
        Ok((work.await, true))
    }

    /// Waits for the guest, and is its terminal until the user leaves or the guest ends.
    async fn serve(self, asked: &Cell<bool>) -> Result<()> {
        let listener = tokio::net::UnixListener::from_std(self.listener).context("cannot wait for the guest")?;
        if let (Some(debugger), Some(vmlinux)) = (&self.terminal.debugger, &self.vmlinux) {
            debugger.awaited.told().await;
            eprintln!(
                "the guest waits for a debugger, whose `continue` lets it go on:\n  {}",
                attach(debugger, vmlinux)
            );
        }
        let (stream, _) = listener.accept().await.context("cannot take the guest's connection")?;
        asked.set(true);
        eprintln!("a shell in the guest: `iov --help` has words for it; `exit` or Ctrl-] leaves");
        eprintln!("QEMU takes QMP commands on {}", self.terminal.qmp.display());
        let raw = Raw::begin()?;
        let ended = bridge(stream, &self.terminal.size).await;
        drop(raw);
        eprintln!();
        ended
    }
}

/// The command that attaches a debugger.
fn attach(debugger: &Debugger, vmlinux: &Path) -> String {
    let target = format!("target remote {}", debugger.socket.display());
    shell_words::join(["gdb", "-ex", &target, &vmlinux.display().to_string()])
}

/// The rows and columns of the user's terminal. None if there is no terminal.
fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    Some((size.ws_row, size.ws_col)).filter(|(rows, columns)| *rows > 0 && *columns > 0)
}

async fn bridge(mut stream: UnixStream, of: &Size) -> Result<()> {
    let mut resized = signal(SignalKind::window_change()).context("cannot follow the size of the terminal")?;
    let (keys, mut pressed) = mpsc::channel(16);
    thread::spawn(move || read_keys(&keys));
    let (mut from_guest, mut to_guest) = stream.split();
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            read = from_guest.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(length) => {
                    let mut stdout = io::stdout().lock();
                    stdout.write_all(&buffer[..length]).and_then(|()| stdout.flush()).context("cannot write to the terminal")?;
                }
            },
            Some(()) = resized.recv() => {
                if let Some((rows, columns)) = size() {
                    of.set(rows, columns);
                }
            }
            Some(bytes) = pressed.recv() => {
                let bytes: Vec<u8> = bytes;
                let left = bytes.iter().position(|byte| *byte == LEAVE);
                to_guest.write_all(&bytes[..left.unwrap_or(bytes.len())]).await.context("the guest takes no input")?;
                if left.is_some() {
                    return Ok(());
                }
            }
        }
    }
}

/// Reads what the user types. It waits in a thread of its own, which ends with the process.
fn read_keys(keys: &mpsc::Sender<Vec<u8>>) {
    let mut stdin = io::stdin();
    let mut buffer = [0; 1024];
    loop {
        let bytes = match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => vec![END],
            Ok(length) => buffer[..length].to_vec(),
        };
        let is_over = bytes == [END] && !stdin.is_terminal();
        if keys.blocking_send(bytes).is_err() || is_over {
            return;
        }
    }
}

/// A terminal in raw mode. Dropping it sets the terminal back.
struct Raw {
    before: Option<Termios>,
}

impl Raw {
    /// If standard input is no terminal, nothing is changed.
    fn begin() -> Result<Raw> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Raw { before: None });
        }
        let before = tcgetattr(&stdin).context("cannot ask the terminal for its mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(Raw { before: Some(before) })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
