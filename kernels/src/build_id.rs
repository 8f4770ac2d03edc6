//! The build id of a vmlinux: a hash by which debuggers know that a file and a dump belong together.
//!
//! The linker computes it from the whole file, with its DWARF (`--build-id`). So a kernel that is built again for a debugger
//! has the same code and another build id, and drgn ignores it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use object::Object;

use crate::code::CodeError;

/// Gives a vmlinux the build id of the kernel that it fits. Nothing changes if it has none, or one of another length.
///
/// # Errors
/// [`CodeError::Io`], [`CodeError::Elf`].
pub fn set_build_id(vmlinux: &Path, id: &[u8]) -> Result<(), CodeError> {
    let io = |cause| CodeError::Io { path: vmlinux.to_owned(), cause };
    let bytes = fs::read(vmlinux).map_err(io)?;
    let damaged = |cause| CodeError::Elf { path: vmlinux.to_owned(), cause };
    let elf = object::File::parse(bytes.as_slice()).map_err(damaged)?;
    let Some(now) = elf.build_id().map_err(damaged)?.filter(|now| now.len() == id.len() && *now != id) else {
        return Ok(());
    };
    // It is a part of the bytes that were read.
    let at = now.as_ptr() as usize - bytes.as_ptr() as usize;
    let file = OpenOptions::new().write(true).open(vmlinux).map_err(io)?;
    file.write_all_at(id, at as u64).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::tests::vmlinux;

    fn build_id(path: &Path) -> Vec<u8> {
        let bytes = fs::read(path).unwrap();
        object::File::parse(bytes.as_slice()).unwrap().build_id().unwrap().unwrap_or_default().to_vec()
    }

    #[test]
    fn a_vmlinux_gets_the_build_id_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = vmlinux(folder.path(), &["-g1", "-Wl,--build-id=sha1"]);
        let before = fs::read(&path).unwrap();
        let id = [7; 20];
        assert_ne!(build_id(&path), id);
        set_build_id(&path, &[7; 8]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before, "of another length");
        set_build_id(&path, &id).unwrap();
        assert_eq!(build_id(&path), id);
        let differ = fs::read(&path).unwrap().iter().zip(&before).filter(|(now, then)| now != then).count();
        assert!(differ <= id.len());
        assert!(set_build_id(&folder.path().join("none"), &id).is_err());
    }
}
