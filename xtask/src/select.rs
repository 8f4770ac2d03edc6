//! Options that several subcommands share.

use clap::ValueEnum;
use harness::accel::Choice;
use harness::plan::Selection;

/// Which cells.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Kernels, by glob; may be given several times [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub kernels: Vec<String>,
    /// Scenarios, by glob over `family::scenario` or over `scenario` alone [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub scenarios: Vec<String>,
    /// Triggers, by glob: device-del, device-del-acpi, yank, sysfs-remove; none for scenarios that remove nothing
    /// [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub triggers: Vec<String>,
}

impl From<Which> for Selection {
    fn from(which: Which) -> Selection {
        Selection { kernels: which.kernels, scenarios: which.scenarios, triggers: which.triggers }
    }
}

/// Accelerators, as asked for.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Accel {
    /// KVM if a guest says hello under it, else TCG; the answer is remembered
    #[default]
    Auto,
    /// KVM, come what may
    Kvm,
    /// QEMU's translator
    Tcg,
}

impl From<Accel> for Choice {
    fn from(accel: Accel) -> Choice {
        match accel {
            Accel::Auto => Choice::Auto,
            Accel::Kvm => Choice::Kvm,
            Accel::Tcg => Choice::Tcg,
        }
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences
    #[default]
    Human,
    /// JSON, and nothing else on stdout
    Json,
}
