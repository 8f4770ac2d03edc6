//! Checks of attributes that several families make. The first that fails ends a scenario.

use guest_protocol::{Access, Sched};
use harness::guest::{Device, Ending, Error, Guest, Halt, Pf, must};
use harness::verdict::Verdict;
use kernels::FailureKind;

/// The first PF, bound to vfio-pci.
pub async fn bound(guest: &Guest) -> Result<&Pf, Error> {
    let pf = guest.pf()?;
    guest.bind(pf, "vfio-pci").await?;
    Ok(pf)
}

/// Ends the scenario unless this verdict is a pass.
pub fn passed(verdict: Verdict) -> Result<(), Halt> {
    if verdict == Verdict::Pass { Ok(()) } else { Err(Halt::Failed(verdict)) }
}

/// The failure of a kernel whose attribute or register has another value than it must have.
pub fn wrong(attribute: &str, summary: String) -> Halt {
    Halt::Failed(Verdict::fail(FailureKind::WrongState, attribute, summary))
}

/// The failure of a kernel that did not send an event.
pub fn lost(event: &str, summary: String) -> Halt {
    Halt::Failed(Verdict::fail(FailureKind::LostEvent, event, summary))
}

/// Writes an attribute and waits until the write returns. If it never does, that is the verdict.
pub async fn written(guest: &Guest, path: &str, data: impl ToString) -> Result<Access, Halt> {
    let write = guest.write(path.to_owned(), data, Sched::default()).await?;
    match guest.ending(&[&write]).await? {
        Ending::Stuck(stuck) => Err(Halt::Failed(guest.deadlock(&stuck, &[]))),
        Ending::Done => Ok(write.accessed(guest.prompt()).await?),
    }
}

/// Writes an attribute, which must accept the value.
pub async fn accepts(guest: &Guest, path: &str, data: impl ToString, when: &str) -> Result<Access, Halt> {
    let data = data.to_string();
    let access = written(guest, path, &data).await?;
    match &access.value {
        Ok(_) => Ok(access),
        Err(errno) => Err(wrong(name(path), format!("{when}, writing {data} to {path} fails with {}", errno.name))),
    }
}

/// Writes an attribute, which must refuse the value with one of these errors.
pub async fn refuses(guest: &Guest, path: &str, data: &str, with: &[&str], when: &str) -> Result<(), Halt> {
    let access = written(guest, path, data).await?;
    let answer = access.value.as_ref().map_or_else(|errno| errno.name.as_str(), |_| "success");
    if with.contains(&answer) {
        return Ok(());
    }
    let must = with.join(" or ");
    Err(wrong(name(path), format!("{when}, writing {data} to {path} returns {answer}, and must return {must}")))
}

/// Reads an attribute, which must have this value.
pub async fn reads(guest: &Guest, path: &str, value: &str, when: &str) -> Result<(), Halt> {
    let read = guest.read_now(path.to_owned()).await?;
    if read.shown() == value {
        return Ok(());
    }
    Err(wrong(name(path), format!("{when}, {path} reads {}, and must read {value}", read.shown())))
}

/// The folder of the driver of a PF's VFs.
pub fn driver_of_vfs(pf: &Pf) -> Result<String, Error> {
    let driver = pf.model().vf_driver.as_ref();
    let driver = driver.ok_or_else(|| Error::Unprepared("the VFs of this model have no driver".to_owned()))?;
    Ok(format!("/sys/bus/pci/drivers/{}", driver.name))
}

/// Each VF must have its driver.
pub async fn have_driver(guest: &Guest, pf: &Pf, vfs: &[Device], when: &str) -> Result<(), Halt> {
    let bound = guest.list(&driver_of_vfs(pf)?).await?;
    for vf in vfs {
        must(bound.contains(&vf.bdf.to_string()), "driver", || format!("{when}, the VF {} has no driver", vf.bdf))?;
    }
    Ok(())
}

/// The last component of a path.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
