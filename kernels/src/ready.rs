//! Kernels that were built elsewhere, for example a distribution's. The kernel is used as it is, with those of its
//! modules that cells need.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object, ObjectSection, elf};

use crate::cache::{Key, KeyMaker};
use crate::error::BuildError;
use crate::event::CancelToken;
use crate::package;
use crate::unpack::unpack;

/// A kernel that was built elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyKernel {
    /// A bzImage, a vmlinux, or a Debian package with a kernel. If the package has only a part of the kernel, the
    /// packages with the rest are in the same folder.
    pub path: PathBuf,
    /// The folder of its modules. `None` for those in the package, or in `/lib/modules/RELEASE`.
    pub modules: Option<PathBuf>,
}

/// Part of the key of each such kernel. To be raised when something else of the same files is put into the cache.
const KEPT: &str = "3";

/// Modules that cells need if they are not built in, in the order in which they are loaded, and why. The modules for
/// the agent's port come last: as soon as the agent has its port, the host may send requests that need the others.
const NEEDED: [(&str, &str); 6] = [
    ("vfio_iommu_type1", "devices are owned through vfio"),
    ("vfio_pci", "devices are owned through vfio"),
    ("igb", "it drives the card with SR-IOV that QEMU emulates"),
    ("igbvf", "it drives that card's VFs"),
    ("virtio_pci", "the agent in the guest talks through a virtio port"),
    ("virtio_console", "the agent in the guest talks through a virtio port"),
];

/// The modules that cells need, if they are not built in: those that are loaded in the guest.
pub fn modules_of_cells() -> impl Iterator<Item = &'static str> {
    NEEDED.into_iter().map(|(name, _)| name)
}

/// The files of a ready kernel.
struct Parts {
    kernel: PathBuf,
    release: String,
    modules: Option<PathBuf>,
}

impl ReadyKernel {
    /// Its key in the cache. A file counts with its path, size and time.
    pub(crate) fn key(&self) -> Result<Key, BuildError> {
        let mut key = KeyMaker::new().with("kept", KEPT);
        let beside = if self.is_package() { package::all_beside(&self.path) } else { Vec::new() };
        for path in std::iter::once(&self.path).chain(&self.modules).chain(&beside) {
            let found = fs::metadata(path).map_err(BuildError::io("look at", path))?;
            let stamp = format!("{} {} {}", found.len(), found.mtime(), found.mtime_nsec());
            key = key.with("ready", path.as_os_str().as_encoded_bytes()).with("stamp", stamp);
        }
        Ok(key.finish())
    }

    /// Copies the kernel to `boot`, and its configuration, if there is one, to `config` in a folder. Copies its modules
    /// to `modules` in that folder, with names that sort in the order in which they are loaded. Returns the kernel's
    /// release.
    pub(crate) fn unpack(&self, folder: &Path, boot: &Path, cancel: &CancelToken) -> Result<String, BuildError> {
        let content = folder.join("content");
        let parts = self.parts(&content, cancel)?;
        fs::copy(&parts.kernel, boot).map_err(BuildError::io("copy", &parts.kernel))?;
        let config = parts.config();
        if let Some(config) = &config {
            fs::copy(config, folder.join("config")).map_err(BuildError::io("copy", config))?;
        }
        let to = folder.join("modules");
        fs::create_dir(&to).map_err(BuildError::io("create", &to))?;
        match &parts.modules {
            Some(modules) => self.modules_in(modules)?.copy_needed(&to, &parts.release, cancel)?,
            None if self.is_package() && !config.is_some_and(|config| is_without_modules(&config)) => {
                let problem = format!("there are no modules of Linux {} in the package", parts.release);
                return Err(self.wrong(&format!("{problem}. {}", where_modules_are(&parts.release))));
            }
            None => {}
        }
        if content.exists() {
            fs::remove_dir_all(&content).map_err(BuildError::io("clear", &content))?;
        }
        Ok(parts.release)
    }

    /// The error for patches on such a kernel.
    pub(crate) fn unpatchable(&self) -> BuildError {
        self.wrong("this kernel is built already, so it cannot be patched: name a kernel source instead")
    }

    fn is_package(&self) -> bool {
        self.path.extension().is_some_and(|ending| ending == "deb")
    }

    /// The modules in a folder. Errors name the package if the folder was unpacked from one.
    fn modules_in(&self, folder: &Path) -> Result<Modules, BuildError> {
        let is_unpacked = self.is_package() && self.modules.is_none();
        Modules::in_folder(folder, if is_unpacked { &self.path } else { folder })
    }

    fn parts(&self, content: &Path, cancel: &CancelToken) -> Result<Parts, BuildError> {
        if self.is_package() {
            let kernel = package::unpack(&self.path, content, cancel)?;
            let release = self.release(&kernel)?;
            let folders = ["lib/modules", "usr/lib/modules"].map(|folder| content.join(folder).join(&release));
            let has_modules = |folder: &PathBuf| folder.join("kernel").is_dir() || folder.join(BUILTIN).is_file();
            let modules = self.modules.clone().or_else(|| folders.into_iter().find(has_modules));
            return Ok(Parts { kernel, release, modules });
        }
        let release = self.release(&self.path)?;
        let installed = Path::new("/lib/modules").join(&release);
        let modules = self.modules.clone().or_else(|| installed.is_dir().then_some(installed));
        Ok(Parts { kernel: self.path.clone(), release, modules })
    }

    /// The release of a kernel, as `uname -r` prints it, from its file.
    fn release(&self, kernel: &Path) -> Result<String, BuildError> {
        let bytes = fs::read(kernel).map_err(BuildError::io("read", kernel))?;
        let release = release(&bytes).ok_or_else(|| {
            self.wrong("this is no x86 kernel: give a bzImage (/boot/vmlinuz-*), a vmlinux or a Debian package")
        })?;
        if bytes.starts_with(ELF) && !has_pvh_note(&bytes) {
            return Err(self.wrong(
                "this vmlinux was built without CONFIG_PVH, so it has no PVH note and QEMU cannot boot it. Give the \
                 bzImage (/boot/vmlinuz-*, or arch/x86/boot/bzImage in the output tree), or build it with CONFIG_PVH=y",
            ));
        }
        Ok(release)
    }

    fn wrong(&self, problem: &str) -> BuildError {
        BuildError::Source { path: self.path.clone(), problem: problem.to_owned() }
    }
}

impl Parts {
    /// The file of its configuration. Distributions put it into the folder of the kernel, or into that of the modules.
    fn config(&self) -> Option<PathBuf> {
        let beside_kernel = self.kernel.with_file_name(format!("config-{}", self.release));
        let beside_modules = self.modules.as_ref().map(|folder| folder.join("config"));
        std::iter::once(beside_kernel).chain(beside_modules).find(|file| file.is_file())
    }
}

/// Whether a kernel with this configuration has no loadable modules.
fn is_without_modules(config: &Path) -> bool {
    let text = fs::read_to_string(config).unwrap_or_default();
    text.lines().any(|line| line == "# CONFIG_MODULES is not set")
}

/// The list of modules that are built into a kernel (`Documentation/kbuild/kbuild.rst`).
const BUILTIN: &str = "modules.builtin";

/// Which packages of distributions have the modules.
fn where_modules_are(release: &str) -> String {
    format!(
        "These packages may have it: on Debian linux-modules-{release} and linux-base-{release}, on Ubuntu \
         linux-modules-{release} and linux-modules-extra-{release}. Put them into the folder of the kernel's package, \
         or install them"
    )
}

/// The first bytes of an ELF file.
const ELF: &[u8] = b"\x7fELF";

/// Whether the program headers of a vmlinux have the note with its 32-bit entry point (`XEN_ELFNOTE_PHYS32_ENTRY` in
/// the kernel's `include/xen/interface/elfnote.h`). QEMU looks for it there (`include/hw/elf_ops.h.inc` in QEMU).
fn has_pvh_note(vmlinux: &[u8]) -> bool {
    const PHYS32_ENTRY: u32 = 18;
    let Ok(file) = ElfFile64::<Endianness>::parse(vmlinux) else { return false };
    let endian = file.endian();
    let in_header = |header: &elf::ProgramHeader64<Endianness>| {
        let Ok(Some(mut notes)) = header.notes(endian, vmlinux) else { return false };
        std::iter::from_fn(|| notes.next().ok().flatten())
            .any(|note| note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY)
    };
    file.elf_program_headers().iter().any(in_header)
}

/// The release of a bzImage (`Documentation/arch/x86/boot.rst`, `kernel_version`) or of a vmlinux (`linux_banner`).
fn release(kernel: &[u8]) -> Option<String> {
    let text = if kernel.get(0x202..0x206)? == b"HdrS" {
        let offset = u16::from_le_bytes(kernel.get(0x20e..0x210)?.try_into().ok()?);
        kernel.get(usize::from(offset) + 0x200..)?
    } else if kernel.starts_with(ELF) {
        const BANNER: &[u8] = b"Linux version ";
        let start = kernel.windows(BANNER.len()).position(|window| window == BANNER)?;
        &kernel[start + BANNER.len()..]
    } else {
        return None;
    };
    let end = text.iter().position(|byte| *byte == 0 || *byte == b' ')?;
    let release = std::str::from_utf8(&text[..end]).ok()?;
    // The release becomes part of paths.
    release.chars().all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c)).then(|| release.to_owned())
}

/// The modules of a kernel.
struct Modules {
    /// The path that errors name: the folder of the modules, or their package.
    place: PathBuf,
    /// Files by module name.
    files: BTreeMap<String, PathBuf>,
    /// Names of the modules that are built into the kernel.
    builtin: Vec<String>,
}

impl Modules {
    fn in_folder(folder: &Path, place: &Path) -> Result<Modules, BuildError> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(BuildError::io("list", &folder))? {
                let entry = entry.map_err(BuildError::io("list", &folder))?;
                // The links `build` and `source` lead out of the folder.
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() => {
                        files.extend(name(&entry.file_name().to_string_lossy()).map(|name| (name, entry.path())));
                    }
                    _ => {}
                }
            }
        }
        let builtin = fs::read_to_string(folder.join(BUILTIN)).unwrap_or_default();
        let builtin = builtin.lines().filter_map(|line| name(line.rsplit('/').next()?)).collect();
        Ok(Modules { place: place.to_owned(), files, builtin })
    }

    /// Copies the modules that cells need into a folder, uncompressed. A module comes after those that it depends on.
    fn copy_needed(&self, to: &Path, release: &str, cancel: &CancelToken) -> Result<(), BuildError> {
        let mut loaded = Vec::new();
        for (name, why) in NEEDED {
            if self.is_builtin(name) {
                continue;
            }
            if !self.files.contains_key(name) {
                let problem = format!(
                    "Linux {release} has no {name}, neither as a module here nor in {BUILTIN}, and cells need it: \
                     {why}. {}",
                    where_modules_are(release)
                );
                return Err(BuildError::Source { path: self.place.clone(), problem });
            }
            self.load(name, to, &mut loaded, cancel)?;
        }
        Ok(())
    }

    fn load(&self, name: &str, to: &Path, loaded: &mut Vec<String>, cancel: &CancelToken) -> Result<(), BuildError> {
        if loaded.iter().any(|other| other == name) || self.is_builtin(name) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else {
            let problem = format!("there is no module {name} here, and other modules depend on it");
            return Err(BuildError::Source { path: self.place.clone(), problem });
        };
        let scratch = to.join(format!(".{name}.ko"));
        unpack(file, &scratch, cancel)?;
        let bytes = fs::read(&scratch).map_err(BuildError::io("read", &scratch))?;
        let needs = depends(&bytes).ok_or_else(|| BuildError::Source {
            path: file.clone(),
            problem: "this file is no kernel module".to_owned(),
        })?;
        // depmod refuses modules that depend on each other in a circle.
        loaded.push(name.to_owned());
        needs.iter().try_for_each(|need| self.load(need, to, loaded, cancel))?;
        let number = fs::read_dir(to).map_err(BuildError::io("list", to))?.flatten();
        let number = number.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count();
        let place = to.join(format!("{number:02}-{name}.ko"));
        fs::rename(&scratch, &place).map_err(BuildError::io("move into place", &place))
    }

    fn is_builtin(&self, name: &str) -> bool {
        self.builtin.iter().any(|builtin| builtin == name)
    }
}

/// The name of the module in a file: `vfio-pci.ko.xz` is `vfio_pci`.
fn name(file: &str) -> Option<String> {
    let (name, ending) = file.split_once(".ko")?;
    ["", ".xz", ".zst", ".gz"].contains(&ending).then(|| name.replace('-', "_"))
}

/// The names of the modules that a module depends on (`depends=` in `.modinfo`).
fn depends(module: &[u8]) -> Option<Vec<String>> {
    let file = object::File::parse(module).ok()?;
    let info = file.section_by_name(".modinfo")?.data().ok()?;
    let mut fields = info.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok());
    let depends = fields.find_map(|field| field.strip_prefix("depends="))?;
    Some(depends.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage that has only the header.
    fn bzimage(release: &str) -> Vec<u8> {
        let mut kernel = vec![0; 0x400];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        let text = format!("{release} (x@example.org) #1 SMP\0");
        kernel[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
        kernel
    }

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Fake {
            let fake = Fake(tempfile::tempdir().unwrap());
            fs::write(fake.path("vmlinuz"), bzimage("6.1.0-50-amd64")).unwrap();
            fs::create_dir(fake.path("modules")).unwrap();
            fs::write(fake.path("modules/modules.builtin"), "kernel/drivers/virtio/virtio_pci.ko\n").unwrap();
            for (name, depends) in [
                ("vfio", ""),
                ("vfio_iommu_type1", "vfio"),
                ("vfio-pci", "vfio-pci-core,vfio"),
                ("vfio-pci-core", "vfio"),
                ("igb", ""),
                ("igbvf", ""),
                ("virtio_console", "virtio_pci"),
            ] {
                fake.module(name, depends);
            }
            fake
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Makes a module: an object file with a `.modinfo` section.
        fn module(&self, name: &str, depends: &str) {
            let source = self.path("modules/m.c");
            let text =
                format!("char i[] __attribute__((section(\".modinfo\"))) = \"license=GPL\\0depends={depends}\";");
            fs::write(&source, text).unwrap();
            let object = self.path(&format!("modules/{name}.ko"));
            let mut gcc = std::process::Command::new("gcc");
            assert!(gcc.arg("-c").arg(&source).arg("-o").arg(&object).status().unwrap().success());
        }

        fn unpack(&self) -> Result<(String, Vec<String>), String> {
            let ready = ReadyKernel { path: self.path("vmlinuz"), modules: Some(self.path("modules")) };
            let folder = tempfile::tempdir().unwrap();
            let release = ready
                .unpack(folder.path(), &folder.path().join("boot"), &CancelToken::new())
                .map_err(|error| error.to_string().replace(&self.0.path().display().to_string(), "~"))?;
            let modules = fs::read_dir(folder.path().join("modules")).unwrap();
            let mut modules: Vec<_> =
                modules.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
            modules.sort();
            Ok((release, modules))
        }
    }

    #[test]
    fn a_module_comes_after_those_that_it_depends_on() {
        let fake = Fake::new();
        let packed = std::process::Command::new("xz").arg(fake.path("modules/igb.ko")).status().unwrap();
        assert!(packed.success());
        let (release, modules) = fake.unpack().unwrap();
        assert_eq!(release, "6.1.0-50-amd64");
        insta::assert_snapshot!(modules.join("\n"), @r"
        00-vfio.ko
        01-vfio_iommu_type1.ko
        02-vfio_pci_core.ko
        03-vfio_pci.ko
        04-igb.ko
        05-igbvf.ko
        06-virtio_console.ko
        ");
    }

    #[test]
    fn a_missing_or_damaged_file_is_named() {
        let fake = Fake::new();
        fs::remove_file(fake.path("modules/igbvf.ko")).unwrap();
        insta::assert_snapshot!(fake.unpack().unwrap_err(), @"~/modules: Linux 6.1.0-50-amd64 has no igbvf, neither as a module here nor in modules.builtin, and cells need it: it drives that card's VFs. These packages may have it: on Debian linux-modules-6.1.0-50-amd64 and linux-base-6.1.0-50-amd64, on Ubuntu linux-modules-6.1.0-50-amd64 and linux-modules-extra-6.1.0-50-amd64. Put them into the folder of the kernel's package, or install them");
        fake.module("igbvf", "lost");
        insta::assert_snapshot!(fake.unpack().unwrap_err(), @"~/modules: there is no module lost here, and other modules depend on it");
        fs::write(fake.path("modules/igbvf.ko"), "words").unwrap();
        insta::assert_snapshot!(fake.unpack().unwrap_err(), @"~/modules/igbvf.ko: this file is no kernel module");
        fs::write(fake.path("vmlinuz"), "words").unwrap();
        insta::assert_snapshot!(fake.unpack().unwrap_err(), @"~/vmlinuz: this is no x86 kernel: give a bzImage (/boot/vmlinuz-*), a vmlinux or a Debian package");
    }

    #[test]
    fn a_vmlinux_without_a_pvh_note_is_refused() {
        let fake = Fake::new();
        let link = |note: &str| {
            let source = fake.path("vmlinux.S");
            let banner = ".globl _start\n_start: nop\n.data\n.asciz \"Linux version 6.1.0-50-amd64 (x)\"\n";
            fs::write(&source, format!("{banner}{note}")).unwrap();
            let mut gcc = std::process::Command::new("gcc");
            gcc.args(["-nostdlib", "-static", "-Wl,--build-id=none", "-o"]).arg(fake.path("vmlinuz")).arg(&source);
            assert!(gcc.status().unwrap().success());
            fake.unpack()
        };
        let with = |kind: u8| {
            format!(".section .note.Xen, \"a\", @note\n.long 4, 8, {kind}\n.asciz \"Xen\"\n.quad 0x1000000\n")
        };
        assert_eq!(link(&with(18)).unwrap().0, "6.1.0-50-amd64");
        for other in [String::new(), with(6)] {
            let said = link(&other).unwrap_err();
            assert!(said.contains("CONFIG_PVH") && said.contains("bzImage"), "{said}");
        }
    }

    #[test]
    fn the_release_is_read_from_the_file() {
        assert_eq!(release(&bzimage("6.12.1+deb13-amd64")).unwrap(), "6.12.1+deb13-amd64");
        assert_eq!(release(&[&b"\x7fELF"[..], &[0; 0x300], b"Linux version 6.9.0 (x"].concat()).unwrap(), "6.9.0");
        assert_eq!(release(&bzimage("../../etc")), None);
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes: Vec<u8>, offset: u16) {
            let _ = (release(&bytes), depends(&bytes), has_pvh_note(&bytes));
            let _ = has_pvh_note(&[ELF, &bytes].concat());
            let mut kernel = bzimage("6.1");
            kernel[0x20e..0x210].copy_from_slice(&offset.to_le_bytes());
            let _ = release(&kernel);
        }
    }
}
