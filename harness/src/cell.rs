//! One scenario on one variant in one topology with one trigger.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::trigger::Trigger;
use crate::verdict::Expected;

/// Identifies a cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellId {
    /// `family::name` of the scenario.
    pub scenario: String,
    /// Name of the topology.
    pub topology: String,
    /// How the device is removed; none if the scenario removes nothing.
    pub trigger: Option<Trigger>,
    /// Name of the kernel's variant.
    pub variant: String,
    /// The number of the repetition: 1, 2, ...
    pub repeat: u32,
}

impl CellId {
    /// The trigger's name, or `none`.
    pub fn trigger_name(&self) -> &'static str {
        Trigger::name_of(self.trigger)
    }

    /// The name of the folder with its evidence: the name of the cell with dots in place of colons, because many tools
    /// give a colon a special meaning. Other bytes that are not safe in a file name are written as `%` and two hex
    /// digits.
    pub fn folder(&self) -> String {
        let family: Vec<_> = self.scenario.split("::").map(plain).collect();
        let parts = [family.join("."), plain(&self.topology), self.trigger_name().to_owned(), plain(&self.variant)];
        parts.join(".") + &self.repeat_suffix()
    }

    /// The command that runs only this cell, in a checkout of this project. `own` has the options that select the
    /// user's own kernel or a kernel of a series (`--tree`, `--series`, ...); they replace `--kernel NAME`.
    pub fn command(&self, own: &[String]) -> Vec<String> {
        let (kernel, profile) = kernels::split_profile(&self.variant);
        let mut words = vec!["cargo", "xtask", "run", &self.scenario];
        match own {
            [] => words.extend(["--kernel", kernel]),
            own => words.extend(own.iter().map(String::as_str)),
        }
        words.extend(["--topology", &self.topology]);
        words.extend(profile.iter().flat_map(|profile| ["--profile", profile]));
        words.extend(self.trigger.iter().flat_map(|trigger| ["--trigger", trigger.name()]));
        words.into_iter().map(str::to_owned).collect()
    }

    fn repeat_suffix(&self) -> String {
        if self.repeat > 1 { format!("#{}", self.repeat) } else { String::new() }
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CellId { scenario, topology, variant, .. } = self;
        write!(f, "{scenario}::{topology}::{}::{variant}{}", self.trigger_name(), self.repeat_suffix())
    }
}

/// Escapes a part of a file name.
fn plain(part: &str) -> String {
    part.bytes().fold(String::new(), |mut name, byte| {
        if byte.is_ascii_alphanumeric() || b"._-+".contains(&byte) {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02x}");
        }
        name
    })
}

/// A planned cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedCell {
    /// Identifies it.
    pub id: CellId,
    /// The expected result.
    pub expected: Expected,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell() -> CellId {
        CellId {
            scenario: "numvfs_read::owner_rescans_on_removal".to_owned(),
            topology: "igb".to_owned(),
            trigger: Some(Trigger::Yank),
            variant: "stock".to_owned(),
            repeat: 1,
        }
    }

    #[test]
    fn names_of_cells_and_folders() {
        assert_eq!(cell().to_string(), "numvfs_read::owner_rescans_on_removal::igb::yank::stock");
        assert_eq!(cell().folder(), "numvfs_read.owner_rescans_on_removal.igb.yank.stock");
        let other = CellId { trigger: None, repeat: 2, ..cell() };
        assert_eq!(other.to_string(), "numvfs_read::owner_rescans_on_removal::igb::none::stock#2");
        assert_eq!(other.folder(), "numvfs_read.owner_rescans_on_removal.igb.none.stock#2");
    }

    #[test]
    fn a_folder_name_has_no_path_separator() {
        let odd = CellId { variant: "../a b/c#2".to_owned(), ..cell() };
        assert_eq!(odd.folder(), "numvfs_read.owner_rescans_on_removal.igb.yank...%2fa%20b%2fc%232");
        assert!(!odd.folder().contains('/'));
    }

    #[test]
    fn the_command_selects_this_cell() {
        let command =
            "cargo xtask run numvfs_read::owner_rescans_on_removal --kernel stock --topology igb --trigger yank";
        assert_eq!(cell().command(&[]).join(" "), command);
        let command = "cargo xtask run numvfs_read::owner_rescans_on_removal --kernel stock --topology igb";
        assert_eq!(CellId { trigger: None, ..cell() }.command(&[]).join(" "), command);
        let command =
            "cargo xtask run numvfs_read::owner_rescans_on_removal --kernel stock --topology igb --profile debug";
        let under = CellId { trigger: None, variant: "stock+debug".to_owned(), ..cell() };
        assert_eq!(under.command(&[]).join(" "), command);
        let own = ["--tree", "/src/linux"].map(str::to_owned);
        let command =
            "cargo xtask run numvfs_read::owner_rescans_on_removal --tree /src/linux --topology igb --trigger yank";
        assert_eq!(cell().command(&own).join(" "), command);
        assert_eq!(under.folder(), "numvfs_read.owner_rescans_on_removal.igb.none.stock+debug");
    }

    #[test]
    fn json_is_stable() {
        let json = serde_json::to_string(&cell()).unwrap();
        assert_eq!(
            json,
            r#"{"scenario":"numvfs_read::owner_rescans_on_removal","topology":"igb","trigger":"yank","variant":"stock","repeat":1}"#
        );
        assert_eq!(serde_json::from_str::<CellId>(&json).unwrap(), cell());
    }
}
