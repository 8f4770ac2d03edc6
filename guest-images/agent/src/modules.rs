//! Loads the modules of the guest image, for kernels that do not have everything built in.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::error::AgentError;

/// The folder of the modules in the guest image. The names of the files begin with a number, which gives their order.
const FOLDER: &str = "/modules";

/// Loads all modules of the guest image in their order. Each gets its parameters from the kernel's command line, as
/// with `modprobe`: the kernel itself only passes parameters to code that is built in.
pub fn load_all() -> Result<(), AgentError> {
    let mut files: Vec<PathBuf> = match fs::read_dir(FOLDER) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(AgentError::io(format!("list {FOLDER}"), error)),
    };
    files.sort();
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    for file in files {
        load(&file, &parameters(&line, &name(&file)))
            .map_err(|source| AgentError::io(format!("load the module {}", file.display()), source))?;
    }
    Ok(())
}

fn load(file: &Path, parameters: &str) -> io::Result<()> {
    let parameters = CString::new(parameters).map_err(io::Error::other)?;
    match finit_module(File::open(file)?, &parameters, ModuleInitFlags::empty()) {
        // The module is loaded already.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The name of the module in a file: vfio_pci for `03-vfio_pci.ko`.
fn name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    stem.split_once('-').map_or(stem.as_ref(), |(_, name)| name).replace('-', "_")
}

/// The parameters for a module in a command line: `vfio_pci.enable_sriov=1` is `enable_sriov=1` for vfio_pci. In names,
/// `-` and `_` are the same for the kernel.
fn parameters(line: &str, module: &str) -> String {
    let own = |word: &str| {
        let (name, parameter) = word.split_once('.')?;
        (name.replace('-', "_") == module).then(|| parameter.to_owned())
    };
    line.split_whitespace().filter_map(own).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_gets_its_own_parameters() {
        let line = "console=ttyS0 vfio_pci.enable_sriov=1 vfio-pci.ids=1 igb.max_vfs=2 sysctl.kernel.hung_task=10";
        assert_eq!(parameters(line, "vfio_pci"), "enable_sriov=1 ids=1");
        assert_eq!(parameters(line, "vfio"), "");
        assert_eq!(name(Path::new("/modules/03-vfio_pci.ko")), "vfio_pci");
    }
}
