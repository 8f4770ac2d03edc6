//! The configuration space of a PCI function, read from outside: the guest does nothing for it and cannot delay it.
//!
//! The human monitor reads physical memory (`xp`), and q35 has the configuration space of all functions there (ECAM, PCI
//! Express 5.0, section 7.2.2). A read by the monitor has no side effects in QEMU's devices.

use qapi::qmp;

use super::Vm;
use super::pci::Bdf;
use super::qmp::QmpError;

/// The bytes of a function's configuration space.
const SIZE: usize = 4096;
/// Where the extended capabilities begin.
const EXTENDED: u16 = 0x100;
/// Status and its bit Capabilities List (`PCI_STATUS`, `PCI_STATUS_CAP_LIST`).
const STATUS: u16 = 0x06;
const HAS_LIST: u32 = 0x10;
/// Capabilities pointer (`PCI_CAPABILITY_LIST`).
const CAPABILITIES: u16 = 0x34;
/// Header type, without the bit for multi-function devices (`PCI_HEADER_TYPE`).
const HEADER_TYPE: u16 = 0x0e;
const HEADER_MASK: u32 = 0x7f;
/// The header type of a bridge (`PCI_HEADER_TYPE_BRIDGE`).
const BRIDGE: u32 = 1;
/// A list of capabilities is not longer; a longer one is a loop.
const LONGEST_LIST: usize = 64;
/// Bits of an offset in a list: capabilities are aligned to four bytes.
const ALIGNED: u32 = 0xffc;
/// q35's object, and its property with the address of the configuration space (QEMU `hw/pci-host/q35.c`).
const HOST: &str = "/machine/q35";
const ECAM: &str = "MCFG";
/// Class code and revision (`PCI_CLASS_REVISION`). Of a VF, vendor and device read as all ones too (PCI Express 5.0,
/// sections 9.3.4.1.1 and 9.3.4.1.2).
const CLASS: u16 = 0x08;
/// What a register of an absent function reads as.
const ABSENT: u32 = 0xffff_ffff;

/// A copy of a function's configuration space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSpace(Vec<u8>);

impl Vm {
    /// Reads the configuration space of the function at this address. `None` if no function is there.
    ///
    /// # Errors
    /// QMP's, or an unexpected answer of the monitor.
    pub async fn config_space(&self, bdf: Bdf) -> Result<Option<ConfigSpace>, QmpError> {
        let command = format!("xp /{}wx {:#x}", SIZE / 4, self.ecam().await? + (u64::from(bdf.routing_id()) << 12));
        let answer = self.qmp().monitor(&command).await?;
        let Some(space) = ConfigSpace::parse(&answer) else {
            return Err(QmpError::Monitor { command, answer, expected: "4096 bytes" });
        };
        Ok((space.read(CLASS, 4) != ABSENT).then_some(space))
    }

    /// Where the configuration space of all functions begins. Firmware sets it before the kernel starts, so QEMU is asked
    /// once.
    async fn ecam(&self) -> Result<u64, QmpError> {
        let ask = async || {
            let base = self.qmp().execute(qmp::qom_get { path: HOST.to_owned(), property: ECAM.to_owned() }).await?;
            base.as_u64().ok_or_else(|| QmpError::Monitor {
                command: format!("qom-get {HOST} {ECAM}"),
                answer: base.to_string(),
                expected: "an address",
            })
        };
        self.ecam.get_or_try_init(ask).await.copied()
    }
}

impl ConfigSpace {
    /// Parses the answer to `xp`: lines as `00000000b0000010: 0x00000000 0x00000000` (QEMU
    /// `monitor/hmp-cmds-target.c`, `memory_dump()`). `None` if it is anything else.
    fn parse(answer: &str) -> Option<ConfigSpace> {
        let mut bytes = Vec::with_capacity(SIZE);
        for line in answer.lines() {
            for word in line.split_once(':')?.1.split_ascii_whitespace() {
                bytes.extend(u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()?.to_le_bytes());
            }
        }
        (bytes.len() == SIZE).then_some(ConfigSpace(bytes))
    }

    /// The register of one to four bytes at an offset. Bytes beyond the end read as zero.
    pub fn read(&self, offset: u16, bytes: u16) -> u32 {
        let byte = |at: u16| u32::from(self.0.get(usize::from(at)).copied().unwrap_or_default());
        (0..bytes.min(4)).fold(0, |value, number| value | byte(offset.saturating_add(number)) << (8 * number))
    }

    /// Whether it is a bridge: a port of a switch or of the root complex.
    pub fn is_bridge(&self) -> bool {
        self.read(HEADER_TYPE, 1) & HEADER_MASK == BRIDGE
    }

    /// The offset of a capability (`PCI_CAP_ID_*` in `include/uapi/linux/pci_regs.h`).
    pub fn capability(&self, id: u8) -> Option<u16> {
        if self.read(STATUS, 2) & HAS_LIST == 0 {
            return None;
        }
        let mut at = self.read(CAPABILITIES, 1) & ALIGNED;
        for _ in 0..LONGEST_LIST {
            let offset = u16::try_from(at).ok().filter(|offset| *offset != 0)?;
            if self.read(offset, 1) == u32::from(id) {
                return Some(offset);
            }
            at = self.read(offset + 1, 1) & ALIGNED;
        }
        None
    }

    /// The offset of an extended capability (`PCI_EXT_CAP_ID_*`).
    pub fn extended(&self, id: u16) -> Option<u16> {
        let mut offset = EXTENDED;
        for _ in 0..LONGEST_LIST {
            let header = self.read(offset, 4);
            if header & 0xffff == u32::from(id) && header != 0 {
                return Some(offset);
            }
            offset = u16::try_from(header >> 20 & ALIGNED).ok().filter(|next| *next >= EXTENDED)?;
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A function with a PCI Express capability at 0x40 and an SR-IOV capability at 0x160, and these bytes.
    pub(crate) fn function(bytes: &[(u16, &[u8])]) -> ConfigSpace {
        let mut space = vec![0; SIZE];
        let fixed: &[(u16, &[u8])] = &[
            (0, &[0x86, 0x80, 0xc9, 0x10]),
            (STATUS, &[0x10]),
            (CAPABILITIES, &[0x40]),
            (0x40, &[0x10, 0x00]),
            (0x100, &[0x01, 0x00, 0x01, 0x16]),
            (0x160, &[0x10, 0x00, 0x01, 0x00]),
        ];
        for (offset, bytes) in fixed.iter().chain(bytes) {
            let at = usize::from(*offset);
            space[at..at + bytes.len()].copy_from_slice(bytes);
        }
        ConfigSpace(space)
    }

    #[test]
    fn capabilities_are_found() {
        let space = function(&[]);
        assert_eq!((space.capability(0x10), space.capability(0x11)), (Some(0x40), None));
        assert_eq!((space.extended(0x10), space.extended(1), space.extended(0xd)), (Some(0x160), Some(0x100), None));
        assert_eq!((space.read(0, 4), space.read(2, 2), space.read(4095, 4)), (0x10c9_8086, 0x10c9, 0));
        let looped = function(&[(0x41, &[0x40]), (0x160, &[0x10, 0x00, 0x01, 0x10])]);
        assert_eq!((looped.capability(0x11), looped.extended(0xd)), (None, None));
        assert_eq!(function(&[(STATUS, &[0])]).capability(0x10), None);
    }

    #[test]
    fn the_answer_of_the_monitor_is_parsed() {
        let line = |number: usize| format!("{:016x}: 0x{number:08x} 0x00000001 0x00000002 0xffffffff\r\n", number * 16);
        let whole: String = (0..SIZE / 16).map(line).collect();
        let space = ConfigSpace::parse(whole.trim()).unwrap();
        assert_eq!((space.read(0x10, 4), space.read(0x1c, 4), space.read(0x14, 1)), (1, 0xffff_ffff, 1));
        for bad in ["", "unknown command: 'xp'", line(0).trim(), &whole.replace("0x", "")] {
            assert_eq!(ConfigSpace::parse(bad), None);
        }
    }

    proptest! {
        #[test]
        fn any_configuration_space_is_read(bytes in prop::collection::vec(any::<u8>(), SIZE), id: u8, ext: u16) {
            let space = ConfigSpace(bytes);
            let _ = (space.capability(id), space.extended(ext), space.read(ext, 4), space.is_bridge());
        }
    }
}
