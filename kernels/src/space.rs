//! Disk space: looked at before it is used, and blamed when it has run out.

use std::path::Path;

use crate::error::BuildError;

/// For a base's source, unpacked (1.6 GB) with its package and tarball beside it while that happens.
pub(crate) const FOR_SOURCE: u64 = 2200 << 20;

/// For a base's output tree, the copy that a variant is built in, and the image.
pub(crate) const FOR_BUILD: u64 = 1000 << 20;

/// For what changes in an output tree from one revision to the next, with what the linker makes on its way, and the image.
pub(crate) const FOR_STEP: u64 = 300 << 20;

/// For what compilers put into the folder for temporary files.
const FOR_TEMPORARY: u64 = 64 << 20;

/// A build that fails where less than this is left has failed for that, whatever the programs in it say: kconfig has no
/// words for it, and others are killed.
const NOTHING: u64 = 32 << 20;

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

/// Turns an error that is a full disk in disguise into one that says so. `path` is in the cache.
pub(crate) fn blame(error: BuildError, path: &Path, needed: u64) -> BuildError {
    if matches!(error, BuildError::DiskSpace { .. } | BuildError::TemporarySpace { .. } | BuildError::Cancelled) {
        return error;
    }
    let left = available(path).unwrap_or(u64::MAX);
    if !error.is_disk_full() && left >= NOTHING {
        return error;
    }
    let temporary = std::env::temp_dir();
    match available(&temporary) {
        Some(available) if left >= needed && available < FOR_TEMPORARY => {
            BuildError::TemporarySpace { path: temporary, available, needed: FOR_TEMPORARY }
        }
        _ => BuildError::DiskSpace { path: path.to_owned(), available: left, needed },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobError;

    #[test]
    fn too_little_room_is_an_error_that_says_how_much() {
        let folder = tempfile::tempdir().unwrap();
        check(&folder.path().join("not/there/yet"), 1).unwrap();
        let error = check(folder.path(), u64::MAX).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("not enough disk space") && said.contains("cargo xtask gc"), "{said}");
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

    #[test]
    fn a_build_that_fails_where_nothing_is_left_has_failed_for_that() {
        // A file system on which there is never any room.
        let full = Path::new("/proc");
        let refused = || BuildError::Config { unmet: Vec::new() };
        let error = blame(refused(), full, 1 << 20);
        assert!(matches!(error, BuildError::DiskSpace { available: 0, .. }) && !error.is_of_the_kernel(), "{error}");
        assert!(matches!(blame(refused(), Path::new("/"), 1), BuildError::Config { .. }));
        assert!(matches!(blame(BuildError::Cancelled, full, 1), BuildError::Cancelled));
    }
}
