//! `cargo xtask run`: runs one cell, and shows the guest's console on the terminal.

use std::cell::OnceCell;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use harness::classify::Splat;
use harness::evidence::CellRecord;
use harness::host::clock;
use harness::matrix::Runner;
use harness::matrix::plan::{Selection, plan};
use harness::matrix::series;
use harness::report::Report;
use harness::script::{Begins, PREFIX};
use harness::verdict::{Expected, Verdict};
use harness::vm::transcript::Recorder;

use crate::interrupt::until_interrupted;
use crate::kernel::Origin;
use crate::names;
use crate::out;
use crate::scripts::Scripts;
use crate::select::How;
use crate::terminal::Waiting;
use crate::ui::Ui;

/// Which cell to run, and how.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask run owner_rescans_on_removal --kernel stock --trigger yank
  cargo xtask run owner_rescans_on_removal --tree ~/src/linux --rev v6.11 --trigger yank
  cargo xtask run owner_rescans_on_removal --kernel-image /boot/vmlinuz-$(uname -r) --trigger yank
  cargo xtask run --script repro.sh --kernel stock
  cargo xtask run --script repro.sh --kernel stock --keep-on-failure
  cargo xtask run owner_rescans_on_removal --kernel stock --trigger yank --keep-on-failure
  cargo xtask run --kernel stock -- lspci -t

Prints what the scenario observed as JSON, then the verdict, then the folder with the evidence.

Exit codes: 0 as expected, 1 not as expected, 2 usage or infrastructure error, 130 interrupted.")]
pub struct Args {
    /// The scenario: `family::scenario`, or `scenario` alone
    #[arg(value_parser = names::scenarios(), hide_possible_values = true)]
    #[arg(required_unless_present_any = ["script", "command"], conflicts_with_all = ["script", "command"])]
    scenario: Option<String>,
    /// The kernel. Any kernel can run any scenario. `cargo xtask list kernels` lists them
    #[arg(short, long, value_name = "VARIANT", required_unless_present_any = ["tree", "kernel_image"])]
    #[arg(value_parser = names::kernels(), hide_possible_values = true)]
    kernel: Option<String>,
    #[command(flatten)]
    origin: Origin,
    #[command(flatten)]
    scripts: Scripts,
    /// The trigger. Needed for a scenario that removes a device in several ways
    #[arg(short, long, value_parser = names::triggers())]
    trigger: Option<String>,
    /// The topology: PCI devices and ports of the guest [default: the scenario's own]
    #[arg(long, value_name = "NAME", value_parser = names::topologies())]
    topology: Option<String>,
    #[command(flatten)]
    how: How,
    /// Do not print the guest's console, nor what a script prints
    #[arg(short, long)]
    quiet: bool,
    /// If the scenario fails, leave the guest as it is, and open a shell in it. The guest then runs on the host's clock
    #[arg(long)]
    keep_on_failure: bool,
    /// A command to run in the guest, in place of a script. A single word may be a line of shell
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "script")]
    command: Vec<String>,
}

/// Runs one cell, and prints its verdict.
pub fn run(args: Args) -> Result<ExitCode> {
    let (lab, own) = args.origin.lab(args.how.profile.as_deref())?;
    let waiting = args.keep_on_failure.then(|| Waiting::begin(Begins::AfterFailure)).transpose()?;
    let scenarios = args.scripts.scenarios(&args.command, lab.manifest(), args.trigger.as_slice())?;
    let selection = Selection {
        kernels: args.kernel.map_or(own, |kernel| vec![kernel]),
        scenarios: args.scenario.into_iter().collect(),
        triggers: args.trigger.into_iter().collect(),
        topologies: args.topology.into_iter().collect(),
        ..Selection::default()
    };
    let cells = plan(lab.manifest(), &scenarios, &selection, 1)?;
    let [cell] = cells.as_slice() else {
        let names: Vec<_> = cells.iter().map(|cell| format!("\n  {}", cell.id)).collect();
        bail!(
            "these options name {} cells; choose one, with --trigger, --topology or a full name:{}",
            cells.len(),
            names.concat()
        );
    };
    let scenario = scenarios.iter().find(|scenario| scenario.name == cell.id.scenario).cloned();
    let mut scenario = scenario.with_context(|| format!("there is no scenario {}", cell.id.scenario))?;
    let mut request = args.how.request(vec![cell.clone()]);
    if let Some(waiting) = &waiting {
        scenario = scenario.with_terminal(waiting.terminal());
        // While the user thinks, nothing happens in the guest. On its own clock, its time would jump then.
        request.clock = clock::Choice::Host;
    }
    let ui = Arc::new(Ui::new(true));
    let echo = (!args.quiet).then(|| {
        let ui = ui.clone();
        Arc::new(move |_, line: &str| ui.say(line)) as Recorder
    });
    let folder = OnceCell::new();
    until_interrupted(&lab, &folder, async {
        let runner = Runner::prepare(&lab, &[scenario], &request, ui.clone()).await?;
        let _ = folder.set(runner.folder().to_owned());
        let runner = match &args.origin.series {
            Some(patches) => runner.of_series(&series::options(&lab, &std::path::absolute(patches)?)),
            None => runner,
        };
        let running = runner.cell(cell, &*ui, echo);
        let record = match waiting {
            Some(waiting) => {
                let (record, asked) = waiting.during(running).await?;
                let record = record?;
                if !asked && !matches!(record.verdict, Verdict::Pass | Verdict::Skip(_)) {
                    ui.say("no shell was opened: the guest was not there any more, or takes no terminal");
                }
                record
            }
            None => running.await?,
        };
        let report = Report::of(runner.folder())?;
        report.write_files()?;
        out::print(&summary(&record, &runner.folder().join(cell.id.folder()))?)?;
        Ok(ExitCode::from(report.exit_code()))
    })
}

/// The observations as JSON, then the verdict.
fn summary(record: &CellRecord, evidence: &Path) -> Result<String> {
    let mut lines =
        vec![serde_json::to_string_pretty(&record.observations)?, format!("verdict:  {}", record.verdict.outcome())];
    lines.extend(record.verdict.reason().map(|reason| format!("because:  {reason}")));
    lines.extend(record.splats.iter().filter_map(Splat::wait).map(|wait| format!("waits:    {wait}")));
    lines.extend(record.trigger_proof.as_ref().map(|proof| format!("removal:  {proof}")));
    lines.push(match (&record.expected, record.is_as_expected()) {
        (Expected::None, _) if record.cell.scenario.starts_with(PREFIX) => {
            "expected: unknown for this script".to_owned()
        }
        (Expected::None, _) => "expected: unknown for this kernel".to_owned(),
        (_, true) => "expected: yes".to_owned(),
        (_, false) => "expected: NO".to_owned(),
    });
    lines.push(format!("evidence: {}", evidence.display()));
    Ok(lines.join("\n"))
}
