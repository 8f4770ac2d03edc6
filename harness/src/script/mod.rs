//! A script of the user: its text, what its head says, and the files that it needs in the guest.

mod content;
mod error;
mod header;
mod terminal;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::ScriptError;
pub use header::Header;
pub use terminal::{Begins, Debugger, Signal, Size, Terminal};

/// The family of all scripts in the names of scenarios.
pub const FAMILY: &str = "script";

/// How a scenario begins that is a script.
pub const PREFIX: &str = "script::";

/// The exit status by which a script says that it cannot run here (`KSFT_SKIP` in
/// `tools/testing/selftests/kselftest.h`).
pub const SKIPPED: i32 = 4;

/// How long a script may take by default, in seconds of the guest's time.
pub const WITHIN: u32 = 60;

/// A guest that is busy may be much slower than the host, and a host may have much else to do. The most of the host's time
/// that a script may take: this, and so many times its own time. It keeps a run from standing still.
const HOST_TIME: Duration = Duration::from_secs(60);
const HOST_TIMES: u32 = 2;

/// The most bytes that a script may have. The guest keeps it in memory.
const LARGEST: u64 = 1 << 20;

/// The most bytes of all further files. Guests have 512 MiB of memory, and half of it is for files.
const LARGEST_FILES: u64 = 128 << 20;

/// A root file system of this size needs no more memory than other guests have.
const SMALL_ROOT: u64 = 64 << 20;

/// The programs that run a script, as its first line may name them.
const SHELLS: [&str; 3] = ["sh", "dash", "env sh"];

/// A script with all that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its name: that of its file, without the ending.
    pub name: String,
    /// The words of `cargo xtask run` that name it, with its files.
    pub again: Vec<String>,
    /// What the shell reads.
    pub text: Vec<u8>,
    /// Further files for the guest.
    pub files: Vec<GuestFile>,
    /// How long it may take, in the guest's time.
    pub within: Duration,
    /// A folder with a root file system of the user's, in place of the usual tools.
    pub root: Option<PathBuf>,
}

/// A file that is put into the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFile {
    /// Where it is on the host.
    pub from: PathBuf,
    /// Where it is in the guest.
    pub to: String,
}

impl Script {
    /// Reads a script, and the lines at its head.
    ///
    /// # Errors
    /// [`ScriptError`].
    pub fn read(path: &Path) -> Result<(Script, Header), ScriptError> {
        let refuse = |why: String| ScriptError::Refused { path: path.to_owned(), why };
        let size = fs::metadata(path).map_err(|source| ScriptError::Read { path: path.to_owned(), source })?.len();
        if size > LARGEST {
            return Err(refuse(format!("it has {size} bytes, and a script may have {LARGEST}")));
        }
        let bytes = fs::read(path).map_err(|source| ScriptError::Read { path: path.to_owned(), source })?;
        let text = with_line_feeds(&bytes);
        runs_in_the_shell(&text).map_err(&refuse)?;
        let header = Header::of(&text).map_err(&refuse)?;
        let name = name_of(path).ok_or_else(|| refuse("its name has no letters or digits".to_owned()))?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let again = vec!["--script".to_owned(), absolute.display().to_string()];
        let files = header.files.iter().map(|spec| beside(path, spec)).collect::<Result<Vec<_>, _>>()?.concat();
        let within = header.within;
        Ok((Script { name, again, text, files: Vec::new(), within, root: None }.with_files(files)?, header))
    }

    /// A script of one command. A single word may be a whole line of shell.
    pub fn of_command(words: &[String]) -> Script {
        let line = match words {
            [line] => line.clone(),
            words => shell_words::join(words),
        };
        let again = std::iter::once("--".to_owned()).chain(words.iter().cloned()).collect();
        let within = Duration::from_secs(WITHIN.into());
        Script {
            name: "command".to_owned(),
            again,
            text: (line + "\n").into_bytes(),
            files: Vec::new(),
            within,
            root: None,
        }
    }

    /// Adds files for the guest.
    ///
    /// # Errors
    /// [`ScriptError::Files`], if all of them together are too large.
    pub fn with_files(mut self, files: Vec<GuestFile>) -> Result<Script, ScriptError> {
        self.files.extend(files);
        let size = |file: &GuestFile| fs::metadata(&file.from).map_or(0, |found| found.len());
        let bytes: u64 = self.files.iter().map(size).sum();
        if bytes > LARGEST_FILES {
            return Err(ScriptError::Files { bytes, most: LARGEST_FILES });
        }
        Ok(self)
    }

    /// How much memory its guest needs, in MiB, if that is more than others need: a root file system is in memory twice
    /// while the kernel unpacks it.
    pub fn memory_mib(&self) -> Option<u32> {
        let bytes = self.root.as_deref().map(size_of).filter(|bytes| *bytes > SMALL_ROOT)?;
        u32::try_from(512 + (2 * (bytes >> 20)).next_multiple_of(256)).ok()
    }

    /// How long it may take in the host's time.
    pub fn within_on_host(&self) -> Duration {
        HOST_TIME + HOST_TIMES * self.within
    }

    /// Its path in the guest.
    pub fn path(&self) -> String {
        format!("/tmp/{}.sh", self.name)
    }

    /// Whether it is short enough to be quoted in a mail.
    pub fn quoted(&self) -> Option<String> {
        let text = String::from_utf8(self.text.clone()).ok()?;
        (text.lines().count() <= QUOTED).then_some(text)
    }
}

/// The most lines of a script that is quoted.
const QUOTED: usize = 30;

impl GuestFile {
    /// A file or a folder with all its files, in the form `PATH` or `PATH:GUESTPATH`. Without a path for the guest, it is
    /// in `/tmp` there. A folder's files keep their names below it.
    ///
    /// # Errors
    /// [`ScriptError::Read`], if it is not there; [`ScriptError::Refused`], if the guest's path is not absolute.
    pub fn of(spec: &str) -> Result<Vec<GuestFile>, ScriptError> {
        let (from, to) = match spec.rsplit_once(':') {
            Some((from, to)) if !Path::new(spec).exists() => (Path::new(from), Some(to.to_owned())),
            _ => (Path::new(spec), None),
        };
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = to.unwrap_or_else(|| format!("/tmp/{name}"));
        if !to.starts_with('/') {
            let why = format!("{to} is no path in the guest: it must begin with a slash");
            return Err(ScriptError::Refused { path: from.to_owned(), why });
        }
        let mut files = Vec::new();
        collect(from, &to, &mut files).map_err(|source| ScriptError::Read { path: from.to_owned(), source })?;
        Ok(files)
    }
}

/// The size of all files in a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match fs::symlink_metadata(entry.path()) {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn collect(from: &Path, to: &str, into: &mut Vec<GuestFile>) -> std::io::Result<()> {
    if !fs::metadata(from)?.is_dir() {
        into.push(GuestFile { from: std::path::absolute(from)?, to: to.to_owned() });
        return Ok(());
    }
    let mut entries = fs::read_dir(from)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        collect(&entry.path(), &format!("{to}/{}", entry.file_name().to_string_lossy()), into)?;
    }
    Ok(())
}

/// A file that the head of a script names. It is beside the script.
fn beside(script: &Path, spec: &str) -> Result<Vec<GuestFile>, ScriptError> {
    GuestFile::of(&script.parent().unwrap_or(Path::new("")).join(spec).to_string_lossy())
}

/// All scripts that a path names: a file, or the `*.sh` of a folder in the order of their names.
///
/// # Errors
/// [`ScriptError`]: the path does not exist, or the folder has no scripts.
pub fn paths(path: &Path) -> Result<Vec<PathBuf>, ScriptError> {
    let read = |source| ScriptError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found: Vec<_> = fs::read_dir(path).map_err(read)?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "sh") && path.is_file());
    found.sort();
    if found.is_empty() {
        return Err(ScriptError::Refused { path: path.to_owned(), why: "this folder has no *.sh".to_owned() });
    }
    Ok(found)
}

/// The text with each CR LF replaced by LF: a shell would take the CR for a part of the last word.
fn with_line_feeds(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'\r' || bytes.get(at + 1) != Some(&b'\n') {
            text.push(*byte);
        }
    }
    text
}

/// Whether the guest's shell can run a text.
fn runs_in_the_shell(text: &[u8]) -> Result<(), String> {
    if text.contains(&0) {
        return Err(
            "it is no text; a program of your own goes into the guest with --file, and a script calls it".to_owned()
        );
    }
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Some(interpreter) = first.strip_prefix(b"#!") else { return Ok(()) };
    let interpreter = String::from_utf8_lossy(interpreter);
    let words: Vec<&str> = interpreter.split_whitespace().collect();
    let program = words.first().map_or("", |path| path.rsplit('/').next().unwrap_or(path));
    let named = if program == "env" { words.join(" ") } else { program.to_owned() };
    if SHELLS.iter().any(|shell| named == *shell || named.ends_with(&format!("/{shell}"))) {
        return Ok(());
    }
    Err(format!("its first line asks for {}, and the guest has only dash, as /bin/sh", interpreter.trim()))
}

/// The name of a script's scenario.
fn name_of(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(plain).collect();
    name.chars().any(|c| c.is_ascii_alphanumeric()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &[u8]) -> Result<(Script, Header), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        Script::read(&path).map_err(|error| error.to_string().replace(&*folder.path().to_string_lossy(), "DIR"))
    }

    #[test]
    fn a_script_with_cr_lf_has_lf() {
        let (script, header) = read("a b.sh", b"#!/bin/sh\r\n# iov: about = it ends\r\necho 'a\rb'\r\n").unwrap();
        assert_eq!(String::from_utf8(script.text).unwrap(), "#!/bin/sh\n# iov: about = it ends\necho 'a\rb'\n");
        assert_eq!((script.name.as_str(), header.about.as_str()), ("a-b", "it ends"));
    }

    #[test]
    fn a_file_that_the_shell_cannot_run_is_refused() {
        let why = |text: &[u8]| read("x.sh", text).unwrap_err();
        insta::assert_snapshot!(why(b"#!/usr/bin/env bash\n"), @"DIR/x.sh: its first line asks for /usr/bin/env bash, and the guest has only dash, as /bin/sh");
        insta::assert_snapshot!(why(b"\x7fELF\0"), @"DIR/x.sh: it is no text; a program of your own goes into the guest with --file, and a script calls it");
        assert!(why(&vec![b'#'; LARGEST as usize + 1]).contains("a script may have 1048576"));
        for shell in ["", "#!/bin/sh", "#! /bin/sh -e", "#!/usr/bin/dash", "#!/usr/bin/env sh", "echo"] {
            assert!(read("x.sh", format!("{shell}\n").as_bytes()).is_ok(), "{shell}");
        }
    }

    #[test]
    fn a_folder_has_its_scripts_in_order() {
        let folder = tempfile::tempdir().unwrap();
        assert!(paths(folder.path()).unwrap_err().to_string().ends_with("this folder has no *.sh"));
        for name in ["b.sh", "a.sh", "notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = paths(folder.path()).unwrap().iter().map(|path| name_of(path).unwrap()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn files_go_to_their_places() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/tool"), "").unwrap();
        let to = |spec: String| {
            let files = GuestFile::of(&spec).map_err(|error| error.to_string())?;
            Ok::<_, String>(files.into_iter().map(|file| file.to).collect::<Vec<_>>())
        };
        let at = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(to(at("sub/tool")).unwrap(), ["/tmp/tool"]);
        assert_eq!(to(at("sub")).unwrap(), ["/tmp/sub/tool"]);
        assert_eq!(to(at("sub/tool:/bin/x")).unwrap(), ["/bin/x"]);
        assert!(to(at("sub/tool:x")).unwrap_err().contains("must begin with a slash"));
        assert!(to(at("none")).unwrap_err().contains("cannot read"));
    }

    #[test]
    fn a_command_is_a_line_of_shell() {
        let text = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
            String::from_utf8(Script::of_command(&words).text).unwrap()
        };
        assert_eq!(text(&["cat", "a b"]), "cat 'a b'\n");
        assert_eq!(text(&["ls /sys | wc -l"]), "ls /sys | wc -l\n");
    }
}
