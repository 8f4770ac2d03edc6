//! Disk space: looked at before it is used, and blamed when it has run out.

use std::path::Path;

use crate::BuildError;

/// For a base's source, unpacked (1.6 GB) with its package and tarball beside it while that happens.
pub(crate) const FOR_SOURCE: u64 = 2200 << 20;

/// For a base's output tree, the copy that a variant is built in, and the image.
pub(crate) const FOR_BUILD: u64 = 1000 << 20;

/// Bytes that an unprivileged user may still write where `path` is, or will be.
pub(crate) fn available(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Fails if there is not enough room. A file system that does not say how much it has is believed to have enough.
pub(crate) fn check(path: &Path, needed: u64) -> Result<(), BuildError> {
    match available(path) {
        Some(available) if available < needed => {
            Err(BuildError::DiskSpace { path: path.to_owned(), available, needed })
        }
        _ => Ok(()),
    }
}

/// Turns an error that is a full disk in disguise into one that says so.
pub(crate) fn blame(error: BuildError, path: &Path, needed: u64) -> BuildError {
    if !error.is_disk_full() {
        return error;
    }
    BuildError::DiskSpace { path: path.to_owned(), available: available(path).unwrap_or_default(), needed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobError;

    #[test]
    fn too_little_room_is_an_error_that_says_how_much() {
        let folder = tempfile::tempdir().unwrap();
        check(&folder.path().join("not/there/yet"), 1).unwrap();
        let error = check(folder.path(), u64::MAX).unwrap_err();
        assert!(error.to_string().contains("not enough disk space"), "{error}");
    }

    #[test]
    fn a_program_that_found_the_disk_full_is_understood() {
        use std::os::unix::process::ExitStatusExt;
        let failed = JobError::Failed {
            program: "tar".into(),
            status: std::process::ExitStatus::from_raw(2 << 8),
            tail: "tar: x: Cannot write: No space left on device".into(),
        };
        let error = blame(BuildError::Step { what: "unpacking".into(), source: failed }, Path::new("/"), 1);
        assert!(matches!(error, BuildError::DiskSpace { .. }));
    }
}
