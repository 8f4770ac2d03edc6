//! Reads the text of `kernels.toml` and checks it: names are unique, and everything that is referred to exists.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{Base, Manifest, ManifestError, Need, OwnConfig, Source, Variant};
use crate::archive::Package;
use crate::bug::Bug;
use crate::near::{Unknown, near};
use crate::profile::{KnownReport, Profile};

/// An error in the text, and where it is.
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
    #[serde(default)]
    profile: Vec<RawProfile>,
    own: Option<RawOwn>,
    selftests: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOwn {
    config: Vec<Spanned<PathBuf>>,
    #[serde(default)]
    needs: Vec<Need>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBase {
    name: Spanned<String>,
    package: Option<Spanned<String>>,
    suite: Option<Spanned<String>>,
    path: Option<Spanned<PathBuf>>,
    config: Vec<Spanned<PathBuf>>,
    #[serde(default)]
    bugs: Vec<Spanned<String>>,
    #[serde(default)]
    immune: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVariant {
    name: Spanned<String>,
    about: String,
    base: Option<Spanned<String>>,
    #[serde(default)]
    bases: Vec<Spanned<String>>,
    #[serde(default)]
    patches: Vec<Spanned<PathBuf>>,
    #[serde(default)]
    config: Vec<Spanned<PathBuf>>,
    #[serde(default)]
    fixes: Vec<Spanned<String>>,
    #[serde(default)]
    bugs: Vec<Spanned<String>>,
}

impl RawVariant {
    /// Whether the drivers of its own configuration bring this bug, which its patches may fix.
    fn brings(&self, bug: &str) -> bool {
        !self.config.is_empty() && self.bugs.iter().any(|brought| brought.get_ref() == bug)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    name: Spanned<String>,
    about: String,
    config: Vec<Spanned<PathBuf>>,
    memory_mib: Option<u32>,
    slower: u32,
    #[serde(default)]
    known: Vec<KnownReport>,
}

/// Reads the manifest's text; paths in it are relative to `folder`.
pub(super) fn manifest(text: &str, folder: &Path) -> Result<Manifest, Wrong> {
    let raw: RawManifest = toml::from_str(text).map_err(from_toml)?;
    unique("base", raw.base.iter().map(|base| &base.get_ref().name))?;
    let ids: Vec<_> = raw.bug.iter().map(|bug| Spanned::new(bug.span(), bug.get_ref().id.clone())).collect();
    unique("bug", &ids)?;
    unique("profile", raw.profile.iter().map(|profile| &profile.name))?;
    names("profile", raw.profile.iter().map(|profile| &profile.name))?;
    names("base", raw.base.iter().map(|base| &base.get_ref().name))?;
    names("variant", raw.variant.iter().map(|variant| &variant.name))?;
    if raw.variant.is_empty() {
        return Err(Wrong::new(text.len()..text.len(), "there is no kernel to build: no [[variant]]"));
    }

    let profiles: Vec<Profile> = raw.profile.into_iter().map(|raw| profile(raw, folder)).collect::<Result<_, _>>()?;
    raw.bug.iter().try_for_each(|bug| shows_somewhere(bug, &profiles).and_then(|()| may_be_proven(bug)))?;
    let bugs: Vec<Bug> = raw.bug.into_iter().map(Spanned::into_inner).collect();
    let ids: Vec<_> = bugs.iter().map(|bug| bug.id.as_str()).collect();
    let bases: Vec<Base> = raw.base.into_iter().map(|raw| base(raw, &ids, folder)).collect::<Result<_, _>>()?;
    let mut variants: Vec<Variant> = Vec::new();
    for raw in raw.variant {
        for variant in variants_of(&raw, &bases, &ids, folder)? {
            if variants.iter().any(|other| other.name == variant.name) {
                return Err(second("variant", &Spanned::new(raw.name.span(), variant.name)));
            }
            variants.push(variant);
        }
    }
    let own = raw.own.map(|own| {
        let config = files("a config fragment", &own.config, folder)?;
        Ok(OwnConfig { config, needs: own.needs })
    });
    if let Some(name) = raw.selftests.as_ref().filter(|name| !bases.iter().any(|base| base.name == *name.get_ref())) {
        return Err(missing("base", name, bases.iter().map(|base| base.name.as_str())));
    }
    let selftests = raw.selftests.map(Spanned::into_inner);
    Ok(Manifest { bases, variants, bugs, profiles, profile: None, own: own.transpose()?, selftests })
}

fn unique<'a>(kind: &str, names: impl IntoIterator<Item = &'a Spanned<String>>) -> Result<(), Wrong> {
    let mut seen = Vec::new();
    for name in names {
        if seen.contains(&name.get_ref()) {
            return Err(second(kind, name));
        }
        seen.push(name.get_ref());
    }
    Ok(())
}

fn second(kind: &str, name: &Spanned<String>) -> Wrong {
    Wrong::new(name.span(), format!("a second {kind} `{}`: names are unique", name.get_ref()))
}

/// Checks that names have only certain characters: they become parts of the names of cells, folders and globs.
fn names<'a>(kind: &str, names: impl IntoIterator<Item = &'a Spanned<String>>) -> Result<(), Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let good = |name: &str| name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed);
    match names.into_iter().find(|name| !good(name.get_ref())) {
        None => Ok(()),
        Some(name) => {
            let message = format!(
                "`{}` cannot be the name of a {kind}: use ASCII letters, digits, `.`, `_` and `-`, and begin with a \
                 letter or a digit",
                name.get_ref()
            );
            Err(Wrong::new(name.span(), message))
        }
    }
}

fn base(raw: Spanned<RawBase>, bugs: &[&str], folder: &Path) -> Result<Base, Wrong> {
    let span = raw.span();
    let raw = raw.into_inner();
    names("package", &raw.package)?;
    names("suite", &raw.suite)?;
    let source = match (raw.package, raw.suite, raw.path) {
        (Some(name), suite, None) => {
            Source::Package(Package { name: name.into_inner(), suite: suite.map(Spanned::into_inner) })
        }
        (None, Some(suite), Some(_)) => {
            return Err(Wrong::new(suite.span(), "`suite` says where a `package` is, and this base has a `path`"));
        }
        (None, None, Some(path)) => Source::Path(existing("a source", &path, folder)?),
        _ => return Err(Wrong::new(span, "a base has either `package` or `path`")),
    };
    let config = files("a config fragment", &raw.config, folder)?;
    known_bugs(&raw.bugs, bugs)?;
    known_bugs(&raw.immune, bugs)?;
    if let Some(bug) = raw.immune.iter().find(|bug| raw.bugs.iter().any(|has| has.get_ref() == bug.get_ref())) {
        let message = format!("the base has the bug `{}` itself, so it cannot be immune to it", bug.get_ref());
        return Err(Wrong::new(bug.span(), message));
    }
    let ids = |bugs: Vec<Spanned<String>>| bugs.into_iter().map(Spanned::into_inner).collect();
    Ok(Base {
        name: raw.name.into_inner(),
        source,
        config,
        asked: Vec::new(),
        bugs: ids(raw.bugs),
        immune: ids(raw.immune),
    })
}

fn profile(raw: RawProfile, folder: &Path) -> Result<Profile, Wrong> {
    let config = files("a config fragment", &raw.config, folder)?;
    if raw.slower == 0 {
        return Err(Wrong::new(raw.name.span(), "`slower` of a profile must be at least 1"));
    }
    if raw.known.iter().any(|known| known.says.is_empty()) {
        return Err(Wrong::new(raw.name.span(), "`says` of a `known` report must have at least one text"));
    }
    let RawProfile { name, about, memory_mib, slower, known, .. } = raw;
    Ok(Profile { name: name.into_inner(), about, config, memory_mib, slower, known })
}

/// Checks that a bug has a way to fail, and that the profiles which it names exist.
fn shows_somewhere(bug: &Spanned<Bug>, profiles: &[Profile]) -> Result<(), Wrong> {
    let Bug { fails, under, .. } = bug.get_ref();
    if fails.is_empty() && under.is_empty() {
        return Err(Wrong::new(
            bug.span(),
            "missing key `fails`; a bug that only shows under a profile has the key `under` instead",
        ));
    }
    let known = || profiles.iter().map(|profile| profile.name.as_str());
    match under.keys().find(|name| !known().any(|known| known == name.as_str())) {
        Some(name) => Err(Wrong::new(bug.span(), Unknown::new("profile", name, known()).to_string())),
        None => Ok(()),
    }
}

/// Checks that only a bug that is a deadlock says how that is proven, and that it does not also say that it is not.
fn may_be_proven(bug: &Spanned<Bug>) -> Result<(), Wrong> {
    let Bug { cycles, unproven, .. } = bug.get_ref();
    let wrong = |message| Err(Wrong::new(bug.span(), message));
    match (cycles.is_empty(), unproven) {
        (true, None) => Ok(()),
        _ if !bug.get_ref().deadlocks() => wrong("`cycles` and `unproven` are for bugs that show as a deadlock"),
        (false, Some(_)) => wrong("`unproven` says why there are no `cycles`, and this bug has some"),
        _ if cycles.iter().any(Vec::is_empty) => wrong("each of the `cycles` has at least one wait"),
        _ => Ok(()),
    }
}

/// The variant on each of its bases. On the first base it has its plain name. On the others, the name of the base is
/// added.
fn variants_of(raw: &RawVariant, bases: &[Base], bugs: &[&str], folder: &Path) -> Result<Vec<Variant>, Wrong> {
    let wanted = match (&raw.base, raw.bases.as_slice()) {
        (Some(base), []) => std::slice::from_ref(base),
        (None, several @ [_, ..]) => several,
        _ => return Err(Wrong::new(raw.name.span(), "a variant has either `base` or `bases`")),
    };
    unique("mention of the base", wanted)?;
    known_bugs(&raw.fixes, bugs)?;
    known_bugs(&raw.bugs, bugs)?;
    if let Some(bug) = raw.fixes.iter().chain(&raw.bugs).next()
        && raw.patches.is_empty()
        && raw.config.is_empty()
    {
        let message = "a variant without `patches` and `config` has exactly the bugs of its base, so it has neither \
                       `fixes` nor `bugs`";
        return Err(Wrong::new(bug.span(), message));
    }
    let of_name = |name: &str| bases.iter().find(|base| base.name == name);
    let fixed_in_base: Vec<_> = raw.fixes.iter().filter(|bug| !raw.brings(bug.get_ref())).cloned().collect();
    has_what_it_fixes(&fixed_in_base, &wanted.iter().filter_map(|name| of_name(name.get_ref())).collect::<Vec<_>>())?;
    let on = |(number, wanted): (usize, &Spanned<String>)| {
        let unknown = || missing("base", wanted, bases.iter().map(|base| base.name.as_str()));
        let base = of_name(wanted.get_ref()).ok_or_else(unknown)?;
        let suffix = if number == 0 { String::new() } else { format!("-{}", base.name) };
        let (bugs, concerns) = effective(base, raw)?;
        Ok(Variant {
            name: format!("{}{suffix}", raw.name.get_ref()),
            about: raw.about.clone(),
            base: base.name.clone(),
            patches: files("a patch", &raw.patches, folder)?.into_iter().map(|patch| of_base(patch, base)).collect(),
            config: files("a config fragment", &raw.config, folder)?,
            bugs,
            concerns,
            known: true,
        })
    };
    wanted.iter().enumerate().map(on).collect()
}

/// Checks that at least one of the bases of a variant has each bug that the variant fixes.
fn has_what_it_fixes(fixes: &[Spanned<String>], bases: &[&Base]) -> Result<(), Wrong> {
    let has = |bug: &str| bases.iter().any(|base| base.bugs.iter().any(|other| other == bug));
    let (Some(bug), [first, ..]) = (fixes.iter().find(|bug| !has(bug.get_ref())), bases) else { return Ok(()) };
    let near = near(bug.get_ref(), first.bugs.iter().map(String::as_str));
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let bug_name = bug.get_ref();
    let message = match bases {
        [only] => format!("the base `{}` has no bug `{bug_name}` to fix{hint}", only.name),
        several => {
            let names = several.iter().map(|base| format!("`{}`", base.name)).collect::<Vec<_>>().join(" and ");
            format!("none of the bases {names} has the bug `{bug_name}` to fix{hint}")
        }
    };
    Err(Wrong::new(bug.span(), message))
}

/// The patch for a base. If there is a patch of the same name in a folder named after the base, that one is for the
/// base.
fn of_base(patch: PathBuf, base: &Base) -> PathBuf {
    let own = patch.file_name().map(|name| patch.with_file_name(&base.name).join(name));
    own.filter(|own| own.is_file()).unwrap_or(patch)
}

/// The bugs that a variant of a base has, and the bugs that it fixes or adds. Another base of the variant may have a bug
/// that this one does not have: there is nothing to fix here.
fn effective(base: &Base, raw: &RawVariant) -> Result<(Vec<String>, Vec<String>), Wrong> {
    if let Some(bug) = raw.bugs.iter().find(|bug| base.bugs.contains(bug.get_ref())) {
        let message = format!("the base `{}` has the bug `{}` already", base.name, bug.get_ref());
        return Err(Wrong::new(bug.span(), message));
    }
    let has = |bug: &&String| base.bugs.contains(bug) || raw.brings(bug);
    let fixed: Vec<_> = raw.fixes.iter().map(Spanned::get_ref).filter(has).collect();
    let added = raw.bugs.iter().map(Spanned::get_ref).filter(|bug| !base.immune.contains(bug));
    let bugs = base.bugs.iter().chain(added.clone()).filter(|bug| !fixed.contains(bug)).cloned().collect();
    let added = added.filter(|bug| !fixed.contains(bug));
    Ok((bugs, fixed.iter().copied().chain(added).cloned().collect()))
}

/// Checks that each bug of a list exists, and that none is named twice.
fn known_bugs(named: &[Spanned<String>], known: &[&str]) -> Result<(), Wrong> {
    match named.iter().find(|bug| !known.contains(&bug.get_ref().as_str())) {
        Some(bug) => Err(missing("bug", bug, known.iter().copied())),
        None => unique("mention of the bug", named),
    }
}

fn missing<'a>(kind: &'static str, name: &Spanned<String>, known: impl Iterator<Item = &'a str>) -> Wrong {
    Wrong::new(name.span(), Unknown::new(kind, name.get_ref(), known).to_string())
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
    // serde says "field" for a key and "variant" for a value; in this file, a variant is something else.
    let mut message = error.message().to_owned();
    for (theirs, ours) in
        [("unknown field", "unknown key"), ("missing field", "missing key"), ("unknown variant", "unknown value")]
    {
        message = message.replace(theirs, ours);
    }
    // "unknown key `a`, expected one of `b`, `c`": the allowed keys are quoted after the unknown one.
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
mod tests;
