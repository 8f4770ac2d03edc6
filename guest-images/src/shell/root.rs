//! A root file system of the user's in place of the tools: a folder that debootstrap, mmdebstrap or an exported container
//! has left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kernels::cache::Cache;

use crate::archive::{self, Content};
use crate::error::ImageError;
use crate::{Initramfs, appended};

/// What is not taken from the folder: the agent is `/init`, and it mounts file systems on the others.
const NOT_TAKEN: [&str; 5] = ["init", "dev", "proc", "sys", "tmp"];

/// Adds the files of a folder to an initramfs, and the agent as `iov`. Devices, sockets and pipes are left out.
///
/// # Errors
/// [`ImageError::Io`], and [`ImageError::NoTools`] if the folder has no shell.
pub fn with_root(cache: &Cache, initramfs: &Initramfs, root: &Path) -> Result<Initramfs, ImageError> {
    if !["bin/sh", "usr/bin/sh"].iter().any(|shell| fs::symlink_metadata(root.join(shell)).is_ok()) {
        let missing = vec![root.join("bin/sh").display().to_string()];
        return Err(ImageError::NoTools { missing, unfetched: None });
    }
    let mut entries = Vec::new();
    collect(root, "", &mut entries)?;
    let bin = if root.join("usr/bin").is_dir() { "usr/bin/iov" } else { "bin/iov" };
    entries.push((bin.to_owned(), Content::Link("/init".to_owned())));
    let bytes = archive::of_tree(&entries).map_err(ImageError::io("pack", root))?;
    appended(cache, initramfs, "root", &bytes)
}

/// The entries of a folder, each folder before what is in it.
fn collect(folder: &Path, name: &str, into: &mut Vec<(String, Content)>) -> Result<(), ImageError> {
    let mut found: Vec<_> = fs::read_dir(folder).map_err(ImageError::io("list", folder))?.flatten().collect();
    found.sort_by_key(fs::DirEntry::file_name);
    for entry in found {
        let (path, own) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.is_empty() && NOT_TAKEN.contains(&own.as_str()) {
            continue;
        }
        let name = if name.is_empty() { own } else { format!("{name}/{own}") };
        let metadata = fs::symlink_metadata(&path).map_err(ImageError::io("read", &path))?;
        if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(ImageError::io("read", &path))?;
            into.push((name, Content::Link(target.to_string_lossy().into_owned())));
        } else if metadata.is_dir() {
            into.push((name.clone(), Content::Folder));
            collect(&path, &name, into)?;
        } else if metadata.is_file() {
            let bytes = fs::read(&path).map_err(ImageError::io("read", &path))?;
            into.push((name, Content::File { bytes, executable: metadata.permissions().mode() & 0o111 != 0 }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_root_has_its_files_and_iov_but_no_init() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir_all(root.join("dev/shm")).unwrap();
        let cache = Cache::at(folder.path().join("cache"));
        let agent = Initramfs { path: folder.path().join("agent.cpio"), key: "agent".to_owned() };
        fs::write(&agent.path, "").unwrap();
        let error = with_root(&cache, &agent, &root).unwrap_err().to_string();
        assert!(error.contains("root/bin/sh"), "{error}");

        symlink("usr/bin", root.join("bin")).unwrap();
        fs::write(root.join("usr/bin/sh"), "shell").unwrap();
        fs::write(root.join("init"), "systemd").unwrap();
        let mut entries = Vec::new();
        collect(&root, "", &mut entries).unwrap();
        let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["bin", "usr", "usr/bin", "usr/bin/sh"]);
        let bytes = fs::read(with_root(&cache, &agent, &root).unwrap().path).unwrap();
        assert!(bytes.windows(11).any(|window| window == b"usr/bin/iov"));
    }
}
