//! The archive: `newc` cpio, as `Documentation/driver-api/early-userspace/buffer-format.rst` has it.

use std::io::{self, Write};

use cpio::newc::{Builder, ModeFileType, trailer};

/// Folders that the agent mounts something on.
const FOLDERS: [&str; 4] = ["dev", "proc", "sys", "tmp"];

/// An archive with a program as `/init`. It depends on the program's bytes and on nothing else.
pub fn of(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::with_capacity(program.len() + (4 << 10));
    let entries = FOLDERS.iter().map(|name| (*name, ModeFileType::Directory, 0o755, [].as_slice()));
    // The kernel opens /dev/console for PID 1 before anything is mounted (`console_on_rootfs()` in `init/main.c`).
    let console = ("dev/console", ModeFileType::Char, 0o600, [].as_slice());
    let init = ("init", ModeFileType::Regular, 0o755, program);
    for (number, (name, kind, mode, content)) in (1..).zip(entries.chain([console, init])) {
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

    #[test]
    fn what_the_kernel_finds() {
        let bytes = of(b"program").unwrap();
        let mut found = Vec::new();
        let mut rest = bytes.as_slice();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            let entry = reader.entry();
            let (name, rdev) = (entry.name().to_owned(), (entry.rdev_major(), entry.rdev_minor()));
            found.push((name, format!("{:o}", entry.mode()), rdev, content));
            rest = reader.finish().unwrap();
        }
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
