//! `cargo xtask debug`: opens the dump that a cell kept of its guest in drgn.

use std::cell::OnceCell;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Parser;
use harness::evidence::{CellStart, DUMP, LATEST, START, read_run};
use harness::lab::Lab;
use harness::vm::dump::build_id;
use harness::waits::Graph;

use crate::interrupt::until_interrupted;
use crate::kernel::Origin;
use crate::machine::workspace;
use crate::ui::Ui;

/// Which cell.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask debug numvfs_read::owner_rescans_on_removal::igb::yank::stock
  cargo xtask debug target/runs/latest/numvfs_read.owner_rescans_on_removal.igb.yank.stock
  cargo xtask debug --stacks owner_rescans_on_removal::igb::yank

Cells that end in a deadlock keep a dump of their guest, and others with --dump. This prints the stacks of the tasks that
wait for each other, with source lines, and then begins an interactive session of drgn. The first time, it builds the kernel
again with types and variables for the debugger. Its code, data and addresses are those of the guest's kernel.

Exit codes: 0 done, 2 usage or infrastructure error, 130 interrupted; else that of drgn.")]
pub struct Args {
    /// The folder of a cell; or the name of a cell of the last run in target/runs, or a part of that name
    cell: String,
    /// Only print the stacks of the tasks that wait for each other
    #[arg(long)]
    stacks: bool,
    /// The vmlinux with types and variables, for a kernel that was built elsewhere [default: it is built]
    #[arg(long, value_name = "FILE")]
    vmlinux: Option<PathBuf>,
}

/// The options that name the kernel of a cell.
#[derive(Parser)]
struct Words {
    #[command(flatten)]
    origin: Origin,
    #[arg(long)]
    kernel: String,
    #[arg(long)]
    profile: Option<String>,
}

const DRGN: &str = "drgn";

/// Prints the stacks of the tasks with the pids in `PIDS`.
const STACKS: &str = "\
from drgn.helpers.linux.pid import find_task
for pid in PIDS:
    task = find_task(prog, pid)
    if task:
        print(f'{task.comm.string_().decode()} (pid {pid})')
        print(prog.stack_trace(task))
        print()
";

/// Opens the dump of a cell.
pub fn run(args: Args) -> Result<ExitCode> {
    let folder = folder(&args.cell)?;
    let dump = folder.join(DUMP);
    if !dump.is_file() {
        bail!(
            "{} has no {DUMP}. This runs the cell again, and keeps one: {}/repro.sh --dump",
            folder.display(),
            folder.display()
        );
    }
    let drgn = Command::new(DRGN).arg("--version").output();
    if !drgn.is_ok_and(|output| output.status.success()) {
        bail!(
            "drgn does not run. To install it: python3 -m venv ~/drgn && ~/drgn/bin/pip install drgn && PATH=$PATH:~/drgn/bin"
        );
    }
    let start: CellStart = serde_json::from_slice(&read(&folder.join(START))?)
        .with_context(|| format!("the {START} of {} is of another version of iov-regress", folder.display()))?;
    let ui = Arc::new(Ui::new(false));
    let lab = lab(&start)?;
    let vmlinux = OnceCell::new();
    let code = until_interrupted(&lab, &OnceCell::new(), async {
        let built = match args.vmlinux {
            Some(vmlinux) => vmlinux,
            None => with_types(&lab, &start, &dump, ui).await?,
        };
        let _ = vmlinux.set(built);
        Ok(ExitCode::SUCCESS)
    })?;
    let Some(vmlinux) = vmlinux.get() else { return Ok(code) };
    let drgn = || {
        let mut drgn = Command::new(DRGN);
        drgn.arg("--quiet").arg("--core").arg(&dump).arg("--symbols").arg(vmlinux);
        drgn
    };
    let waits: Option<Graph> =
        read(&folder.join("waits.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let pids = waits.map(|graph| graph.stuck()).unwrap_or_default();
    let mut script = tempfile::Builder::new().suffix(".py").tempfile().context("cannot make a file for drgn")?;
    write!(script, "PIDS = {pids:?}\n{STACKS}").context("cannot write a file for drgn")?;
    let status = drgn().arg(script.path()).status().context("cannot start drgn")?;
    if args.stacks || !status.success() || !std::io::stdin().is_terminal() {
        return Ok(code_of(status));
    }
    Ok(code_of(drgn().status().context("cannot start drgn")?))
}

fn code_of(status: std::process::ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(2))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The folder of a cell.
fn folder(cell: &str) -> Result<PathBuf> {
    let path = Path::new(cell);
    if path.join(START).is_file() {
        return Ok(path.to_owned());
    }
    let latest = workspace().join("target/runs").join(LATEST);
    let run = read_run(&latest).with_context(|| format!("{cell} is no folder of a cell, and there is no last run"))?;
    let named = |id: &harness::cell::CellId| (id.to_string(), id.folder());
    let mut found: Vec<_> = run.cells.iter().filter(|one| one.evidence.is_some()).collect();
    let exact = found.iter().any(|one| named(&one.record.cell).0 == cell);
    found.retain(|one| {
        let (name, folder) = named(&one.record.cell);
        if exact { name == cell } else { name.contains(cell) || folder.contains(cell) }
    });
    match found.as_slice() {
        [one] => Ok(latest.join(one.record.cell.folder())),
        [] => bail!("the last run, {}, has no cell {cell}", latest.display()),
        several => {
            let names: Vec<_> = several.iter().map(|one| format!("\n  {}", one.record.cell)).collect();
            bail!("the last run has {} cells with {cell} in their names; choose one:{}", several.len(), names.concat())
        }
    }
}

/// The lab that has the kernel of a cell.
fn lab(start: &CellStart) -> Result<Lab> {
    let words = ["cell", "--kernel", &start.cell.variant].into_iter().chain(start.own.iter().map(String::as_str));
    let words = Words::try_parse_from(words).context("start.json names a kernel in an unknown way")?;
    let profile = words.profile.or(kernels::split_profile(&words.kernel).1.map(str::to_owned));
    Ok(words.origin.lab(profile.as_deref())?.0)
}

/// The vmlinux of a cell's kernel with types and variables, built if the cache does not have it. It gets the build id of the
/// dump, as drgn ignores a file with another.
async fn with_types(lab: &Lab, start: &CellStart, dump: &Path, ui: Arc<Ui>) -> Result<PathBuf> {
    let variant = &start.cell.variant;
    let Some(kernel) = &start.kernel else { bail!("this cell had no kernel") };
    if lab.key(variant).is_some_and(|key| key != kernel.key) {
        bail!(
            "{variant} is another kernel now than in this cell: its source, patches, configuration or compiler changed"
        );
    }
    let vmlinux = lab.with_types(variant, ui).await?.vmlinux;
    if let Some(id) = build_id(dump).with_context(|| format!("cannot read {}", dump.display()))? {
        kernels::set_build_id(&vmlinux, &id)?;
    }
    Ok(vmlinux)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_name_a_kernel_are_read() {
        let words = |own: &[&str]| Words::try_parse_from([&["cell", "--kernel", "patch-2"], own].concat());
        let of_tree = words(&["--tree", "/src", "--rev", "v6.11", "--config", "a.config"]).unwrap();
        assert_eq!((of_tree.kernel.as_str(), of_tree.profile), ("patch-2", None));
        assert_eq!(of_tree.origin.series, None);
        let of_series = words(&["--base", "stock", "--series", "/run/patches"]).unwrap();
        assert_eq!(of_series.origin.series, Some("/run/patches".into()));
        assert!(words(&["--color"]).is_err());
    }

    #[test]
    fn a_series_that_is_not_there_any_more_is_said() {
        let own = ["--base", "v6.12", "--series", "/no/such/patches"].map(str::to_owned);
        let words = ["cell", "--kernel", "patch-1"].into_iter().chain(own.iter().map(String::as_str));
        let error = Words::try_parse_from(words).unwrap().origin.lab(None).map(drop).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /no/such/patches: "), "{error}");
    }
}
