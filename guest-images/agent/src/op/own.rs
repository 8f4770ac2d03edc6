//! A single-threaded owner of a device under vfio-pci.

use std::thread;
use std::time::Duration;

use guest_protocol::{Progress, Step};

use super::{Report, attribute};
use crate::error::{AgentError, doing};
use crate::job::{Control, Controls};
use crate::vfio::Device;

/// Opens a device, waits until the kernel asks for it, and takes the steps, one after the other.
pub fn own(bdf: &str, on_request: &[Step], report: &Report, controls: &mut Controls) -> Result<(), AgentError> {
    let mut device = Some(Device::open(bdf)?);
    if let Some(device) = &device {
        report.progress(Progress::Opened { group: device.group() })?;
        device.wait_for_request()?;
    }
    report.progress(Progress::Requested)?;
    for step in on_request {
        take(step, &mut device, report, controls)?;
    }
    release(&mut device, report)
}

fn take(step: &Step, device: &mut Option<Device>, report: &Report, controls: &mut Controls) -> Result<(), AgentError> {
    match step {
        Step::Read { path } => {
            report.progress(Progress::Reading { path: path.clone() })?;
            report.progress(Progress::Read(attribute::read(path)))
        }
        // The duration is the scenario's wish, not a wait for an event.
        Step::Wait { ms } => {
            thread::sleep(Duration::from_millis(*ms));
            Ok(())
        }
        Step::Hold => {
            report.progress(Progress::Holding)?;
            let told: Option<Control> = doing("wait for the host", || controls.next())?;
            match told {
                Some(Control::Continue) => Ok(()),
                other => Err(AgentError::Refused(format!("an owner that holds was told {other:?}"))),
            }
        }
        Step::Release => release(device, report),
    }
}

/// Closes what is still open, and says so.
fn release(device: &mut Option<Device>, report: &Report) -> Result<(), AgentError> {
    match device.take() {
        None => Ok(()),
        Some(device) => {
            drop(device);
            report.progress(Progress::Released)
        }
    }
}
