//! The kernel's own parser reads our KTAP.

use std::path::PathBuf;
use std::process::Command;

use super::*;

/// `tools/testing/kunit` of a kernel source, if the cache has one.
fn kunit() -> Option<PathBuf> {
    let sources = kernels::cache::Cache::of_user().ok()?.root().join("sources");
    let trees = fs::read_dir(sources).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<_> = trees.map(|tree| tree.join("tree/tools/testing/kunit")).collect();
    found.retain(|tools| tools.join("kunit_parser.py").is_file());
    found.sort();
    found.pop()
}

/// Prints the counts of the parser: passed, failed, skipped, errors.
const READ: &str = "\
import sys
import kunit_parser
class Quiet:
    def print_with_timestamp(self, *_): pass
    def __getattr__(self, _): return lambda *_: ''
text = sys.stdin.read().splitlines()
try:
    from kunit_printer import null_printer
    result = kunit_parser.parse_run_tests(text, null_printer)
except (ImportError, TypeError):
    result = kunit_parser.parse_run_tests(text)
test = getattr(result, 'test', result)
counts = test.counts
print(counts.passed, counts.failed, counts.skipped, counts.crashed, counts.errors, file=sys.stderr)
";

/// Passed, failed, skipped, crashed, and errors of the format, as the kernel's parser counts them.
fn read_by_kunit(ktap: &str) -> Option<String> {
    let Some(tools) = kunit() else {
        eprintln!("skipped: the cache has no kernel source with tools/testing/kunit");
        return None;
    };
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("ktap");
    fs::write(&file, ktap).unwrap();
    let mut python = Command::new("python3");
    python.args(["-B", "-c", READ]).env("PYTHONPATH", tools).stdin(fs::File::open(&file).unwrap());
    let Ok(output) = python.output() else {
        eprintln!("skipped: there is no python3");
        return None;
    };
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    told.lines().last().map(str::to_owned)
}

#[test]
fn kunit_counts_the_cells_as_we_do() {
    for (cells, counts) in [(good(), "6 0 0 0 0"), (bad(), "2 6 1 0 0"), (own(), "3 1 0 0 0")] {
        let (_out, report) = run(&cells, &[]);
        if let Some(read) = read_by_kunit(&crate::report::ktap::render(&report)) {
            assert_eq!(read, counts);
        }
    }
}
