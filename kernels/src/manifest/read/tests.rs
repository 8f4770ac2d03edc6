//! Reads a small manifest, and the same manifest with one mistake at a time.

use std::fs;

use super::*;
use crate::bug::Chance;

const GOOD: &str = r#"
[[base]]
name = "6.12"
package = "linux-source-6.12"
config = ["a.config"]
bugs = ["hangs", "lies"]

[[variant]]
name = "stock"
about = "as it is"
base = "6.12"

[[variant]]
name = "fixed"
about = "without the bug"
base = "6.12"
patches = ["fix.patch"]
fixes = ["hangs"]
bugs = ["splats"]

[[bug]]
id = "hangs"
title = "It hangs"
fails = { kind = "deadlock", function = "show" }

[[bug]]
id = "lies"
title = "It lies"
fails = { kind = "stale-read", function = "show" }

[[bug]]
id = "splats"
title = "It splats, or it hangs"
fails = [{ kind = "kernel-splat", function = "store" }, { kind = "deadlock", function = "store" }]
chance = "window"
"#;

fn load(text: &str) -> Result<Manifest, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("kernels.toml", text), ("a.config", ""), ("fix.patch", "")] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    Manifest::load(folder.path())
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

/// The error after one replacement in [`GOOD`].
fn error(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from));
    load(&GOOD.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn a_good_manifest_is_read() {
    let manifest = load(GOOD).unwrap();
    assert_eq!(manifest.variants[1].patches.len(), 1);
    assert!(manifest.variants[1].patches[0].is_absolute());
    assert_eq!(manifest.base("6.12").unwrap().bugs, ["hangs", "lies"]);
    assert_eq!(
        manifest.bases[0].source,
        Source::Package(Package { name: "linux-source-6.12".to_owned(), suite: None })
    );
}

#[test]
fn a_package_may_name_its_suite() {
    const PACKAGE: &str = "package = \"linux-source-6.12\"";
    let with = |line: &str| load(&GOOD.replacen(PACKAGE, line, 1));
    let manifest = with("package = \"linux-source-7.3\"\nsuite = \"trixie-backports\"").unwrap();
    let Source::Package(package) = &manifest.bases[0].source else { panic!("no package") };
    assert_eq!(package.to_string(), "linux-source-7.3 of trixie-backports");
    let error = |line: &str| with(line).unwrap_err();
    insta::assert_snapshot!(error("path = \"a.config\"\nsuite = \"sid\""), @"kernels.toml:5:9: `suite` says where a `package` is, and this base has a `path`");
    insta::assert_snapshot!(error("suite = \"sid\""), @"kernels.toml:2:1: a base has either `package` or `path`");
    insta::assert_snapshot!(error("package = \"p\"\nsuite = \"sid main\""), @"kernels.toml:5:9: `sid main` cannot be the name of a suite: use ASCII letters, digits, `.`, `_` and `-`, and begin with a letter or a digit");
}

#[test]
fn a_variant_has_the_bugs_of_its_base_without_what_it_fixes_and_with_what_it_adds() {
    let manifest = load(GOOD).unwrap();
    let stock = manifest.variant("stock").unwrap();
    let fixed = manifest.variant("fixed").unwrap();
    assert_eq!((stock.bugs.clone(), stock.concerns.len()), (manifest.base("6.12").unwrap().bugs.clone(), 0));
    assert_eq!(fixed.bugs, ["lies", "splats"]);
    assert_eq!(fixed.concerns, ["hangs", "splats"]);
}

const PROFILE: &str = r#"
[[profile]]
name = "debug"
about = "says more"
config = ["a.config"]
slower = 2
known = [{ says = ["one lock", "another lock"], why = "it is harmless" }]

[[bug]]
id = "hides"
title = "It shows under a profile alone"
under.debug = { kind = "kernel-splat", function = "store" }
"#;

#[test]
fn a_profile_gives_all_kernels_another_configuration_and_another_name() {
    let plain = load(&format!("{GOOD}{PROFILE}")).unwrap();
    assert_eq!(plain.profile, None);
    let under = plain.clone().under("debug").unwrap();
    let names: Vec<_> = under.variants.iter().map(|variant| variant.name.as_str()).collect();
    assert_eq!(names, ["stock+debug", "fixed+debug"]);
    assert_eq!(crate::profile::split_profile(names[0]), ("stock", Some("debug")));
    assert_eq!((plain.bases[0].config.len(), under.bases[0].config.len()), (1, 2));
    let known = &under.profile.unwrap().known[0];
    assert!(known.is("held: another lock\nwanted: one lock") && !known.is("held: one lock"));
    assert_eq!(plain.under("debgu").unwrap_err().to_string(), "there is no profile `debgu`; did you mean `debug`?");
}

#[test]
fn a_bug_may_show_in_another_way_under_a_profile_or_only_under_one() {
    let manifest = load(&format!("{GOOD}{PROFILE}")).unwrap();
    let hangs = manifest.bug("hangs").unwrap();
    let hides = manifest.bug("hides").unwrap();
    assert_eq!(hangs.ways(Some("debug")), hangs.fails);
    assert_eq!((hides.ways(None).len(), hides.ways(Some("debug")).len()), (0, 1));
    assert_eq!(hides.shows_as(), "under debug: kernel-splat at store");
    let error = |from: &str, to: &str| load(&format!("{GOOD}{}", PROFILE.replacen(from, to, 1))).unwrap_err();
    insta::assert_snapshot!(error("under.debug = { kind = \"kernel-splat\", function = \"store\" }", ""), @"kernels.toml:44:1: missing key `fails`; a bug that only shows under a profile has the key `under` instead");
    insta::assert_snapshot!(error("under.debug", "under.debgu"), @"kernels.toml:44:1: there is no profile `debgu`; did you mean `debug`?");
    insta::assert_snapshot!(error("slower = 2", "slower = 0"), @"kernels.toml:38:8: `slower` of a profile must be at least 1");
    insta::assert_snapshot!(error("[\"one lock\", \"another lock\"]", "[]"), @"kernels.toml:38:8: `says` of a `known` report must have at least one text");
}

#[test]
fn a_deadlock_says_which_cycle_proves_it_or_why_none_does() {
    let with = |bug: &str, lines: &str| {
        let title = format!("title = \"{bug}\"");
        load(&GOOD.replacen(&title, &format!("{title}\n{lines}"), 1))
    };
    let cycles = "cycles = [[\"a waits in f for l\", \"b waits in g for m\"]]";
    assert_eq!(with("It hangs", cycles).unwrap().bug("hangs").unwrap().cycles[0].len(), 2);
    let unproven = "unproven = \"nobody says so\"";
    assert!(with("It hangs", unproven).unwrap().bug("hangs").unwrap().unproven.is_some());
    let error = |bug, lines: &str| with(bug, lines).unwrap_err();
    insta::assert_snapshot!(error("It lies", cycles), @"kernels.toml:26:1: `cycles` and `unproven` are for bugs that show as a deadlock");
    insta::assert_snapshot!(error("It hangs", &format!("{cycles}\n{unproven}")), @"kernels.toml:21:1: `unproven` says why there are no `cycles`, and this bug has some");
    insta::assert_snapshot!(error("It hangs", "cycles = [[]]"), @"kernels.toml:21:1: each of the `cycles` has at least one wait");
}

/// [`GOOD`] with a second base and the variants on both, in a folder with a patch for that base alone.
fn on_two_bases(text: &str) -> (tempfile::TempDir, Result<Manifest, ManifestError>) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("6.1")).unwrap();
    let older = "[[base]]\nname = \"6.1\"\npackage = \"linux-source-6.1\"\nconfig = []\nbugs = [\"hangs\"]\n";
    let text = text.replace("base = \"6.12\"", "bases = [\"6.12\", \"6.1\"]") + older;
    for (name, content) in [("kernels.toml", text.as_str()), ("a.config", ""), ("fix.patch", ""), ("6.1/fix.patch", "")]
    {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let manifest = Manifest::load(folder.path());
    (folder, manifest)
}

#[test]
fn a_variant_may_have_several_bases() {
    let (folder, manifest) = on_two_bases(GOOD);
    let manifest = manifest.unwrap();
    let names: Vec<_> = manifest.variants.iter().map(|v| (v.name.as_str(), v.base.as_str())).collect();
    assert_eq!(names, [("stock", "6.12"), ("stock-6.1", "6.1"), ("fixed", "6.12"), ("fixed-6.1", "6.1")]);
    let older = manifest.variant("fixed-6.1").unwrap();
    assert_eq!(older.bugs, ["splats"], "6.1 does not lie");
    assert_eq!(older.patches, [folder.path().join("6.1/fix.patch")]);
    assert_eq!(manifest.variant("fixed").unwrap().patches, [folder.path().join("fix.patch")]);
}

/// A later version may have fixed one of the bugs already.
#[test]
fn one_of_several_bases_may_lack_a_bug_that_the_variant_fixes() {
    let fixes = |bugs: &str| on_two_bases(&GOOD.replace("fixes = [\"hangs\"]", &format!("fixes = [{bugs}]"))).1;
    let manifest = fixes("\"hangs\", \"lies\"").unwrap();
    assert_eq!(manifest.variant("fixed-6.1").unwrap().bugs, ["splats"]);
    assert_eq!(manifest.variant("fixed-6.1").unwrap().concerns, ["hangs", "splats"]);
    assert_eq!(manifest.variant("fixed").unwrap().concerns, ["hangs", "lies", "splats"]);
    let error = fixes("\"hangs\", \"splats\"").unwrap_err().to_string();
    assert!(error.ends_with("none of the bases `6.12` and `6.1` has the bug `splats` to fix"), "{error}");
}

#[test]
fn an_immune_base_does_not_get_the_bug_that_a_patch_adds_to_others() {
    let (_folder, manifest) = on_two_bases(GOOD);
    assert_eq!(manifest.unwrap().variant("fixed-6.1").unwrap().concerns, ["hangs", "splats"]);
    let older = |immune: &str| {
        let (folder, _) = on_two_bases(GOOD);
        let path = folder.path().join("kernels.toml");
        fs::write(&path, fs::read_to_string(&path).unwrap() + &format!("immune = [\"{immune}\"]\n")).unwrap();
        Manifest::load(folder.path()).map_err(|error| error.to_string())
    };
    let manifest = older("splats").unwrap();
    let bugs = |name: &str| manifest.variant(name).unwrap().bugs.clone();
    assert_eq!((bugs("fixed"), bugs("fixed-6.1")), (vec!["lies".to_owned(), "splats".to_owned()], Vec::new()));
    assert_eq!(manifest.variant("fixed-6.1").unwrap().concerns, ["hangs"]);
    assert!(older("hangs").unwrap_err().ends_with("the base has the bug `hangs` itself, so it cannot be immune to it"));
    assert!(older("splat").unwrap_err().ends_with("there is no bug `splat`; did you mean `splats`?"));
}

#[test]
fn the_names_that_several_bases_give_are_unique_too() {
    let (_folder, manifest) = on_two_bases(&GOOD.replace("\"fixed\"", "\"stock-6.1\""));
    assert!(manifest.unwrap_err().to_string().ends_with("a second variant `stock-6.1`: names are unique"));
    insta::assert_snapshot!(error("base = \"6.12\"", "bases = [\"6.12\", \"6.12\"]"), @"kernels.toml:11:18: a second mention of the base `6.12`: names are unique");
    insta::assert_snapshot!(error("base = \"6.12\"", "base = \"6.12\"\nbases = [\"6.12\"]"), @"kernels.toml:9:8: a variant has either `base` or `bases`");
    insta::assert_snapshot!(error("base = \"6.12\"\n", ""), @"kernels.toml:9:8: a variant has either `base` or `bases`");
}

#[test]
fn a_variant_fixes_only_bugs_of_its_base_and_adds_only_others() {
    insta::assert_snapshot!(error("fixes = [\"hangs\"]", "fixes = [\"splats\"]"), @"kernels.toml:18:10: the base `6.12` has no bug `splats` to fix");
    insta::assert_snapshot!(error("fixes = [\"hangs\"]", "fixes = [\"hang\"]"), @"kernels.toml:18:10: there is no bug `hang`; did you mean `hangs`?");
    insta::assert_snapshot!(error("bugs = [\"splats\"]", "bugs = [\"lies\"]"), @"kernels.toml:19:9: the base `6.12` has the bug `lies` already");
    insta::assert_snapshot!(error("bugs = [\"splats\"]", "bugs = [\"hangs\"]"), @"kernels.toml:19:9: the base `6.12` has the bug `hangs` already");
    insta::assert_snapshot!(error("patches = [\"fix.patch\"]\n", ""), @"kernels.toml:17:10: a variant without `patches` and `config` has exactly the bugs of its base, so it has neither `fixes` nor `bugs`");
}

#[test]
fn a_variant_fixes_what_its_own_configuration_brings() {
    let with = |lines: &str| load(&GOOD.replace("fixes = [\"hangs\"]\nbugs = [\"splats\"]\n", lines));
    let manifest = with("config = [\"a.config\"]\nfixes = [\"splats\"]\nbugs = [\"splats\"]\n").unwrap();
    let fixed = manifest.variant("fixed").unwrap();
    assert_eq!(
        (fixed.bugs.as_slice(), fixed.concerns.as_slice()),
        (&words(&["hangs", "lies"])[..], &words(&["splats"])[..])
    );
    assert!(fixed.config[0].ends_with("a.config") && !fixed.is_plain());
    let brought = with("config = [\"a.config\"]\nbugs = [\"splats\"]\n").unwrap();
    assert_eq!(brought.variant("fixed").unwrap().bugs, ["hangs", "lies", "splats"]);
    insta::assert_snapshot!(with("config = [\"b.config\"]\n").unwrap_err(), @"kernels.toml:18:11: a config fragment that does not exist: b.config");
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn a_bug_fails_in_one_way_or_in_one_of_several() {
    let manifest = load(GOOD).unwrap();
    let bug = |id: &str| manifest.bug(id).unwrap().clone();
    assert_eq!((bug("hangs").shows_as().as_str(), bug("hangs").chance), ("deadlock at show", Chance::Certain));
    assert_eq!(bug("splats").shows_as(), "kernel-splat at store or deadlock at store");
    assert_eq!(bug("splats").chance, Chance::Window);
    insta::assert_snapshot!(error("fails = { kind = \"stale-read\", function = \"show\" }", "fails = []"), @"kernels.toml:29:9: invalid length 0, expected at least one way to fail");
    insta::assert_snapshot!(error("fails = { kind = \"stale-read\", function = \"show\" }", "fails = \"stale-read\""), @r#"kernels.toml:29:9: invalid type: string "stale-read", expected a table with `kind` and `function`, or a list of such tables"#);
    insta::assert_snapshot!(error("{ kind = \"deadlock\", function = \"store\" }]", "{ kind = \"deadlock\" }]"), @"kernels.toml:34:57: missing key `function`");
    insta::assert_snapshot!(error("\"window\"", "\"often\""), @"kernels.toml:35:10: unknown value `often`, expected one of `certain`, `window`, `random`, `rare`");
}

#[test]
fn unknown_keys_are_refused() {
    insta::assert_snapshot!(error("about = \"as", "abuot = \"as"), @"kernels.toml:10:1: unknown key `abuot`, expected one of `name`, `about`, `base`, `bases`, `patches`, `config`, `fixes`, `bugs`; did you mean `about`?");
    insta::assert_snapshot!(error("[[base]]", "[[bases]]"), @"kernels.toml:2:3: unknown key `bases`, expected one of `base`, `variant`, `bug`, `profile`, `own`, `selftests`; did you mean `base`?");
    insta::assert_snapshot!(error("package =", "url = \"x\"\npackage ="), @"kernels.toml:4:1: unknown key `url`, expected one of `name`, `package`, `suite`, `path`, `config`, `bugs`, `immune`");
}

#[test]
fn malformed_toml_and_wrong_types_are_refused() {
    insta::assert_snapshot!(error("name = \"stock\"", "name = stock"), @"kernels.toml:9:8: string values must be quoted, expected literal string");
    insta::assert_snapshot!(error("[\"fix.patch\"]", "\"fix.patch\""), @r#"kernels.toml:17:11: invalid type: string "fix.patch", expected a sequence"#);
    insta::assert_snapshot!(error("about = \"as it is\"\n", ""), @"kernels.toml:8:1: missing key `about`");
    insta::assert_snapshot!(error("\"deadlock\"", "\"dead-lock\""), @"kernels.toml:24:18: unknown value `dead-lock`, expected one of `deadlock`, `blocked`, `stale-read`, `lost-event`, `kernel-splat`, `wrong-state`");
}

#[test]
fn references_to_missing_things_are_refused() {
    insta::assert_snapshot!(error("base = \"6.12\"", "base = \"6.1\""), @"kernels.toml:11:8: there is no base `6.1`; did you mean `6.12`?");
    insta::assert_snapshot!(error("[\"hangs\", ", "[\"hang\", "), @"kernels.toml:6:9: there is no bug `hang`; did you mean `hangs`?");
    insta::assert_snapshot!(error("fix.patch", "fux.patch"), @"kernels.toml:17:12: a patch that does not exist: fux.patch");
    insta::assert_snapshot!(error("a.config", "b.config"), @"kernels.toml:5:11: a config fragment that does not exist: b.config");
}

#[test]
fn names_are_unique() {
    insta::assert_snapshot!(error("\"fixed\"", "\"stock\""), @"kernels.toml:14:8: a second variant `stock`: names are unique");
    insta::assert_snapshot!(error("\"lies\"]", "\"hangs\"]"), @"kernels.toml:6:18: a second mention of the bug `hangs`: names are unique");
    let twice = format!(
        "{GOOD}[[bug]]\nid = \"hangs\"\ntitle = \"\"\nfails = {{ kind = \"deadlock\", function = \"show\" }}\n"
    );
    insta::assert_snapshot!(load(&twice).unwrap_err(), @"kernels.toml:36:1: a second bug `hangs`: names are unique");
}

#[test]
fn names_with_other_characters_are_refused() {
    insta::assert_snapshot!(error("\"fixed\"", "\"../fixed\""), @"kernels.toml:14:8: `../fixed` cannot be the name of a variant: use ASCII letters, digits, `.`, `_` and `-`, and begin with a letter or a digit");
    insta::assert_snapshot!(error("\"fixed\"", "\"a::b\""), @"kernels.toml:14:8: `a::b` cannot be the name of a variant: use ASCII letters, digits, `.`, `_` and `-`, and begin with a letter or a digit");
    insta::assert_snapshot!(error("\"fixed\"", "\"\""), @"kernels.toml:14:8: `` cannot be the name of a variant: use ASCII letters, digits, `.`, `_` and `-`, and begin with a letter or a digit");
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
    /// The line and column of every error are within the file.
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
