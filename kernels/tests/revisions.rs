//! Builds of several revisions of a tiny repository that has the make targets of a kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kernels::cache::Cache;
use kernels::tree::Tree;
use kernels::{BuildError, BuildEvent, Builder, CancelToken, KernelImage, Manifest, Step, Variant};
use tempfile::TempDir;

/// Two objects. One of them depends on the configuration. The symbols are those in the file `known`.
const MAKEFILE: &str = "\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 0
tinyconfig:
\t@echo CONFIG_TINY=y > $(O)/.config
olddefconfig:
\t@grep -f known $(O)/.config > $(O)/.config.new; mv $(O)/.config.new $(O)/.config
vmlinux: $(O)/vmlinux
\t@mkdir -p $(O)/include/config
\t@nm $(O)/vmlinux > $(O)/System.map
\t@echo 6.12.0 > $(O)/include/config/kernel.release
$(O)/vmlinux: $(O)/show.o $(O)/other.o
\t@echo '  LD      vmlinux'
\t@ld -r -o $@ $^
$(O)/show.o: show.c
\t@echo '  CC      show.o'
\t@gcc -c show.c -o $@
$(O)/other.o: other.c $(O)/.config
\t@echo '  CC      other.o'
\t@test ! -e stuck || { echo half > $@; sleep 1000; }
\t@test ! -e $(O)/../../../../full || { echo half > $@; echo 'as: other.o: No space left on device'; exit 1; }
\t@gcc -c other.c -o $@
";

const MANIFEST: &str = r#"
[[base]]
name = "tiny"
path = "linux"
config = ["a.config"]
[[variant]]
name = "stock"
about = ""
base = "tiny"
[own]
config = ["a.config"]
needs = [{ symbols = ["A"], why = "for the cells" }]
[[profile]]
name = "more"
about = "more"
config = ["b.config"]
slower = 1
"#;

struct Bench(TempDir);

/// The result of a build, and what it did.
struct Built {
    image: Result<KernelImage, BuildError>,
    steps: Vec<Step>,
    objects: usize,
    dropped: Vec<String>,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        for (name, content) in [
            ("kernels.toml", MANIFEST),
            ("a.config", "CONFIG_A=y\n"),
            ("b.config", "CONFIG_B=y\n"),
            ("linux/Kbuild", ""),
            ("linux/Makefile", MAKEFILE),
            ("linux/scripts/kconfig/conf.c", ""),
            ("linux/known", "_A=\n_TINY=\n"),
            ("linux/other.c", "int other(void) { return 0; }\n"),
        ] {
            bench.write(name, content);
        }
        bench.write("linux/show.c", &show(0));
        bench.git("init -q -b master; git config user.name x; git config user.email x@example.org");
        bench.commit("zero");
        bench.write("linux/show.c", &show(1));
        bench.commit("one");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn git(&self, script: &str) {
        let mut shell = std::process::Command::new("sh");
        let status = shell.arg("-ec").arg(format!("git {script}")).current_dir(self.path("linux")).status();
        assert!(status.unwrap().success(), "{script}");
    }

    fn commit(&self, tag: &str) {
        self.git(&format!("add .; git commit -qm {tag}; git tag -f -m {tag} {tag}"));
    }

    fn manifest(&self, rev: &str, asked: &[PathBuf]) -> Manifest {
        let cancel = CancelToken::new();
        let mut manifest = Manifest::load(self.0.path()).unwrap();
        let tree = Tree::open(&self.path("linux"), &cancel).unwrap();
        manifest.add_revision(rev, tree.revision(rev, &cancel).unwrap(), asked);
        manifest
    }

    fn build_of(&self, manifest: Manifest, variant: &str, cancel: &CancelToken) -> Built {
        let seen = Mutex::new((Vec::new(), 0, Vec::new()));
        let observer = |event| {
            let (steps, objects, dropped) = &mut *seen.lock().unwrap();
            match event {
                BuildEvent::Step { step, .. } => steps.push(step),
                BuildEvent::Objects { done, .. } => *objects = done,
                BuildEvent::Dropped { unmet } => dropped.extend(unmet.into_iter().map(|one| one.symbol)),
                _ => {}
            }
            if self.path("linux/stuck").exists() && *objects == 2 {
                cancel.cancel();
            }
        };
        let builder = Builder::new(manifest, Cache::at(self.path("cache")));
        let image = builder.build(variant, &observer, cancel);
        let (steps, objects, dropped) = seen.into_inner().unwrap();
        Built { image, steps, objects, dropped }
    }

    fn build(&self, rev: &str) -> Built {
        self.build_of(self.manifest(rev, &[]), rev, &CancelToken::new())
    }

    fn error(&self, built: Built) -> String {
        built.image.unwrap_err().to_string().replace(&self.0.path().display().to_string(), "~")
    }
}

fn show(number: u8) -> String {
    format!("int show(void)\n{{\n\treturn {number};\n}}\n")
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn only_changed_objects_are_built() {
    use Step::{Collect, Compile, Configure, Prepare};
    let bench = Bench::new();
    let zero = bench.build("zero");
    assert_eq!((zero.steps, zero.objects), (vec![Prepare, Configure, Compile, Collect], 3));
    let one = bench.build("one");
    assert_eq!((one.steps, one.objects), (vec![Prepare, Compile, Collect], 2));
    let (zero, one) = (zero.image.unwrap(), one.image.unwrap());
    assert_ne!(bytes(&zero.boot), bytes(&one.boot));
    assert!(one.source.contains("linux one (") && one.source.ends_with(')'), "{}", one.source);
    let again = bench.build("one");
    assert!(again.steps.is_empty() && again.image.unwrap() == one);

    // It is the same kernel as from new trees.
    fs::remove_dir_all(bench.path("cache/outputs")).unwrap();
    fs::remove_dir_all(bench.path("cache/images")).unwrap();
    let alone = bench.build("one");
    assert_eq!(alone.objects, 3);
    assert_eq!(bytes(&alone.image.unwrap().boot), bytes(&one.boot));
}

#[test]
fn commits_with_the_same_files_share_a_kernel() {
    let bench = Bench::new();
    let one = bench.build("one").image.unwrap();
    bench.git("commit -q --allow-empty -m words; git tag words");
    let words = bench.build("words");
    assert!(words.steps.is_empty());
    let words = words.image.unwrap();
    assert_eq!((&words.key, words.source == one.source), (&one.key, false));
    bench.git("checkout -q zero; echo dirt > show.c");
    assert_eq!(bench.build("zero").objects, 2, "changed files in the user's checkout are not built");
}

#[test]
fn unknown_symbols_are_left_out_unless_cells_need_them() {
    let bench = Bench::new();
    bench.write("a.config", "CONFIG_A=y\nCONFIG_NEW=y\n");
    let built = bench.build("one");
    assert_eq!(built.dropped, ["NEW"]);
    built.image.unwrap();
    bench.write("mine.config", "CONFIG_MINE=y\n");
    let asked = bench.manifest("one", &[bench.path("mine.config")]);
    insta::assert_snapshot!(bench.error(bench.build_of(asked, "one", &CancelToken::new())), @r"
    Linux 6.12.0 cannot be configured as cells need it:
      CONFIG_MINE=y was asked for and is n: this kernel has no such symbol
        (a fragment of yours asks for it)
    ");
    bench.write("linux/known", "_TINY=\n");
    bench.write("linux/Makefile", &MAKEFILE.replace("SUBLEVEL = 0", "SUBLEVEL = 7"));
    bench.commit("poor");
    insta::assert_snapshot!(bench.error(bench.build("poor")), @r"
    Linux 6.12.7 cannot be configured as cells need it:
      CONFIG_A=y was asked for and is n: this kernel has no such symbol
        (for the cells)
    ");
    assert!(bench.build("poor").image.unwrap_err().is_of_the_kernel());
    bench.build("zero").image.unwrap();
}

#[test]
fn each_configuration_has_an_output_tree() {
    let bench = Bench::new();
    bench.write("linux/known", "_A=\n_B=\n_TINY=\n");
    bench.commit("two");
    bench.build("two").image.unwrap();
    let under = |rev: &str| bench.manifest(rev, &[]).under("more").unwrap();
    let debug = bench.build_of(under("two"), "two+more", &CancelToken::new());
    assert_eq!(
        (debug.objects, fs::read_to_string(debug.image.unwrap().config).unwrap()),
        (3, "CONFIG_TINY=y\nCONFIG_A=y\nCONFIG_B=y\n".into())
    );
    // The other configuration did not disturb this output tree.
    bench.write("linux/show.c", &show(3));
    bench.commit("three");
    assert_eq!(bench.build("three").objects, 2);
    assert_eq!(bench.build_of(under("three"), "three+more", &CancelToken::new()).objects, 2);
}

#[test]
fn an_unchanged_configuration_rebuilds_nothing() {
    let bench = Bench::new();
    bench.build("one").image.unwrap();
    bench.write("linux/Kconfig", "# words\n");
    bench.write("linux/show.c", &show(2));
    bench.commit("two");
    let two = bench.build("two");
    assert!(two.steps.contains(&Step::Configure));
    assert_eq!(two.objects, 2, "the other object depends on the configuration");
}

#[test]
fn a_failed_or_killed_build_does_not_change_later_kernels() {
    let bench = Bench::new();
    bench.build("zero").image.unwrap();
    bench.write("linux/show.c", "int show(void) { return nothing; }\n");
    bench.commit("broken");
    assert!(bench.error(bench.build("broken")).starts_with("does not compile: show.c:1: 'nothing' undeclared"));
    bench.write("linux/show.c", &show(5));
    bench.write("linux/other.c", "int other(void) { return 5; }\n");
    bench.commit("five");
    bench.write("linux/stuck", "");
    bench.commit("stuck");
    let killed = bench.build("stuck");
    assert!(matches!(killed.image, Err(BuildError::Cancelled)), "{:?}", killed.image);
    fs::remove_file(bench.path("linux/stuck")).unwrap();
    let five = bench.build("five").image.unwrap();
    let alone = Bench::new();
    alone.write("linux/show.c", &show(5));
    alone.write("linux/other.c", "int other(void) { return 5; }\n");
    alone.commit("five");
    assert_eq!(bytes(&five.boot), bytes(&alone.build("five").image.unwrap().boot));
}

#[test]
fn a_full_disk_is_no_error_of_the_kernel_and_the_next_build_succeeds() {
    let bench = Bench::new();
    bench.write("full", "");
    let error = bench.build("zero").image.unwrap_err();
    assert!(matches!(error, BuildError::DiskSpace { .. }) && !error.is_of_the_kernel(), "{error}");
    let said = error.to_string();
    assert!(said.contains(&bench.path("cache").display().to_string()) && said.contains("1000 MB needed"), "{said}");
    assert!(said.contains("cargo xtask gc") && said.contains("IOV_REGRESS_CACHE"), "{said}");
    fs::remove_file(bench.path("full")).unwrap();
    let zero = bench.build("zero");
    assert_eq!(zero.objects, 3, "half an object was taken for a whole one");
    zero.image.unwrap();
    // The same for a build of the next revision.
    bench.write("linux/other.c", "int other(void) { return 7; }\n");
    bench.commit("seven");
    bench.write("full", "");
    assert!(bench.build("seven").image.unwrap_err().to_string().contains("300 MB needed"));
    fs::remove_file(bench.path("full")).unwrap();
    bench.build("seven").image.unwrap();
}

#[test]
fn patches_apply_to_one_build_only() {
    let bench = Bench::new();
    let patch = |from: u8, to: u8| {
        let text = format!(
            "--- a/show.c\n+++ b/show.c\n@@ -1,4 +1,4 @@\n int show(void)\n {{\n-\treturn {from};\n+\treturn {to};\n }}\n"
        );
        bench.write("my.patch", &text);
        let mut manifest = bench.manifest("one", &[]);
        manifest.variants.push(Variant::unknown("mine", "", "one", vec![bench.path("my.patch")]));
        bench.build_of(manifest, "mine", &CancelToken::new())
    };
    let mine = patch(1, 2);
    assert!(mine.steps.contains(&Step::Patch));
    let one = bench.build("one");
    assert!(one.steps.is_empty(), "it was built before, to compare with");
    assert_ne!(bytes(&mine.image.unwrap().boot), bytes(&one.image.unwrap().boot));
    insta::assert_snapshot!(bench.error(patch(7, 8)), @"~/my.patch does not apply: hunk 1 of 1 (`@@ -1,4 +1,4 @@`) does not fit show.c");
    bench.write("linux/other.c", "int other(void) { return 9; }\n");
    bench.commit("nine");
    let nine = bench.build("nine").image.unwrap();
    let show = |image: &KernelImage| {
        let dump =
            std::process::Command::new("objdump").args(["-d", "--disassemble=show"]).arg(&image.vmlinux).output();
        String::from_utf8_lossy(&dump.unwrap().stdout).contains("$0x1,%eax")
    };
    assert!(show(&nine), "the patch is still there");
}
