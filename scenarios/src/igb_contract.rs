//! What igb promises about its VFs (`drivers/net/ethernet/intel/igb/igb_main.c`).

use guest_protocol::{Errno, Sched};
use harness::guest::{Device, Error, Guest};
use harness::notes::Place;
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use kernels::FailureKind;

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "igb_contract::vf_mac",
        about: "The MAC address of a VF is set through its PF. The VF has it after each reset by its driver. An address \
                for a VF that does not exist is refused.",
        ..Scenario::of(|guest| Box::pin(vf_mac(guest)))
    },
    Scenario {
        name: "igb_contract::vf_reset_while_down",
        about: "A VF that has its driver, and whose interface is down, is reset through sysfs. The reset must end, and \
                then the VFs must go.",
        detects: &["igbvf-reset-while-down"],
        ..Scenario::of(|guest| Box::pin(vf_reset_while_down(guest)))
    },
];

/// Where igbvf waits for NAPI to be off: it sleeps and looks again, so it is no task that waits for another one
/// (`net/core/dev.c`).
const WAITS_FOR_NAPI: &[&str] = &["napi_disable"];

/// A reset that has not returned after this many seconds on a machine with KVM never returns. It takes about 0.2.
const FOR_EVER: f64 = 15.0;

async fn vf_reset_while_down(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let vfs = guest.enable_vfs(pf, 2).await?;
    for vf in &vfs {
        let reset = guest.write(vf.attribute("reset"), 1, Sched::default()).await?;
        match reset.accessed(guest.seconds(FOR_EVER)).await.map_err(Error::from) {
            Err(error) if error.is_deadline() => {
                let Place::In(function) = guest.waits_in(&reset, WAITS_FOR_NAPI, guest.prompt()).await? else {
                    return Err(error);
                };
                let summary =
                    format!("a reset of VF {}, whose interface is down, does not return from {function}", vf.bdf);
                return Ok(Verdict::fail(FailureKind::WrongState, &function, summary));
            }
            _ => drop(guest.granted(&reset).await?),
        }
    }
    guest.set(pf.numvfs(), 0).await?;
    Ok(Verdict::Pass)
}

/// Addresses for the two VFs: unicast, locally administered.
const MACS: [[u8; 6]; 2] = [[0x02, 0x10, 0x20, 0x30, 0x40, 0x50], [0x02, 0x10, 0x20, 0x30, 0x40, 0x51]];

/// How often each VF is bound again. A probe resets the VF, and asks the PF for the address.
const RESETS: u32 = 3;

async fn vf_mac(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let ifname = guest.interface(pf).await?;
    // The PF answers a VF only while its interface is up.
    guest.set_link(&ifname, true).await?;
    let vfs = guest.enable_vfs(pf, 2).await?;
    let Some(driver) = pf.model().vf_driver.as_ref() else {
        return Err(Error::Unprepared("the model has no driver for VFs".to_owned()));
    };
    for (number, mac) in (0..).zip(MACS) {
        guest.set_vf_mac(&ifname, number, mac).await?;
    }
    for number in [2, 7, 8] {
        match guest.set_vf_mac(&ifname, number, MACS[0]).await {
            Err(Error::Refused { why, .. }) if why.contains(INVALID) => {}
            answer => {
                let came = answer.map_or_else(|error| error.to_string(), |()| "it succeeded".to_owned());
                let summary = format!(
                    "{ifname} has VFs 0 and 1, and the address of VF {number} was set: {came}; it must fail with {INVALID}"
                );
                return Ok(Verdict::fail(FailureKind::WrongState, "IFLA_VF_MAC", summary));
            }
        }
    }
    for reset in 1..=RESETS {
        for (vf, mac) in vfs.iter().zip(MACS) {
            guest.set(vf.attribute("driver/unbind"), vf.bdf).await?;
            guest.bind(vf, driver.name).await?;
            let address = address(guest, vf).await?;
            let must = mac.map(|byte| format!("{byte:02x}")).join(":");
            if address.as_deref() != Ok(must.as_str()) {
                let has = address.unwrap_or_else(|errno| errno.name);
                let summary = format!("VF {} has the address {has} after reset {reset}; its PF has set {must}", vf.bdf);
                return Ok(Verdict::fail(FailureKind::WrongState, "address", summary));
            }
        }
    }
    Ok(Verdict::Pass)
}

const INVALID: &str = "EINVAL";

/// The address of the interface of a VF.
async fn address(guest: &Guest, vf: &Device) -> Result<Result<String, Errno>, Error> {
    let names = guest.list(&vf.attribute("net")).await?;
    let Some(name) = names.first() else {
        return Err(Error::Unprepared(format!("VF {} has no interface", vf.bdf)));
    };
    Ok(guest.read_now(vf.attribute(&format!("net/{name}/address"))).await?.value)
}
