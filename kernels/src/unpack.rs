//! Unpacks compressed files with the programs that made them.

use std::fs;
use std::path::Path;

use crate::error::BuildError;
use crate::event::CancelToken;
use crate::files::remove;
use crate::job::Job;

/// Writes the content of a file, whose name says how it is compressed, to `to`. A file that is not compressed is copied.
pub(crate) fn unpack(file: &Path, to: &Path, cancel: &CancelToken) -> Result<(), BuildError> {
    let ending = file.extension().unwrap_or_default().to_string_lossy().into_owned();
    let program = match ending.as_str() {
        "xz" | "lzma" => "xz",
        "zst" => "zstd",
        "gz" => "gzip",
        "bz2" => "bzip2",
        "lz4" => "lz4",
        _ => return fs::copy(file, to).map(drop).map_err(BuildError::io("copy", file)),
    };
    let mut packed = to.as_os_str().to_owned();
    packed.push(format!(".{ending}"));
    let packed = Path::new(&packed);
    fs::copy(file, packed).map_err(BuildError::io("copy", file))?;
    let job = Job::new(program).args(["-d", "-f", "-q"]).arg(packed);
    job.run(cancel).map_err(BuildError::job(format!("unpacking {}", file.display())))?;
    // Unlike xz and gzip, zstd and lz4 leave the compressed file.
    remove(packed)
}
