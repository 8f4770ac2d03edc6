//! Requests on their way to the agent.
//!
//! A guest's input depends on how QEMU reads what the harness sends: each piece that QEMU reads fills a buffer of the guest.
//! So what the work sends to a held guest before it waits is sent at once, in one write.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{self, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::transcript::{Recorder, Speaker};
use super::unread;

/// QEMU takes a request within so much time, if it is not busy.
const TAKING: Duration = Duration::from_millis(1);

/// What is sent to the agent of one guest.
pub(super) struct Outgoing {
    waiting: sync::Mutex<Vec<u8>>,
    write: Mutex<WriteHalf<UnixStream>>,
    /// The same socket, to ask how much QEMU has not taken. None if the host is out of file descriptors.
    socket: Option<OwnedFd>,
    record: Recorder,
    /// How many requests were added.
    added: AtomicU64,
}

impl Outgoing {
    /// Nothing yet. `socket` is what `write` is a half of.
    pub(super) fn new(socket: Option<OwnedFd>, write: WriteHalf<UnixStream>, record: Recorder) -> Outgoing {
        let (waiting, write) = (sync::Mutex::default(), Mutex::new(write));
        Outgoing { waiting, write, socket, record, added: AtomicU64::new(0) }
    }

    /// Another handle of a stream's socket.
    pub(super) fn socket_of(stream: &UnixStream) -> Option<OwnedFd> {
        stream.as_fd().try_clone_to_owned().ok()
    }

    /// Adds a request, and bytes that belong to it.
    pub(super) fn add(&self, line: &str, bytes: &[u8]) {
        (self.record)(Speaker::Host, line.trim_end());
        let mut waiting = self.waiting();
        waiting.extend_from_slice(line.as_bytes());
        waiting.extend_from_slice(bytes);
        self.added.fetch_add(1, Ordering::SeqCst);
    }

    /// How many requests were added so far.
    pub(super) fn added(&self) -> u64 {
        self.added.load(Ordering::SeqCst)
    }

    /// Sends what was added. Whoever stops waiting for this loses nothing: the next one goes on.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub(super) async fn send(&self) -> std::io::Result<()> {
        let mut write = self.write.lock().await;
        loop {
            let waiting = self.waiting().clone();
            if waiting.is_empty() {
                return Ok(());
            }
            let written = write.write(&waiting).await?;
            self.waiting().drain(..written);
        }
    }

    /// Waits until QEMU has taken all that was sent. Gives up after this time, in which QEMU takes it if it can.
    pub(super) async fn taken(&self, within: Duration) {
        let Some(socket) = &self.socket else { return };
        let began = Instant::now();
        let taken = async {
            while unread::of(socket).is_ok_and(|bytes| bytes > 0) {
                // A sleep takes longer than QEMU usually does.
                if began.elapsed() < TAKING {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(TAKING).await;
                }
            }
        };
        let _ = tokio::time::timeout(within, taken).await;
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        // A panic in another thread cannot leave it with half a request.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_waits_is_sent_at_once() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (_read, write) = tokio::io::split(near);
        let lines = Arc::new(sync::Mutex::new(Vec::new()));
        let record: Recorder = {
            let lines = lines.clone();
            Arc::new(move |_, line| lines.lock().unwrap().push(line.to_owned()))
        };
        let outgoing = Outgoing::new(None, write, record);
        outgoing.add("one\n", b"file");
        outgoing.add("two\n", b"");
        assert_eq!(outgoing.added(), 2);
        outgoing.send().await.unwrap();
        let mut buffer = [0; 100];
        let length = far.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"one\nfiletwo\n");
        assert_eq!(*lines.lock().unwrap(), ["one", "two"]);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_gets_the_rest_later() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (_read, write) = tokio::io::split(near);
        let outgoing = Outgoing::new(None, write, Arc::new(|_, _| {}));
        let all: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
        outgoing.add("", &all);
        tokio::time::timeout(Duration::from_millis(20), outgoing.send()).await.unwrap_err();
        let mut got = vec![0; all.len()];
        let (sent, read) = tokio::join!(outgoing.send(), far.read_exact(&mut got));
        sent.unwrap();
        read.unwrap();
        assert!(got == all);
    }
}
