//! A single-threaded owner of vfio-pci devices.

use guest_protocol::{Progress, Sched, Step, VfioDevice};

use super::{Report, attribute};
use crate::error::{AgentError, doing};
use crate::job::{Controls, Told};
use crate::vfio::{self, Caller, Device, Devices};

/// Opens the devices and takes the steps, one after the other.
pub fn own(devices: &[VfioDevice], steps: &[Step], report: &Report, controls: &mut Controls) -> Result<(), AgentError> {
    let (mut open, mut caller) = (Devices::default(), Caller::default());
    for device in devices {
        open.open(&device.bdf, device.vf_token.as_deref())?;
    }
    report.progress(Progress::Opened { groups: open.iter().map(Device::group).collect() })?;
    for step in steps {
        take(step, &mut open, &mut caller, report, controls)?;
    }
    release(&mut open, report)
}

fn take(
    step: &Step,
    open: &mut Devices,
    caller: &mut Caller,
    report: &Report,
    controls: &mut Controls,
) -> Result<(), AgentError> {
    match step {
        Step::AwaitRequest => {
            let bdf = vfio::wait_for_request(open)?;
            report.progress(Progress::Requested { bdf })
        }
        Step::Read { path } => {
            report.progress(Progress::Reading { path: path.clone() })?;
            report.progress(Progress::Read(attribute::read(path)))
        }
        Step::Write(write) => {
            report.progress(Progress::Writing { path: write.path.clone() })?;
            report.progress(Progress::Written(attribute::write(&write.path, &write.data, 0, Sched::default())?))
        }
        Step::Hold => {
            report.progress(Progress::Holding)?;
            hold(open, caller, report, controls)
        }
        Step::Close { bdf } => {
            open.close(bdf)?;
            report.progress(Progress::Closed { bdf: bdf.clone() })
        }
        Step::Release => release(open, report),
    }
}

/// Makes calls until told to continue.
fn hold(open: &mut Devices, caller: &mut Caller, report: &Report, controls: &mut Controls) -> Result<(), AgentError> {
    loop {
        let told: Option<Told> = doing("wait for the host", || controls.next())?;
        match told {
            Some(Told::Continue) => return Ok(()),
            Some(Told::Call { id, call }) => {
                let result = caller.make(&call, open)?;
                report.progress(Progress::Called { id, result })?;
            }
            None => return Err(AgentError::Refused("the server ended while the owner held its devices".to_owned())),
        }
    }
}

/// Closes the devices that are still open, and reports it.
fn release(open: &mut Devices, report: &Report) -> Result<(), AgentError> {
    if open.is_empty() {
        return Ok(());
    }
    open.close_all();
    report.progress(Progress::Released)
}
