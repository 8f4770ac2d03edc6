use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::*;
use crate::cache::Cache;

/// A user's repository with two commits that have the files by which a kernel is recognised, and a cache.
struct User(tempfile::TempDir);

impl User {
    fn new() -> User {
        let user = User(tempfile::tempdir().unwrap());
        fs::create_dir(user.path("linux")).unwrap();
        user.run("git init -q -b master; git config user.name x; git config user.email x@example.org");
        user.run("mkdir -p scripts/kconfig drivers; echo 1 > Kbuild; echo 1 > scripts/kconfig/conf.c; echo 1 > a; echo 1 > b");
        user.run("echo ignored > .gitignore; git add .; git commit -qm 'first: words'; git tag -am v1 v1");
        user.run("echo 2 > a; echo 2 > drivers/new; git rm -q b; git add .; git commit -qm second; git branch topic");
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, script: &str) {
        let mut shell = Command::new("sh");
        let status = shell.args(["-ec", script]).current_dir(self.path("linux")).env("HOME", self.0.path()).status();
        assert!(status.unwrap().success(), "{script}");
    }

    fn tree(&self, name: &str) -> Result<Tree, BuildError> {
        Tree::open(&self.path(name), &CancelToken::new())
    }

    fn error<T>(&self, result: Result<T, BuildError>) -> String {
        let error = result.err().expect("no error").to_string();
        error.replace(&self.0.path().display().to_string(), "~")
    }

    fn worktree(&self, tree: &Tree, rev: &str) -> Worktree {
        let cancel = CancelToken::new();
        let commit = tree.commit(rev, &cancel).unwrap();
        let cache = Cache::at(self.path("cache"));
        let worktree =
            tree.worktree(&cache, "test", &commit, || panic!("another process has the worktree"), &cancel).unwrap();
        worktree.checkout(&commit, &cancel).unwrap();
        worktree
    }

    /// All files of the checkout and of the repository, but those of `.git/worktrees`.
    fn files(&self) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path("linux")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with(".git/worktrees") {
                    continue;
                } else if path.is_dir() {
                    folders.push(path);
                } else {
                    let stat = fs::metadata(&path).unwrap();
                    found.insert(path.clone(), (fs::read(&path).unwrap(), stat.mtime(), stat.mtime_nsec()));
                }
            }
        }
        found
    }
}

fn read(worktree: &Worktree, name: &str) -> Option<String> {
    fs::read_to_string(worktree.path().join(name)).ok().map(|text| text.trim().to_owned())
}

#[test]
fn a_repository_is_found_from_anywhere_in_it() {
    let user = User::new();
    let tree = user.tree("linux").unwrap();
    assert_eq!(user.tree("linux/drivers").unwrap().common, tree.common);
    assert_eq!(user.tree("linux/.git").unwrap().common, tree.common);
    user.run("git worktree add -q ../beside topic; git clone -q --bare . ../bare.git");
    assert_eq!(user.tree("beside").unwrap().common, tree.common);
    assert_ne!(user.tree("bare.git").unwrap().common, tree.common);
    user.run("git -C ../beside checkout -q --detach v1");
    let head = |name: &str| user.tree(name).unwrap().commit("HEAD", &CancelToken::new()).unwrap().subject;
    assert_eq!((head("linux").as_str(), head("beside").as_str()), ("second", "first: words"));
    assert_eq!((head("linux/drivers").as_str(), head("bare.git").as_str()), ("second", "second"));
    fs::create_dir(user.path("empty")).unwrap();
    insta::assert_snapshot!(user.error(user.tree("empty")), @"~/empty is not in a git repository; for a kernel tree or tarball without git, add a base with `path = ` to kernels.toml");
    insta::assert_snapshot!(user.error(user.tree("none")), @"there is no folder ~/none: a kernel tree was expected there");
    insta::assert_snapshot!(user.error(user.tree("linux/a")), @"there is no folder ~/linux/a: a kernel tree was expected there");
}

#[test]
fn an_unknown_revision_is_an_error_with_a_similar_name() {
    let user = User::new();
    let tree = user.tree("linux").unwrap();
    let revision = |rev: &str| tree.revision(rev, &CancelToken::new());
    let first = revision("v1").unwrap();
    let second = revision("topic").unwrap();
    assert_eq!((first.commit.subject.as_str(), first.describe.as_str()), ("first: words", "v1"));
    assert!(second.describe.starts_with("v1-1-g") && second.describe.len() == 18, "{second:?}");
    assert_eq!(revision("HEAD~1").unwrap(), first);
    assert_eq!(tree.changed("v1", "topic", &CancelToken::new()).unwrap().len(), 3);
    user.run("git commit -q --allow-empty -m third");
    let third = revision("HEAD").unwrap();
    assert!(third.commit.tree == second.commit.tree && third.commit.id != second.commit.id);

    insta::assert_snapshot!(user.error(revision("topci")), @"~/linux has no revision `topci`; did you mean `topic`?");
    insta::assert_snapshot!(user.error(revision("1234567")), @"~/linux has no revision `1234567`; a tag, a branch or a commit of it was expected (has it been fetched?)");
    insta::assert_snapshot!(user.error(revision("--all")), @"~/linux has no revision `--all`; a tag, a branch or a commit of it was expected (has it been fetched?)");
    user.run("git rm -q Kbuild; git commit -qm fourth");
    insta::assert_snapshot!(user.error(revision("HEAD")), @"~/linux at HEAD is no Linux kernel: there is no Kbuild");
}

#[test]
fn a_worktree_has_the_files_of_the_commit_and_the_repository_is_unchanged() {
    let user = User::new();
    user.run("echo dirty > a; echo staged > staged; git add staged; echo 1 > untracked; echo 1 > ignored; git stash -q; git stash apply -q");
    user.run("mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch ../hooked\\n' > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout");
    let before = user.files();
    let tree = user.tree("linux").unwrap();
    {
        let worktree = user.worktree(&tree, "topic");
        assert_eq!((read(&worktree, "a"), read(&worktree, "b")), (Some("2".into()), None));
        for made in ["drivers/new", "untracked", "ignored", "scripts/made"] {
            fs::write(worktree.path().join(made), "scribbled").unwrap();
        }
        let cancel = CancelToken::new();
        worktree.checkout(&tree.commit("v1", &cancel).unwrap(), &cancel).unwrap();
        assert_eq!((read(&worktree, "a"), read(&worktree, "b")), (Some("1".into()), Some("1".into())));
        assert!(
            ["drivers/new", "untracked", "ignored", "scripts/made"].iter().all(|file| read(&worktree, file).is_none())
        );
    }
    assert_eq!(user.files(), before);
    assert!(!user.path("hooked").exists() && !user.path("cache/hooked").exists());
}

#[test]
fn a_worktree_is_found_again_and_keeps_the_times_of_files_that_stay() {
    let user = User::new();
    let tree = user.tree("linux").unwrap();
    let time = |worktree: &Worktree, name: &str| {
        let stat = fs::metadata(worktree.path().join(name)).unwrap();
        (stat.mtime(), stat.mtime_nsec(), stat.ino())
    };
    let (path, kept, changed) = {
        let worktree = user.worktree(&tree, "v1");
        (worktree.path().to_owned(), time(&worktree, "Kbuild"), time(&worktree, "a"))
    };
    let worktree = user.worktree(&user.tree("linux").unwrap(), "topic");
    assert_eq!((worktree.path(), time(&worktree, "Kbuild")), (path.as_path(), kept));
    assert_ne!(time(&worktree, "a"), changed);
}

#[test]
fn a_damaged_or_lost_worktree_is_made_again() {
    let user = User::new();
    let tree = user.tree("linux").unwrap();
    let path = user.worktree(&tree, "v1").path().to_owned();
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(read(&user.worktree(&tree, "v1"), "a"), Some("1".into()), "the cache was removed");
    user.run("git worktree list --porcelain | grep -q iov-regress-test; rm -r .git/worktrees");
    assert_eq!(read(&user.worktree(&tree, "topic"), "a"), Some("2".into()), "the registration was removed");
    fs::write(user.path("linux/.git/worktrees/iov-regress-test/index.lock"), "").unwrap();
    fs::write(path.join("a"), "half").unwrap();
    assert_eq!(read(&user.worktree(&tree, "topic"), "a"), Some("2".into()), "git was killed");
}

#[test]
fn a_repository_that_was_moved_keeps_its_worktree_and_a_copy_gets_another() {
    let user = User::new();
    let path = user.worktree(&user.tree("linux").unwrap(), "v1").path().to_owned();
    user.run("cp -a ../linux ../copy");
    let copy = user.worktree(&user.tree("copy").unwrap(), "topic").path().to_owned();
    assert_ne!(copy, path);
    fs::rename(user.path("linux"), user.path("moved")).unwrap();
    let moved = user.worktree(&user.tree("moved").unwrap(), "topic");
    assert_eq!((moved.path(), read(&moved, "a")), (path.as_path(), Some("2".into())));
}

#[test]
fn shallow_sparse_partial_and_bare_repositories_work() {
    let user = User::new();
    user.run("git config uploadpack.allowFilter true; git clone -q --depth 1 file://$PWD ../shallow");
    user.run("git clone -q --filter=blob:none --no-checkout file://$PWD ../partial; git clone -q --bare . ../bare");
    user.run("git clone -q . ../sparse; cd ../sparse; git sparse-checkout set scripts");
    for name in ["shallow", "partial", "bare", "sparse"] {
        let worktree = user.worktree(&user.tree(name).unwrap(), "HEAD");
        assert_eq!(
            (read(&worktree, "a"), read(&worktree, "drivers/new")),
            (Some("2".into()), Some("2".into())),
            "{name}"
        );
    }
    assert!(!user.path("sparse/drivers").exists());
}

#[test]
fn a_removed_entry_is_unregistered_from_the_repository() {
    let user = User::new();
    let entry = user.worktree(&user.tree("linux").unwrap(), "v1").path().parent().unwrap().to_owned();
    assert!(user.path("linux/.git/worktrees").exists());
    forget(&entry);
    assert!(!user.path("linux/.git/worktrees").exists());
}
