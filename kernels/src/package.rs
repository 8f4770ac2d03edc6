//! Debian packages with a kernel. Some have the whole kernel. Others (Ubuntu's, and Debian's since 6.19) have only a
//! part of it, and packages of the same release and version have the rest: these are taken from the same folder.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::BuildError;
use crate::event::CancelToken;
use crate::job::Job;

/// Prefixes of the packages with the kernel itself. The kernel's release follows.
const KERNELS: [&str; 4] = ["linux-binary-unsigned-", "linux-binary-", "linux-image-unsigned-", "linux-image-"];

/// Prefixes of the packages with its modules, its `modules.builtin` and its configuration.
const OTHERS: [&str; 3] = ["linux-modules-extra-", "linux-modules-", "linux-base-"];

/// The folders in which packages have kernels.
const PLACES: [&str; 3] = ["boot", "usr/lib/modules", "lib/modules"];

/// Unpacks a package into a folder, together with the packages in the same folder that have the rest of its kernel.
/// Returns the path of the unpacked kernel.
///
/// # Errors
/// Those of unpacking. [`BuildError::Source`] if there is no kernel; it says which packages have it.
pub(crate) fn unpack(package: &Path, to: &Path, cancel: &CancelToken) -> Result<PathBuf, BuildError> {
    extract(package, to, cancel)?;
    for other in beside(package, &OTHERS) {
        extract(&other, to, cancel)?;
    }
    if let Some(kernel) = kernel(to) {
        return Ok(kernel);
    }
    for other in beside(package, &KERNELS) {
        extract(&other, to, cancel)?;
        if let Some(kernel) = kernel(to) {
            return Ok(kernel);
        }
    }
    Err(BuildError::Source { path: package.to_owned(), problem: no_kernel(package, cancel) })
}

/// All packages in the same folder that may have a part of this package's kernel.
pub(crate) fn all_beside(package: &Path) -> Vec<PathBuf> {
    [beside(package, &OTHERS), beside(package, &KERNELS)].concat()
}

fn extract(package: &Path, to: &Path, cancel: &CancelToken) -> Result<(), BuildError> {
    let job = Job::new("dpkg-deb").arg("-x").arg(package).arg(to);
    job.run(cancel).map_err(BuildError::job(format!("unpacking {}", package.display())))
}

/// The kernel among the unpacked files.
fn kernel(content: &Path) -> Option<PathBuf> {
    let in_folder = |folder: &Path, wanted: &dyn Fn(&str) -> bool| {
        let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
        files.retain(|file| file.file_type().is_ok_and(|kind| kind.is_file()));
        files.iter().find(|file| wanted(&file.file_name().to_string_lossy())).map(|file| file.path())
    };
    let in_place = |place: &Path| {
        let folders = fs::read_dir(place).into_iter().flatten().flatten();
        let versioned = in_folder(place, &|name| name.starts_with("vmlinuz-"));
        versioned
            .or_else(|| folders.into_iter().find_map(|folder| in_folder(&folder.path(), &|name| name == "vmlinuz")))
    };
    PLACES.iter().find_map(|place| in_place(&content.join(place)))
}

/// The packages in the same folder with one of these prefixes and with the release, version and architecture of this
/// package: `linux-binary-RELEASE_VERSION_ARCHITECTURE.deb`.
fn beside(package: &Path, kinds: &[&str]) -> Vec<PathBuf> {
    let file = package.file_name().unwrap_or_default().to_string_lossy();
    let begins = KERNELS.iter().chain(&OTHERS).find_map(|kind| file.strip_prefix(kind));
    let others = kinds.iter().filter_map(|kind| Some(package.with_file_name(format!("{kind}{}", begins?))));
    others.filter(|other| other != package && other.is_file()).collect()
}

/// The problem with a package without a kernel. It names the packages with the kernel, if this package depends on them.
fn no_kernel(package: &Path, cancel: &CancelToken) -> String {
    let fields = Job::new("dpkg-deb").arg("-f").arg(package).arg("Depends").output(cancel).unwrap_or_default();
    let names = fields.split([',', '|']).filter_map(|one| one.split_whitespace().next());
    let is_part = |name: &&str| KERNELS.iter().chain(&OTHERS).any(|kind| name.starts_with(kind));
    let parts: Vec<_> = names.filter(is_part).collect();
    if parts.is_empty() {
        return "there is no kernel in the package: neither /boot/vmlinuz-*, nor vmlinuz in a folder of /usr/lib/modules"
            .to_owned();
    }
    let parts = parts.join(" ");
    format!(
        "there is no kernel in the package, but in packages that it depends on. Download them into the same folder: \
         apt-get download {parts}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a package with these files.
    fn package(folder: &Path, name: &str, depends: &str, files: &[&str]) -> PathBuf {
        let content = folder.join(format!("{name}.d"));
        fs::create_dir_all(content.join("DEBIAN")).unwrap();
        let control = format!(
            "Package: {name}\nVersion: 7.3.4-1\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n{depends}"
        );
        fs::write(content.join("DEBIAN/control"), control).unwrap();
        for file in files {
            let file = content.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, name).unwrap();
        }
        let package = folder.join(format!("{name}_7.3.4-1_amd64.deb"));
        Job::new("dpkg-deb").arg("-b").arg(&content).arg(&package).run(&CancelToken::new()).unwrap();
        package
    }

    #[test]
    fn a_kernel_is_put_together_from_packages_in_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = CancelToken::new();
        let content = folder.path().join("content");
        let depends = "Depends: kmod, linux-base (>= 4.12~), linux-base-7.3.4-amd64 (= 7.3.4-1), linux-binary-7.3.4-amd64 (= 7.3.4-1)\n";
        let image = package(folder.path(), "linux-image-7.3.4-amd64", depends, &["usr/share/doc/x"]);
        let error = unpack(&image, &content, &cancel).unwrap_err().to_string();
        let error = error.replace(&folder.path().display().to_string(), "~");
        insta::assert_snapshot!(error, @"~/linux-image-7.3.4-amd64_7.3.4-1_amd64.deb: there is no kernel in the package, but in packages that it depends on. Download them into the same folder: apt-get download linux-base-7.3.4-amd64 linux-binary-7.3.4-amd64");

        let kernel = "usr/lib/modules/7.3.4-amd64/vmlinuz";
        let binary = package(folder.path(), "linux-binary-7.3.4-amd64", "", &[kernel]);
        let modules =
            package(folder.path(), "linux-modules-7.3.4-amd64", "", &["usr/lib/modules/7.3.4-amd64/kernel/x.ko"]);
        package(folder.path(), "linux-modules-7.3.5-amd64", "", &["usr/lib/modules/7.3.5-amd64/kernel/x.ko"]);
        for named in [&image, &binary] {
            fs::remove_dir_all(&content).unwrap();
            assert_eq!(unpack(named, &content, &cancel).unwrap(), content.join(kernel));
            assert!(content.join("usr/lib/modules/7.3.4-amd64/kernel/x.ko").is_file());
            assert!(!content.join("usr/lib/modules/7.3.5-amd64").exists());
        }
        assert_eq!(all_beside(&binary), [modules, image]);
    }

    #[test]
    fn a_package_with_a_whole_kernel_needs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = CancelToken::new();
        let content = folder.path().join("content");
        let whole =
            package(folder.path(), "linux-image-6.1.0-amd64", "", &["boot/vmlinuz-6.1.0-amd64", "boot/config-x"]);
        assert_eq!(unpack(&whole, &content, &cancel).unwrap(), content.join("boot/vmlinuz-6.1.0-amd64"));
        let other = package(folder.path(), "some-words", "", &["usr/share/doc/x"]);
        let error = unpack(&other, &folder.path().join("other"), &cancel).unwrap_err().to_string();
        assert!(error.contains("neither /boot/vmlinuz-*, nor vmlinuz"), "{error}");
    }
}
