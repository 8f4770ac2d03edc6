//! Follows a file that another process writes.

use std::future::Future;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use crate::vm::transcript::{Recorder, Speaker};

/// How often the file is read. QEMU gives no notice when it writes the console. Nothing but the display depends on
/// this.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a future. Meanwhile, and once more at the end, gives each new complete line of a file to `echo`.
pub async fn while_following<T>(path: &Path, echo: Recorder, running: impl Future<Output = T>) -> T {
    let mut tail = Tail { at: 0, pending: Vec::new(), echo };
    let mut running = std::pin::pin!(running);
    let result = loop {
        tokio::select! {
            result = &mut running => break result,
            () = tokio::time::sleep(LOOK) => tail.look(path),
        }
    };
    tail.look(path);
    result
}

struct Tail {
    at: u64,
    pending: Vec<u8>,
    echo: Recorder,
}

impl Tail {
    /// Reads what is new. After an error, the next call tries again.
    fn look(&mut self, path: &Path) {
        let Ok(mut file) = std::fs::File::open(path) else { return };
        if file.seek(SeekFrom::Start(self.at)).is_err() {
            return;
        }
        let Ok(new) = file.read_to_end(&mut self.pending) else { return };
        self.at += new as u64;
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            (self.echo)(Speaker::Guest, String::from_utf8_lossy(&line).trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn only_complete_lines_are_echoed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let echo: Recorder = {
            let lines = lines.clone();
            Arc::new(move |_, line| lines.lock().unwrap().push(line.to_owned()))
        };
        let mut writer = file.reopen().unwrap();
        while_following(file.path(), echo, async {
            writer.write_all(b"one\r\ntw").unwrap();
            while lines.lock().unwrap().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
            writer.write_all(b"o\nthree").unwrap();
        })
        .await;
        assert_eq!(*lines.lock().unwrap(), ["one", "two"]);
    }
}
