//! Reads a series from an mbox of a list archive.

use std::fs;
use std::path::Path;

use kernels::Manifest;
use kernels::series::{Series, Version};

/// Two patches of this project, one as base64 and one as quoted-printable, in reverse order, with a cover letter and a
/// reply.
const MBOX: &str = "tests/series/numvfs-v2.mbox";

#[test]
fn patches_in_an_mbox_are_read_byte_for_byte() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let series = Series::read(&here.join(MBOX), false).unwrap();
    assert_eq!((series.version, series.subject.as_str()), (Version::of(2), "PCI/IOV: Let readers of sriov_numvfs go"));
    assert_eq!(series.notes, [""; 0], "the reply quotes a diff and has none of its own");
    assert!(series.within_reach().is_ok());
    let manifest = Manifest::load(here).unwrap();
    let ours = &manifest.variant("v2-series").unwrap().patches;
    assert_eq!(series.patches.len(), ours.len());
    for (posted, ours) in series.patches.iter().zip(ours) {
        let ours = fs::read_to_string(ours).unwrap();
        let (_, ours) = ours.split_once("\n---\n").unwrap();
        assert_eq!(String::from_utf8_lossy(&posted.diff.text), ours, "{}", posted.subject);
        assert!(fs::read_to_string(here.join(MBOX)).unwrap().contains(posted.message_id.as_deref().unwrap()));
    }
}

#[test]
fn a_written_series_is_read_back() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let series = Series::read(&here.join(MBOX), false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = series.write(folder.path()).unwrap();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(
        names,
        [
            "0001-PCI-IOV-Read-num_VFs-without-a-lock-in-sriov_numvfs_.patch",
            "0002-PCI-IOV-Set-num_VFs-before-the-uevent-in-sriov_enabl.patch"
        ]
    );
    let again = Series::read(folder.path(), false).unwrap();
    assert_eq!(again.patches, series.patches);
}
