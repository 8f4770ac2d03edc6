//! `cargo xtask gc`: keeps the cache small.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use kernels::cache::Cache;
use kernels::gc;

use crate::out;

/// What to remove.
#[derive(clap::Args)]
#[command(after_help = "\
Sources, build trees, kernels, images and snapshots can all be made again; the first three take the longest.")]
pub struct Args {
    /// Remove what was not used for this many days
    #[arg(long, default_value_t = 14)]
    days: u64,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Removes what is stale, and says what.
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
