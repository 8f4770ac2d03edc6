//! QEMU's command line as a pure function of the machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::clock::{Clock, Held, Place};
use super::devices;
use super::topology::Topology;
use crate::trigger::Hotplug;

/// The accelerator that executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// The CPU, through `/dev/kvm`.
    Kvm,
    /// QEMU's emulation by translation.
    Tcg,
}

impl Accel {
    /// QEMU's argument for it.
    ///
    /// TCG runs all virtual CPUs on one thread, alternately. With one thread for each CPU, QEMU 10.0.2 randomly loses
    /// the interrupt that should wake a halted CPU ("kthread timer wakeup didn't happen"), or fails an assertion in
    /// `iotlb_to_section()`. Scenarios wait most of the time, so a single thread does not slow them down.
    fn argument(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg,thread=single",
        }
    }

    /// The CPU model.
    ///
    /// TCG's default model does not exist as hardware. Linux trusts that its TSC is the same on both CPUs only after it
    /// has calibrated the delay loop of the second CPU. For Nehalem, Linux assumes a constant TSC from the model number
    /// (`arch/x86/kernel/cpu/intel.c`, `early_init_intel()`), and TCG can emulate all its features.
    fn cpu(self) -> &'static str {
        match self {
            Accel::Kvm => "host",
            Accel::Tcg => "Nehalem",
        }
    }

    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }
}

/// What executes the guest's instructions, and by which clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// The accelerator.
    pub accel: Accel,
    /// The guest's clock.
    pub clock: Clock,
}

/// The configuration of a virtual machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The QEMU that runs it ([`super::process::program`]).
    pub qemu: OsString,
    /// The PCI hardware under test.
    pub topology: Topology,
    /// Which hotplug driver controls the slots.
    pub hotplug: Hotplug,
    /// The accelerator.
    pub accel: Accel,
    /// Its clock.
    pub clock: Clock,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// The kernel, in any format that QEMU boots: an ELF file with a PVH note, or a bzImage.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// Words for the kernel's command line beyond [`COMMAND_LINE`].
    pub append: Vec<String>,
    /// What notes which blocks of the kernel it executes.
    pub traced: Option<Traced>,
    /// A socket on which QEMU takes QMP commands of the user. It does not change the guest, either.
    pub monitor: Option<PathBuf>,
}

/// A plugin that notes which blocks of the kernel a guest executes. It does not change the guest, so a snapshot does not
/// depend on it. Only for TCG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The plugin, compiled for the QEMU of the machine.
    pub plugin: PathBuf,
    /// The file in which it notes them.
    pub blocks: PathBuf,
}

/// The channels between a QEMU process and the harness: sockets on which the harness already listens, and the console's
/// file.
#[derive(Clone, Debug)]
pub struct Channels {
    /// Unix socket for QMP.
    pub qmp: PathBuf,
    /// Unix socket for the agent's virtio-serial port.
    pub agent: PathBuf,
    /// Unix socket for the plugin that holds the guest. Unused on the host's clock.
    pub gate: PathBuf,
    /// File for the serial console. QEMU appends to it.
    pub console: PathBuf,
}

/// Virtual CPUs: two, as the scenarios pin readers and writers against each other.
pub const CPUS: u32 = 2;

/// Memory of a guest, in MiB, if its kernel needs no more.
pub const MEMORY_MIB: u32 = 512;

/// Words on the kernel command line of every guest.
///
/// - `panic=-1` with `-no-reboot`: a panic ends QEMU at once.
/// - `vfio_pci.enable_sriov=1`: a PF under vfio-pci may have VFs.
/// - `dyndbg`: acpiphp logs "Eject request" at debug level only. That message is the proof of its path.
/// - `sysctl`: hung tasks show in the log before the cell ends.
/// - `tsc=reliable`: it is of no use to compare the TSCs of QEMU's CPUs.
/// - `nokaslr`: a kernel that was built elsewhere is where its symbols say, and so is its direct map. Those that are built
///   here are not moved anyway: they are entered at their PVH note, which comes before any randomization.
/// - `no_timer_check`: on a busy host the ticks that `check_timer()` waits for may come too late, and it panics.
pub const COMMAND_LINE: &[&str] = &[
    "console=ttyS0",
    "panic=-1",
    "intel_iommu=on",
    "vfio_pci.enable_sriov=1",
    "dyndbg=\"file drivers/pci/hotplug/acpiphp_glue.c +p\"",
    "sysctl.kernel.hung_task_timeout_secs=10",
    "tsc=reliable",
    "no_timer_check",
    "nokaslr",
];

/// More words for a guest whose clock is held.
///
/// - `hpet=disable`: QEMU's HPET goes on ticking 250 times a second after Linux has switched to another timer. Each tick
///   would end a jump of an idle guest's time.
/// - `tsc_early_khz`: with `-icount`, the TSC counts nanoseconds of the guest (QEMU `hw/i386/x86-cpu.c`,
///   `cpu_get_tsc()`).
const HELD_WORDS: [&str; 2] = ["hpet=disable", "tsc_early_khz=1000000"];

/// QEMU's arguments for a guest whose clock is held, beside the plugin.
///
/// - `shift=4`: an instruction takes 2^4 ns. From 3 to 5 a boot costs the same CPU time. With 0 it costs three times as
///   much, because delay loops have more instructions.
/// - `sleep=off`: the time of an idle guest jumps to the next timer. Otherwise QEMU sleeps until then.
/// - `clock=vm`: the real-time clock goes with the guest's time, and each guest begins at the same date.
const HELD: [&str; 4] = ["-icount", "shift=4,sleep=off", "-rtc", "clock=vm,base=2026-01-01T00:00:00"];

/// The device that carries the agent's channel.
const SERIAL: &str = "virtio-serial-pci,id=serial0,bus=pcie.0,addr=0x3";

impl Machine {
    /// The kernel's whole command line.
    pub fn command_line(&self) -> String {
        let iommu = self.topology.iommu.row().words;
        let clock: &[&str] = if self.is_held() { &HELD_WORDS } else { &[] };
        let own = self.append.iter().map(String::as_str);
        COMMAND_LINE.iter().chain(iommu).chain(clock).copied().chain(own).collect::<Vec<_>>().join(" ")
    }

    /// QEMU's arguments, without the program.
    pub fn argv(&self, channels: &Channels) -> Vec<String> {
        let mut argv = Vec::new();
        let mut add = |words: &[&str]| argv.extend(words.iter().map(|&word| word.to_owned()));
        add(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        add(&["-machine", "q35,kernel-irqchip=split", "-accel", self.accel.argument()]);
        add(&["-cpu", self.accel.cpu()]);
        add(&["-smp", &CPUS.to_string(), "-m", &self.memory_mib.to_string()]);
        add(&["-global", slots_of(self.hotplug)]);
        add(&["-kernel", &text(&self.kernel), "-initrd", &text(&self.initrd), "-append", &self.command_line()]);
        add(&["-chardev", &format!("socket,id=qmp,path={}", text(&channels.qmp)), "-mon", "chardev=qmp,mode=control"]);
        if let Some(monitor) = &self.monitor {
            add(&["-qmp", &format!("unix:{},server=on,wait=off", text(monitor))]);
        }
        add(&[
            "-chardev",
            &format!("file,id=console,append=on,path={}", text(&channels.console)),
            "-serial",
            "chardev:console",
        ]);
        argv.extend(devices::iommu_arguments(self.topology.iommu));
        let mut add = |words: &[&str]| argv.extend(words.iter().map(|&word| word.to_owned()));
        // Without ioeventfd, the virtual CPU itself hands a line of the agent over, before it comes to the marker.
        let serial = if self.is_held() { format!("{SERIAL},ioeventfd=off") } else { SERIAL.to_owned() };
        add(&["-device", &serial]);
        add(&["-chardev", &format!("socket,id=agent,path={}", text(&channels.agent))]);
        add(&["-device", &format!("virtserialport,chardev=agent,name={}", guest_protocol::PORT_NAME)]);
        argv.extend(devices::arguments(&self.topology));
        if let Some(held) = self.held() {
            argv.extend(HELD.map(str::to_owned));
            argv.extend(["-plugin".to_owned(), plugin(held, &channels.gate)]);
        }
        if let (Some(traced), Accel::Tcg) = (&self.traced, self.accel) {
            let plugin = format!("file={},out={}", text(&traced.plugin), text(&traced.blocks));
            argv.extend(["-plugin".to_owned(), plugin]);
        }
        argv
    }

    /// Whether its clock is held.
    pub fn is_held(&self) -> bool {
        self.held().is_some()
    }

    /// Where a held guest can be stopped. Empty on the host's clock.
    pub fn places(&self) -> &[Place] {
        self.held().map_or(&[], |held| &held.places)
    }

    /// What a held clock needs. None on the host's clock, which is the only one of KVM.
    pub(super) fn held(&self) -> Option<&Held> {
        match (&self.clock, self.accel) {
            (Clock::Held(held), Accel::Tcg) => Some(held),
            (Clock::Held(_), Accel::Kvm) | (Clock::Host, _) => None,
        }
    }
}

/// The argument that loads the plugin.
fn plugin(held: &Held, gate: &Path) -> String {
    let places: String = held.places.iter().map(|place| format!(",at={place}")).collect();
    format!("file={},socket={}{places}", text(&held.plugin), text(gate))
}

/// The machine property that decides which hotplug driver controls the slots (QEMU `hw/acpi/ich9.c`).
fn slots_of(hotplug: Hotplug) -> &'static str {
    match hotplug {
        Hotplug::Native => "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
        Hotplug::Acpi => "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on",
    }
}

/// A path in the form that QEMU's option parser needs: commas are doubled.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(hotplug: Hotplug, accel: Accel) -> Machine {
        Machine {
            qemu: "qemu-system-x86_64".into(),
            topology: Topology::igb(),
            hotplug,
            accel,
            clock: Clock::Host,
            memory_mib: MEMORY_MIB,
            kernel: "/c/vmlinux".into(),
            initrd: "/c/initramfs".into(),
            append: vec!["preempt=full".to_owned()],
            traced: None,
            monitor: None,
        }
    }

    fn argv(machine: &Machine) -> Vec<String> {
        machine.argv(&Channels {
            qmp: "/s/qmp".into(),
            agent: "/s/agent".into(),
            gate: "/s/gate".into(),
            console: "/e,v/console.log".into(),
        })
    }

    fn held(places: Vec<Place>) -> Clock {
        Clock::Held(Held { plugin: "/c,d/gate.so".into(), places })
    }

    #[test]
    fn one_igb() {
        insta::assert_snapshot!(argv(&machine(Hotplug::Native, Accel::Tcg)).join("\n"));
    }

    #[test]
    fn accelerator_and_hotplug_change_only_their_own_words() {
        let tcg = argv(&machine(Hotplug::Native, Accel::Tcg));
        let kvm = argv(&machine(Hotplug::Acpi, Accel::Kvm));
        let added: Vec<_> = kvm.iter().filter(|word| !tcg.contains(word)).collect();
        assert_eq!(added, ["kvm", "host", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on"]);
    }
    #[test]
    fn a_held_clock_changes_only_its_own_words() {
        let host = machine(Hotplug::Native, Accel::Tcg);
        let place = |address| Place { symbol: "f".to_owned(), address };
        let places = vec![place(0xffff_ffff_8100_0000), place(0x10)];
        let held = Machine { clock: held(places), ..host.clone() };
        let added: Vec<_> = argv(&held).into_iter().filter(|word| !argv(&host).contains(word)).collect();
        insta::assert_snapshot!(added.join("\n"), @r#"
        console=ttyS0 panic=-1 intel_iommu=on vfio_pci.enable_sriov=1 dyndbg="file drivers/pci/hotplug/acpiphp_glue.c +p" sysctl.kernel.hung_task_timeout_secs=10 tsc=reliable no_timer_check nokaslr hpet=disable tsc_early_khz=1000000 preempt=full
        virtio-serial-pci,id=serial0,bus=pcie.0,addr=0x3,ioeventfd=off
        -icount
        shift=4,sleep=off
        -rtc
        clock=vm,base=2026-01-01T00:00:00
        -plugin
        file=/c,,d/gate.so,socket=/s/gate,at=0xffffffff81000000,at=0x10
        "#);
        let other: Vec<_> = argv(&host).into_iter().filter(|word| !argv(&held).contains(word)).collect();
        assert_eq!(other, [host.command_line(), SERIAL.to_owned()]);
    }

    #[test]
    fn a_trace_adds_only_its_plugin() {
        let traced = Some(Traced { plugin: "/c,d/coverage.so".into(), blocks: "/e,v/blocks".into() });
        for accel in [Accel::Tcg, Accel::Kvm] {
            let plain = machine(Hotplug::Native, accel);
            let mut expected = argv(&plain);
            if accel == Accel::Tcg {
                expected.extend(["-plugin", "file=/c,,d/coverage.so,out=/e,,v/blocks"].map(str::to_owned));
            }
            assert_eq!(argv(&Machine { traced: traced.clone(), ..plain }), expected);
        }
    }

    #[test]
    fn kvm_has_the_clock_of_the_host() {
        let host = machine(Hotplug::Native, Accel::Kvm);
        assert_eq!(argv(&Machine { clock: held(Vec::new()), ..host.clone() }), argv(&host));
    }
}
