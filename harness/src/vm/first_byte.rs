//! When the first byte is in a file: how the first words of a guest's kernel are timed.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Instant;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Runs a future, and tells when the first byte was in a file meanwhile, in seconds since `began`. None if it stayed
/// empty, or cannot be watched: a measurement is no reason for a guest to fail.
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
    // No pipe, but read and waited for as one is.
    let mut watch = Receiver::from_file_unchecked(File::from(watch))?;
    // Looked at only once it is watched: nothing can come between.
    while fs::metadata(file)?.len() == 0 {
        // The events say nothing that the file's size does not.
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
    async fn the_first_byte_is_seen_when_it_comes() {
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
    async fn a_byte_that_is_there_counts_and_one_that_never_comes_does_not() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let wait = || tokio::time::sleep(Duration::from_millis(20));
        assert_eq!(with_first_byte(file.path(), Instant::now(), wait()).await.1, None);
        file.write_all(b"[").unwrap();
        assert!(with_first_byte(file.path(), Instant::now(), wait()).await.1.is_some());
        assert_eq!(with_first_byte(Path::new("/nonexistent"), Instant::now(), wait()).await.1, None);
    }
}
