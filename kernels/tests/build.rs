//! Whole builds of a tiny source tree that has the make targets of a kernel.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use kernels::cache::Cache;
use kernels::shared::SharedShelf;
use kernels::{BuildError, BuildEvent, Builder, CancelToken, KernelImage, Manifest, Step};
use tempfile::TempDir;

const MAKEFILE: &str = "\
tinyconfig:
\t@echo CONFIG_TINY=y > $(O)/.config
olddefconfig:
\t@sed -i /CONFIG_REFUSED/d $(O)/.config
vmlinux: $(O)/vmlinux
\t@mkdir -p $(O)/include/config
\t@nm $(O)/vmlinux > $(O)/System.map
\t@echo 6.12.0 > $(O)/include/config/kernel.release
$(O)/vmlinux: show.c slow $(O)/.config
\t@echo '  CC      show.o'
\t@sleep $$(cat slow)
\t@gcc -c $$(sed -n s/CONFIG_DEFINE_//p $(O)/.config | sed s/^/-D/) $(CURDIR)/show.c -o $@
";

const MANIFEST: &str = r#"
[[base]]
name = "tiny"
path = "tree"
config = ["a.config"]
[[variant]]
name = "stock"
about = "as it is"
base = "tiny"
[[variant]]
name = "fixed"
about = "returns 1"
base = "tiny"
patches = ["fix.patch"]
[[variant]]
name = "reworded"
about = "another comment"
base = "tiny"
patches = ["comment.patch"]
[[variant]]
name = "further"
about = "has a variable more"
base = "tiny"
config = ["further.config"]
[[variant]]
name = "broken"
about = "does not compile"
base = "tiny"
patches = ["broken.patch"]
[[variant]]
name = "stale"
about = "does not apply"
base = "tiny"
patches = ["stale.patch"]
"#;

struct Bench(TempDir);

impl Bench {
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        fs::create_dir_all(bench.path("tree/scripts/kconfig")).unwrap();
        for (name, content) in [
            ("tree/Kbuild", ""),
            ("tree/scripts/kconfig/conf.c", ""),
            ("tree/slow", "0"),
            ("tree/Makefile", MAKEFILE),
            ("tree/show.c", "/* words */\nint show(void)\n{\n\treturn 0;\n}\n#ifdef MORE\nint more;\n#endif\n"),
            ("kernels.toml", MANIFEST),
            ("a.config", "CONFIG_A=y\n"),
            ("further.config", "CONFIG_A=n\nCONFIG_DEFINE_MORE=y\n"),
            ("fix.patch", &change("\treturn 0;", "\treturn 1;")),
            ("broken.patch", &change("\treturn 0;", "\treturn nothing;")),
            ("stale.patch", &change("\treturn 5;", "\treturn 1;")),
            (
                "comment.patch",
                "--- a/show.c\n+++ b/show.c\n@@ -1,2 +1,2 @@\n-/* words */\n+/* others */\n int show(void)\n",
            ),
        ] {
            bench.write(name, content);
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn builder(&self) -> Builder {
        Builder::new(Manifest::load(self.0.path()).unwrap(), Cache::at(self.path("cache")))
    }

    /// Builds; returns the result and the steps it took.
    fn build(&self, variant: &str) -> (Result<KernelImage, BuildError>, Vec<Step>) {
        let steps = Mutex::new(Vec::new());
        let observer = |event| {
            if let BuildEvent::Step { step, .. } = event {
                steps.lock().unwrap().push(step);
            }
        };
        let result = self.builder().build(variant, &observer, &CancelToken::new());
        (result, steps.into_inner().unwrap())
    }

    fn error(&self, variant: &str) -> String {
        let error = self.build(variant).0.unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }

    fn works(&self) -> Vec<PathBuf> {
        let trees = fs::read_dir(self.path("cache/trees")).unwrap();
        trees.map(|entry| entry.unwrap().path().join("work")).collect()
    }
}

fn change(from: &str, to: &str) -> String {
    format!("--- a/show.c\n+++ b/show.c\n@@ -2,4 +2,4 @@\n int show(void)\n {{\n-{from}\n+{to}\n }}\n")
}

#[test]
fn a_variant_is_built_once_and_on_top_of_its_base() {
    use Step::{Collect, Compile, Configure, Patch, Prepare, Unpack};
    let bench = Bench::new();
    assert_eq!(bench.builder().find("stock"), None);

    let (stock, steps) = bench.build("stock");
    assert_eq!(steps, [Unpack, Prepare, Configure, Compile, Collect]);
    let (fixed, steps) = bench.build("fixed");
    assert_eq!(steps, [Prepare, Patch, Compile, Collect], "the configuration depends on nothing that it patches");
    let stock = stock.unwrap();
    let fixed = fixed.unwrap();
    assert_ne!(fs::read(&stock.vmlinux).unwrap(), fs::read(&fixed.vmlinux).unwrap());
    assert_eq!(fs::read_to_string(&fixed.config).unwrap(), "CONFIG_TINY=y\nCONFIG_A=y\n");
    assert_eq!((fixed.release.as_str(), fixed.base.as_str()), ("6.12.0", "tiny"));
    assert!(fixed.system_map.is_file() && fixed.build_log.is_file());
    let size = |file: &Path| fs::metadata(file).unwrap().len();
    assert!(size(&fixed.boot) < size(&fixed.vmlinux), "what is booted has symbols");

    let (again, steps) = bench.build("fixed");
    assert_eq!((again.unwrap(), steps), (fixed.clone(), vec![]));
    assert_eq!(bench.builder().find("fixed"), Some(fixed));
    assert!(!bench.works()[0].join("output").exists(), "the trees were not cleared");
    assert!(fs::read_to_string(bench.path("tree/show.c")).unwrap().contains("return 0"), "the user's tree was changed");
}

#[test]
fn a_variant_may_have_symbols_of_its_own() {
    use Step::{Collect, Compile, Configure, Patch, Prepare};
    let bench = Bench::new();
    let stock = bench.build("stock").0.unwrap();
    let (further, steps) = bench.build("further");
    assert_eq!(steps, [Prepare, Patch, Configure, Compile, Collect]);
    let further = further.unwrap();
    let config = fs::read_to_string(&further.config).unwrap();
    assert_eq!(config, "CONFIG_TINY=y\n# CONFIG_A is not set\nCONFIG_DEFINE_MORE=y\n");
    assert!(fs::read_to_string(&further.system_map).unwrap().contains(" more\n"));
    assert_eq!(bench.build("stock").0.unwrap(), stock, "the base has the symbols of the variant");

    bench.write("further.config", "CONFIG_REFUSED=y\n");
    assert!(bench.error("further").contains("CONFIG_REFUSED=y was asked for and is n"), "{}", bench.error("further"));
}

#[test]
fn every_ingredient_changes_the_key() {
    let bench = Bench::new();
    let key = || bench.build("fixed").0.unwrap().key;
    let first = key();
    bench.write("fix.patch", &change("\treturn 0;", "\treturn 2;"));
    let second = key();
    bench.write("a.config", "CONFIG_A=y\nCONFIG_B=y\n");
    let third = key();
    bench.write("tree/new.c", "");
    let fourth = key();
    let mut keys = vec![first, second, third, fourth.clone()];
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 4);
    // Comments and the order of lines do not change the key.
    bench.write("a.config", "# comment\nCONFIG_B=y\n\nCONFIG_A=y\n");
    assert_eq!(key(), fourth);
}

#[test]
fn errors_name_the_cause() {
    let bench = Bench::new();
    assert!(
        bench.error("broken").starts_with("does not compile: show.c:4: 'nothing' undeclared"),
        "{}",
        bench.error("broken")
    );
    insta::assert_snapshot!(bench.error("stale"), @"stale.patch does not apply: hunk 1 of 1 (`@@ -2,4 +2,4 @@`) does not fit show.c");
    insta::assert_snapshot!(bench.error("reworded"), @"the patches of reworded change nothing in the kernel that is built: they touch only comments, or code that this configuration leaves out");
    insta::assert_snapshot!(bench.error("fixt"), @"there is no kernel `fixt`; did you mean `fixed`?");
    bench.write("a.config", "CONFIG_REFUSED=y\n");
    insta::assert_snapshot!(bench.error("stock"), @r"
    the kernel's configuration refuses what was asked for:
      CONFIG_REFUSED=y was asked for and is n: this kernel has no such symbol
    ");
    fs::remove_file(bench.path("tree/Kbuild")).unwrap();
    insta::assert_snapshot!(bench.error("stock"), @"tree: this is no Linux kernel source: it has no Kbuild file or no scripts/kconfig");
}

#[test]
fn a_failed_build_leaves_its_log_and_nothing_else() {
    let bench = Bench::new();
    let error = bench.build("broken").0.unwrap_err();
    assert!(error.is_of_the_kernel());
    let BuildError::Compile { log, .. } = error else { panic!("{error}") };
    assert!(fs::read_to_string(log).unwrap().contains("undeclared"));
    assert_eq!(fs::read_dir(bench.path("cache/images")).unwrap().count(), 0);
    // The next build is not disturbed by the leftovers of the failed one.
    assert!(bench.works()[0].exists());
    bench.build("fixed").0.unwrap();
}

#[test]
fn a_killed_build_is_not_continued() {
    let bench = Bench::new();
    bench.build("stock").0.unwrap();
    let work = &bench.works()[0];
    fs::create_dir_all(work.join("output")).unwrap();
    fs::write(work.join("output/vmlinux"), "newer than everything, and wrong").unwrap();
    let image = bench.build("fixed").0.unwrap();
    assert!(fs::read(image.vmlinux).unwrap().starts_with(b"\x7fELF"));
}

#[test]
fn a_variant_does_not_have_the_patches_of_the_variant_before_it() {
    let bench = Bench::new();
    let new_file = "--- /dev/null\n+++ b/scripts/new/more.c\n@@ -0,0 +1 @@\n+int more;\n";
    bench.write("other.patch", &format!("{}{new_file}", change("\treturn 0;", "\treturn 2;")));
    let other = "[[variant]]\nname = \"other\"\nabout = \"\"\nbase = \"tiny\"\npatches = [\"other.patch\"]\n";
    bench.write("kernels.toml", &format!("{MANIFEST}{other}"));
    bench.build("stock").0.unwrap();
    let source = bench.works()[0].join("source");
    let folder = fs::metadata(&source).unwrap();
    let (other, steps) = bench.build("other");
    assert!(steps.contains(&Step::Configure), "it has a file in scripts: {steps:?}");
    let fixed = bench.build("fixed").0.unwrap();
    assert!(!source.join("scripts/new/more.c").exists() && source.join("show.c").exists());
    assert!(fs::read_to_string(source.join("show.c")).unwrap().contains("return 1"));
    let same = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&source).unwrap());
    assert_eq!(same, std::os::unix::fs::MetadataExt::ino(&folder), "the source tree was made again");

    // It is the same kernel as from a new source tree.
    let alone = Bench::new();
    let alone = alone.build("fixed").0.unwrap();
    assert_eq!(fs::read(fixed.vmlinux).unwrap(), fs::read(alone.vmlinux).unwrap());
    assert_ne!(fs::read(other.unwrap().boot).unwrap(), fs::read(alone.boot).unwrap());
}

#[test]
fn a_base_that_was_built_for_a_variant_does_not_keep_its_patches() {
    let bench = Bench::new();
    for variant in ["fixed", "stock"] {
        bench.build(variant).0.unwrap();
    }
    // If the source still had the fix, this variant would differ from the base.
    assert!(matches!(bench.build("reworded").0, Err(BuildError::NoEffect { .. })));
    bench.write("other.patch", &change("\treturn 0;", "\treturn 2;"));
    bench.write("kernels.toml", &MANIFEST.replace("stale.patch", "other.patch"));
    bench.build("stale").0.unwrap();
}

#[test]
fn cancelling_ends_a_build_soon() {
    let bench = Bench::new();
    bench.write("tree/slow", "1000");
    let cancel = CancelToken::new();
    let begun = Mutex::new(None);
    let observer = |event| {
        if matches!(event, BuildEvent::Objects { .. }) {
            *begun.lock().unwrap() = Some(Instant::now());
            cancel.cancel();
        }
    };
    let result = bench.builder().build("stock", &observer, &cancel);
    assert!(matches!(&result, Err(BuildError::Cancelled)), "{result:?}");
    assert!(!result.unwrap_err().is_of_the_kernel());
    assert!(begun.into_inner().unwrap().unwrap().elapsed() < Duration::from_secs(2));
    assert_eq!(bench.builder().find("stock"), None);
}

#[test]
fn builds_at_the_same_time_share_the_work() {
    let bench = Bench::new();
    let compiled = Mutex::new(0);
    std::thread::scope(|scope| {
        for variant in ["stock", "fixed", "stock", "fixed"] {
            let bench = &bench;
            let compiled = &compiled;
            scope.spawn(move || {
                let observer = |event| {
                    if matches!(event, BuildEvent::Step { step: Step::Compile, .. }) {
                        *compiled.lock().unwrap() += 1;
                    }
                };
                bench.builder().build(variant, &observer, &CancelToken::new()).unwrap();
            });
        }
    });
    assert_eq!(compiled.into_inner().unwrap(), 2);
}

#[test]
fn a_tarball_and_a_repository_are_sources_too() {
    let bench = Bench::new();
    let original = bench.build("stock").0.unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = std::process::Command::new(program).args(arguments).current_dir(bench.0.path()).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    };
    let source = |path: &str| bench.write("kernels.toml", &MANIFEST.replace("\"tree\"", &format!("\"{path}\"")));

    run("tar", &["-cJf", "tree.tar.xz", "tree"]);
    source("tree.tar.xz");
    let packed = bench.build("stock").0.unwrap();
    assert_eq!(fs::read(&packed.vmlinux).unwrap(), fs::read(&original.vmlinux).unwrap());

    source("tree");
    run("git", &["-C", "tree", "init", "-q"]);
    run("git", &["-C", "tree", "add", "."]);
    run("git", &["-C", "tree", "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "x"]);
    // `git status` writes the index again if a file's time has changed, unless it is told not to.
    fs::File::open(bench.path("tree/show.c")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let before = files(&bench.path("tree/.git"));
    let committed = bench.build("stock").0.unwrap();
    assert_eq!(committed.source.split(' ').next_back().unwrap().len(), 40, "{}", committed.source);
    bench.write("tree/show.c", "int show(void) { return 7; }\n");
    insta::assert_snapshot!(bench.error("stock"), @"tree: this tree has changes that are not committed: commit or stash them");
    assert_eq!(files(&bench.path("tree/.git")), before, "the user's repository was changed");
}

/// The steps of a build with a shelf into a cache of its own, and what was told of the shelf.
fn with_shelf(bench: &Bench, cache: &Path, shelf: &str, variant: &str) -> (KernelImage, Vec<Step>, Vec<String>) {
    let manifest = Manifest::load(bench.0.path()).unwrap();
    let builder = Builder::new(manifest, Cache::at(cache)).with_shelf(Some(Arc::new(SharedShelf::at(shelf))));
    let (steps, told) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let observer = |event: BuildEvent| match event {
        BuildEvent::Step { step, .. } => steps.lock().unwrap().push(step),
        BuildEvent::Shelf { what } => told.lock().unwrap().push(what),
        _ => {}
    };
    let image = builder.build(variant, &observer, &CancelToken::new()).unwrap();
    (image, steps.into_inner().unwrap(), told.into_inner().unwrap())
}

#[test]
fn a_kernel_on_the_shelf_is_not_compiled_again() {
    let (bench, folder) = (Bench::new(), tempfile::tempdir().unwrap());
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let place = folder.path().join("shelf");
    fs::create_dir(&place).unwrap();
    let shelf = format!("file://{}", place.display());
    let (built, steps, told) = with_shelf(&bench, &one, &shelf, "fixed");
    assert!(steps.contains(&Step::Compile));
    assert_eq!(told, [format!("put on {shelf}")]);
    let (taken, steps, told) = with_shelf(&bench, &other, &shelf, "fixed");
    assert!(!steps.contains(&Step::Compile) && !steps.contains(&Step::Patch), "{steps:?}");
    assert_eq!(told, [format!("taken from {shelf}")]);
    assert_eq!((built.key, fs::read(built.boot).unwrap()), (taken.key, fs::read(&taken.boot).unwrap()));
    // It is in the cache now.
    let (_, steps, told) = with_shelf(&bench, &other, &shelf, "fixed");
    assert!(steps.is_empty() && told.is_empty(), "{steps:?} {told:?}");
}

#[test]
fn a_shelf_that_fails_or_lies_costs_a_warning_and_a_build() {
    let (bench, folder) = (Bench::new(), tempfile::tempdir().unwrap());
    let place = folder.path().join("shelf");
    fs::create_dir(&place).unwrap();
    let shelf = format!("file://{}", place.display());
    with_shelf(&bench, &folder.path().join("one"), &shelf, "stock");
    for file in files(&place).into_keys() {
        fs::write(place.join(file), "garbled").unwrap();
    }
    let gone = format!("file://{}/gone", folder.path().display());
    for (number, shelf) in [(1, &shelf), (2, &gone)] {
        let (_, steps, told) = with_shelf(&bench, &folder.path().join(number.to_string()), shelf, "stock");
        assert!(steps.contains(&Step::Compile), "{steps:?}");
        assert!(told[0].starts_with("not from the shelf: "), "{told:?}");
    }
}

/// A web server for a folder, and its address. None if this machine has no Python.
fn web_server(folder: &Path) -> Option<(Child, String)> {
    let mut command = Command::new("python3");
    command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(folder).arg("0");
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut line = String::new();
    BufReader::new(server.stdout.take()?).read_line(&mut line).ok()?;
    let port = line.split("port ").nth(1)?.split(' ').next()?.to_owned();
    Some((server, format!("http://127.0.0.1:{port}")))
}

#[test]
fn a_server_that_dies_between_two_kernels_costs_one_warning() {
    let (bench, folder) = (Bench::new(), tempfile::tempdir().unwrap());
    let place = folder.path().join("shelf");
    fs::create_dir(&place).unwrap();
    let Some((mut server, url)) = web_server(&place) else {
        eprintln!("skipped: there is no Python to serve a shelf");
        return;
    };
    for variant in ["stock", "fixed", "further"] {
        with_shelf(&bench, &folder.path().join("one"), &format!("file://{}", place.display()), variant);
    }
    let told = Mutex::new(Vec::new());
    let compiled = Mutex::new(false);
    let observer = |event: BuildEvent| match event {
        BuildEvent::Step { step: Step::Compile, .. } => *compiled.lock().unwrap() = true,
        BuildEvent::Shelf { what } => told.lock().unwrap().push(what),
        _ => {}
    };
    let manifest = Manifest::load(bench.0.path()).unwrap();
    let cache = Cache::at(folder.path().join("other"));
    let builder = Builder::new(manifest, cache).with_shelf(Some(Arc::new(SharedShelf::at(&url))));
    let build = |variant: &str| {
        builder.build(variant, &observer, &CancelToken::new()).unwrap();
        (std::mem::take(&mut *told.lock().unwrap()), std::mem::take(&mut *compiled.lock().unwrap()))
    };
    let first = build("stock");
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(first, (vec![format!("taken from {url}")], false));
    let (told, compiled) = build("fixed");
    assert!(told.len() == 1 && told[0].starts_with("not from the shelf: cannot read images/"), "{told:?}");
    assert!(compiled);
    assert_eq!(build("further"), (Vec::new(), true), "it was asked again");
}

/// All files in and below a folder, with their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}
