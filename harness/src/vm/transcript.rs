//! Recording the lines of a channel as they are sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The sender of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The harness.
    Host,
    /// QEMU, or the guest's agent.
    Guest,
}

/// A function that gets each line, without its newline.
pub type Recorder = Arc<dyn Fn(Speaker, &str) + Send + Sync>;

/// A stream whose lines are recorded.
pub struct Recorded<S> {
    stream: S,
    speaker: Speaker,
    record: Recorder,
    pending: Vec<u8>,
}

impl<S> Recorded<S> {
    /// Records the data that is read from or written to a stream. `speaker` is its sender.
    pub fn new(stream: S, speaker: Speaker, record: Recorder) -> Self {
        Recorded { stream, speaker, record, pending: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            (self.record)(self.speaker, String::from_utf8_lossy(&line).trim_end());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.take(&buf.filled()[before..]);
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = poll {
            self.take(&bytes[..written]);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn lines_are_recorded_for_any_size_of_chunks() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let record: Recorder = {
            let lines = lines.clone();
            Arc::new(move |speaker, line| lines.lock().unwrap().push((speaker, line.to_owned())))
        };
        let (mut near, far) = tokio::io::duplex(3);
        let mut far = Recorded::new(far, Speaker::Guest, record.clone());
        let write = async {
            near.write_all(b"one\r\ntwo\nrest").await.unwrap();
            drop(near);
        };
        let mut text = String::new();
        let (read, ()) = tokio::join!(far.read_to_string(&mut text), write);
        read.unwrap();
        assert_eq!(text, "one\r\ntwo\nrest");
        Recorded::new(tokio::io::sink(), Speaker::Host, record).write_all(b"three\n").await.unwrap();
        let expected = [(Speaker::Guest, "one"), (Speaker::Guest, "two"), (Speaker::Host, "three")];
        let expected: Vec<_> = expected.into_iter().map(|(speaker, line)| (speaker, line.to_owned())).collect();
        assert_eq!(*lines.lock().unwrap(), expected);
    }
}
