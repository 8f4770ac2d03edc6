//! Bisections with real kernels and guests. In the history one commit introduces a deadlock, and a later one fixes it.
//!
//! The test builds about ten kernels, the first of them from scratch:
//!
//!     cargo test -p xtask --test bisect -- --ignored --nocapture
//!
//! `IOV_REGRESS_BISECT_DIR` names a folder that keeps the history, so that the next run builds nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use kernels::cache::{Cache, KeyMaker};
use kernels::{CancelToken, Manifest, Source, Variant};

/// The file with `sriov_numvfs_show()`.
const IOV: &str = "drivers/pci/iov.c";

const WITH_LOCK: &str = "\
\tu16 num_vfs;

\t/* Serialize vs sriov_numvfs_store() so readers see valid num_VFs */
\tdevice_lock(&pdev->dev);
\tnum_vfs = pdev->sriov->num_VFs;
\tdevice_unlock(&pdev->dev);

\treturn sysfs_emit(buf, \"%u\\n\", num_vfs);
";
const WITHOUT_LOCK: &str = "
\treturn sysfs_emit(buf, \"%u\\n\", pdev->sriov->num_VFs);
";
/// A line that does not compile.
const NO_CODE: &str = "\nint iov_regress_test = ;\n";
/// A kernel that does not boot.
const NO_BOOT: &str = "
static int __init iov_regress_test(void)
{
\tpanic(\"iov-regress: this kernel must not boot\");
}
core_initcall(iov_regress_test);
";

/// The commits, from the oldest. Most change nothing that matters. The broken ones are where git looks first.
const HISTORY: [(&str, Change); 18] = [
    ("Import", Change::Lock(false)),
    ("PCI: Say something", Change::Words),
    ("PCI: Say more", Change::Words),
    ("net: Change something else", Change::Elsewhere),
    ("PCI: Say still more", Change::Words),
    ("PCI/IOV: Read num_VFs under the device lock", Change::Lock(true)),
    ("PCI: Forget an initializer", Change::Add(NO_CODE)),
    ("PCI: Remember it", Change::Remove(NO_CODE)),
    ("PCI: Say it again", Change::Words),
    ("PCI/IOV: Read num_VFs without a lock", Change::Lock(false)),
    ("PCI: Say nothing new", Change::Words),
    ("PCI: Panic early", Change::Add(NO_BOOT)),
    ("PCI: Calm down", Change::Remove(NO_BOOT)),
    ("PCI: Say one thing", Change::Words),
    ("PCI: Say another", Change::Words),
    ("net: Change it once more", Change::Elsewhere),
    ("PCI: Say a last word", Change::Words),
    ("PCI: Say goodbye", Change::Words),
];
const BREAKS: usize = 5;
const BAD: usize = 8;
const FIXES: usize = 9;

#[derive(Clone, Copy)]
enum Change {
    /// Whether the reader takes the lock.
    Lock(bool),
    /// A comment.
    Words,
    /// A comment in another file.
    Elsewhere,
    Add(&'static str),
    Remove(&'static str),
}

/// A user's kernel tree.
struct Tree {
    folder: PathBuf,
    ids: Vec<String>,
}

impl Tree {
    fn git(&self, words: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "gc.auto=0"]).args(words);
        let output = command.current_dir(&self.folder).output().unwrap();
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The history in a folder; made if it does not exist.
    fn of(folder: &Path, source: &Path) -> Tree {
        let mut tree = Tree { folder: folder.to_owned(), ids: Vec::new() };
        if !folder.join("finished").exists() {
            tree.make(source);
        }
        tree.git(&["reset", "--quiet", "--hard", "main"]);
        tree.ids = tree.git(&["rev-list", "--reverse", "main"]).lines().map(str::to_owned).collect();
        assert_eq!(tree.ids.len(), HISTORY.len());
        tree
    }

    fn make(&self, source: &Path) {
        eprintln!("making a history in {}", self.folder.display());
        let _ = fs::remove_dir_all(&self.folder);
        let copied = Command::new("cp").args(["-a", "--link"]).arg(source).arg(&self.folder).status().unwrap();
        assert!(copied.success());
        self.git(&["init", "--quiet", "--initial-branch=main"]);
        for (number, (subject, change)) in HISTORY.iter().enumerate() {
            match *change {
                Change::Lock(true) => self.edit(IOV, |text| text.replacen(WITHOUT_LOCK, WITH_LOCK, 1)),
                Change::Lock(false) => self.edit(IOV, |text| text.replacen(WITH_LOCK, WITHOUT_LOCK, 1)),
                Change::Words => self.edit(IOV, |text| format!("{text}/* {number} */\n")),
                Change::Elsewhere => self.edit("net/core/dev.c", |text| format!("{text}/* {number} */\n")),
                Change::Add(what) => self.edit(IOV, |text| format!("{text}{what}")),
                Change::Remove(what) => self.edit(IOV, |text| text.replacen(what, "", 1)),
            }
            // The kernel's own .gitignore excludes files of the release.
            let all = if number == 0 { &["add", "--force", "."][..] } else { &["add", "--update"] };
            self.git(all);
            self.git(&["commit", "--quiet", "-m", subject]);
        }
        fs::write(self.folder.join("finished"), "").unwrap();
    }

    /// Changes a file. It is a hard link into the cache, so it is replaced and not written.
    fn edit(&self, file: &str, change: impl FnOnce(&str) -> String) {
        let path = self.folder.join(file);
        let before = fs::read_to_string(&path).unwrap();
        let after = change(&before);
        assert_ne!(before, after, "{file}: nothing to change");
        fs::remove_file(&path).unwrap();
        fs::write(&path, after).unwrap();
    }

    /// All files of the checkout and of `.git`, with sizes and times, but not git's objects and its record of
    /// worktrees.
    fn state(&self) -> BTreeMap<PathBuf, (u64, SystemTime)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let (path, metadata) = (entry.path(), entry.metadata().unwrap());
                if metadata.is_dir() && !path.ends_with(".git/objects") && !path.ends_with(".git/worktrees") {
                    folders.push(path);
                } else if !metadata.is_dir() {
                    found.insert(path, (metadata.len(), metadata.modified().unwrap()));
                }
            }
        }
        found
    }

    /// Bisects with a scenario, which must find a commit, and returns the output.
    fn bisect(&self, words: &[&str]) -> String {
        self.bisect_by(["--scenario", "owner_rescans_on_removal"], words)
    }

    /// The same with any judge.
    fn bisect_by(&self, judge: [&str; 2], words: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("bisect").args(judge).args(["--trigger", "yank", "--tree"]);
        command.arg(&self.folder).args(words).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        println!("{answer}");
        assert_eq!(output.status.code(), Some(0), "{answer}");
        answer
    }
}

/// The source of the first base, in the user's cache.
fn source() -> PathBuf {
    let manifest = Manifest::of_project().unwrap();
    let plain: &Variant = manifest.variants.iter().find(|variant| variant.is_plain()).unwrap();
    let Source::Package(package) = &manifest.base(&plain.base).unwrap().source else { panic!("no package") };
    let cache = Cache::of_user().unwrap();
    let find = || cache.find("sources", &KeyMaker::new().with("package", &package.name).finish());
    if find().is_none() {
        // Building the unpatched kernel brings its source into the cache.
        let name = plain.name.clone();
        kernels::Builder::new(manifest.clone(), cache.clone()).build(&name, &|_| {}, &CancelToken::new()).unwrap();
    }
    find().unwrap().join("tree")
}

#[test]
#[ignore = "builds about ten kernels; see the top of this file"]
fn the_breaking_and_the_fixing_commit_are_found() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("IOV_REGRESS_BISECT_DIR").map_or_else(|| scratch.path().join("linux"), PathBuf::from);
    let tree = Tree::of(&folder, &source());
    // All kinds of uncommitted work.
    tree.edit(IOV, |text| format!("{text}/* dirty */\n"));
    tree.edit("MAINTAINERS", |text| format!("{text}staged\n"));
    tree.git(&["add", "MAINTAINERS"]);
    fs::write(tree.folder.join("untracked.c"), "untracked").unwrap();
    let seen = |words: &[&str]| tree.git(&[&["--no-optional-locks"], words].concat());
    let looks = || {
        let refs = ["for-each-ref", "--format=%(refname) %(objectname)"];
        (seen(&["status", "--porcelain=v2", "--branch"]), seen(&["diff", "HEAD"]), seen(&refs))
    };
    let (state, looked) = (tree.state(), looks());

    let (first, last) = (tree.ids[0].clone(), tree.ids[HISTORY.len() - 1].clone());
    let answer = tree.bisect(&["--good", &first, "--bad", &tree.ids[BAD]]);
    assert!(answer.starts_with(&format!("{} is the first bad commit", tree.ids[BREAKS])), "{answer}");
    assert!(answer.contains("deadlock at sriov_numvfs_show") && answer.contains("does not compile"), "{answer}");
    assert!(answer.contains("    sriov_numvfs_show\n"), "no stack in {answer}");

    // The same bug as a script finds the same commit.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/scripts/owner_reads.sh");
    let judge = ["--script", script.to_str().unwrap()];
    let answer = tree.bisect_by(judge, &["--good", &first, "--bad", &tree.ids[BAD]]);
    assert!(answer.starts_with(&format!("{} is the first bad commit", tree.ids[BREAKS])), "{answer}");
    assert!(answer.contains("deadlock at sriov_numvfs_show"), "{answer}");

    let answer = tree.bisect(&["--bad", &tree.ids[BREAKS], "--good", &last, "--reverse"]);
    assert!(answer.starts_with(&format!("{} is the first fixed commit", tree.ids[FIXES])), "{answer}");
    assert!(answer.contains("does not boot"), "{answer}");
    assert!(answer.lines().filter(|line| !line.starts_with("  ")).all(|line| line.len() <= 72), "{answer}");

    assert_eq!(tree.state(), state);
    assert_eq!(looks(), looked);
}
