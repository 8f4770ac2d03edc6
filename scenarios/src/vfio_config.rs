//! What vfio emulates in config space: power states, MSI, and registers that only it keeps
//! (`drivers/vfio/pci/vfio_pci_config.c`).

use guest_protocol::Ask;
use harness::guest::{Guest, Halt, OpenDevice, Pf, UserDriver, judged, must};
use harness::scenario::Scenario;

use crate::check::bound;
use crate::registers::{
    CAP_MSI, CAP_POWER, COMMAND, COMMAND_MEMORY, CONFIG, FIRST_BAR, MSI, PAGE, capability, command, word,
};

/// The scenarios of this family.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "vfio_config::power_states",
        about: "A driver in user space puts the function into D3hot and back to D0, twice: its memory must not be accessible \
                in D3hot, and its BARs must be there afterwards. Then it closes the function in D3hot.",
        also: &["nvme"],
        ..Scenario::of(|guest| Box::pin(judged(power_states(guest))))
    },
    Scenario {
        name: "vfio_config::msi_control",
        about: "A driver in user space enables MSI in config space, for more vectors than there are. Only MSI that it has \
                set up with vfio may be enabled, and hardware must have no more vectors than it offers.",
        ..Scenario::of(|guest| Box::pin(judged(msi_control(guest))))
    },
    Scenario {
        name: "vfio_config::kept_registers",
        about: "A driver in user space writes to registers that vfio keeps for it. They must read as written, and the \
                hardware must not have them.",
        ..Scenario::of(|guest| Box::pin(judged(kept_registers(guest))))
    },
];

/// Power Management Control/Status, from the beginning of its capability, and the bits of the state (PCI Express 5.0,
/// section 7.5.2.2).
const POWER_CONTROL: usize = 4;
const STATE: u16 = 3;
const D0: u16 = 0;
const D3HOT: u16 = 3;

/// How much of config space has capabilities of this kind.
const CAPABILITIES: u32 = 256;

/// A capability that the device must have.
fn wanted(config: &[u8], id: u8) -> Result<usize, Halt> {
    let found = capability(config, id);
    must(found.is_some(), "config", || format!("config space has no capability {id:#x}, and the device has one"))?;
    Ok(found.unwrap_or_default())
}

async fn power_states(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    command(&device, COMMAND_MEMORY, 0).await?;
    let config = device.read(CONFIG, 0, CAPABILITIES).await?;
    let control = (wanted(&config, CAP_POWER)? + POWER_CONTROL) as u64;
    device.does(Ask::MapRegion { region: 0, size: PAGE }).await?;
    device.load32(0, 0).await?;
    for _ in 0..2 {
        has_state(&device, control, D3HOT).await?;
        device.refused(Ask::Read { region: 0, at: 0, size: 4 }, "EIO").await?;
        device.refused(Ask::Load { region: 0, at: 0 }, "EFAULT").await?;
        has_state(&device, control, D0).await?;
        is_as(&device, &config).await?;
        device.read32(0, 0).await?;
        device.load32(0, 0).await?;
    }
    has_state(&device, control, D3HOT).await?;
    device.does(Ask::Close).await?;
    device.opens().await?;
    let state = word(&device.read(CONFIG, control, 2).await?, 0) & STATE;
    must(state == D0, "close", || format!("the function is in D{state} after a close and an open; it must be in D0"))?;
    command(&device, COMMAND_MEMORY, 0).await?;
    device.read32(0, 0).await?;
    driver.end().await
}

/// Puts the function into a state, which it must then show.
async fn has_state(device: &OpenDevice<'_>, control: u64, state: u16) -> Result<(), Halt> {
    let before = word(&device.read(CONFIG, control, 2).await?, 0);
    device.write(CONFIG, control, &(before & !STATE | state).to_le_bytes()).await?;
    let after = word(&device.read(CONFIG, control, 2).await?, 0) & STATE;
    must(after == state, "pwrite", || format!("the function was put into D{state}, and shows D{after}"))
}

/// The BARs and Memory Space Enable are as before.
async fn is_as(device: &OpenDevice<'_>, config: &[u8]) -> Result<(), Halt> {
    let now = device.read(CONFIG, 0, CAPABILITIES).await?;
    let bars = FIRST_BAR as usize..FIRST_BAR as usize + 24;
    must(now[bars.clone()] == config[bars.clone()], "pwrite", || {
        format!("the BARs were {:x?} before D3hot and are {:x?}", &config[bars.clone()], &now[bars.clone()])
    })?;
    let [before, after] = [config, &now].map(|config| config[COMMAND as usize]);
    must(after == before, "pwrite", || format!("Command was {before:#04x} before D3hot and is {after:#04x}"))
}

/// Interrupt Line, which means nothing to hardware.
const INTERRUPT_LINE: usize = 0x3c;

/// Message Control of MSI: Enable, and how many vectors are wanted and offered, as powers of two; and the address behind
/// it (PCI Express 5.0, section 7.7.1).
const CONTROL: usize = 2;
const ADDRESS: usize = 4;
const ENABLE: u16 = 1;
const OFFERED: u16 = 7 << 1;
const ALL_VECTORS: u16 = 7 << 4;

async fn msi_control(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    let config = device.read(CONFIG, 0, CAPABILITIES).await?;
    let at = wanted(&config, CAP_MSI)? + CONTROL;
    let msi = Msi { driver: &driver, device: &device, pf, at };
    let offered = word(&config, at) & OFFERED;
    let most = offered << 3;
    // (set up with vfio, written to config space, what that must be then)
    let steps = [
        (false, ENABLE | ALL_VECTORS, most),
        (true, ENABLE | ALL_VECTORS, ENABLE | most),
        (true, 0, 0),
        (true, ENABLE, ENABLE),
        (false, ENABLE, 0),
    ];
    let mut is_set_up = false;
    for (set_up, written, left) in steps {
        match (is_set_up, set_up) {
            (false, true) => drop(device.does(Ask::Arm { index: MSI, count: 1 }).await?),
            (true, false) => drop(device.does(Ask::Disarm { index: MSI }).await?),
            _ => {}
        }
        is_set_up = set_up;
        msi.becomes(written, left, if set_up { "with" } else { "without" }).await?;
    }
    driver.end().await
}

/// Message Control of an open device.
struct Msi<'a> {
    driver: &'a UserDriver<'a>,
    device: &'a OpenDevice<'a>,
    pf: &'a Pf,
    at: usize,
}

impl Msi<'_> {
    /// Writes to it, after which vfio and the hardware must both have this.
    async fn becomes(&self, written: u16, left: u16, with: &str) -> Result<(), Halt> {
        const OURS: u16 = ENABLE | ALL_VECTORS;
        let before = word(&self.device.read(CONFIG, self.at as u64, 2).await?, 0);
        self.device.write(CONFIG, self.at as u64, &(before & !OURS | written).to_le_bytes()).await?;
        let of_vfio = word(&self.device.read(CONFIG, self.at as u64, 2).await?, 0) & OURS;
        let of_hardware = word(&self.driver.file(self.pf.attribute("config"), CAPABILITIES).await?, self.at) & OURS;
        must(of_vfio == left && of_hardware == left, "pwrite", || {
            format!(
                "{with} MSI set up, {written:#x} was written to Message Control, which is {of_vfio:#x} through vfio and \
                 {of_hardware:#x} in hardware; both must be {left:#x}"
            )
        })
    }
}

async fn kept_registers(guest: &Guest) -> Result<(), Halt> {
    let pf = bound(guest).await?;
    let driver = guest.user_driver(&[&pf.device]).await?;
    let device = driver.device(pf);
    let config = device.read(CONFIG, 0, CAPABILITIES).await?;
    let hardware = driver.file(pf.attribute("config"), CAPABILITIES).await?;
    let address = wanted(&config, CAP_MSI)? + ADDRESS;
    let bar = FIRST_BAR as usize;
    let registers: [(&str, usize, &[u8]); 3] = [
        ("Interrupt Line", INTERRUPT_LINE, &[0x5a]),
        ("BAR 0", bar, &[0, 0, 0, 0xf0]),
        ("the address of MSI", address, &[0, 0xf0, 0xe0, 0xfe]),
    ];
    for (what, at, written) in registers {
        let end = at + written.len();
        device.write(CONFIG, at as u64, written).await?;
        let shown = device.read(CONFIG, at as u64, written.len() as u32).await?;
        let now = driver.file(pf.attribute("config"), CAPABILITIES).await?;
        must(shown == written, "pread", || format!("{what} reads as {shown:x?} after {written:x?} was written to it"))?;
        must(now[at..end] == hardware[at..end], "pwrite", || {
            format!(
                "{what} is {:x?} in hardware after a write by vfio, and was {:x?}",
                &now[at..end],
                &hardware[at..end]
            )
        })?;
        device.write(CONFIG, at as u64, &config[at..end]).await?;
    }
    driver.end().await
}
