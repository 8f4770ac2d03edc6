//! From the text of `kernels.toml` to a [`Manifest`] whose references all lead somewhere.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{Base, Manifest, ManifestError, Source, Variant};
use crate::Bug;
use crate::near::{Unknown, near};

/// Something in the text that is not right.
pub(super) struct Wrong {
    span: Range<usize>,
    message: String,
}

impl Wrong {
    fn new(span: Range<usize>, message: impl Into<String>) -> Wrong {
        Wrong { span, message: message.into() }
    }

    pub(super) fn at(self, path: &Path, text: &str) -> ManifestError {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        ManifestError::Invalid { path: path.to_owned(), line, column, message: self.message }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    #[serde(default)]
    base: Vec<Spanned<RawBase>>,
    #[serde(default)]
    variant: Vec<RawVariant>,
    #[serde(default)]
    bug: Vec<Spanned<Bug>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBase {
    name: Spanned<String>,
    package: Option<String>,
    path: Option<Spanned<PathBuf>>,
    config: Vec<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVariant {
    name: Spanned<String>,
    about: String,
    base: Spanned<String>,
    #[serde(default)]
    patches: Vec<Spanned<PathBuf>>,
    #[serde(default)]
    bugs: Vec<Spanned<String>>,
}

/// Reads the manifest's text; paths in it are relative to `folder`.
pub(super) fn manifest(text: &str, folder: &Path) -> Result<Manifest, Wrong> {
    let raw: RawManifest = toml::from_str(text).map_err(from_toml)?;
    unique("base", raw.base.iter().map(|base| &base.get_ref().name))?;
    unique("variant", raw.variant.iter().map(|variant| &variant.name))?;
    let ids: Vec<_> = raw.bug.iter().map(|bug| Spanned::new(bug.span(), bug.get_ref().id.clone())).collect();
    unique("bug", &ids)?;
    names("base", raw.base.iter().map(|base| &base.get_ref().name))?;
    names("variant", raw.variant.iter().map(|variant| &variant.name))?;
    if raw.variant.is_empty() {
        return Err(Wrong::new(text.len()..text.len(), "there is no kernel to build: no [[variant]]"));
    }

    let bugs: Vec<Bug> = raw.bug.into_iter().map(Spanned::into_inner).collect();
    let bases: Vec<Base> = raw.base.into_iter().map(|raw| base(raw, folder)).collect::<Result<_, _>>()?;
    let known = Known {
        bases: bases.iter().map(|base| base.name.as_str()).collect(),
        bugs: bugs.iter().map(|bug| bug.id.as_str()).collect(),
    };
    let variants: Vec<Variant> =
        raw.variant.into_iter().map(|raw| variant(raw, &known, folder)).collect::<Result<_, _>>()?;
    Ok(Manifest { bases, variants, bugs })
}

fn unique<'a>(kind: &str, names: impl IntoIterator<Item = &'a Spanned<String>>) -> Result<(), Wrong> {
    let mut seen = Vec::new();
    for name in names {
        if seen.contains(&name.get_ref()) {
            return Err(Wrong::new(name.span(), format!("a second {kind} `{}`: names are unique", name.get_ref())));
        }
        seen.push(name.get_ref());
    }
    Ok(())
}

/// Names go into the names of cells, and with them into those of folders and into globs.
fn names<'a>(kind: &str, names: impl IntoIterator<Item = &'a Spanned<String>>) -> Result<(), Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let good = |name: &str| name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed);
    match names.into_iter().find(|name| !good(name.get_ref())) {
        None => Ok(()),
        Some(name) => {
            let message = format!(
                "the {kind} `{}` cannot be called so: a name is made of ASCII letters, digits, `.`, `_` and `-`, and \
                 begins with a letter or a digit",
                name.get_ref()
            );
            Err(Wrong::new(name.span(), message))
        }
    }
}

fn base(raw: Spanned<RawBase>, folder: &Path) -> Result<Base, Wrong> {
    let span = raw.span();
    let raw = raw.into_inner();
    let source = match (raw.package, raw.path) {
        (Some(package), None) => Source::Package(package),
        (None, Some(path)) => Source::Path(existing("a source", &path, folder)?),
        _ => return Err(Wrong::new(span, "a base has either `package` or `path`")),
    };
    let config = files("a config fragment", &raw.config, folder)?;
    Ok(Base { name: raw.name.into_inner(), source, config })
}

/// The names that a variant may refer to.
struct Known<'a> {
    bases: Vec<&'a str>,
    bugs: Vec<&'a str>,
}

fn variant(raw: RawVariant, known: &Known, folder: &Path) -> Result<Variant, Wrong> {
    refers("base", &raw.base, &known.bases)?;
    for bug in &raw.bugs {
        refers("bug", bug, &known.bugs)?;
    }
    unique("mention of the bug", &raw.bugs)?;
    Ok(Variant {
        name: raw.name.into_inner(),
        about: raw.about,
        base: raw.base.into_inner(),
        patches: files("a patch", &raw.patches, folder)?,
        bugs: raw.bugs.into_iter().map(Spanned::into_inner).collect(),
    })
}

fn refers(kind: &'static str, name: &Spanned<String>, known: &[&str]) -> Result<(), Wrong> {
    if known.contains(&name.get_ref().as_str()) {
        return Ok(());
    }
    Err(Wrong::new(name.span(), Unknown::new(kind, name.get_ref(), known.iter().copied()).to_string()))
}

fn files(what: &str, paths: &[Spanned<PathBuf>], folder: &Path) -> Result<Vec<PathBuf>, Wrong> {
    paths
        .iter()
        .map(|path| match existing(what, path, folder) {
            Ok(found) if !found.is_file() => Err(Wrong::new(path.span(), format!("{what} must be a file"))),
            other => other,
        })
        .collect()
}

fn existing(what: &str, path: &Spanned<PathBuf>, folder: &Path) -> Result<PathBuf, Wrong> {
    let full = folder.join(path.get_ref());
    let absolute = std::path::absolute(&full).unwrap_or(full);
    if absolute.exists() {
        return Ok(absolute);
    }
    Err(Wrong::new(path.span(), format!("{what} that does not exist: {}", path.get_ref().display())))
}

fn from_toml(error: toml::de::Error) -> Wrong {
    // serde's words for keys and values; a variant is something else here.
    let mut message = error.message().to_owned();
    for (theirs, ours) in
        [("unknown field", "unknown key"), ("missing field", "missing key"), ("unknown variant", "unknown value")]
    {
        message = message.replace(theirs, ours);
    }
    // "unknown key `a`, expected one of `b`, `c`": the quoted words after the first are what is allowed.
    if message.starts_with("unknown key") {
        let mut quoted = message.split('`').skip(1).step_by(2);
        if let Some(key) = quoted.next()
            && let Some(near) = near(key, quoted)
        {
            message = format!("{message}; did you mean `{near}`?");
        }
    }
    Wrong::new(error.span().unwrap_or_default(), message)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str = r#"
[[base]]
name = "6.12"
package = "linux-source-6.12"
config = ["a.config"]

[[variant]]
name = "stock"
about = "as it is"
base = "6.12"
bugs = ["hangs"]

[[variant]]
name = "fixed"
about = "without the bug"
base = "6.12"
patches = ["fix.patch"]

[[bug]]
id = "hangs"
title = "It hangs"
fails = { kind = "deadlock", function = "show" }
"#;

    fn load(text: &str) -> Result<Manifest, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [("kernels.toml", text), ("a.config", ""), ("fix.patch", "")] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        Manifest::load(folder.path())
            .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    /// The error that one replacement in [`GOOD`] leads to.
    fn error(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from));
        load(&GOOD.replacen(from, to, 1)).unwrap_err()
    }

    #[test]
    fn a_good_manifest_is_read() {
        let manifest = load(GOOD).unwrap();
        assert_eq!(manifest.variants[1].patches.len(), 1);
        assert!(manifest.variants[1].patches[0].is_absolute());
        assert_eq!(manifest.variant("stock").unwrap().bugs, ["hangs"]);
        assert_eq!(manifest.bases[0].source, Source::Package("linux-source-6.12".to_owned()));
    }

    #[test]
    fn unknown_keys_are_refused() {
        insta::assert_snapshot!(error("about = \"as", "abuot = \"as"), @"kernels.toml:9:1: unknown key `abuot`, expected one of `name`, `about`, `base`, `patches`, `bugs`; did you mean `about`?");
        insta::assert_snapshot!(error("[[base]]", "[[bases]]"), @"kernels.toml:2:3: unknown key `bases`, expected one of `base`, `variant`, `bug`; did you mean `base`?");
        insta::assert_snapshot!(error("package =", "url = \"x\"\npackage ="), @"kernels.toml:4:1: unknown key `url`, expected one of `name`, `package`, `path`, `config`");
    }

    #[test]
    fn what_is_no_toml_or_of_the_wrong_kind_is_refused() {
        insta::assert_snapshot!(error("name = \"stock\"", "name = stock"), @"kernels.toml:8:8: string values must be quoted, expected literal string");
        insta::assert_snapshot!(error("[\"fix.patch\"]", "\"fix.patch\""), @r#"kernels.toml:17:11: invalid type: string "fix.patch", expected a sequence"#);
        insta::assert_snapshot!(error("about = \"as it is\"\n", ""), @"kernels.toml:7:1: missing key `about`");
        insta::assert_snapshot!(error("\"deadlock\"", "\"dead-lock\""), @"kernels.toml:22:18: unknown value `dead-lock`, expected one of `deadlock`, `blocked`, `stale-read`, `lost-event`, `kernel-splat`, `wrong-state`");
    }

    #[test]
    fn references_that_lead_nowhere_are_refused() {
        insta::assert_snapshot!(error("base = \"6.12\"", "base = \"6.1\""), @"kernels.toml:10:8: there is no base `6.1`; did you mean `6.12`?");
        insta::assert_snapshot!(error("[\"hangs\"]", "[\"hang\"]"), @"kernels.toml:11:9: there is no bug `hang`; did you mean `hangs`?");
        insta::assert_snapshot!(error("fix.patch", "fux.patch"), @"kernels.toml:17:12: a patch that does not exist: fux.patch");
        insta::assert_snapshot!(error("a.config", "b.config"), @"kernels.toml:5:11: a config fragment that does not exist: b.config");
    }

    #[test]
    fn names_are_unique() {
        insta::assert_snapshot!(error("\"fixed\"", "\"stock\""), @"kernels.toml:14:8: a second variant `stock`: names are unique");
        insta::assert_snapshot!(error("[\"hangs\"]", "[\"hangs\", \"hangs\"]"), @"kernels.toml:11:18: a second mention of the bug `hangs`: names are unique");
        let twice = format!(
            "{GOOD}[[bug]]\nid = \"hangs\"\ntitle = \"\"\nfails = {{ kind = \"deadlock\", function = \"show\" }}\n"
        );
        insta::assert_snapshot!(load(&twice).unwrap_err(), @"kernels.toml:23:1: a second bug `hangs`: names are unique");
    }

    #[test]
    fn names_can_be_those_of_folders() {
        insta::assert_snapshot!(error("\"fixed\"", "\"../fixed\""), @"kernels.toml:14:8: the variant `../fixed` cannot be called so: a name is made of ASCII letters, digits, `.`, `_` and `-`, and begins with a letter or a digit");
        insta::assert_snapshot!(error("\"fixed\"", "\"a::b\""), @"kernels.toml:14:8: the variant `a::b` cannot be called so: a name is made of ASCII letters, digits, `.`, `_` and `-`, and begins with a letter or a digit");
        insta::assert_snapshot!(error("\"fixed\"", "\"\""), @"kernels.toml:14:8: the variant `` cannot be called so: a name is made of ASCII letters, digits, `.`, `_` and `-`, and begins with a letter or a digit");
    }

    #[test]
    fn a_manifest_without_kernels_is_refused() {
        insta::assert_snapshot!(load("").unwrap_err(), @"kernels.toml:1:1: there is no kernel to build: no [[variant]]");
    }

    #[test]
    fn a_base_has_one_source() {
        insta::assert_snapshot!(error("package =", "path = \"a.config\"\npackage ="), @"kernels.toml:2:1: a base has either `package` or `path`");
        insta::assert_snapshot!(error("package = \"linux-source-6.12\"\n", ""), @"kernels.toml:2:1: a base has either `package` or `path`");
    }

    proptest::proptest! {
        /// Whatever is wrong, its place is in the file.
        #[test]
        fn errors_have_a_place(cut in 0..GOOD.len(), junk in "[a-z\"\\[\\]={}äß\n ]{0,8}") {
            let text = format!("{}{junk}{}", &GOOD[..cut], &GOOD[cut..]);
            if let Err(wrong) = manifest(&text, Path::new(env!("CARGO_MANIFEST_DIR")))
                && let ManifestError::Invalid { line, column, .. } = wrong.at(Path::new("m"), &text)
            {
                let lines: Vec<&str> = text.split('\n').collect();
                proptest::prop_assert!(lines[line - 1].chars().count() + 1 >= column);
            }
        }
    }
}
