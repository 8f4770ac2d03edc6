//! Writes the archive, in the `newc` cpio format of `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Write};

use cpio::newc::{Builder, ModeFileType, trailer};

/// The folders on which the agent mounts file systems.
const FOLDERS: [&str; 4] = ["dev", "proc", "sys", "tmp"];

/// The folder in which the agent looks for modules.
const MODULES: &str = "modules";

/// An archive with a program as `/init`. Its bytes depend only on those of the program.
pub fn of(program: &[u8]) -> io::Result<Vec<u8>> {
    let folders = FOLDERS.iter().map(|name| (*name, ModeFileType::Directory, 0o755, [].as_slice()));
    // The kernel opens /dev/console for PID 1 before anything is mounted (`console_on_rootfs()` in `init/main.c`).
    let console = ("dev/console", ModeFileType::Char, 0o600, [].as_slice());
    pack(folders.chain([console, ("init", ModeFileType::Regular, 0o755, program)]))
}

/// An archive with modules under these names, to be appended to the archive with the agent. The kernel unpacks one
/// archive after the other.
pub fn of_modules(modules: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let names: Vec<_> = modules.iter().map(|(name, _)| format!("{MODULES}/{name}")).collect();
    let files =
        names.iter().zip(modules).map(|(name, (_, bytes))| (name.as_str(), ModeFileType::Regular, 0o644, &bytes[..]));
    pack([(MODULES, ModeFileType::Directory, 0o755, [].as_slice())].into_iter().chain(files))
}

/// What an entry of a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// What is in it.
        bytes: Vec<u8>,
        /// Whether it is a program.
        executable: bool,
    },
    /// A symbolic link to this path.
    Link(String),
}

/// An archive with these entries, folders before what is in them, to be appended to the archive with the agent.
pub fn of_tree(entries: &[(String, Content)]) -> io::Result<Vec<u8>> {
    pack(entries.iter().map(|(name, content)| {
        let (kind, mode, bytes) = match content {
            Content::Folder => (ModeFileType::Directory, 0o755, [].as_slice()),
            Content::File { bytes, executable: true } => (ModeFileType::Regular, 0o755, bytes.as_slice()),
            Content::File { bytes, executable: false } => (ModeFileType::Regular, 0o644, bytes.as_slice()),
            Content::Link(target) => (ModeFileType::Symlink, 0o777, target.as_bytes()),
        };
        (name.as_str(), kind, mode, bytes)
    }))
}

/// Name, kind, mode and content.
type Entry<'a> = (&'a str, ModeFileType, u32, &'a [u8]);

fn pack<'a>(entries: impl Iterator<Item = Entry<'a>>) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, (name, kind, mode, content)) in (1..).zip(entries) {
        // Entries with the same inode number are hard links of each other.
        let builder = Builder::new(name).ino(number).nlink(1).mode(mode);
        let builder = match kind {
            ModeFileType::Char => builder.rdev_major(5).rdev_minor(1),
            _ => builder,
        };
        let builder = builder.set_mode_file_type(kind);
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut writer = builder.write(&mut archive, size);
        writer.write_all(content)?;
        writer.finish()?;
    }
    trailer(&mut archive)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use cpio::newc::Reader;

    use super::*;

    type Found = (String, String, (u32, u32), String);

    fn entries(bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        let mut rest = bytes;
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            let entry = reader.entry();
            let rdev = (entry.rdev_major(), entry.rdev_minor());
            found.push((entry.name().to_owned(), format!("{:o}", entry.mode()), rdev, content));
            rest = reader.finish().unwrap();
        }
        found
    }

    /// Name, mode and content of each entry.
    fn found(archive: &[u8]) -> Vec<(String, String, String)> {
        entries(archive).into_iter().map(|(name, mode, _, content)| (name, mode, content)).collect()
    }

    fn entry(name: &str, mode: &str, content: &str) -> (String, String, String) {
        (name.to_owned(), mode.to_owned(), content.to_owned())
    }

    #[test]
    fn an_archive_of_modules_has_their_folder_and_files() {
        let bytes = of_modules(&[("00-a.ko".to_owned(), b"abc".to_vec()), ("01-b.ko".to_owned(), Vec::new())]).unwrap();
        assert_eq!(
            found(&bytes),
            [
                entry("modules", "40755", ""),
                entry("modules/00-a.ko", "100644", "abc"),
                entry("modules/01-b.ko", "100644", ""),
            ]
        );
        assert_eq!(of(b"program").unwrap().len() % 4, 0, "the next archive must begin at a multiple of four");
    }

    #[test]
    fn a_tree_has_folders_files_and_links() {
        let file = |text: &str, executable| Content::File { bytes: text.as_bytes().to_vec(), executable };
        let tree = [
            ("bin", Content::Folder),
            ("bin/sh", file("shell", true)),
            ("etc", file("text", false)),
            ("usr", Content::Link(".".to_owned())),
        ];
        let bytes = of_tree(&tree.map(|(name, content)| (name.to_owned(), content))).unwrap();
        assert_eq!(
            found(&bytes),
            [
                entry("bin", "40755", ""),
                entry("bin/sh", "100755", "shell"),
                entry("etc", "100644", "text"),
                entry("usr", "120777", "."),
            ]
        );
    }

    #[test]
    fn an_archive_has_folders_console_and_init() {
        let found = entries(&of(b"program").unwrap());
        let entry =
            |name: &str, mode: &str, rdev, content: &str| (name.to_owned(), mode.to_owned(), rdev, content.to_owned());
        assert_eq!(
            found,
            [
                entry("dev", "40755", (0, 0), ""),
                entry("proc", "40755", (0, 0), ""),
                entry("sys", "40755", (0, 0), ""),
                entry("tmp", "40755", (0, 0), ""),
                entry("dev/console", "20600", (5, 1), ""),
                entry("init", "100755", (0, 0), "program"),
            ]
        );
    }
}
