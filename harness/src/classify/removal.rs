//! IOMMU faults of devices that were just pulled out.
//!
//! A device that is pulled out leaves transactions behind, and the IOMMU waits for invalidations that nobody answers any
//! more. No kernel can prevent that: it learns of the removal only afterwards.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::line::Message;
use super::{Splat, SplatKind};

/// How long after a removal a fault is due to it, in seconds.
const AFTER: f64 = 10.0;

/// How long before the kernel reports a removal a fault is due to it, in seconds. The kernel reports it in a thread.
const BEFORE: f64 = 1.0;

/// The same in lines, for a log without times.
const LINES: usize = 200;

/// How many removals before and after a fault may be its cause.
const AROUND: usize = 64;

/// What pciehp says when a card is gone (`drivers/pci/hotplug/pciehp_ctrl.c`). It says the same after the attention button
/// was pressed, but then the device was there until its driver had let it go.
static GONE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:pcieport |pciehp )?(?P<port>[0-9a-f:.]+)(?::pcie\d+)?: (?:pciehp: )?Slot\(\S+\): (?:(?P<gone>Link Down|Card not present)|(?P<asked>(?:Attention b|B)utton press|Powering off))")
        .expect("a constant expression")
});

/// The buses behind a port (`drivers/pci/setup-bus.c`, `pci_setup_bridge()`).
static BUSES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:pci|pcieport) (?P<port>[0-9a-f:.]+): PCI bridge to \[bus (?P<first>[0-9a-f]{2})(?:-(?P<last>[0-9a-f]{2}))?\]")
        .expect("a constant expression")
});

/// The bus of a device.
static DEVICE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?:^|[ :])(?P<bus>[0-9a-f]{2}):[0-9a-f]{2}\.[0-7]$").expect("a constant expression"));

/// Words of all headlines of faults.
const IOMMUS: [&str; 4] = ["DMAR", "AMD-Vi", "smmu", "iommu"];

/// When something was printed.
#[derive(Clone, Copy, Debug)]
struct When {
    line: usize,
    seconds: Option<f64>,
}

impl When {
    /// Whether this was soon after something else, or just before it.
    fn is_near(self, other: When) -> bool {
        match (self.seconds, other.seconds) {
            (Some(at), Some(other)) => (-BEFORE..=AFTER).contains(&(at - other)),
            _ => self.line.abs_diff(other.line) <= LINES,
        }
    }
}

/// The devices that were pulled out, and the faults, of a log.
#[derive(Debug, Default)]
pub struct Removals {
    gone: Vec<(When, String)>,
    /// When somebody asked last for the removal of what is in the slot of a port.
    asked: HashMap<String, When>,
    buses: HashMap<String, (u8, u8)>,
    /// The times of the lines with a fault.
    faults: HashMap<usize, f64>,
}

impl Removals {
    /// Takes a message, which is in line `number`.
    pub fn take(&mut self, number: usize, message: &Message<'_>) {
        let text = &*message.text;
        let when = When { line: number, seconds: message.prefix.seconds };
        if text.contains("Slot(") {
            self.take_slot(when, text);
        } else if text.contains("PCI bridge to [bus ") {
            self.take_bridge(text);
        } else if let Some(seconds) = when.seconds.filter(|_| IOMMUS.iter().any(|iommu| text.contains(iommu))) {
            self.faults.insert(number, seconds);
        }
    }

    fn take_slot(&mut self, when: When, text: &str) {
        let Some(captures) = GONE.captures(text) else { return };
        let port = captures["port"].to_owned();
        if captures.name("asked").is_some() {
            self.asked.insert(port, when);
        } else if !self.asked.get(&port).is_some_and(|asked| when.is_near(*asked)) {
            self.gone.push((when, port));
        }
    }

    fn take_bridge(&mut self, text: &str) {
        let Some(captures) = BUSES.captures(text) else { return };
        let bus = |name| captures.name(name).and_then(|bus| u8::from_str_radix(bus.as_str(), 16).ok());
        if let Some(first) = bus("first") {
            self.buses.insert(captures["port"].to_owned(), (first, bus("last").unwrap_or(first)));
        }
    }

    /// Whether a device may be behind a port, as far as the log tells.
    fn may_be_behind(&self, device: Option<&str>, port: &str) -> bool {
        let bus = device.and_then(|device| u8::from_str_radix(&DEVICE.captures(device)?["bus"], 16).ok());
        match (bus, self.buses.get(port)) {
            (Some(bus), Some((first, last))) => (*first..=*last).contains(&bus),
            _ => true,
        }
    }

    /// Attributes the faults of devices that were just pulled out to their removal.
    pub fn excuse(&self, found: &mut [Splat]) {
        for splat in found.iter_mut().filter(|splat| splat.kind == SplatKind::IommuFault) {
            let line = splat.lines.start;
            let when = When { line, seconds: self.faults.get(&line).copied() };
            let after = self.gone.partition_point(|(gone, _)| gone.line < line);
            let around = &self.gone[after.saturating_sub(AROUND)..self.gone.len().min(after + AROUND)];
            let cause = around
                .iter()
                .find(|(gone, port)| when.is_near(*gone) && self.may_be_behind(splat.function.as_deref(), port));
            splat.known = cause.map(|(_, port)| format!("the device in the slot of {port} was pulled out"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::classify::classify;

    const FAULT: &str = "DMAR: [DMA Write NO_PASID] Request device [02:00.0] fault addr 0xfe000000 [fault reason 0x05] PTE Write access is not set\n";

    fn is_fatal(log: &str) -> bool {
        let found = classify(log);
        assert_eq!(found.len(), 1, "{log}");
        assert_eq!(found[0].function.as_deref(), Some("02:00.0"), "{log}");
        found[0].is_fatal()
    }

    #[test]
    fn a_device_that_was_pulled_out_may_leave_faults_behind() {
        let gone = "[   20.000000] pcieport 0000:00:04.0: pciehp: Slot(0): Card not present\n";
        let at = |seconds| format!("[   {seconds}] {FAULT}");
        assert!(is_fatal(&at("20.500000")));
        assert!(!is_fatal(&format!("{gone}{}", at("20.500000"))));
        assert!(!is_fatal(&format!("{}{gone}", at("19.990000"))));
        assert!(is_fatal(&format!("{gone}{}", at("40.000000"))), "long after it");
        assert!(is_fatal(&format!("{}{gone}", at("10.000000"))), "long before it");
    }

    #[test]
    fn a_device_in_another_slot_has_no_excuse() {
        let gone = "[   20.000000] pcieport 0000:00:04.0: pciehp: Slot(0): Link Down\n";
        let bridge = |buses| format!("[    0.500000] pci 0000:00:04.0: PCI bridge to [bus {buses}]\n");
        assert!(is_fatal(&format!("{}{gone}[   20.100000] {FAULT}", bridge("03-05"))));
        assert!(!is_fatal(&format!("{}{gone}[   20.100000] {FAULT}", bridge("01-02"))));
    }

    #[test]
    fn a_device_that_was_let_go_has_no_excuse() {
        let log = "[   20.000000] pcieport 0000:00:04.0: pciehp: Slot(0): Button press: will power off in 5 sec\n\
            [   26.000000] pcieport 0000:00:04.0: pciehp: Slot(0): Card not present\n";
        assert!(is_fatal(&format!("{log}[   26.100000] {FAULT}")));
    }

    #[test]
    fn without_times_the_lines_count() {
        let gone = "pcieport 0000:00:04.0: pciehp: Slot(0): Link Down\n";
        assert!(!is_fatal(&format!("{gone}{FAULT}")));
        assert!(is_fatal(&format!("{gone}{}{FAULT}", "something else\n".repeat(300))));
    }
}
