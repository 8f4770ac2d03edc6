//! Finds the tools and their libraries, and says where they are in the guest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{LIBRARIES, elf, frame};
use crate::archive::Content;
use crate::error::ImageError;

/// The tools: the name in the guest, and the name of the program. Debian's busybox runs applets of its own before
/// programs in `PATH`, and its `ip` has no `monitor`. So the shell is dash.
const PROGRAMS: [(&str, &str); 5] =
    [("sh", "dash"), ("busybox", "busybox"), ("ip", "ip"), ("lspci", "lspci"), ("setpci", "setpci")];

/// The folders with programs.
const BIN: [&str; 4] = ["usr/bin", "bin", "usr/sbin", "sbin"];

/// The folders with libraries.
const LIB: [&str; 6] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64", "usr/lib", "lib"];

/// Where the tools come from.
#[derive(Clone, Debug)]
pub enum Place {
    /// Packages that are unpacked in this folder.
    Unpacked(PathBuf),
    /// They are installed.
    Installed,
}

impl Place {
    fn root(&self) -> &Path {
        match self {
            Place::Unpacked(root) => root,
            Place::Installed => Path::new("/"),
        }
    }

    /// A file in one of these folders.
    fn find(&self, folders: &[&str], name: &str) -> Option<PathBuf> {
        folders.iter().map(|folder| self.root().join(folder).join(name)).find(|path| path.is_file())
    }
}

/// The tools with all that they need.
#[derive(Debug)]
pub struct Tools {
    /// Programs and libraries by their path in the guest.
    files: BTreeMap<String, PathBuf>,
    /// The names under which busybox is called.
    applets: Vec<String>,
}

impl Tools {
    /// Finds the tools in a place.
    ///
    /// # Errors
    /// The names of all programs and libraries that are not there.
    pub fn find(place: &Place) -> Result<Tools, Vec<String>> {
        let (mut files, mut missing, mut queue) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (name, program) in PROGRAMS {
            match place.find(&BIN, program) {
                Some(path) => queue.push((format!("bin/{name}"), path)),
                None => missing.push(program.to_owned()),
            }
        }
        while let Some((name, path)) = queue.pop() {
            let needs = fs::read(&path).ok().and_then(|bytes| elf::needs(&bytes).ok()).unwrap_or_default();
            files.insert(name, path);
            for library in needs {
                let name = format!("{LIBRARIES}/{library}");
                let is_known = files.contains_key(&name) || queue.iter().any(|(other, _)| *other == name);
                match place.find(&LIB, &library) {
                    _ if is_known || missing.contains(&library) => {}
                    Some(path) => queue.push((name, path)),
                    None => missing.push(library),
                }
            }
        }
        let applets = files.get("bin/busybox").and_then(|busybox| applets(busybox)).unwrap_or_default();
        if missing.is_empty() { Ok(Tools { files, applets }) } else { Err(missing) }
    }

    /// The entries of the archive.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn entries(&self) -> Result<Vec<(String, Content)>, ImageError> {
        let mut entries = frame();
        for (name, path) in &self.files {
            let bytes = fs::read(path).map_err(ImageError::io("read", path))?;
            entries.push((name.clone(), Content::File { bytes, executable: true }));
        }
        let is_free = |name: &&String| PROGRAMS.iter().all(|(other, _)| other != name);
        for name in self.applets.iter().filter(is_free) {
            entries.push((format!("bin/{name}"), Content::Link("busybox".to_owned())));
        }
        Ok(entries)
    }
}

/// The applets of a busybox.
fn applets(busybox: &Path) -> Option<Vec<String>> {
    let output = Command::new(busybox).arg("--list").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("usr/sbin");
        fs::create_dir_all(&bin).unwrap();
        // It names a C library and a dynamic linker, which are not there.
        fs::copy(std::env::current_exe().unwrap(), bin.join("ip")).unwrap();
        let missing = Tools::find(&Place::Unpacked(folder.path().to_owned())).unwrap_err();
        for name in ["dash", "busybox", "lspci", "setpci", "libc.so.6"] {
            assert!(missing.contains(&name.to_owned()), "{name} is not among {missing:?}");
        }
        assert!(!missing.contains(&"ip".to_owned()));
    }
}
