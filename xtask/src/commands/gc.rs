//! `cargo xtask gc`: removes old entries from the cache.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use kernels::cache::Cache;
use kernels::gc;

use crate::out;

/// What to remove.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask gc --dry-run
  cargo xtask gc --days 0

The cache holds sources, build trees, kernels, guest images, snapshots, and QEMUs of `setup --newest-qemu`. A later run makes again what it needs; sources,
build trees and kernels take the longest. Entries that a running command uses are kept.

Exit codes: 0 done, 2 usage or infrastructure error.")]
pub struct Args {
    /// Remove entries that were not used for this many days
    #[arg(long, default_value_t = 14)]
    days: u64,
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Removes stale entries, and prints each.
pub fn run(args: Args) -> Result<ExitCode> {
    let cache = Cache::of_user()?;
    let mut lines = Vec::new();
    let mut freed = 0;
    for stale in gc::stale(&cache, Duration::from_secs(args.days * 24 * 60 * 60))? {
        let what = if args.dry_run {
            "would remove"
        } else if gc::remove(&cache, &stale)? {
            "removed"
        } else {
            lines.push(format!("in use: {}", stale.path.display()));
            continue;
        };
        freed += stale.bytes;
        lines.push(format!("{what} {} ({} MiB)", stale.path.display(), stale.bytes >> 20));
    }
    lines.push(format!("{} MiB {}", freed >> 20, if args.dry_run { "could be freed" } else { "freed" }));
    out::print(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}
