//! The ways to take a device away: a table with one row for each. All else that depends on a trigger follows from its
//! row: names, help texts, plans, the machine's hotplug driver, and how a removal is set off, awaited and proven.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who owns the machine's slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hotplug {
    /// PCIe native hotplug: the guest's pciehp owns the slots.
    Native,
    /// ACPI hotplug: the guest's acpiphp does. QEMU's default on q35.
    Acpi,
}

/// How a removal is set off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// QMP `device_del`: QEMU asks the guest for the device, and takes it out of its slot when the guest lets go of it.
    DeviceDel,
    /// The slot loses its power while the guest stands still. When the guest looks, the slot is empty.
    CutPower,
    /// A process in the guest writes to an attribute.
    Write {
        /// Whose attribute.
        of: Of,
        /// Its name.
        attribute: &'static str,
        /// What is written.
        data: &'static str,
    },
}

/// What has an attribute that removes a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The device. The kernel forgets it, and the card stays in its slot.
    Device,
    /// Its slot, in `/sys/bus/pci/slots`. The kernel powers it off, and QEMU takes the card out of it then.
    Slot,
}

/// What proves that a removal went the way of its trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A kernel message that no other way prints.
    Said(&'static Sign),
    /// The process that writes. No kernel message tells of such a removal.
    Writer,
}

/// A kernel message that tells which way a removal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// What kernels say of it: any one of these, as they put it differently.
    pub words: &'static [&'static str],
    /// Whether it names the slot.
    pub names_slot: bool,
    /// For a message at debug level: functions of which one is on the stack of the task that removes the device. They
    /// stand in for the message on kernels that do not print it.
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

/// `drivers/pci/hotplug/acpiphp_glue.c`, `hotplug_event()`; at debug level. The functions are acpiphp at work on such a
/// request (the same file), whatever of it the compiler leaves on a stack.
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
    /// Signs of other triggers that may show on this way too.
    also: &'static [&'static Sign],
}

/// Makes the type of its rows: `Variant "name" "what happens" { the other fields of Row }`.
macro_rules! table {
    ($($trigger:ident $name:literal $about:literal { $($field:ident: $value:expr,)* })*) => {
        /// One way to take a device away.
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
        // QEMU takes the card out when pciehp has cut the power, and pciehp may see that too.
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

/// The triggers for which something is true, as a constant.
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
    /// Those that find the device still there: the kernel removes what answers.
    pub const ORDERLY: &'static [Trigger] = those!(|trigger| !trigger.is_surprise());
    /// Those of [`Trigger::ORDERLY`] after which the card leaves its slot.
    pub const UNPLUG: &'static [Trigger] = those!(|trigger| !trigger.is_surprise() && trigger.empties_slot());
    /// Those after which the device does not answer any more.
    pub const SURPRISE: &'static [Trigger] = those!(|trigger| trigger.is_surprise());
    /// Those in which pciehp removes what is in the slot.
    pub const PCIEHP: &'static [Trigger] =
        those!(|trigger| trigger.empties_slot() && matches!(trigger.hotplug(), Hotplug::Native));

    /// What stands in the place of a trigger's name if there is none.
    pub const NONE: &'static str = "none";

    /// What is said of [`Trigger::NONE`] in help texts.
    pub const ABOUT_NONE: &'static str = "no trigger: of scenarios that remove nothing";

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

    /// How a removal is set off.
    pub const fn act(self) -> Act {
        self.row().act
    }

    /// Who owns the slots of a machine in which it is set off.
    pub const fn hotplug(self) -> Hotplug {
        self.row().hotplug
    }

    /// What proves that a removal went this way.
    pub const fn proof(self) -> Proof {
        self.row().proof
    }

    /// What disproves it: the signs of all other triggers that do not show on this way too.
    pub fn disproofs(self) -> impl Iterator<Item = &'static Sign> {
        let row = self.row();
        let sign = |trigger: &Trigger| match trigger.proof() {
            Proof::Said(sign) => Some(sign),
            Proof::Writer => None,
        };
        let others = Trigger::ALL.iter().filter_map(sign);
        others.filter(|&sign| row.proof != Proof::Said(sign) && !row.also.contains(&sign))
    }

    /// Whether the card is out of its slot after it.
    pub const fn empties_slot(self) -> bool {
        match self.act() {
            Act::DeviceDel | Act::CutPower | Act::Write { of: Of::Slot, .. } => true,
            Act::Write { of: Of::Device, .. } => false,
        }
    }

    /// Whether the device is gone before the kernel is told.
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
    fn one_trigger_is_told_from_another_by_name_and_by_sign() {
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
    fn what_disproves_a_trigger_are_the_signs_of_the_others() {
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
