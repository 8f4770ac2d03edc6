//! Runs git in a user's repository, without side effects there.

use std::env;
use std::path::Path;

use crate::job::Job;

/// Settings that turn off what the user's own settings may add: hooks, maintenance, sparse checkouts, other line ends.
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

/// Environment variables that git needs to find the user's settings, and to fetch missing objects of a partial clone.
const ENVIRONMENT: &[&str] = &["SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "XDG_CONFIG_HOME"];

/// git in a folder of the repository. It does not ask for passwords.
pub(super) fn command(folder: &Path) -> Job {
    let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
    let job = Job::new("git").args(settings).within(folder).env("GIT_TERMINAL_PROMPT", "0");
    let given = ENVIRONMENT.iter().filter_map(|name| Some((*name, env::var_os(name)?)));
    given.fold(job, |job, (name, value)| job.env(name, value))
}
