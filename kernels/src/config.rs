//! A kernel's configuration: reading fragments, merging them into tinyconfig, and finding the symbols that Kconfig then
//! changed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Why a fragment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FragmentError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The fragment.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not one that a fragment can have.
    #[error(
        "{}:{line}: `{text}` is neither `CONFIG_X=value`, nor `# CONFIG_X is not set`, nor a comment",
        path.display()
    )]
    Line {
        /// The fragment.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The line itself.
        text: String,
    },
}

/// Symbols (without `CONFIG_`) and their values as in a `.config`, with `n` for a symbol that is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Symbols(BTreeMap<String, String>);

/// A symbol that did not get the value that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The symbol, without `CONFIG_`.
    pub symbol: String,
    /// The value that was asked for.
    pub wanted: String,
    /// The value that it has instead.
    pub found: String,
    /// Why, as far as the kernel's Kconfig files say.
    pub reason: String,
    /// Whether the kernel's Kconfig files have this symbol.
    pub known: bool,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CONFIG_{}={} was asked for and is {}: {}", self.symbol, self.wanted, self.found, self.reason)
    }
}

impl fmt::Display for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name}={value}"))
    }
}

impl Symbols {
    /// Reads fragments. A later fragment overrides an earlier one.
    pub(crate) fn of_fragments(paths: &[PathBuf]) -> Result<Symbols, FragmentError> {
        let mut all = Symbols::default();
        for path in paths {
            let text = fs::read_to_string(path).map_err(|source| FragmentError::Read { path: path.clone(), source })?;
            for (index, line) in text.lines().enumerate() {
                match parse_line(line) {
                    Line::Symbol(name, value) => drop(all.0.insert(name.to_owned(), value.to_owned())),
                    Line::Nothing => {}
                    Line::Wrong => {
                        let text = line.to_owned();
                        return Err(FragmentError::Line { path: path.clone(), line: index + 1, text });
                    }
                }
            }
        }
        Ok(all)
    }

    /// These symbols with the values that `further` ones give them, and those.
    pub(crate) fn with(&self, further: &Symbols) -> Symbols {
        let mut all = self.clone();
        all.0.extend(further.0.clone());
        all
    }

    /// Reads the text of a `.config`.
    pub(crate) fn of_config(text: &str) -> Symbols {
        let symbol = |line| match parse_line(line) {
            Line::Symbol(name, value) => Some((name.to_owned(), value.to_owned())),
            Line::Nothing | Line::Wrong => None,
        };
        Symbols(text.lines().filter_map(symbol).collect())
    }

    /// Whether a symbol is among these, with whatever value.
    pub(crate) fn name(&self, symbol: &str) -> bool {
        self.0.contains_key(symbol)
    }

    fn value(&self, symbol: &str) -> &str {
        self.0.get(symbol).map_or("n", String::as_str)
    }

    /// A `.config` in which these symbols have these values.
    pub(crate) fn merged_into(&self, config: &str) -> String {
        let keep = |line: &&str| !matches!(parse_line(line), Line::Symbol(name, _) if self.0.contains_key(name));
        let mut merged: String = config.lines().filter(keep).flat_map(|line| [line, "\n"]).collect();
        for (name, value) in &self.0 {
            match value.as_str() {
                "n" => merged.push_str(&format!("# CONFIG_{name} is not set\n")),
                _ => merged.push_str(&format!("CONFIG_{name}={value}\n")),
            }
        }
        merged
    }

    /// Those of these symbols that have another value in a configuration. `source` is the kernel's source.
    pub(crate) fn unmet(&self, config: &Symbols, source: &Path) -> Vec<Unmet> {
        let differs = |(name, wanted): &(&String, &String)| config.value(name) != wanted.as_str();
        let missing: Vec<_> = self.0.iter().filter(differs).collect();
        if missing.is_empty() {
            return Vec::new();
        }
        let kconfig = kconfig_texts(source);
        let unmet = |(symbol, wanted): (&String, &String)| {
            let reason = reason(symbol, wanted, config, &kconfig);
            Unmet {
                symbol: symbol.clone(),
                wanted: wanted.clone(),
                found: config.value(symbol).to_owned(),
                known: reason.is_some(),
                reason: reason.unwrap_or_else(|| NO_SUCH_SYMBOL.to_owned()),
            }
        };
        missing.into_iter().map(unmet).collect()
    }
}

enum Line<'a> {
    Symbol(&'a str, &'a str),
    Nothing,
    Wrong,
}

fn parse_line(line: &str) -> Line<'_> {
    let line = line.trim();
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if let Some(name) = line.strip_prefix("# CONFIG_").and_then(|rest| rest.strip_suffix(" is not set"))
        && is_name(name)
    {
        return Line::Symbol(name, "n");
    }
    if line.is_empty() || line.starts_with('#') {
        return Line::Nothing;
    }
    match line.strip_prefix("CONFIG_").and_then(|rest| rest.split_once('=')) {
        Some((name, value)) if is_name(name) && !value.is_empty() => Line::Symbol(name, value),
        _ => Line::Wrong,
    }
}

/// All Kconfig files of a kernel but those of other architectures than x86: path in the source, and text.
fn kconfig_texts(source: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(source).unwrap_or(&path).to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !relative.starts_with("arch/") || relative.starts_with("arch/x86") {
                    folders.push(path);
                }
            } else if entry.file_name().to_string_lossy().starts_with("Kconfig") {
                found.extend(fs::read_to_string(&path).map(|text| (relative, text)));
            }
        }
    }
    found.sort();
    found
}

const NO_SUCH_SYMBOL: &str = "this kernel has no such symbol";

/// Why a symbol does not have the value that was asked for, as far as its own Kconfig entry says: a symbol that it
/// depends on is not set. Menus around it, choices and selects are not looked at; for those the result names the
/// entry's file and line. None if no Kconfig file has the symbol.
fn reason(symbol: &str, wanted: &str, config: &Symbols, kconfig: &[(String, String)]) -> Option<String> {
    let entries: Vec<(String, Vec<&str>)> =
        kconfig.iter().flat_map(|(path, text)| entries_of(symbol, path, text)).collect();
    let (place, _) = entries.first()?;
    if wanted == "n" {
        return Some(format!("something selects it, or it has no prompt (see {place})"));
    }
    for (place, lines) in &entries {
        for depends in lines.iter().filter_map(|line| line.strip_prefix("depends on ")) {
            let off: Vec<&str> = symbols_in(depends).filter(|name| config.value(name) == "n").collect();
            if !off.is_empty() {
                return Some(format!("it depends on {depends}, of which {} is off ({place})", off.join(", ")));
            }
        }
    }
    let has_prompt = |line: &&str| {
        ["bool \"", "tristate \"", "int \"", "hex \"", "string \"", "prompt \""]
            .iter()
            .any(|with| line.starts_with(with))
    };
    if !entries.iter().any(|(_, lines)| lines.iter().any(has_prompt)) {
        return Some(format!("it has no prompt: only another symbol can select it ({place})"));
    }
    Some(format!("a menu around it is off, or its value is out of range or not its type (see {place})"))
}

/// The entries of a symbol in a Kconfig file: file and line, and the trimmed lines below.
fn entries_of<'a>(symbol: &str, path: &str, text: &'a str) -> Vec<(String, Vec<&'a str>)> {
    const ENDS: [&str; 11] = [
        "config ",
        "menuconfig ",
        "choice",
        "endchoice",
        "menu ",
        "endmenu",
        "if ",
        "endif",
        "source ",
        "comment ",
        "help",
    ];
    let lines: Vec<&str> = text.lines().collect();
    let heads = |line: &str| {
        let name = line.strip_prefix("config ").or_else(|| line.strip_prefix("menuconfig "));
        name.map(str::trim) == Some(symbol)
    };
    let entry = |start: usize| {
        let body = lines[start + 1..].iter().map(|line| line.trim());
        let body = body.take_while(|line| !ENDS.iter().any(|end| line.starts_with(end))).collect();
        (format!("{path}:{}", start + 1), body)
    };
    (0..lines.len()).filter(|&index| heads(lines[index].trim())).map(entry).collect()
}

fn symbols_in(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.len() > 1 && word.chars().any(|c| c.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(texts: &[&str]) -> Result<Symbols, String> {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..texts.len()).map(|index| folder.path().join(format!("{index}.config"))).collect();
        for (path, text) in paths.iter().zip(texts) {
            fs::write(path, text).unwrap();
        }
        Symbols::of_fragments(&paths)
            .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn a_later_fragment_overrides_an_earlier_one() {
        let symbols =
            fragments(&["# c\nCONFIG_A=y\nCONFIG_B=\"x y\"\n", "# CONFIG_A is not set\nCONFIG_C=n\n"]).unwrap();
        assert_eq!((symbols.value("A"), symbols.value("B"), symbols.value("C")), ("n", "\"x y\"", "n"));
        let merged = symbols.merged_into("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_OTHER=y\n");
        insta::assert_snapshot!(merged, @r#"
CONFIG_OTHER=y
# CONFIG_A is not set
CONFIG_B="x y"
# CONFIG_C is not set
"#);
    }

    #[test]
    fn a_malformed_line_is_refused() {
        insta::assert_snapshot!(fragments(&["CONFIG_A=y\nB=y\n"]).unwrap_err(), @"0.config:2: `B=y` is neither `CONFIG_X=value`, nor `# CONFIG_X is not set`, nor a comment");
        insta::assert_snapshot!(fragments(&["CONFIG_A\n"]).unwrap_err(), @"0.config:1: `CONFIG_A` is neither `CONFIG_X=value`, nor `# CONFIG_X is not set`, nor a comment");
    }

    #[test]
    fn the_reason_for_an_unmet_symbol_is_found_in_kconfig() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("drivers/x")).unwrap();
        let kconfig = "config NEEDY\n\ttristate \"needy\"\n\tdepends on PCI && MISSING\n\thelp\n\t  depends on luck\n\n\
            config HIDDEN\n\tbool\n\nmenuconfig INSIDE\n\tbool \"inside\"\n\nconfig OFF\n\tbool\n";
        fs::write(folder.path().join("drivers/x/Kconfig"), kconfig).unwrap();
        let wanted = fragments(&["CONFIG_NEEDY=y\nCONFIG_HIDDEN=y\nCONFIG_INSIDE=y\nCONFIG_GONE=y\nCONFIG_OFF=n\nCONFIG_FINE=y\nCONFIG_ABSENT=n\n"]).unwrap();
        let config = Symbols::of_config("CONFIG_PCI=y\nCONFIG_FINE=y\nCONFIG_OFF=y\n# CONFIG_INSIDE is not set\n");
        let report: Vec<String> = wanted.unmet(&config, folder.path()).iter().map(Unmet::to_string).collect();
        insta::assert_snapshot!(report.join("\n"), @r#"
CONFIG_GONE=y was asked for and is n: this kernel has no such symbol
CONFIG_HIDDEN=y was asked for and is n: it has no prompt: only another symbol can select it (drivers/x/Kconfig:7)
CONFIG_INSIDE=y was asked for and is n: a menu around it is off, or its value is out of range or not its type (see drivers/x/Kconfig:10)
CONFIG_NEEDY=y was asked for and is n: it depends on PCI && MISSING, of which MISSING is off (drivers/x/Kconfig:1)
CONFIG_OFF=n was asked for and is y: something selects it, or it has no prompt (see drivers/x/Kconfig:13)
"#);
        assert!(wanted.unmet(&wanted, folder.path()).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn a_merged_configuration_has_the_wanted_values_and_keeps_the_others(config in "(CONFIG_[AB]=[ymn]\n|# CONFIG_[ABC] is not set\n|# words\n|\n){0,8}") {
            let wanted = fragments(&["CONFIG_A=y\nCONFIG_B=n\n"]).unwrap();
            let merged = Symbols::of_config(&wanted.merged_into(&config));
            assert_eq!((merged.value("A"), merged.value("B")), ("y", "n"));
            assert_eq!(merged.value("C"), Symbols::of_config(&config).value("C"));
        }
    }
}
