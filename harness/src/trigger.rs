//! The ways to remove a device: a table with one row for each. Everything that depends on a trigger follows from its
//! row: names, help texts, plans, the hotplug driver of the guest, and how a removal is started, awaited and proven. A new
//! trigger is a new row; `docs/verdicts.md` shows the table, and a test compares the two.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which hotplug driver of the guest owns the slots of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hotplug {
    /// PCIe native hotplug: the guest's pciehp owns the slots.
    Native,
    /// ACPI hotplug: the guest's acpiphp owns the slots. QEMU's default on q35.
    Acpi,
}

/// How a removal is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// QMP `device_del`: QEMU requests the removal from the guest, and takes the device out of its slot when the guest
    /// releases it.
    DeviceDel,
    /// The slot loses its power while the guest is stopped. When the guest continues, the slot is empty.
    CutPower,
    /// A process in the guest writes to an attribute.
    Write {
        /// The object that has the attribute.
        of: Of,
        /// The name of the attribute.
        attribute: &'static str,
        /// The text that is written.
        data: &'static str,
    },
}

/// The object whose attribute removes a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The device itself. The kernel removes it from the bus, and the card stays in its slot.
    Device,
    /// Its slot, in `/sys/bus/pci/slots`. The kernel powers the slot off, and then QEMU takes the card out.
    Slot,
}

/// What proves that a removal took the path of its trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A kernel message that no other path prints.
    Said(&'static Sign),
    /// The process that writes. The kernel prints no message for such a removal.
    Writer,
}

/// A kernel message that shows which path a removal takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// Texts of the message in different kernel versions. Any one of them counts.
    pub words: &'static [&'static str],
    /// Whether the message names the slot.
    pub names_slot: bool,
    /// For a message at debug level, which some kernels do not print: a task that removes the device and has one of
    /// these functions on its stack proves the same.
    pub or_in: &'static [&'static str],
}

/// `drivers/pci/hotplug/pciehp_ctrl.c`, `pciehp_handle_button_press()`, of 6.12 and of 6.1.
const BUTTON: Sign = Sign {
    words: &["Button press: will power off in 5 sec", "Powering off due to button press"],
    names_slot: true,
    or_in: &[],
};

/// `drivers/pci/hotplug/pciehp_ctrl.c`, `pciehp_handle_presence_or_link_change()`.
const PRESENCE: Sign = Sign { words: &["Card not present"], names_slot: true, or_in: &[] };

/// `drivers/pci/hotplug/acpiphp_glue.c`, `hotplug_event()`; at debug level. The functions (same file) handle the
/// request. There are several because the compiler may inline some of them.
const EJECT: Sign = Sign {
    words: &["Eject request in"],
    names_slot: false,
    or_in: &["acpiphp_disable_and_eject_slot", "hotplug_event", "acpiphp_hotplug_notify"],
};

/// A row of the table.
#[derive(Debug)]
struct Row {
    name: &'static str,
    about: &'static str,
    act: Act,
    hotplug: Hotplug,
    proof: Proof,
    /// Signs of other triggers that this path may show too.
    also: &'static [&'static Sign],
}

/// Defines [`Trigger`] from its rows: `Variant "name" "what happens" { the other fields of Row }`.
macro_rules! table {
    ($($trigger:ident $name:literal $about:literal { $($field:ident: $value:expr,)* })*) => {
        /// One way to remove a device.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Trigger {
            $(
                #[doc = $about]
                #[serde(rename = $name)]
                $trigger,
            )*
        }

        impl Trigger {
            /// All of them, in the order in which reports show them.
            pub const ALL: &'static [Trigger] = &[$(Trigger::$trigger),*];

            const fn row(self) -> &'static Row {
                match self {
                    $(Trigger::$trigger => &Row { name: $name, about: $about, $($field: $value),* },)*
                }
            }
        }
    };
}

table! {
    DeviceDel "device-del" "QMP device_del with native hotplug: it presses the attention button, and five seconds later pciehp removes the device" {
        act: Act::DeviceDel,
        hotplug: Hotplug::Native,
        proof: Proof::Said(&BUTTON),
        // QEMU takes the card out after pciehp has cut the power, and pciehp may report that too.
        also: &[&PRESENCE],
    }
    DeviceDelAcpi "device-del-acpi" "QMP device_del with ACPI hotplug: acpiphp gets an eject request" {
        act: Act::DeviceDel,
        hotplug: Hotplug::Acpi,
        proof: Proof::Said(&EJECT),
        also: &[],
    }
    Yank "yank" "surprise removal: the slot is empty at once, and pciehp reports \"Card not present\"" {
        act: Act::CutPower,
        hotplug: Hotplug::Native,
        proof: Proof::Said(&PRESENCE),
        also: &[],
    }
    SysfsRemove "sysfs-remove" "`echo 1 > .../remove` in the guest" {
        act: Act::Write { of: Of::Device, attribute: "remove", data: "1" },
        hotplug: Hotplug::Native,
        proof: Proof::Writer,
        also: &[],
    }
}

/// The triggers for which a condition is true, as a constant.
macro_rules! those {
    (|$trigger:ident| $is:expr) => {{
        const FOUND: ([Trigger; Trigger::ALL.len()], usize) = {
            let (mut list, mut count, mut index) = ([Trigger::ALL[0]; Trigger::ALL.len()], 0, 0);
            while index < Trigger::ALL.len() {
                let $trigger = Trigger::ALL[index];
                if $is {
                    list[count] = $trigger;
                    count += 1;
                }
                index += 1;
            }
            (list, count)
        };
        const LIST: &[Trigger] = FOUND.0.split_at(FOUND.1).0;
        LIST
    }};
}

impl Trigger {
    /// Triggers during which the device still answers.
    pub const ORDERLY: &'static [Trigger] = those!(|trigger| !trigger.is_surprise());
    /// Triggers of [`Trigger::ORDERLY`] after which the card has left its slot.
    pub const UNPLUG: &'static [Trigger] = those!(|trigger| !trigger.is_surprise() && trigger.empties_slot());
    /// Triggers after which the device no longer answers.
    pub const SURPRISE: &'static [Trigger] = those!(|trigger| trigger.is_surprise());
    /// Triggers for which pciehp removes the device in the slot.
    pub const PCIEHP: &'static [Trigger] =
        those!(|trigger| trigger.empties_slot() && matches!(trigger.hotplug(), Hotplug::Native));

    /// The name that replaces a trigger's name if a cell has no trigger.
    pub const NONE: &'static str = "none";

    /// What help texts say about [`Trigger::NONE`].
    pub const ABOUT_NONE: &'static str = "no trigger: for scenarios that remove nothing";

    /// The name of a cell's trigger; [`Trigger::NONE`] if it has none.
    pub fn name_of(trigger: Option<Trigger>) -> &'static str {
        trigger.map_or(Trigger::NONE, Trigger::name)
    }

    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// What happens, in a line.
    pub const fn about(self) -> &'static str {
        self.row().about
    }

    /// How a removal is started.
    pub const fn act(self) -> Act {
        self.row().act
    }

    /// Which hotplug driver owns the slots of the machine for this trigger.
    pub const fn hotplug(self) -> Hotplug {
        self.row().hotplug
    }

    /// What proves that a removal took this path.
    pub const fn proof(self) -> Proof {
        self.row().proof
    }

    /// What disproves it: the signs of all other triggers, without those that this path may show too.
    pub fn disproofs(self) -> impl Iterator<Item = &'static Sign> {
        let row = self.row();
        let sign = |trigger: &Trigger| match trigger.proof() {
            Proof::Said(sign) => Some(sign),
            Proof::Writer => None,
        };
        let others = Trigger::ALL.iter().filter_map(sign);
        others.filter(|&sign| row.proof != Proof::Said(sign) && !row.also.contains(&sign))
    }

    /// Whether the card is out of its slot afterwards.
    pub const fn empties_slot(self) -> bool {
        match self.act() {
            Act::DeviceDel | Act::CutPower | Act::Write { of: Of::Slot, .. } => true,
            Act::Write { of: Of::Device, .. } => false,
        }
    }

    /// Whether the device is gone before the kernel gets notice.
    pub const fn is_surprise(self) -> bool {
        match self.act() {
            Act::CutPower => true,
            Act::DeviceDel | Act::Write { .. } => false,
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_differ_in_name_and_sign() {
        for (index, trigger) in Trigger::ALL.iter().enumerate() {
            for other in &Trigger::ALL[..index] {
                assert_ne!(trigger.name(), other.name());
                assert!(
                    trigger.proof() == Proof::Writer || trigger.proof() != other.proof(),
                    "{trigger} and {other} have the same proof"
                );
            }
            assert_ne!(trigger.name(), Trigger::NONE);
        }
    }

    #[test]
    fn the_signs_of_other_triggers_disprove_a_trigger() {
        let disproves = |sign: &Sign, trigger: Trigger| trigger.disproofs().any(|other| other == sign);
        for trigger in [Trigger::DeviceDel, Trigger::DeviceDelAcpi, Trigger::Yank, Trigger::SysfsRemove] {
            assert_eq!(disproves(&BUTTON, trigger), trigger != Trigger::DeviceDel, "{trigger}");
            assert_eq!(disproves(&EJECT, trigger), trigger != Trigger::DeviceDelAcpi, "{trigger}");
            let may_be_absent = [Trigger::Yank, Trigger::DeviceDel].contains(&trigger);
            assert_eq!(disproves(&PRESENCE, trigger), !may_be_absent, "{trigger}");
        }
    }

    #[test]
    fn groups_follow_from_the_rows() {
        let among_the_first = |group: &[Trigger]| {
            let first = [Trigger::DeviceDel, Trigger::DeviceDelAcpi, Trigger::Yank, Trigger::SysfsRemove];
            first.iter().map(|trigger| if group.contains(trigger) { 'x' } else { '-' }).collect::<String>()
        };
        assert_eq!(among_the_first(Trigger::ALL), "xxxx");
        assert_eq!(among_the_first(Trigger::ORDERLY), "xx-x");
        assert_eq!(among_the_first(Trigger::UNPLUG), "xx--");
        assert_eq!(among_the_first(Trigger::SURPRISE), "--x-");
        assert_eq!(among_the_first(Trigger::PCIEHP), "x-x-");
    }

    #[test]
    fn json_has_the_names() {
        for trigger in Trigger::ALL {
            let json = serde_json::to_value(trigger).unwrap();
            assert_eq!(json, trigger.name());
            assert_eq!(serde_json::from_value::<Trigger>(json).unwrap(), *trigger);
        }
    }

    #[test]
    fn the_page_on_verdicts_has_the_table() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verdicts.md")).unwrap();
        let row = |trigger: &Trigger| format!("| `{trigger}` | {} |\n", trigger.about());
        let table: String = Trigger::ALL.iter().map(row).collect();
        let table = format!("| trigger | what happens |\n|---|---|\n{table}\n");
        assert!(page.contains(&table), "docs/verdicts.md does not have this table:\n{table}");
    }
}
