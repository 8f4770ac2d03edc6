//! All VFs of a PF under load: many tasks read and write their attributes at the same time, as where containers come and
//! go. What is left afterwards is looked at as after each scenario that passes.

use harness::guest::{Guest, Halt, Sweeping, judged, must};
use harness::scenario::Scenario;

use crate::check::{accepts, driver_of_vfs, have_driver, passed};
use crate::sweep::LEFT_OUT;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "load::vfs_come_and_go",
    about: "All VFs are unbound and bound again and again, each by a task of its own, while others write sriov_numvfs, \
            rescan the bus and read the attributes of the PF. All must end, and all VFs must have their driver and work.",
    ..Scenario::of(|guest| Box::pin(judged(vfs_come_and_go(guest))))
}];

/// How often each VF is unbound and bound.
const ROUNDS: u32 = 5;

/// How many tasks write `sriov_numvfs`. All VFs are enabled, so what they ask for is there, or is refused.
const WRITERS: usize = 2;

/// How often all attributes of the PF and its VFs are read meanwhile, each by a thread of its own.
const SWEEPS: usize = 2;

async fn vfs_come_and_go(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let all = pf.model().vfs_of_driver;
    let vfs = guest.enable_vfs(pf, all).await?;
    have_driver(guest, pf, &vfs, "after VFs were enabled").await?;

    let mut operations = Vec::new();
    for vf in &vfs {
        let (folder, bdf) = (driver_of_vfs(pf)?, vf.bdf.to_string());
        let writes = [(format!("{folder}/unbind"), bdf.as_str()), (format!("{folder}/bind"), &bdf)];
        operations.push(guest.cycle(&writes, Some(ROUNDS)).await?);
    }
    let binds = operations.len();
    for _ in 0..WRITERS {
        let writes = [(pf.numvfs(), all.to_string()), (pf.numvfs(), (all - 1).to_string())];
        let writes = writes.each_ref().map(|(path, data)| (path.clone(), data.as_str()));
        operations.push(guest.cycle(&writes, Some(ROUNDS)).await?);
    }
    operations.push(guest.cycle(&[("/sys/bus/pci/rescan".to_owned(), "1")], Some(ROUNDS)).await?);
    let folders: Vec<_> = std::iter::once(&pf.device).chain(&vfs).map(|device| device.attribute("")).collect();
    let mut sweeps = Vec::new();
    for _ in 0..SWEEPS {
        sweeps.push(guest.sweep(folders.clone(), LEFT_OUT, &[]).await?);
    }

    let waited: Vec<_> = operations.iter().chain(sweeps.iter().map(Sweeping::operation)).collect();
    passed(guest.passes_unless_stuck(&waited, &[]).await?)?;
    for operation in &operations[..binds] {
        let cycled = operation.cycled(guest.prompt()).await?;
        must(cycled.refused == 0, "bind", || format!("of the unbinds and binds of a VF, some were refused: {cycled}"))?;
    }
    passed(guest.agreement().await?)?;
    have_driver(guest, pf, &vfs, "after load").await?;
    for number in [0, all, 0] {
        accepts(guest, &pf.numvfs(), number, "after load").await?;
        passed(guest.agreement().await?)?;
    }
    Ok(())
}
