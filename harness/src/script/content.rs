//! A key of all that a verdict with a script depends on.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kernels::cache::{CacheError, Key, KeyMaker};

use super::Script;

impl Script {
    /// A key of its text, its files, its root file system, and the time that it has.
    ///
    /// # Errors
    /// [`CacheError::Io`]: a file cannot be read.
    pub fn key(&self) -> Result<Key, CacheError> {
        let mut key = KeyMaker::new().with("text", &self.text).with("within", self.within.as_secs().to_le_bytes());
        for file in &self.files {
            let mode = fs::metadata(&file.from).map_err(unread(&file.from))?.permissions().mode();
            let bytes = fs::read(&file.from).map_err(unread(&file.from))?;
            key = key.with("file", &file.to).with("mode", mode.to_le_bytes()).with("bytes", bytes);
        }
        if let Some(root) = &self.root {
            key = of_folder(root, key).map_err(unread(root))?;
        }
        Ok(key.finish())
    }
}

fn unread(path: &Path) -> impl Fn(std::io::Error) -> CacheError + '_ {
    move |source| CacheError::Io { action: "read", path: path.to_owned(), source }
}

/// Adds a folder, whose files are too large to be read for this. A file that has changed has another time.
fn of_folder(folder: &Path, mut key: KeyMaker) -> std::io::Result<KeyMaker> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, metadata) = (entry.path(), entry.metadata()?);
        key = key.with("path", path.as_os_str().as_bytes()).with("mode", metadata.mode().to_le_bytes());
        if metadata.is_dir() {
            key = of_folder(&path, key)?;
        } else {
            let time = [metadata.mtime(), metadata.mtime_nsec()].map(i64::to_le_bytes).concat();
            key = key.with("size", metadata.len().to_le_bytes()).with("time", time);
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::GuestFile;

    #[test]
    fn whatever_changes_a_verdict_changes_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let (tool, root) = (folder.path().join("tool"), folder.path().join("root"));
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/sh"), "shell").unwrap();
        fs::write(&tool, "one").unwrap();
        let plain = Script::of_command(&["true".to_owned()]);
        let with_tool = || plain.clone().with_files(GuestFile::of(tool.to_str().unwrap()).unwrap()).unwrap();
        let with_root = || Script { root: Some(root.clone()), ..plain.clone() };
        let key = |script: &Script| script.key().unwrap().as_str().to_owned();

        let mut keys = vec![key(&plain), key(&Script::of_command(&["false".to_owned()])), key(&with_tool())];
        keys.push(key(&Script { within: std::time::Duration::from_secs(1), ..plain.clone() }));
        assert_eq!(key(&with_tool()), keys[2]);
        fs::write(&tool, "two").unwrap();
        keys.extend([key(&with_tool()), key(&with_root())]);
        fs::write(root.join("bin/sh"), "a longer shell").unwrap();
        keys.push(key(&with_root()));
        for (at, one) in keys.iter().enumerate() {
            assert!(!keys[at + 1..].contains(one), "{at}");
        }
        fs::remove_file(&tool).unwrap();
        let gone = Script { files: vec![GuestFile { from: tool, to: "/tmp/tool".to_owned() }], ..plain };
        assert!(gone.key().unwrap_err().to_string().contains("cannot read"));
    }
}
