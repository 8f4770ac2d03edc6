//! Options that several subcommands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use harness::cell::PlannedCell;
use harness::evidence::Share;
use harness::host::accel::Choice;
use harness::host::clock;
use harness::matrix::Request;
use harness::matrix::care::Care;
use harness::matrix::partition::{Partition, PartitionError};
use harness::matrix::plan::Selection;
use harness::text::counted;
use scenarios::proposals::PROPOSALS;

use crate::machine::workspace;
use crate::names;

/// Which cells to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Kernels, by glob. May be given several times. Each runs with every scenario [default: your own kernels, if you
    /// give any; else each scenario runs on the unpatched first base, on `candidate`, on the kernels whose patches fix or
    /// add a bug that it detects, and on those that the table of the README compares by it]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    #[arg(value_parser = names::kernels(), hide_possible_values = true)]
    pub kernels: Vec<String>,
    /// Run the default selection on the kernels of this base. `cargo xtask list kernels` lists them [default: the first
    /// base]
    #[arg(long, value_name = "BASE", conflicts_with = "kernels", value_parser = names::bases())]
    pub base: Option<String>,
    /// Scenarios, by glob over `family::scenario` or over `scenario` alone. `cargo xtask list scenarios` lists them
    /// [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    #[arg(value_parser = names::scenarios(), hide_possible_values = true)]
    pub scenarios: Vec<String>,
    /// Triggers, by glob [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',', value_parser = names::trigger_globs())]
    pub triggers: Vec<String>,
    /// Topologies, by glob. `cargo xtask list scenarios` lists those of each scenario [default: each scenario's own]
    #[arg(long, value_name = "GLOB", value_delimiter = ',', value_parser = names::topology_globs())]
    pub topologies: Vec<String>,
    /// Run every kernel of every base (of the one that --base names), with every scenario, on every topology
    #[arg(long)]
    pub all: bool,
}

impl From<Which> for Selection {
    fn from(which: Which) -> Selection {
        let Which { kernels, base, scenarios, triggers, topologies, all } = which;
        Selection { kernels, base, scenarios, triggers, topologies, all, compared: Some(PROPOSALS) }
    }
}

/// The accelerator that the user asks for.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Accel {
    /// KVM if a guest boots under it, else TCG; the answer is remembered
    #[default]
    Auto,
    /// Force KVM
    Kvm,
    /// Force TCG (emulation)
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

/// The clock that guests run on.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Clock {
    /// Their own: it stands while the harness thinks, and jumps to the next timer while the guest is idle. Under KVM,
    /// and with a QEMU that takes no plugins, the host's
    #[default]
    Guest,
    /// The host's
    Host,
}

impl From<Clock> for clock::Choice {
    fn from(clock: Clock) -> clock::Choice {
        match clock {
            Clock::Guest => clock::Choice::Guest,
            Clock::Host => clock::Choice::Host,
        }
    }
}

/// What executes the guests' instructions, and by which clock.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Engine {
    /// The accelerator of QEMU
    #[arg(long, value_enum, default_value_t, global = true)]
    pub accel: Accel,
    /// The clock of guests
    #[arg(long, value_enum, default_value_t, global = true)]
    pub clock: Clock,
}

/// How to run cells.
#[derive(Clone, Debug, clap::Args)]
pub struct How {
    #[command(flatten)]
    pub engine: Engine,
    /// Build kernels with the configuration of a profile. `cargo xtask list profiles` lists them
    #[arg(long, value_name = "NAME", value_parser = names::profiles())]
    pub profile: Option<String>,
    /// Write the folder of this run here, and a link `latest` to it [default: target/runs; of `bisect`: target/bisect]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Boot every guest. By default guests are restored from the snapshot of a booted guest
    #[arg(long)]
    no_snapshots: bool,
    /// Skip the checks that a removed card works when it is put back, and that cards can be used again and removed
    #[arg(long)]
    quick: bool,
    /// Keep a dump of the guest's memory of each cell, not only of deadlocks: about 10 MiB each. `cargo xtask debug` opens
    /// it
    #[arg(long)]
    dump: bool,
    /// Look at who waits for whom in each guest every so many milliseconds of its time, not only when something takes long.
    /// The looks are counted in `results.json` (`notes.looks`); a passing cell must have none with a cycle
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    look_every: Option<u32>,
    /// Also run cells that are skipped because this version of QEMU is known to fail in them
    #[arg(long)]
    despite_qemu: bool,
}

impl How {
    /// Whether `--out` is given.
    pub fn has_place(&self) -> bool {
        self.out.is_some()
    }

    /// The request to run these cells this way: all of them, as many at a time as cores and memory allow.
    pub fn request(self, cells: Vec<PlannedCell>) -> Request {
        Request {
            cells,
            share: None,
            jobs: None,
            snapshots: !self.no_snapshots,
            despite_qemu: self.despite_qemu,
            care: Care {
                quick: self.quick,
                dump: self.dump,
                look_every: self.look_every.map(|ms| Duration::from_millis(ms.into())),
            },
            fail_fast: false,
            accel: self.engine.accel.into(),
            clock: self.engine.clock.into(),
            out: self.out.unwrap_or_else(|| workspace().join("target/runs")),
            command: std::env::args().skip(1).collect(),
        }
    }
}

/// Which part of the cells to run.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Part {
    /// Run only part K of N, for example on one of N machines: `hash:K/N`, by kernel and hardware, so that each kernel is
    /// built in few parts; `count:K/N`, every N-th cell; or `PLAN.json:K/N`, a plan of `cargo xtask plan`. `cargo xtask
    /// merge` makes one run of the parts
    #[arg(long = "partition", value_name = "PARTITION")]
    pub partition: Option<Partition>,
}

impl Part {
    /// The part of these cells that is to run, or all of them. The line says which, for people.
    ///
    /// # Errors
    /// The file of a plan does not fit.
    pub fn share(&self, cells: &[PlannedCell]) -> Result<Option<(Share, String)>, PartitionError> {
        let Some(partition) = &self.partition else { return Ok(None) };
        let share = partition.share(cells, &scenarios::all())?;
        let line = format!(
            "part {partition}: {} of {} of plan {}",
            share.cells().len(),
            counted(cells.len(), "cell", "cells"),
            share.split.digest
        );
        Ok(Some((share, line)))
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
