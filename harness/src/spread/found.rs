//! Finds the runs in what the user or a CI system gives: folders, and archives of them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::MergeError;
use crate::evidence::{EvidenceError, LATEST, RUN};

/// How deep in a folder a run may be: CI systems put the folders of their jobs around it.
const DEPTH: usize = 4;

/// The folders of runs, and the archives that were unpacked for them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Each run, and where it came from, for people.
    pub runs: Vec<(PathBuf, String)>,
    /// They are removed with this.
    unpacked: Vec<TempDir>,
}

impl Found {
    /// Adds the runs of a folder or an archive. `scratch` is a folder for what is unpacked.
    ///
    /// # Errors
    /// There is none, or the archive cannot be unpacked.
    pub fn add(&mut self, path: &Path, scratch: &Path) -> Result<(), MergeError> {
        let folder = match path.is_file() {
            true => {
                let folder = tempfile::Builder::new().prefix(".new-").tempdir_in(scratch);
                let folder = folder.map_err(EvidenceError::io("create a folder in", scratch))?;
                unpack(path, folder.path()).map_err(|cause| MergeError::Archive { path: path.to_owned(), cause })?;
                self.unpacked.push(folder);
                self.unpacked.last().map_or(scratch, |folder| folder.path()).to_owned()
            }
            false => path.to_owned(),
        };
        let mut runs = Vec::new();
        search(&folder, DEPTH, &mut runs)?;
        if runs.is_empty() {
            return Err(MergeError::NoRun(path.to_owned()));
        }
        self.runs.extend(runs.into_iter().map(|run| (run, path.display().to_string())));
        Ok(())
    }
}

/// The folder itself if it is that of a run; the newest run of a folder of runs; else those in the folders below it.
fn search(folder: &Path, depth: usize, runs: &mut Vec<PathBuf>) -> Result<(), EvidenceError> {
    for one in [folder.to_owned(), folder.join(LATEST)] {
        if one.join(RUN).is_file() {
            runs.push(one.canonicalize().map_err(EvidenceError::io("find", &one))?);
            return Ok(());
        }
    }
    if depth == 0 || !folder.is_dir() {
        return Ok(());
    }
    let mut below = Vec::new();
    for entry in fs::read_dir(folder).map_err(EvidenceError::io("list", folder))? {
        let entry = entry.map_err(EvidenceError::io("list", folder))?;
        // A link may lead anywhere, or to a run that is found without it.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below.push(entry.path());
        }
    }
    below.sort();
    below.iter().try_for_each(|folder| search(folder, depth - 1, runs))
}

/// Unpacks an archive. What kind it is, its first bytes say. Neither crate writes outside of the folder.
fn unpack(archive: &Path, to: &Path) -> io::Result<()> {
    let mut file = File::open(archive)?;
    let mut magic = [0; 4];
    let read = file.read(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    match &magic[..read] {
        [0x1f, 0x8b, ..] => untar(flate2::read::GzDecoder::new(file), to),
        [0x28, 0xb5, 0x2f, 0xfd] => untar(zstd::Decoder::new(file)?, to),
        [b'P', b'K', ..] => zip::ZipArchive::new(file).and_then(|mut zip| zip.extract(to)).map_err(io::Error::other),
        _ => untar(file, to),
    }
}

fn untar(content: impl Read, to: &Path) -> io::Result<()> {
    tar::Archive::new(content).unpack(to)
}
