//! The time of the first byte in a file: it measures when a guest's kernel prints its first line.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Instant;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Runs a future, and returns when the first byte was in a file meanwhile, in seconds since `began`. `None` if the file
/// stayed empty or cannot be watched: a failed measurement must not fail the guest.
pub(super) async fn with_first_byte<T>(
    file: &Path,
    began: Instant,
    running: impl Future<Output = T>,
) -> (T, Option<f64>) {
    let mut seen = None;
    let watching = async {
        if first_byte(file).await.is_ok() {
            seen = Some(began.elapsed().as_secs_f64());
        }
        std::future::pending::<T>().await
    };
    let result = tokio::select! {
        result = running => result,
        never = watching => never,
    };
    (result, seen)
}

/// Waits until a file is not empty (inotify(7)).
async fn first_byte(file: &Path) -> io::Result<()> {
    let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    add_watch(&watch, file, WatchFlags::MODIFY)?;
    // An inotify descriptor is read and polled in the same way as a pipe.
    let mut watch = Receiver::from_file_unchecked(File::from(watch))?;
    // The size is checked after the watch is set, so no write is missed.
    while fs::metadata(file)?.len() == 0 {
        // The content of the events is not needed: the size is checked again.
        let _ = watch.read(&mut [0; 256]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_time_of_the_first_byte_is_measured() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (began, later) = (Instant::now(), Duration::from_millis(60));
        let write = async {
            tokio::time::sleep(later).await;
            file.as_file().write_all(b"[").unwrap();
            tokio::time::sleep(later).await;
        };
        let ((), seen) = with_first_byte(file.path(), began, write).await;
        let seen = seen.unwrap();
        assert!(seen >= later.as_secs_f64() && seen < began.elapsed().as_secs_f64(), "{seen}");
    }

    #[tokio::test]
    async fn an_existing_byte_counts_and_an_empty_file_gives_none() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let wait = || tokio::time::sleep(Duration::from_millis(20));
        assert_eq!(with_first_byte(file.path(), Instant::now(), wait()).await.1, None);
        file.write_all(b"[").unwrap();
        assert!(with_first_byte(file.path(), Instant::now(), wait()).await.1.is_some());
        assert_eq!(with_first_byte(Path::new("/nonexistent"), Instant::now(), wait()).await.1, None);
    }
}
