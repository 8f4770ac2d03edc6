//! The user's terminal as that of a shell in a guest: bytes go both ways as they are, until the shell ends or the key to
//! leave comes.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::thread;

use anyhow::{Context, Result};
use harness::script::{Begins, Left, Terminal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
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
    /// The folder of its socket.
    folder: TempDir,
    left: Left,
}

impl Waiting {
    /// Begins to wait.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn begin() -> Result<Waiting> {
        let folder =
            tempfile::Builder::new().prefix("iov-regress-terminal-").tempdir().context("cannot make a folder")?;
        let listener = UnixListener::bind(folder.path().join(SOCKET)).context("cannot make a socket")?;
        listener.set_nonblocking(true).context("cannot make a socket")?;
        Ok(Waiting { listener, folder, left: Left::default() })
    }

    /// What a script needs to know of it.
    pub fn of(&self, begins: Begins) -> Terminal {
        let size = tcgetwinsize(io::stdin()).map(|size| (size.ws_row, size.ws_col)).ok();
        let size = size.filter(|(rows, columns)| *rows > 0 && *columns > 0).unwrap_or(SIZE);
        Terminal { socket: self.folder.path().join(SOCKET), size, begins, left: self.left.clone() }
    }

    /// Runs a future that starts a guest, and is the guest's terminal when it asks for it.
    ///
    /// # Errors
    /// The terminal cannot be set up, or not be written to.
    pub async fn during<T>(self, work: impl Future<Output = T>) -> Result<T> {
        let left = self.left.clone();
        let (mut work, mut serving) = (pin!(work), pin!(self.serve()));
        tokio::select! {
            biased;
            served = &mut serving => served?,
            done = &mut work => return Ok(done),
        }
        left.tell();
        Ok(work.await)
    }

    /// Waits for the guest, and is its terminal until the user leaves or the guest ends.
    async fn serve(self) -> Result<()> {
        let listener = tokio::net::UnixListener::from_std(self.listener).context("cannot wait for the guest")?;
        let (stream, _) = listener.accept().await.context("cannot take the guest's connection")?;
        eprintln!("a shell in the guest: `iov --help` has words for it; `exit` or Ctrl-] leaves");
        let raw = Raw::begin()?;
        let ended = bridge(stream).await;
        drop(raw);
        eprintln!();
        ended
    }
}

async fn bridge(mut stream: UnixStream) -> Result<()> {
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
