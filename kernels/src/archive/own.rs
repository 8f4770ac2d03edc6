//! Packages of the suites that this machine's own apt knows, without installing them. Needs no root.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ArchiveError;
use super::private::{ArchiveFile, file};
use super::{CancelToken, Job};

/// The files of packages and of all packages that they need, as if nothing were installed. Needs no network.
///
/// # Errors
/// apt cannot be run, or its lists do not have the packages.
pub fn files_of_this_machine(packages: &[&str], cancel: &CancelToken) -> Result<Vec<ArchiveFile>, ArchiveError> {
    let job = Job::new("apt-get")
        .args(["-q", "-y", "--print-uris", "-oAcquire::ForceHash=SHA256"])
        .args(["-oAPT::Install-Recommends=false", "-oDir::State::status=/dev/null", "install"])
        .args(packages);
    Ok(job.output(cancel)?.lines().filter_map(file).collect())
}

/// Downloads these files into a folder, has apt verify them, and unpacks them into another folder. Passes a line for each
/// package to `say`.
///
/// # Errors
/// The archive cannot be reached, a file is not the one that apt's lists name, a folder cannot be made, or the job was
/// cancelled.
pub fn unpack_from_this_machine(
    files: &[ArchiveFile],
    downloads: &Path,
    root: &Path,
    say: &mut dyn FnMut(&str),
    cancel: &CancelToken,
) -> Result<(), ArchiveError> {
    for folder in [downloads, root] {
        fs::create_dir_all(folder).map_err(ArchiveError::write(folder))?;
    }
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    say(&format!("downloading {} packages ({} MB)", files.len(), bytes.div_ceil(1_000_000)));
    let packages = files.iter().filter_map(ArchiveFile::package);
    Job::new("apt-get").args(["-q", "download"]).args(packages).within(downloads).run(cancel)?;
    let mut debs: Vec<PathBuf> = match fs::read_dir(downloads) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => return Err(ArchiveError::write(downloads)(error)),
    };
    debs.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.sort();
    say(&format!("unpacking {} packages", debs.len()));
    for deb in debs {
        Job::new("dpkg-deb").arg("-x").arg(&deb).arg(root).run(cancel)?;
    }
    Ok(())
}

impl ArchiveFile {
    /// The package and its version, as `apt-get download` takes them. apt writes a colon in a version as `%3a` in the name
    /// of a file.
    fn package(&self) -> Option<String> {
        let mut parts = self.name.split('_');
        Some(format!("{}={}", parts.next()?, parts.next()?.replace("%3a", ":")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_package_and_version() {
        let named = |name: &str| ArchiveFile { name: name.to_owned(), bytes: 0, hash: String::new() }.package();
        assert_eq!(named("zlib1g_1%3a1.2.13.dfsg-1_amd64.deb").as_deref(), Some("zlib1g=1:1.2.13.dfsg-1"));
        assert_eq!(named("nonsense"), None);
    }
}
