//! A filter for QMP events that the qapi crate does not know.
//!
//! Each QEMU release adds events. The decoder of the qapi crate ends its stream at the first line that it cannot decode
//! (tokio-util's `FramedRead`), and no later event would be read. So such lines must not reach it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use qapi::qmp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::{AsyncBufRead, AsyncRead, BufReader, ReadBuf};

/// A stream of lines without the unknown events. All other lines pass, also malformed ones.
pub struct KnownEvents<R> {
    lines: BufReader<R>,
    /// The line that is being read or passed on.
    line: Vec<u8>,
    whole: bool,
}

impl<R: AsyncRead> KnownEvents<R> {
    /// Filters this stream.
    pub fn new(stream: R) -> Self {
        KnownEvents { lines: BufReader::new(stream), line: Vec::new(), whole: false }
    }
}

impl<R: AsyncRead + Unpin> KnownEvents<R> {
    /// Reads until there is a line to pass on, or the stream has ended.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.whole {
            let chunk = ready!(Pin::new(&mut self.lines).poll_fill_buf(cx))?;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.line.extend_from_slice(&chunk[..taken]);
            // An incomplete line at the end of the stream is passed on unchanged.
            self.whole = end.is_some() || taken == 0;
            Pin::new(&mut self.lines).consume(taken);
            if end.is_some() && is_unknown_event(&self.line) {
                self.line.clear();
                self.whole = false;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for KnownEvents<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_line(cx))?;
        let length = self.line.len().min(buf.remaining());
        buf.put_slice(&self.line[..length]);
        self.line.drain(..length);
        self.whole = !self.line.is_empty();
        Poll::Ready(Ok(()))
    }
}

fn is_unknown_event(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "event")]
        _name: IgnoredAny,
    }
    serde_json::from_slice::<Event>(line).is_ok() && serde_json::from_slice::<qmp::Event>(line).is_err()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const STOP: &str = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#;
    const UNKNOWN: &str =
        r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "UNKNOWN_EVENT", "data": {"value": 4}}"#;

    #[tokio::test]
    async fn only_unknown_events_are_left_out() {
        let sent = format!("{STOP}\n{UNKNOWN}\r\n{{\"return\": {{}}}}\nnonsense\n\n{UNKNOWN}\n{STOP}\nrest");
        // For any size of the chunks.
        for size in [1, 7, 4096] {
            let (mut near, far) = tokio::io::duplex(size);
            let mut read = String::new();
            let mut known = KnownEvents::new(far);
            let write = async {
                near.write_all(sent.as_bytes()).await.unwrap();
                drop(near);
            };
            let (result, ()) = tokio::join!(known.read_to_string(&mut read), write);
            result.unwrap();
            assert_eq!(read, format!("{STOP}\n{{\"return\": {{}}}}\nnonsense\n\n{STOP}\nrest"));
        }
    }
}
