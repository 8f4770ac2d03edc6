//! `cargo xtask run`: runs one cell, and shows the guest's console on the terminal.

use std::cell::OnceCell;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use harness::classify::Splat;
use harness::evidence::CellRecord;
use harness::matrix::Runner;
use harness::matrix::plan::{Selection, plan};
use harness::matrix::series;
use harness::report::Report;
use harness::verdict::Expected;
use harness::vm::transcript::Recorder;

use crate::interrupt::until_interrupted;
use crate::kernel::Origin;
use crate::names;
use crate::out;
use crate::select::How;
use crate::ui::Ui;

/// Which cell to run, and how.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask run owner_rescans_on_removal --kernel stock --trigger yank
  cargo xtask run owner_rescans_on_removal --tree ~/src/linux --rev v6.11 --trigger yank
  cargo xtask run owner_rescans_on_removal --kernel-image /boot/vmlinuz-$(uname -r) --trigger yank

Prints what the scenario observed as JSON, then the verdict, then the folder with the evidence.

Exit codes: 0 as expected, 1 not as expected, 2 usage or infrastructure error, 130 interrupted.")]
pub struct Args {
    /// The scenario: `family::scenario`, or `scenario` alone
    #[arg(value_parser = names::scenarios(), hide_possible_values = true)]
    scenario: String,
    /// The kernel. Any kernel can run any scenario. `cargo xtask list kernels` lists them
    #[arg(short, long, value_name = "VARIANT", required_unless_present_any = ["tree", "kernel_image"])]
    #[arg(value_parser = names::kernels(), hide_possible_values = true)]
    kernel: Option<String>,
    #[command(flatten)]
    origin: Origin,
    /// The trigger. Needed for a scenario that removes a device in several ways
    #[arg(short, long, value_parser = names::triggers())]
    trigger: Option<String>,
    /// The topology: PCI devices and ports of the guest [default: the scenario's own]
    #[arg(long, value_name = "NAME", value_parser = names::topologies())]
    topology: Option<String>,
    #[command(flatten)]
    how: How,
    /// Do not print the guest's console
    #[arg(short, long)]
    quiet: bool,
}

/// Runs one cell, and prints its verdict.
pub fn run(args: Args) -> Result<ExitCode> {
    let (lab, own) = args.origin.lab(args.how.profile.as_deref())?;
    let scenarios = scenarios::all();
    let selection = Selection {
        kernels: args.kernel.map_or(own, |kernel| vec![kernel]),
        scenarios: vec![args.scenario.clone()],
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
    let request = args.how.request(vec![cell.clone()]);
    let ui = Arc::new(Ui::new(true));
    let echo = (!args.quiet).then(|| {
        let ui = ui.clone();
        Arc::new(move |_, line: &str| ui.say(line)) as Recorder
    });
    let folder = OnceCell::new();
    until_interrupted(&lab, &folder, async {
        let runner = Runner::prepare(&lab, &scenarios, &request, ui.clone()).await?;
        let _ = folder.set(runner.folder().to_owned());
        let runner = match &args.origin.series {
            Some(patches) => runner.of_series(&series::options(&lab, &std::path::absolute(patches)?)),
            None => runner,
        };
        let record = runner.cell(cell, &*ui, echo).await?;
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
        (Expected::None, _) => "expected: unknown for this kernel".to_owned(),
        (_, true) => "expected: yes".to_owned(),
        (_, false) => "expected: NO".to_owned(),
    });
    lines.push(format!("evidence: {}", evidence.display()));
    Ok(lines.join("\n"))
}
