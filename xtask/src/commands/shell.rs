//! `cargo xtask shell`: an interactive shell in a guest.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use harness::host::clock;
use harness::matrix::care::Care;
use harness::matrix::plan::{Selection, plan};
use harness::matrix::{Request, Runner};
use harness::progress::Silence;
use harness::scenario::Scenario;
use harness::script::{Begins, GuestFile, Header, Script};
use harness::trigger::Trigger;
use harness::verdict::Verdict;

use crate::interrupt::until_interrupted;
use crate::kernel::Origin;
use crate::names;
use crate::select::How;
use crate::terminal::Waiting;
use crate::ui::Ui;

/// Which guest, and how.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask shell --kernel stock
  cargo xtask shell --kernel candidate --topology nvme --file ./tool
  cargo xtask shell --tree ~/src/linux --rev topic
  cargo xtask shell --kernel stock --gdb
  echo 'lspci -t' | cargo xtask shell --kernel stock

The guest has the hardware and the tools that scripts have (docs/reproducer.md), and its clock is the host's. Keys go to the
guest as they are, so Ctrl-C interrupts the command in the guest. `exit` or Ctrl-] ends the guest.

Exit codes: 0 the shell ended, 2 usage or infrastructure error, 130 interrupted.")]
pub struct Args {
    /// The kernel. `cargo xtask list kernels` lists them
    #[arg(short, long, value_name = "VARIANT", required_unless_present_any = ["tree", "kernel_image"])]
    #[arg(value_parser = names::kernels(), hide_possible_values = true)]
    kernel: Option<String>,
    #[command(flatten)]
    origin: Origin,
    /// The trigger of `iov remove`. It also decides which hotplug driver has the slots
    #[arg(short, long, value_parser = names::triggers())]
    trigger: Option<String>,
    /// The topology: PCI devices and ports of the guest [default: igb]
    #[arg(long, value_name = "NAME", value_parser = names::topologies())]
    topology: Option<String>,
    /// Put a file, a static program or a folder into the guest, in /tmp or at GUESTPATH. May be given several times
    #[arg(long, value_name = "PATH[:GUESTPATH]")]
    file: Vec<String>,
    /// Have the guest wait for gdb, and print the command that attaches it. The first time, the kernel is built again with
    /// types and variables
    #[arg(long)]
    gdb: bool,
    /// The vmlinux for gdb, for a kernel that was built elsewhere [default: it is built]
    #[arg(long, value_name = "FILE", requires = "gdb")]
    vmlinux: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// Starts a guest with a shell, and is its terminal.
pub fn run(args: Args) -> Result<ExitCode> {
    let (lab, own) = args.origin.lab(args.how.profile.as_deref())?;
    let files = args.file.iter().map(|spec| GuestFile::of(spec)).collect::<Result<Vec<_>, _>>()?.concat();
    let kernels = args.kernel.clone().map_or(own, |kernel| vec![kernel]);
    let triggers: Vec<_> = args.trigger.iter().cloned().collect();
    let is_named = |trigger: &&Trigger| triggers.iter().any(|name| name == trigger.name());
    let header = Header { triggers: Trigger::ALL.iter().filter(is_named).copied().collect(), ..Header::default() };
    let ui = Arc::new(Ui::new(false));
    let folder = OnceCell::new();
    let waiting = Waiting::begin(Begins::AtOnce)?;
    until_interrupted(&lab, &folder, async {
        let script = Script { name: "shell".to_owned(), ..Script::of_command(&["shell".to_owned()]) };
        let scenario = Scenario::of_script(script.with_files(files)?, header);
        let selection =
            Selection { kernels, topologies: args.topology.into_iter().collect(), triggers, ..Selection::default() };
        let cells = plan(lab.manifest(), std::slice::from_ref(&scenario), &selection, 1)?;
        let [cell] = cells.as_slice() else { bail!("name one kernel: these options name {}", cells.len()) };
        let waiting = match (args.gdb, args.vmlinux) {
            (false, _) => waiting,
            (true, Some(vmlinux)) => waiting.with_debugger(vmlinux),
            (true, None) => waiting.with_debugger(lab.with_types(&cell.id.variant, ui.clone()).await?.vmlinux),
        };
        let scenarios = [scenario.with_terminal(waiting.terminal())];
        // While the user thinks, nothing happens in the guest. On its own clock, its time would jump then.
        let care = Care { quick: true, ..Care::default() };
        let request = Request { clock: clock::Choice::Host, care, ..args.how.request(vec![cell.clone()]) };
        let runner = Runner::prepare(&lab, &scenarios, &request, ui.clone()).await?;
        let _ = folder.set(runner.folder().to_owned());
        let record = waiting.during(runner.cell(cell, &Silence, None)).await?.0?;
        Ok(match &record.verdict {
            Verdict::Infra(why) | Verdict::BootFailed(why) | Verdict::BuildFailed(why) => {
                ui.say(&format!("{}: {why}", record.verdict.outcome()));
                ExitCode::from(crate::ERROR)
            }
            Verdict::Pass | Verdict::Skip(_) => ExitCode::SUCCESS,
            Verdict::Fail(failure) => {
                ui.say(&format!("{failure}: {}", failure.summary));
                ExitCode::SUCCESS
            }
        })
    })
}
