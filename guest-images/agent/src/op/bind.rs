//! Binds a PCI device to a driver (`Documentation/ABI/testing/sysfs-bus-pci`).

use std::fs;
use std::path::Path;

use crate::error::{AgentError, doing};

/// The PCI bus in sysfs.
const BUS: &str = "/sys/bus/pci";

/// Unbinds a device from its driver, binds it to another one, and checks that this driver has it.
pub fn bind(bdf: &str, driver: &str) -> Result<(), AgentError> {
    let device = Path::new(BUS).join("devices").join(bdf);
    if !device.exists() {
        return Err(AgentError::Refused(format!("no device {bdf} in {BUS}/devices; there are: {}", names("devices"))));
    }
    if !Path::new(BUS).join("drivers").join(driver).exists() {
        return Err(AgentError::Refused(format!(
            "this kernel has no PCI driver {driver:?}; it has: {}",
            names("drivers")
        )));
    }
    let before = driver_of(&device);
    write(&device.join("driver_override"), driver)?;
    if before.as_deref() == Some(driver) {
        return Ok(());
    }
    if before.is_some() {
        write(&device.join("driver/unbind"), bdf)?;
    }
    write(&Path::new(BUS).join("drivers_probe"), bdf)?;
    match driver_of(&device) {
        Some(now) if now == driver => Ok(()),
        now => Err(AgentError::Refused(format!(
            "{driver} did not bind to {bdf}: the device's driver was {} before and is {} now; see the kernel's log",
            before.as_deref().unwrap_or("none"),
            now.as_deref().unwrap_or("none"),
        ))),
    }
}

fn driver_of(device: &Path) -> Option<String> {
    Some(fs::read_link(device.join("driver")).ok()?.file_name()?.to_string_lossy().into_owned())
}

fn write(path: &Path, data: &str) -> Result<(), AgentError> {
    doing(&format!("write {data:?} to {}", path.display()), || fs::write(path, data))
}

fn names(folder: &str) -> String {
    let names = super::attribute::list(&format!("{BUS}/{folder}")).unwrap_or_default();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
