//! The kernel in the file of a kernel: a bzImage has a compressed vmlinux in it (`Documentation/arch/x86/boot.rst` in the
//! kernel).

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{BuildError, LayoutError};
use crate::event::CancelToken;
use crate::unpack::unpack;

/// Where the boot protocol has its fields.
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// How compressed data begins, and the ending of a file with it (`arch/x86/boot/compressed/Makefile`).
const FORMATS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "gz"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"BZh", "bz2"),
    (b"\x5d\0\0", "lzma"),
    (b"\x7fELF", "elf"),
];

/// The bytes of the vmlinux in a bzImage, or of a vmlinux. `folder` is for temporary files.
pub(super) fn vmlinux(kernel: &Path, folder: &Path, cancel: &CancelToken) -> Result<Vec<u8>, BuildError> {
    let bytes = fs::read(kernel).map_err(BuildError::io("read", kernel))?;
    if bytes.starts_with(b"\x7fELF") {
        return Ok(bytes);
    }
    let (payload, ending) =
        payload(&bytes).map_err(|problem| BuildError::layout(kernel)(LayoutError::Payload { problem }))?;
    let [packed, unpacked]: [PathBuf; 2] =
        [format!("payload.{ending}"), "vmlinux".into()].map(|name| folder.join(name));
    fs::write(&packed, payload).map_err(BuildError::io("write", &packed))?;
    unpack(&packed, &unpacked, cancel)?;
    fs::read(&unpacked).map_err(BuildError::io("read", &unpacked))
}

/// The compressed vmlinux in a bzImage, and the ending of a file with it.
fn payload(kernel: &[u8]) -> Result<(&[u8], &'static str), &'static str> {
    const SHORT: &str = "it ends too early";
    let number = |at: usize| -> Option<usize> {
        let bytes = kernel.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if kernel.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err("it has no header of a kernel");
    }
    // 0 stands for 4, as in the oldest kernels.
    let sectors = kernel.get(SETUP_SECTS).map_or(4, |sectors| if *sectors == 0 { 4 } else { usize::from(*sectors) });
    let (offset, length) = number(PAYLOAD_OFFSET).zip(number(PAYLOAD_LENGTH)).ok_or(SHORT)?;
    let payload = kernel.get((sectors + 1) * 512..).and_then(|code| code.get(offset..)?.get(..length)).ok_or(SHORT)?;
    let format = FORMATS.iter().find(|(begin, _)| payload.starts_with(begin));
    let (_, ending) = format.ok_or("it is compressed in a way that is not known here")?;
    match *ending {
        "gz" | "elf" => Ok((payload, ending)),
        // The build appends the size to what other programs have compressed (`size_append`).
        _ => Ok((payload.get(..length.saturating_sub(4)).unwrap_or_default(), ending)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A bzImage with this payload.
    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut kernel = vec![0; 5 * 512];
        kernel[SETUP_SECTS] = 4;
        kernel[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        kernel[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&3u32.to_le_bytes());
        kernel[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        [&kernel[..], b"...", payload, b"more"].concat()
    }

    #[test]
    fn the_kernel_is_unpacked() {
        for (program, ending, has_size) in [("gzip", "gz", false), ("xz", "xz", true), ("zstd", "zst", true)] {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            fs::write(path("x"), "the kernel").unwrap();
            assert!(Command::new(program).arg("-q").arg(path("x")).status().unwrap().success());
            let mut packed = fs::read(path(&format!("x.{ending}"))).unwrap();
            packed.extend(if has_size { &[10, 0, 0, 0][..] } else { &[] });
            fs::write(path("bzImage"), bzimage(&packed)).unwrap();
            let kernel = vmlinux(&path("bzImage"), folder.path(), &CancelToken::new()).unwrap();
            assert_eq!(kernel, b"the kernel", "{program}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |kernel: &[u8]| payload(kernel).unwrap_err();
        insta::assert_snapshot!(said(b"words"), @"it has no header of a kernel");
        insta::assert_snapshot!(said(&bzimage(b"words")), @"it is compressed in a way that is not known here");
        let kernel = bzimage(b"\x1f\x8b");
        insta::assert_snapshot!(said(&kernel[..kernel.len() - 5]), @"it ends too early");
        insta::assert_snapshot!(said(&kernel[..0x220]), @"it ends too early");
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(rest: Vec<u8>, offset: u32, length: u32, sectors: u8) {
            let mut kernel = bzimage(&rest);
            kernel[SETUP_SECTS] = sectors;
            kernel[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&offset.to_le_bytes());
            kernel[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
            let _ = (payload(&kernel), payload(&rest));
        }
    }
}
