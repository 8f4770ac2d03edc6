//! Disk space: checks that there is enough before a build, and finds out whether a failed build failed for lack of it.

use std::path::Path;

use crate::error::BuildError;

/// Bytes for a base's source: unpacked (1.6 GB), and package and tarball while they are unpacked.
pub(crate) const FOR_SOURCE: u64 = 2200 << 20;

/// Bytes for a base's output tree, the copy of it that a variant is built in, and the image.
pub(crate) const FOR_BUILD: u64 = 1000 << 20;

/// Bytes for the changes in an output tree from one revision to the next, the linker's intermediate files, and the
/// image.
pub(crate) const FOR_STEP: u64 = 300 << 20;

/// Bytes for the compilers' temporary files.
const FOR_TEMPORARY: u64 = 64 << 20;

/// If less than this is left when a build fails, the full disk is taken for the cause, whatever the error says.
/// kconfig, for example, does not report a full disk.
const NEARLY_FULL: u64 = 32 << 20;

/// How many bytes an unprivileged user can still write to the file system of `path`. The path need not exist.
pub(crate) fn available(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Fails if there is not enough room. A file system that does not report its free space passes.
pub(crate) fn check(path: &Path, needed: u64) -> Result<(), BuildError> {
    match available(path) {
        Some(available) if available < needed => {
            Err(BuildError::DiskSpace { path: path.to_owned(), available, needed })
        }
        _ => Ok(()),
    }
}

/// Turns an error that a full disk has caused into one that says so. `path` is in the cache.
pub(crate) fn blame(error: BuildError, path: &Path, needed: u64) -> BuildError {
    if matches!(error, BuildError::DiskSpace { .. } | BuildError::TemporarySpace { .. } | BuildError::Cancelled) {
        return error;
    }
    let left = available(path).unwrap_or(u64::MAX);
    if !error.is_disk_full() && left >= NEARLY_FULL {
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
    fn too_little_room_is_an_error_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        check(&folder.path().join("not/there/yet"), 1).unwrap();
        let error = check(folder.path(), u64::MAX).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("not enough disk space") && said.contains("cargo xtask gc"), "{said}");
    }

    #[test]
    fn a_program_that_reports_a_full_disk_becomes_a_disk_space_error() {
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
    fn any_error_on_a_nearly_full_disk_becomes_a_disk_space_error() {
        // procfs reports no free space.
        let full = Path::new("/proc");
        let refused = || BuildError::Config { unmet: Vec::new() };
        let error = blame(refused(), full, 1 << 20);
        assert!(matches!(error, BuildError::DiskSpace { available: 0, .. }) && !error.is_of_the_kernel(), "{error}");
        assert!(matches!(blame(refused(), Path::new("/"), 1), BuildError::Config { .. }));
        assert!(matches!(blame(BuildError::Cancelled, full, 1), BuildError::Cancelled));
    }
}
