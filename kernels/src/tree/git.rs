//! git, as it is run in a repository that is not ours.

use std::env;
use std::path::Path;

use crate::job::Job;

/// What would make git do more than it is asked for: hooks, housekeeping, checkouts that leave files out as the user's
/// own does, other line ends.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.sparseCheckout=false",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.quotePath=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "advice.detachedHead=false",
    "log.showSignature=false",
];

/// How the user's git reaches the remote from which a partial clone gets what it has not, and where his settings are.
const ENVIRONMENT: &[&str] = &["SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "XDG_CONFIG_HOME"];

/// git in a folder of the repository. It asks nobody for a password.
pub(super) fn command(folder: &Path) -> Job {
    let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
    let job = Job::new("git").args(settings).within(folder).env("GIT_TERMINAL_PROMPT", "0");
    let given = ENVIRONMENT.iter().filter_map(|name| Some((*name, env::var_os(name)?)));
    given.fold(job, |job, (name, value)| job.env(name, value))
}
