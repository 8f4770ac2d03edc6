//! Ids that are added to a driver while it runs (`drivers/pci/pci-driver.c`, `new_id_store()`, `remove_id_store()`;
//! `Documentation/ABI/testing/sysfs-bus-pci`).

use harness::guest::{Guest, Halt, Pf, judged, must};
use harness::scenario::Scenario;

use crate::check::{accepts, refuses};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[Scenario {
    name: "driver_ids::added_and_removed",
    about: "The ids of a card without a driver are given to vfio-pci, which then has the card, and are taken away again. \
            What is known already, unknown or no id must be refused. Then the card's own driver must get it. Twice.",
    also: &["nvme"],
    ..Scenario::of(|guest| Box::pin(judged(added_and_removed(guest))))
}];

/// The folder of drivers.
const DRIVERS: &str = "/sys/bus/pci/drivers";

async fn added_and_removed(guest: &Guest) -> Result<(), Halt> {
    let pf = guest.pf()?;
    let own = pf.model().driver.name;
    let mut ids = Vec::new();
    for attribute in ["vendor", "device"] {
        let id = guest.read_now(pf.attribute(attribute)).await?;
        ids.push(id.shown().trim_start_matches("0x").to_owned());
    }
    let ids = ids.join(" ");
    let file = |driver: &str, name: &str| format!("{DRIVERS}/{driver}/{name}");
    let [new, remove] = ["new_id", "remove_id"].map(|name| file("vfio-pci", name));
    for when in ["the first time", "the second time"] {
        refuses(guest, &remove, &ids, &["ENODEV"], when).await?;
        accepts(guest, &pf.attribute("driver/unbind"), pf.device.bdf, when).await?;
        accepts(guest, &new, &ids, when).await?;
        has(guest, pf, "vfio-pci", &format!("{when}, {ids} was written to new_id of vfio-pci")).await?;
        refuses(guest, &new, &ids, &["EEXIST"], when).await?;
        for file in [&new, &remove] {
            refuses(guest, file, "8086", &["EINVAL"], when).await?;
        }
        accepts(guest, &remove, &ids, when).await?;
        has(guest, pf, "vfio-pci", &format!("{when}, the ids of a card that has its driver were removed")).await?;
        accepts(guest, &file("vfio-pci", "unbind"), pf.device.bdf, when).await?;
        accepts(guest, "/sys/bus/pci/drivers_probe", pf.device.bdf, when).await?;
        has(guest, pf, own, &format!("{when}, vfio-pci has no ids any more, and the card was probed")).await?;
    }
    Ok(())
}

/// The card has this driver.
async fn has(guest: &Guest, pf: &Pf, driver: &str, when: &str) -> Result<(), Halt> {
    let names = guest.list(&pf.attribute("")).await?;
    let now = match names.iter().any(|name| name == "driver") {
        true => guest.read_link(&pf.attribute("driver")).await?,
        false => "no driver".to_owned(),
    };
    must(now.rsplit('/').next() == Some(driver), "driver", || {
        format!("{when}: {} has {now}, and must have {driver}", pf.device.bdf)
    })
}
