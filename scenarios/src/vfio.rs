//! Owners of vfio devices that react in different ways while the device is being removed.
//!
//! A removal waits for the owner without a time limit (`drivers/vfio/vfio_main.c`, `vfio_unregister_group_dev()`). That
//! is no deadlock as long as the owner can still release the device or be killed.

use guest_protocol::{AttributeWrite, Sched, Step, VfioDevice};
use harness::guest::{Device, Error, Guest, Owner, ResetMethod, WAITS_FOR_OWNER};
use harness::notes::{Note, Place};
use harness::scenario::{Needs, Places, Scenario};
use harness::trigger::Trigger;
use harness::verdict::Verdict;
use harness::vm::agent::{AgentError, Operation};
use kernels::FailureKind;

use crate::check::bound;

/// The metadata that all scenarios of this family share.
const BASE: Scenario = Scenario {
    also: &["nvme", "virtio-net"],
    triggers: Trigger::ALL,
    ..Scenario::of(|guest| Box::pin(owner_lets_go(guest)))
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "vfio::owner_lets_go",
        about: "An owner releases the PF when vfio asks for it. The PF is removed, and it must work when it is put \
                back.",
        run: |guest| Box::pin(owner_lets_go(guest)),
        ..BASE
    },
    Scenario {
        name: "vfio::owner_is_killed",
        about: "An owner is killed after vfio asked it for the PF. The owner must exit, and the PF must be removed.",
        run: |guest| Box::pin(owner_is_killed(guest)),
        ..BASE
    },
    Scenario {
        name: "vfio::owner_never_answers",
        about: "An owner does not react when vfio asks for the PF. Only the removal may wait for it, and the removal \
                must end when the owner is killed.",
        run: |guest| Box::pin(owner_never_answers(guest)),
        ..BASE
    },
    Scenario {
        name: "vfio::owner_removes_its_own_device",
        about: "An owner writes to the `remove` attribute of its own PF, and so waits for itself. The wait must end, \
                at the latest when the owner is killed, and a rescan must end too.",
        detects: &["vfio-holder-self-remove"],
        topology: "two-slots",
        also: &[],
        triggers: &[],
        run: |guest| Box::pin(owner_removes_its_own_device(guest)),
        ..BASE
    },
    Scenario {
        name: "vfio::vf_owners_while_the_pf_goes",
        about: "A PF is removed while two VFs have owners, which release them one after the other when asked. The PF \
                and the VFs must be removed.",
        also: &["virtio-net"],
        triggers: &[Trigger::DeviceDelAcpi, Trigger::SysfsRemove],
        run: |guest| Box::pin(vf_owners_while_the_pf_goes(guest)),
        ..BASE
    },
    Scenario {
        name: "vfio::vf_owners_while_the_pf_is_unplugged",
        about: "As before, but pciehp removes the card: first the VFs, and then the PF. Both must end, and the PF must \
                be freed.",
        detects: &["unplugged-pf-not-freed"],
        also: &["virtio-net"],
        triggers: Trigger::PCIEHP,
        run: |guest| Box::pin(vf_owners_while_the_pf_goes(guest)),
        ..BASE
    },
    Scenario {
        name: "vfio::vf_token",
        about: "A VF of a PF under vfio-pci can be opened only with the PF's token. It must be removed when the PF's \
                VFs are disabled.",
        triggers: &[],
        run: |guest| Box::pin(vf_token(guest)),
        ..BASE
    },
    Scenario {
        name: "vfio::reset_in_flight",
        about: "A PF is removed while it is being reset repeatedly. The resets must end, and the PF must be removed.",
        triggers: Trigger::ORDERLY,
        run: |guest| Box::pin(reset_in_flight(guest)),
        ..BASE
    },
    Scenario {
        name: "vfio::yanked_in_reset",
        about: "A PF is yanked while it is being reset repeatedly. The resets must end, the PF must be removed, and \
                the kernel must report no splat because of what an absent card answers.",
        detects: &["iov-restore-vs-yank"],
        triggers: Trigger::SURPRISE,
        needs: Needs { places: Places { functions: &[RESTORES], show: &["iov-restore-vs-yank"] }, ..Needs::NOTHING },
        run: |guest| Box::pin(yanked_in_reset(guest)),
        ..BASE
    },
];

async fn owner_lets_go(guest: &Guest) -> Result<Verdict, Error> {
    let pf = bound(guest).await?;
    let owner = guest.own(pf, vec![Step::Release]).await?;
    guest.remove(pf).await?;
    match guest.passes_unless_stuck(&[owner.operation()], WAITS_FOR_OWNER).await? {
        Verdict::Pass => guest.put_back_and_use().await,
        failed => Ok(failed),
    }
}

/// Starts a removal that waits for an owner. The owner was asked for the PF, and does nothing.
async fn unresponsive_owner(guest: &Guest) -> Result<Owner, Error> {
    let pf = bound(guest).await?;
    let owner = guest.own(pf, vec![Step::Hold]).await?;
    guest.remove(pf).await?;
    owner.holding(guest.prompt()).await?;
    guest.task_in(WAITS_FOR_OWNER, guest.prompt()).await?;
    Ok(owner)
}

async fn owner_is_killed(guest: &Guest) -> Result<Verdict, Error> {
    let owner = unresponsive_owner(guest).await?;
    guest.kill(owner.operation()).await?;
    guest.passes_unless_stuck(&[owner.operation()], WAITS_FOR_OWNER).await
}

async fn owner_never_answers(guest: &Guest) -> Result<Verdict, Error> {
    let owner = unresponsive_owner(guest).await?;
    let place = guest.waits_in(owner.operation(), &[], guest.seconds(PATIENCE)).await?;
    if place == Place::Over {
        return Err(Error::Unprepared("the owner ended before it was killed".to_owned()));
    }
    let stuck = guest.stuck().await?;
    if !stuck.is_empty() {
        return Ok(guest.deadlock(&stuck, &[]));
    }
    let waiting = guest.removers_waiting().await?;
    guest.note_tasks(Note::Removers, &waiting);
    if waiting.is_empty() {
        let summary = "the removal no longer waits for the owner, although the owner has the device open".to_owned();
        return Ok(Verdict::fail(FailureKind::WrongState, WAITS_FOR_OWNER[0], summary));
    }
    guest.kill(owner.operation()).await?;
    guest.passes_unless_stuck(&[owner.operation()], WAITS_FOR_OWNER).await
}

/// How long the owner is left without reacting, in seconds on a machine with KVM.
const PATIENCE: f64 = 1.5;

async fn owner_removes_its_own_device(guest: &Guest) -> Result<Verdict, Error> {
    let (pf, other) = (guest.pf_named("pf0")?, guest.pf_named("pf1")?);
    guest.bind(pf, "vfio-pci").await?;
    let remove = AttributeWrite { path: pf.attribute("remove"), data: "1".to_owned() };
    let owner = guest.open(&[&pf.device], vec![Step::Write(remove), Step::Release]).await?;
    let place = guest.waits_in(owner.operation(), WAITS_FOR_OWNER, guest.seconds(PATIENCE)).await?;
    guest.note(Note::Owner(place.clone()));
    if place != Place::Over {
        guest.kill(owner.operation()).await?;
    }
    let rescan = guest.write(other.slot.port.attribute("rescan"), 1, Sched::default()).await?;
    let verdict = guest.passes_unless_stuck(&[owner.operation(), &rescan], WAITS_FOR_OWNER).await?;
    if verdict == Verdict::Pass {
        for function in WAITS_FOR_OWNER {
            guest.none_in(function, guest.prompt()).await?;
        }
    }
    Ok(verdict)
}

async fn vf_owners_while_the_pf_goes(guest: &Guest) -> Result<Verdict, Error> {
    let pf = guest.pf()?;
    let vfs = guest.enable_vfs_for_vfio(pf, 2).await?;
    let first = guest.own(&vfs[0], vec![Step::Hold, Step::Release]).await?;
    let second = guest.own(&vfs[1], vec![Step::Release]).await?;
    guest.remove(pf).await?;
    // VFs are removed from the last to the first (`drivers/pci/iov.c`, `sriov_del_vfs()`), or in the order of the bus.
    first.holding(guest.prompt()).await?;
    guest.task_in(WAITS_FOR_OWNER, guest.prompt()).await?;
    first.go_on(guest).await?;
    guest.passes_unless_stuck(&[first.operation(), second.operation()], WAITS_FOR_OWNER).await
}

const TOKEN: &str = "14d63f20-8445-11ea-8900-1f9ce7d5650d";
const OTHER_TOKEN: &str = "2c1a9f5e-0f0b-4c66-9d0f-5b1d3a7e8c42";

async fn vf_token(guest: &Guest) -> Result<Verdict, Error> {
    let pf = bound(guest).await?;
    // The owner sets the PF's token when it opens the PF (`drivers/vfio/pci/vfio_pci_core.c`,
    // `vfio_pci_validate_vf_token()`).
    let owner =
        guest.open_with_tokens(vec![with_token(&pf.device, Some(TOKEN))], vec![Step::Hold, Step::Release]).await?;
    let vfs = guest.enable_vfs(pf, 1).await?;
    for token in [None, Some(OTHER_TOKEN)] {
        let answer = match guest.try_open(vec![with_token(&vfs[0], token)], vec![]).await {
            Ok(_) => "an open device".to_owned(),
            Err(AgentError::Failed { failure, .. }) => failure.errno.map_or(failure.message, |errno| errno.name),
            Err(error) => return Err(error.into()),
        };
        if answer != "EACCES" {
            let how = token.map_or_else(|| "without a token".to_owned(), |token| format!("with the token {token}"));
            let summary = format!("opening a VF {how} gave {answer}, not EACCES");
            return Ok(Verdict::fail(FailureKind::WrongState, "vfio_pci_validate_vf_token", summary));
        }
    }
    let vf_steps = vec![Step::AwaitRequest, Step::Release];
    let vf_owner = guest.open_with_tokens(vec![with_token(&vfs[0], Some(TOKEN))], vf_steps).await?;
    let disable = guest.write(pf.numvfs(), 0, Sched::default()).await?;
    let operations = [vf_owner.operation(), &disable];
    let ended = guest.passes_unless_stuck(&operations, WAITS_FOR_OWNER);
    let verdict = guest.unless_refused(&disable, ended).await?;
    owner.go_on(guest).await?;
    owner.released(guest.prompt()).await?;
    Ok(verdict)
}

fn with_token(device: &Device, token: Option<&str>) -> VfioDevice {
    VfioDevice { bdf: device.bdf.to_string(), vf_token: token.map(str::to_owned) }
}

async fn reset_in_flight(guest: &Guest) -> Result<Verdict, Error> {
    let resets = resets(guest).await?;
    removed_in_reset(guest, &resets).await
}

/// The function that restores the VFs' resources after a reset (`drivers/pci/iov.c`).
const RESTORES: &str = "pci_iov_update_resource";

async fn yanked_in_reset(guest: &Guest) -> Result<Verdict, Error> {
    let resets = resets(guest).await?;
    if let Some(place) = guest.stop_at(RESTORES).await? {
        place.stopped(guest.prompt()).await?;
    }
    removed_in_reset(guest, &resets).await
}

/// Starts to reset the PF under vfio-pci, again and again. Returns when the first reset is under way.
async fn resets(guest: &Guest) -> Result<Operation, Error> {
    let pf = bound(guest).await?;
    guest.reset_by(pf, ResetMethod::Flr).await?;
    let resets = guest.cycle(&[(pf.attribute("reset"), "1")], None).await?;
    guest.task_in(&["pcie_flr"], guest.prompt()).await?;
    Ok(resets)
}

async fn removed_in_reset(guest: &Guest, resets: &Operation) -> Result<Verdict, Error> {
    guest.remove(guest.pf()?).await?;
    let verdict = guest.passes_unless_stuck(&[], WAITS_FOR_OWNER).await?;
    if verdict == Verdict::Pass {
        guest.note(Note::Resets(guest.stop_cycle(resets).await?));
    }
    Ok(verdict)
}
