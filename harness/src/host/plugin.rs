//! The plugins of QEMU (`harness/plugin`): compiling them, and finding out which of their builds a QEMU takes.
//!
//! A QEMU takes plugins of some versions of its plugin API, and refuses others (`plugin_load()` in QEMU's
//! `plugins/loader.c`). So the harness has QEMU load each build. The plugin ends QEMU at once when it is told to.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kernels::cache::{Cache, CacheError, KeyMaker};

use super::command::{self, CommandError};

/// A plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// It holds guests ([`crate::vm::gate`]).
    Gate,
    /// It notes which blocks of the kernel are executed.
    Coverage,
}

impl Plugin {
    fn source(self) -> &'static str {
        match self {
            Plugin::Gate => include_str!("../../plugin/gate.c"),
            Plugin::Coverage => include_str!("../../plugin/coverage.c"),
        }
    }

    /// Writes the source and what it includes into a folder. Returns the path of the source.
    fn write_source(self, folder: &Path) -> Result<PathBuf, CacheError> {
        let write = |(name, text): (&str, &str)| {
            let path = folder.join(name);
            match std::fs::write(&path, text) {
                Ok(()) => Ok(path),
                Err(source) => Err(CacheError::Io { action: "write", path, source }),
            }
        };
        write(HEADER)?;
        write(("plugin.c", self.source()))
    }
}

/// For messages.
impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Plugin::Gate => "plugin that holds guests",
            Plugin::Coverage => "plugin that notes what guests execute",
        })
    }
}

/// The header that the sources include: its name and text.
const HEADER: (&str, &str) = ("api.h", include_str!("../../plugin/api.h"));

/// The newest version of the API that the sources are compiled for: that of QEMU 11.1.
const NEWEST: u32 = 7;

/// The oldest one: that of QEMU 10.0. Versions 5 and 6 differ from it only in what the plugins do not use.
const OLDEST: u32 = 4;

/// The compiler that kernels need too.
const COMPILER: &str = "gcc";

/// The compiler's options beside the version of the API.
const OPTIONS: [&str; 8] =
    ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread"];

/// The shelf of the cache.
const SHELF: &str = "plugins";

/// The plugin's file in its entry.
const FILE: &str = "plugin.so";

/// The compiler needs a tenth of a second, and QEMU less. A machine under load may need more.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a QEMU cannot be used with a plugin.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The plugin cannot be compiled.
    #[error("the {plugin} cannot be compiled: {reason}")]
    Compile {
        /// The plugin.
        plugin: Plugin,
        /// The compiler's answer.
        reason: CommandError,
    },
    /// QEMU takes no build of the plugin: it has another API, or no plugins.
    #[error("{} takes no {plugin}: {reason}", qemu.display())]
    Refused {
        /// The plugin.
        plugin: Plugin,
        /// The program.
        qemu: PathBuf,
        /// Its answer to the build for the oldest API.
        reason: CommandError,
    },
}

/// The build of the plugin that this QEMU takes. Compiles it if the cache does not have it.
///
/// # Errors
/// [`PluginError`].
pub fn for_qemu(plugin: Plugin, cache: &Cache, qemu: &OsStr) -> Result<PathBuf, PluginError> {
    let newest = build(plugin, cache, NEWEST)?;
    if load(qemu, &newest).is_ok() {
        return Ok(newest);
    }
    let oldest = build(plugin, cache, OLDEST)?;
    match load(qemu, &oldest) {
        Ok(()) => Ok(oldest),
        Err(reason) => Err(PluginError::Refused { plugin, qemu: qemu.into(), reason }),
    }
}

/// The plugin for a version of the API.
fn build(plugin: Plugin, cache: &Cache, api: u32) -> Result<PathBuf, PluginError> {
    let uncompiled = |reason| PluginError::Compile { plugin, reason };
    let compiler = command::stdout_of(Command::new(COMPILER).arg("--version"), DEADLINE).map_err(uncompiled)?;
    let key = KeyMaker::new()
        .with("source", plugin.source())
        .with("header", HEADER.1)
        .with("compiler", compiler)
        .with("options", OPTIONS.join(" "))
        .with("api", api.to_le_bytes())
        .finish();
    let fill = |folder: &Path| {
        let source = plugin.write_source(folder)?;
        compile(&source, api, &folder.join(FILE)).map_err(uncompiled)
    };
    Ok(cache.entry(SHELF, &key, || {}, fill)?.join(FILE))
}

fn compile(source: &Path, api: u32, plugin: &Path) -> Result<(), CommandError> {
    let mut gcc = Command::new(COMPILER);
    gcc.args(OPTIONS).arg(format!("-DPLUGIN_API={api}")).arg("-o").arg(plugin).arg(source);
    command::stdout_of(&mut gcc, DEADLINE).map(drop)
}

/// Whether QEMU loads the plugin. There is no machine, so QEMU does nothing else.
fn load(qemu: &OsStr, plugin: &Path) -> Result<(), CommandError> {
    let argument = format!("file={},probe=on", plugin.to_string_lossy().replace(',', ",,"));
    let mut qemu = Command::new(qemu);
    qemu.args(["-nodefaults", "-no-user-config", "-machine", "none", "-display", "none", "-accel", "tcg"]);
    qemu.args(["-plugin", &argument]);
    command::stdout_of(&mut qemu, DEADLINE).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A QEMU that takes only one build, or none.
    fn fake(folder: &Path, takes: &Path) -> PathBuf {
        let path = folder.join("qemu");
        let (file, takes) = ("file=", takes.display());
        let script = format!(
            "#!/bin/sh\nfor word; do [ \"$word\" = '{file}{takes},probe=on' ] && exit; done\necho 'API 9' >&2\nexit 1\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn each_qemu_gets_the_build_that_it_takes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("cache"));
        let [newest, oldest] = [NEWEST, OLDEST].map(|api| build(Plugin::Gate, &cache, api).unwrap());
        assert_ne!(newest, oldest);
        for takes in [&newest, &oldest] {
            let qemu = fake(folder.path(), takes);
            assert_eq!(for_qemu(Plugin::Gate, &cache, qemu.as_os_str()).unwrap(), *takes);
        }
        let none = fake(folder.path(), Path::new("/none"));
        let error = for_qemu(Plugin::Gate, &cache, none.as_os_str()).unwrap_err().to_string();
        assert!(error.contains("takes no plugin that holds guests: ") && error.ends_with(": API 9"), "{error}");
    }

    #[test]
    fn the_plugin_looks_for_the_marker_of_the_agent() {
        let bytes = guest_protocol::MARKER.map(|byte| format!("{byte:#04x}")).join(", ");
        assert!(Plugin::Gate.source().contains(&format!("marker[] = {{ {bytes} }};")), "{bytes}");
    }

    #[test]
    fn the_sources_have_no_warnings() {
        let folder = tempfile::tempdir().unwrap();
        for (plugin, api) in [Plugin::Gate, Plugin::Coverage].into_iter().flat_map(|one| [(one, NEWEST), (one, OLDEST)])
        {
            let source = plugin.write_source(folder.path()).unwrap();
            let mut gcc = Command::new(COMPILER);
            gcc.args(OPTIONS).args(["-Werror", "-o", "/dev/null"]).arg(format!("-DPLUGIN_API={api}")).arg(&source);
            command::stdout_of(&mut gcc, DEADLINE).unwrap();
        }
    }
}
