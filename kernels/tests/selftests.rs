//! The selftests of tiny source trees: which tree they come from, and what a patch and an error do.

use std::fs;
use std::path::Path;

use kernels::cache::Cache;
use kernels::{BuildError, BuildEvent, Builder, CancelToken, Manifest, Selftests, Step, selftest_requirements};
use tempfile::TempDir;

const MANIFEST: &str = r#"
selftests = "new"
[[base]]
name = "new"
path = "new"
config = []
[[base]]
name = "old"
path = "old"
config = []
[[variant]]
name = "stock"
about = "as it is"
bases = ["new", "old"]
[[variant]]
name = "other-test"
about = "changes a test, and a driver"
base = "new"
patches = ["other-test.patch"]
[[variant]]
name = "other-driver"
about = "changes a driver only"
base = "new"
patches = ["other-driver.patch"]
[[variant]]
name = "broken-test"
about = "a test that does not compile"
base = "new"
patches = ["broken-test.patch"]
"#;

const TESTS: &str = "tools/testing/selftests/vfio";

/// Checks that the headers are there, and what each program is.
const TESTS_MAKEFILE: &str = "\
all:
\t@test -e $(lastword $(KHDR_INCLUDES))/headers
\t@! grep -q '^broken' test.c || (echo \"$(CURDIR)/test.c:1:1: error: unknown type name 'broken'\"; exit 1)
\t@cat test.c regs.h > $(OUTPUT)/vfio_test
\t@chmod +x $(OUTPUT)/vfio_test
\t@touch $(OUTPUT)/vfio_test.o
";

fn patch(file: &str, from: &str, to: &str) -> String {
    format!("diff --git a/{file} b/{file}\n--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-{from}\n+{to}\n")
}

fn bench() -> TempDir {
    let bench = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = bench.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("kernels.toml", MANIFEST);
    for tree in ["new", "old"] {
        write(
            &format!("{tree}/Makefile"),
            "headers:\n\t@mkdir -p $(O)/usr/include && touch $(O)/usr/include/headers\n",
        );
        for file in ["Kbuild", "scripts/kconfig/x", "include/x", "arch/x86/x", "tools/x"] {
            write(&format!("{tree}/{file}"), "");
        }
    }
    write("new/drivers/net/regs.h", "driver\n");
    write(&format!("new/{TESTS}/Makefile"), TESTS_MAKEFILE);
    write(&format!("new/{TESTS}/test.c"), "test\n");
    let link = bench.path().join("new").join(TESTS).join("regs.h");
    std::os::unix::fs::symlink("../../../../drivers/net/regs.h", link).unwrap();
    let test = format!("{TESTS}/test.c");
    let driver = || patch("drivers/none/x.c", "a", "b");
    write("other-test.patch", &(driver() + &patch(&test, "test", "other")));
    write("other-driver.patch", &driver());
    write("broken-test.patch", &patch(&test, "test", "broken"));
    bench
}

fn selftests(bench: &Path, variant: &str, told: &(dyn Fn(BuildEvent) + Send + Sync)) -> Result<Selftests, BuildError> {
    let builder = Builder::new(Manifest::load(bench).unwrap(), Cache::at(bench.join("cache")));
    builder.vfio_selftests(variant, &told, &CancelToken::new())
}

/// Whether this machine can build selftests. If not, the error says what to install.
fn is_possible() -> bool {
    selftest_requirements().iter().all(|requirement| requirement.is_met())
}

fn program(bench: &Path, variant: &str) -> String {
    let folder = selftests(bench, variant, &|_| {}).unwrap().folder;
    let names: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["vfio_test"], "only programs are kept");
    fs::read_to_string(folder.join("vfio_test")).unwrap()
}

#[test]
fn the_tests_are_those_of_the_kernel_or_of_the_named_base() {
    let bench = bench();
    if !is_possible() {
        let error = selftests(bench.path(), "stock", &|_| {}).unwrap_err();
        assert!(error.is_without_selftests() && error.to_string().contains("uuid-dev"), "{error}");
        return;
    }
    assert_eq!(program(bench.path(), "stock"), "test\ndriver\n");
    assert_eq!(program(bench.path(), "other-test"), "other\ndriver\n");
    // Those of the kernel itself are there already: a patch of a driver changes no test, and the old base has none.
    for variant in ["stock", "other-driver", "stock-old"] {
        let told =
            |event| assert!(!matches!(event, BuildEvent::Step { step: Step::Compile, .. }), "{variant}: {event:?}");
        selftests(bench.path(), variant, &told).unwrap();
    }
    assert!(selftests(bench.path(), "stock-old", &|_| {}).unwrap().source.ends_with("/new"));
}

#[test]
fn without_any_tests_the_error_says_so() {
    let bench = bench();
    fs::remove_dir_all(bench.path().join("new").join(TESTS)).unwrap();
    let error = selftests(bench.path(), "stock-old", &|_| {}).unwrap_err();
    assert!(error.is_without_selftests(), "{error:?}");
    assert_eq!(error.to_string(), "the source of old has no vfio selftests, and neither has that of new");
}

#[test]
fn tests_that_do_not_compile_are_the_kernels_fault() {
    let bench = bench();
    if is_possible() {
        let error = selftests(bench.path(), "broken-test", &|_| {}).unwrap_err();
        assert!(error.is_of_the_kernel() && !error.is_without_selftests(), "{error:?}");
        assert!(error.to_string().contains("unknown type name 'broken'"), "{error}");
    }
}
