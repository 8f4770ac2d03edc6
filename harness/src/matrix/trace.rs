//! Finds out what each cell executes of its kernel, with a plugin of QEMU ([`Plugin::Coverage`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::{Code, KernelImage};
use tokio::sync::Mutex;

use super::{MatrixError, Request};
use crate::coverage::{Blocks, Sources};
use crate::evidence::{CellCoverage, CellDir, EvidenceError, RunDir};
use crate::host;
use crate::host::plugin::{self, Plugin};
use crate::lab::Lab;
use crate::vm::argv::{Machine, Traced};
use crate::vm::topology::Topology;

/// The folders that count in every run. Those of the devices' drivers are in the table of the models.
const FOLDERS: [&str; 2] = ["drivers/pci/", "drivers/vfio/"];

/// Traces the cells of a run.
pub struct Tracer {
    plugin: PathBuf,
    /// Which source files count, by the beginning of their paths.
    prefixes: Vec<&'static str>,
    /// The code of the kernels so far, by their keys; or why it is not known.
    codes: Mutex<BTreeMap<String, Known>>,
}

type Known = Arc<Result<Code, String>>;

impl Tracer {
    /// A tracer for the cells of a request.
    ///
    /// # Errors
    /// If no guest can run here, or if QEMU does not take the plugin.
    pub fn prepare(lab: &Lab, request: &Request) -> Result<Tracer, MatrixError> {
        let qemu = host::for_guests().map_err(MatrixError::Machine)?;
        let plugin = plugin::for_qemu(Plugin::Coverage, lab.cache(), &qemu.binary)?;
        let topologies: BTreeSet<_> = request.cells.iter().map(|cell| cell.id.topology.as_str()).collect();
        Ok(Tracer { plugin, prefixes: prefixes(topologies), codes: Mutex::default() })
    }

    /// The machine of a cell, traced.
    pub(super) fn machine(&self, machine: Machine, dir: &CellDir) -> Machine {
        Machine { traced: Some(Traced { plugin: self.plugin.clone(), blocks: dir.blocks() }), ..machine }
    }

    /// Writes what a cell executed, after its guest has ended.
    ///
    /// # Errors
    /// Those of writing. What cannot be found out is written as unknown, with the reason.
    pub(super) async fn finish(&self, image: &KernelImage, run: &RunDir, dir: &CellDir) -> Result<(), EvidenceError> {
        let code = self.code(image, run).await?;
        let blocks = dir.blocks();
        let coverage = blocking(move || {
            let executed = executed(&blocks, &code);
            // It is not read again. A file that cannot be removed only takes space.
            let _ = fs::remove_file(&blocks);
            executed
        });
        let coverage = coverage.await.map_or_else(CellCoverage::Unknown, CellCoverage::Executed);
        dir.write_coverage(&coverage)
    }

    /// The code of a kernel. Writes all that there is to execute when the kernel is new in this run.
    async fn code(&self, image: &KernelImage, run: &RunDir) -> Result<Known, EvidenceError> {
        let mut codes = self.codes.lock().await;
        if let Some(known) = codes.get(&image.key) {
            return Ok(known.clone());
        }
        let (vmlinux, prefixes) = (image.vmlinux.clone(), self.prefixes.clone());
        let known = Arc::new(blocking(move || code(&vmlinux, &prefixes)).await);
        if let Ok(code) = &*known {
            run.write_kernel_coverage(&image.key, &Sources::all(code))?;
        }
        codes.insert(image.key.clone(), known.clone());
        Ok(known)
    }
}

/// Runs what takes a tenth of a second or more on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("the harness failed: {error}")))
}

fn code(vmlinux: &Path, prefixes: &[&str]) -> Result<Code, String> {
    if !vmlinux.is_file() {
        return Err("the kernel was built elsewhere, so there is no vmlinux that tells code and source".to_owned());
    }
    Code::of(vmlinux, prefixes).map_err(|error| error.to_string())
}

fn executed(blocks: &Path, code: &Result<Code, String>) -> Result<Sources, String> {
    let file = fs::read(blocks).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "no guest was started".to_owned(),
        _ => format!("cannot read {}: {error}", blocks.display()),
    })?;
    let blocks = Blocks::parse(&file).map_err(|error| format!("{} is damaged: {error}", blocks.display()))?;
    Ok(Sources::executed(code.as_ref().map_err(String::clone)?, &blocks))
}

/// The source files that count for these topologies.
fn prefixes<'a>(topologies: impl IntoIterator<Item = &'a str>) -> Vec<&'static str> {
    let models = topologies.into_iter().filter_map(Topology::named).flat_map(|topology| topology.models());
    let drivers = models.flat_map(|model| model.row().drivers()).map(|driver| driver.source);
    FOLDERS.into_iter().chain(drivers).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_of_the_devices_count() {
        let (igb, igbvf) = ("drivers/net/ethernet/intel/igb/", "drivers/net/ethernet/intel/igbvf/");
        assert_eq!(prefixes(["igb", "switch"]), [igb, igbvf, "drivers/pci/", "drivers/vfio/"]);
        assert_eq!(prefixes(["nvme"]), ["drivers/nvme/host/", "drivers/pci/", "drivers/vfio/"]);
    }

    #[test]
    fn what_is_not_known_has_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = folder.path().join("blocks");
        let known = Ok(Code::default());
        assert_eq!(executed(&blocks, &known).unwrap_err(), "no guest was started");
        fs::write(&blocks, "text").unwrap();
        assert!(executed(&blocks, &known).unwrap_err().contains(" is damaged: its length is 4 bytes"));
        fs::write(&blocks, "").unwrap();
        assert_eq!(executed(&blocks, &known), Ok(Sources::default()));
        let elsewhere = code(&folder.path().join("vmlinux"), &[]).unwrap_err();
        assert!(elsewhere.starts_with("the kernel was built elsewhere"));
        assert_eq!(executed(&blocks, &Err(elsewhere.clone())), Err(elsewhere));
    }
}
