//! The image with a shell, for scripts: the agent's image, and behind it an archive with dash, busybox, `ip`, `lspci` and
//! `setpci`, with their libraries. The agent is in it once more as `iov`.
//!
//! On a machine with apt they come from the packages of its own distribution, which need not be installed. On other
//! machines they are those that are installed.

mod elf;
mod root;
mod tools;

use std::fs;
use std::path::Path;

use kernels::CancelToken;
use kernels::archive::{files_of_this_machine, unpack_from_this_machine};
use kernels::cache::{Cache, KeyMaker};

use crate::Initramfs;
use crate::archive::{self, Content};
use crate::error::ImageError;
pub use root::with_root;
use tools::{Place, Tools};

/// Part of the key of each archive with tools. To be raised when something else is packed.
const BUILDER: &str = "1";

/// The shelf of the cache with the archives of tools.
const TOOLS: &str = "shell";

/// The packages of Debian and Ubuntu with the tools.
const PACKAGES: [&str; 4] = ["dash", "busybox-static", "iproute2", "pciutils"];

/// The file of an entry with its archive.
const ARCHIVE: &str = "shell.cpio";

/// The file that says which distribution this is, with its release.
const OS_RELEASE: &str = "/etc/os-release";

/// Adds a shell and the tools of scripts to an initramfs. The first time, that takes seconds: the tools are downloaded,
/// or looked for on this machine. Passes lines about its progress to `progress`.
///
/// # Errors
/// [`ImageError::NoTools`], if a tool is missing; those of the cache.
pub fn with_shell(
    cache: &Cache,
    initramfs: &Initramfs,
    cancel: &CancelToken,
    mut progress: impl FnMut(&str),
) -> Result<Initramfs, ImageError> {
    let os = fs::read(OS_RELEASE).unwrap_or_default();
    let key = KeyMaker::new().with("builder", BUILDER).with("packages", PACKAGES.join(" ")).with("os", os).finish();
    let entry = cache.entry(TOOLS, &key, || {}, |folder| make(&folder.join(ARCHIVE), folder, cancel, &mut progress))?;
    let tools = entry.join(ARCHIVE);
    let bytes = fs::read(&tools).map_err(ImageError::io("read", &tools))?;
    crate::appended(cache, initramfs, "shell", &bytes)
}

/// Writes the archive of the tools.
fn make(
    archive: &Path,
    scratch: &Path,
    cancel: &CancelToken,
    progress: &mut dyn FnMut(&str),
) -> Result<(), ImageError> {
    let (downloads, root) = (scratch.join("packages"), scratch.join("root"));
    let fetched = files_of_this_machine(&PACKAGES, cancel).and_then(|mut files| {
        files.retain(|file| is_wanted(&file.name));
        unpack_from_this_machine(&files, &downloads, &root, &mut |line| progress(&format!("shell: {line}")), cancel)
    });
    if cancel.is_cancelled() {
        return Err(ImageError::Cancelled);
    }
    let (place, unfetched) = match fetched {
        Ok(()) => (Place::Unpacked(root.clone()), None),
        Err(error) => {
            progress("shell: no packages from apt; looking for installed tools");
            (Place::Installed, Some(Box::new(error)))
        }
    };
    let tools = Tools::find(&place).map_err(|missing| ImageError::NoTools { missing, unfetched })?;
    let bytes = archive::of_tree(&tools.entries()?).map_err(ImageError::io("pack", archive))?;
    fs::write(archive, bytes).map_err(ImageError::io("write", archive))?;
    for folder in [downloads, root].iter().filter(|folder| folder.is_dir()) {
        fs::remove_dir_all(folder).map_err(ImageError::io("remove", folder))?;
    }
    Ok(())
}

/// Whether a file of a package is one of the tools', or one with a shared library. The names of such packages begin with
/// `lib` (Debian Policy 8.1); zlib's is older.
fn is_wanted(file: &str) -> bool {
    let package = file.split('_').next().unwrap_or_default();
    package.starts_with("lib") || package == "zlib1g" || PACKAGES.contains(&package)
}

/// Where the libraries are in the guest. The other folders in which a dynamic linker looks are links to it.
const LIBRARIES: &str = "lib";

/// Links to folders, so that all paths of all distributions lead to the tools and their libraries.
const LINKS: [(&str, &str); 5] =
    [("usr", "."), ("sbin", "bin"), ("lib64", LIBRARIES), ("lib/x86_64-linux-gnu", "."), ("bin/iov", "/init")];

/// The entries that every image with a shell has.
fn frame() -> Vec<(String, Content)> {
    let folders = ["bin", LIBRARIES, "etc", "root"].map(|name| (name.to_owned(), Content::Folder));
    let links = LINKS.map(|(name, target)| (name.to_owned(), Content::Link(target.to_owned())));
    folders.into_iter().chain(links).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tools_and_libraries_are_wanted() {
        let wanted = ["dash_1_amd64.deb", "libc6_2_amd64.deb", "zlib1g_1%3a1.2_amd64.deb"];
        assert!(wanted.iter().all(|name| is_wanted(name)));
        assert!(!["debconf_1_all.deb", "perl-base_5_amd64.deb", "dpkg_1_amd64.deb"].iter().any(|name| is_wanted(name)));
    }
}
