//! A series as a git history: a temporary repository with a commit for the base and a commit for each patch. git
//! bisects in it as in any other repository. A commit contains only the key of its kernel. So the base need not be in
//! git, and nothing is added to the user's repository.

use std::fs;
use std::path::Path;

use kernels::split_profile;
use kernels::tree::NAMES;
use tempfile::TempDir;

use super::BisectError;
use super::git::{GitError, NewCommit, commit, git};
use crate::evidence::SeriesNote;
use crate::lab::Lab;

/// The only file in a commit.
const KERNEL: &str = "kernel";

/// The date of all commits. It is constant, so that the same series always has the same commit ids.
const DATE: &str = "2000-01-01T00:00:00+00:00";

/// The history of a series. The repository is deleted when this value is dropped.
#[derive(Debug)]
pub struct History {
    folder: TempDir,
    last: String,
    id: String,
}

/// The kernel of a commit.
#[derive(Clone, Debug)]
pub(super) struct SeriesKernel {
    /// The name of the kernel.
    pub name: String,
    /// The title of the patch.
    pub title: String,
    /// Its author, in the format of a mail's `From:`.
    pub author: String,
    /// What identifies the kernel.
    pub content: String,
}

impl History {
    /// The history of a series. All patches must apply to the base of the lab's kernels.
    ///
    /// # Errors
    /// Those of git and of the file system, and that the source of the base is not in the cache.
    pub async fn of_series(lab: &Lab, note: &SeriesNote) -> Result<History, BisectError> {
        let series_kernel = |variant: &str, title: &str, author: &str| {
            let (content, (name, _)) = (lab.key(variant)?, split_profile(variant));
            Some(SeriesKernel { name: name.to_owned(), title: title.to_owned(), author: author.to_owned(), content })
        };
        let base = series_kernel(&note.base, &note.base_about, "");
        let patches = note.tried().map(|(_, step)| series_kernel(&step.variant, &step.subject, &step.author));
        let kernels: Option<Vec<_>> = std::iter::once(base).chain(patches).collect();
        Ok(History::of(kernels.ok_or_else(|| BisectError::Source(note.base_about.clone()))?).await?)
    }

    /// The author of a kernel of which nobody is known to be.
    pub(super) const NOBODY: &str = "unknown";

    /// The history of these kernels, in this order.
    pub(super) async fn of(kernels: impl IntoIterator<Item = SeriesKernel>) -> Result<History, GitError> {
        let folder = tempfile::Builder::new().prefix("iov-regress-series-").tempdir().map_err(GitError::Scratch)?;
        git(folder.path(), ["init", "--quiet"]).await?.ok()?;
        let mut last: Option<(String, String)> = None;
        for kernel in kernels {
            let parent = last.as_ref().map(|(id, _)| id.as_str());
            let id = add(folder.path(), &kernel, parent).await?;
            last = Some((id, kernel.name));
        }
        let (id, last) = last.unwrap_or_default();
        Ok(History { folder, last, id })
    }

    /// The folder of the repository.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A short id. The same series on the same base has the same id.
    pub fn id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// The revision of a kernel: `base`, `patch-1`, ...
    pub fn revision(name: &str) -> String {
        format!("{NAMES}{name}")
    }

    /// The revision of the kernel with all patches.
    pub fn last(&self) -> String {
        History::revision(&self.last)
    }
}

async fn add(folder: &Path, kernel: &SeriesKernel, parent: Option<&str>) -> Result<String, GitError> {
    fs::write(folder.join(KERNEL), &kernel.content).map_err(GitError::Scratch)?;
    // With --force, because the user's git configuration may ignore files of any name.
    git(folder, ["add", "--force", KERNEL]).await?.ok()?;
    let tree = git(folder, ["write-tree"]).await?.ok()?;
    let (name, address) = person(&kernel.author);
    let author = (name.as_str(), address.as_str());
    let id =
        commit(folder, NewCommit { tree: tree.trim(), parent, author, date: DATE, message: &kernel.title }).await?;
    git(folder, ["update-ref", &History::revision(&kernel.name), &id]).await?.ok()?;
    Ok(id)
}

/// Name and address of an author in a form that git accepts. git refuses names that consist only of certain characters.
fn person(author: &str) -> (String, String) {
    let (name, address) = author.rsplit_once('<').unwrap_or((author, ""));
    let plain = |text: &str| {
        let text: String = text.chars().filter(|c| !c.is_control() && !"<>".contains(*c)).collect();
        text.trim().to_owned()
    };
    let (name, address) = (plain(name), plain(address));
    let says_something = |text: &str| text.chars().any(char::is_alphanumeric);
    match says_something(&name) {
        true => (name, address),
        false if says_something(&address) => (address.clone(), address),
        false => (History::NOBODY.to_owned(), address),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use kernels::FailureKind;
    use kernels::cache::Cache;

    use super::*;
    use crate::bisect::git::revision;
    use crate::bisect::{Answer, Found, Mark, Memory, Observed, Question, Revision, bisect};
    use crate::verdict::Verdict;

    fn series_kernel(name: &str, author: &str) -> SeriesKernel {
        let (name, author) = (name.to_owned(), author.to_owned());
        SeriesKernel { title: format!("PCI: {name}"), content: name.clone(), name, author }
    }

    /// A series on its base, and a cache. There is a letter for each kernel: `p`asses, `f`ails, does `n`ot build.
    struct Bed {
        kernels: Vec<char>,
        cache: TempDir,
        /// The kernels that were judged.
        asked: RefCell<Vec<String>>,
    }

    impl Bed {
        fn of(kernels: &str) -> Bed {
            let cache = tempfile::tempdir().unwrap();
            Bed { kernels: kernels.chars().collect(), cache, asked: RefCell::default() }
        }

        async fn run(&self, revision: &Revision) -> Observed {
            self.asked.borrow_mut().push(revision.short.clone());
            let number = revision.short.strip_prefix("patch-").map_or(0, |number| number.parse().unwrap());
            let verdict = match self.kernels[number] {
                'p' => Verdict::Pass,
                'f' => Verdict::fail(FailureKind::Deadlock, "show", String::new()),
                'n' => Verdict::BuildFailed("error: x".to_owned()),
                other => panic!("{other}"),
            };
            Observed { verdict, evidence: None }
        }

        /// Bisects the series. The patches from number `other` on differ from those of other calls.
        async fn bisect(&self, reverse: bool, skip: &[&str], other: usize) -> Result<Answer, BisectError> {
            let kernels = (0..self.kernels.len()).map(|number| {
                let name = if number == 0 { "base".to_owned() } else { format!("patch-{number}") };
                let content = format!("{name} {}", number >= other);
                SeriesKernel { content, ..series_kernel(&name, "A Developer <dev@example.org>") }
            });
            let history = History::of(kernels).await?;
            let (base, whole) = (History::revision("base"), history.last());
            let (good, bad) = if reverse { (whole, base) } else { (base, whole) };
            let repository = history.path().to_owned();
            let skip = skip.iter().map(|name| History::revision(name)).collect();
            let (paths, runs, any_failure) = (Vec::new(), 1, false);
            let question = Question { repository, good, bad, reverse, skip, paths, runs, any_failure };
            let memory = Memory::new(Cache::at(self.cache.path()), Vec::new());
            bisect(&question, &memory, async |revision: &Revision| self.run(revision).await, |_| {}).await
        }

        async fn finds(&self, reverse: bool, skip: &[&str]) -> Vec<String> {
            match self.bisect(reverse, skip, usize::MAX).await.unwrap().found {
                Found::First(revision) => vec![revision.short],
                Found::OneOf(revisions) => revisions.into_iter().map(|revision| revision.short).collect(),
            }
        }

        async fn says(&self, reverse: bool) -> String {
            self.bisect(reverse, &[], usize::MAX).await.unwrap_err().to_string()
        }
    }

    #[tokio::test]
    async fn the_first_bad_patch_is_found_at_each_position() {
        for first in 1..=8 {
            let bed = Bed::of(&("p".repeat(first) + &"f".repeat(9 - first)));
            let answer = bed.bisect(false, &[], usize::MAX).await.unwrap();
            let Found::First(revision) = &answer.found else { panic!("{answer:?}") };
            assert_eq!(revision.to_string(), format!("patch-{first} PCI: patch-{first}"));
            assert!(
                bed.asked.borrow().len() <= 2 + 3 && bed.asked.borrow().starts_with(&["patch-8".into(), "base".into()])
            );
            assert!(answer.log.contains(&format!("# first bad commit: [patch-{first}] ")), "{}", answer.log);
            assert!(answer.log.contains("git bisect start 'patch-8' 'base'"), "{}", answer.log);
        }
    }

    #[tokio::test]
    async fn the_patch_that_fixes_is_found_in_reverse() {
        assert_eq!(Bed::of("fffpppp").finds(true, &[]).await, ["patch-3"]);
        assert_eq!(Bed::of("fp").finds(true, &[]).await, ["patch-1"]);
    }

    #[tokio::test]
    async fn patches_that_do_not_build_or_that_the_user_excludes_are_skipped() {
        assert_eq!(Bed::of("pppnnff").finds(false, &[]).await, ["patch-5", "patch-4", "patch-3"]);
        assert_eq!(Bed::of("pffnfff").finds(false, &[]).await, ["patch-1"]);
        let bed = Bed::of("ppppfff");
        assert_eq!(bed.finds(false, &["patch-3"]).await, ["patch-4", "patch-3"]);
        assert!(!bed.asked.borrow().contains(&"patch-3".to_owned()));
    }

    #[tokio::test]
    async fn the_next_version_of_a_series_reuses_verdicts_on_unchanged_patches() {
        let bed = Bed::of("pppppff");
        let first = bed.bisect(false, &[], usize::MAX).await.unwrap();
        let judged = bed.asked.take();
        let again = bed.bisect(false, &[], usize::MAX).await.unwrap();
        assert!(bed.asked.take().is_empty() && again.found == first.found && again.log == first.log);
        let other = bed.bisect(false, &[], 5).await.unwrap();
        let anew: Vec<_> = judged.into_iter().filter(|name| ["patch-5", "patch-6"].contains(&name.as_str())).collect();
        assert_eq!(bed.asked.take(), anew);
        assert!(other.judged.iter().any(|one| one.remembered && one.ruling.mark == Mark::Good));
    }

    #[tokio::test]
    async fn errors_explain_wrong_ends() {
        for (kernels, reverse, expected) in [
            ("fppp", false, "The series fixes it: add --reverse"),
            ("pppf", true, "The series breaks it: omit --reverse"),
            ("pppp", false, "the bad end (patch-3 PCI: patch-3) is not bad: it passes"),
            (
                "ffff",
                false,
                "the good end (base PCI: base) is not good: deadlock at show. The series does not break it",
            ),
            ("ffff", true, "The series does not fix it"),
            ("pppn", false, "the bad end (patch-3 PCI: patch-3) cannot be judged: it does not build: error: x"),
        ] {
            let said = Bed::of(kernels).says(reverse).await;
            assert!(said.contains(expected), "{said}");
        }
    }

    #[tokio::test]
    async fn commits_have_the_names_and_the_order_of_the_kernels() {
        let kernels = ["base", "patch-1", "patch-2"].map(|name| series_kernel(name, "A Developer <dev@example.org>"));
        let history = History::of(kernels.clone()).await.unwrap();
        let found = revision(history.path(), &history.last()).await.unwrap();
        assert_eq!((found.to_string().as_str(), found.is_of_series()), ("patch-2 PCI: patch-2", true));
        assert_eq!(found.author, "A Developer <dev@example.org>");
        let base = revision(history.path(), &format!("{}~2", found.id)).await.unwrap();
        assert_eq!(base.short, "base");
        let again = History::of(kernels).await.unwrap();
        assert_eq!(revision(again.path(), &again.last()).await.unwrap(), found, "the id is not constant");
    }

    #[tokio::test]
    async fn a_commit_can_have_any_author() {
        for author in ["", "<>", "., <a@b>", "Jürgen", "\"X, Y\" <x@y> <z@w>", "a\n\0b <c\n>", "-- <--help>"] {
            let history = History::of([series_kernel("base", author)]).await;
            history.unwrap_or_else(|error| panic!("{author:?}: {error}"));
        }
    }

    proptest::proptest! {
        #[test]
        fn an_author_always_has_a_name_that_git_accepts(author: String) {
            let (name, address) = person(&author);
            let is_plain = |text: &str| !text.contains(['<', '>', '\n', '\0']);
            proptest::prop_assert!(is_plain(&name) && is_plain(&address));
            proptest::prop_assert!(name.chars().any(char::is_alphanumeric));
        }
    }
}
