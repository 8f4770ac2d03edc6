use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kernels::FailureKind;
use kernels::cache::Cache;
use tempfile::TempDir;

use super::*;

/// A user's repository, and a cache. Each commit's file `state` says how it is judged.
struct Bed {
    folder: TempDir,
    ids: Vec<String>,
    /// Commits that were judged, by their subject.
    asked: RefCell<Vec<String>>,
}

impl Bed {
    /// A history with one commit for each of these states.
    fn of(states: &[&str]) -> Bed {
        let mut bed = Bed { folder: tempfile::tempdir().unwrap(), ids: Vec::new(), asked: RefCell::default() };
        fs::create_dir(bed.repository()).unwrap();
        bed.git(&["init", "--quiet", "--initial-branch=main"]);
        for (number, state) in states.iter().enumerate() {
            bed.commit(&format!("c{number}"), state);
        }
        bed
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("user")
    }

    fn commit(&mut self, subject: &str, state: &str) {
        fs::write(self.repository().join("state"), state).unwrap();
        // Every commit has a content of its own, unless its state says otherwise.
        fs::write(self.repository().join("other"), if state.contains('=') { state } else { subject }).unwrap();
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", subject]);
        self.ids.push(self.git(&["rev-parse", "HEAD"]).trim().to_owned());
    }

    fn git(&self, words: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=n", "-c", "user.email=e@example.org"]).args(words);
        let output = command.current_dir(self.repository()).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn question(&self, good: usize, bad: usize) -> Question {
        Question {
            repository: self.repository(),
            good: self.ids[good].clone(),
            bad: self.ids[bad].clone(),
            reverse: false,
            skip: Vec::new(),
            paths: Vec::new(),
            runs: 1,
            any_failure: false,
        }
    }

    fn memory(&self) -> Memory {
        Memory::new(Cache::at(self.folder.path().join("cache")), vec![("scenario", "s".to_owned())])
    }

    /// A run of a commit. Those of a flaky one go by the letters of its state.
    async fn run(&self, revision: &Revision) -> Observed {
        let before = self.asked.borrow().iter().filter(|asked| **asked == revision.subject).count();
        self.asked.borrow_mut().push(revision.subject.clone());
        let state = self.git(&["show", &format!("{}:state", revision.id)]);
        let verdict = match state.split('=').next().unwrap() {
            "good" => Verdict::Pass,
            "bad" => deadlock(),
            "unbuildable" => Verdict::BuildFailed("error: x".to_owned()),
            "unbootable" => Verdict::BootFailed("silent".to_owned()),
            "splat" => Verdict::fail(FailureKind::KernelSplat, "elsewhere", String::new()),
            "trouble" => Verdict::Infra("disk full".to_owned()),
            "shaky" if before == 0 => Verdict::Infra("the agent is silent".to_owned()),
            "shaky" => deadlock(),
            "shaken" => Verdict::Infra("the agent is silent".to_owned()),
            "stuck" => std::future::pending().await,
            letters => match letters.chars().nth(before) {
                Some('b') => deadlock(),
                Some('g') => Verdict::Pass,
                other => panic!("run {before} of a commit that is {letters}: {other:?}"),
            },
        };
        // Of those there was a guest.
        let evidence = state.starts_with("shak").then(|| self.folder.path().join("cell"));
        Observed { verdict, evidence }
    }

    async fn bisect(&self, question: &Question) -> Result<Answer, BisectError> {
        bisect(question, &self.memory(), async |revision: &Revision| self.run(revision).await, |_| {}).await
    }

    /// What it says, for people.
    async fn says(&self, question: &Question) -> String {
        let error = self.bisect(question).await.unwrap_err();
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }
}

fn deadlock() -> Verdict {
    Verdict::fail(FailureKind::Deadlock, "show", String::new())
}

fn subjects(found: &Found) -> Vec<&str> {
    match found {
        Found::First(revision) => vec![&revision.subject],
        Found::OneOf(revisions) => revisions.iter().map(|revision| revision.subject.as_str()).collect(),
    }
}

/// Every file below a folder, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => drop(found.insert(entry.path(), fs::read(entry.path()).unwrap())),
        }
    }
    found
}

/// A history that is good until `first` and bad from there on.
fn breaks_at(first: usize, count: usize) -> Vec<&'static str> {
    (0..count).map(|number| if number < first { "good" } else { "bad" }).collect()
}

#[tokio::test]
async fn the_first_bad_commit_is_found_wherever_it_is() {
    for first in 1..9 {
        let bed = Bed::of(&breaks_at(first, 9));
        let answer = bed.bisect(&bed.question(0, 8)).await.unwrap();
        assert_eq!(subjects(&answer.found), [format!("c{first}")]);
        assert_eq!(answer.wanted.to_string(), "deadlock at show");
        assert!(answer.judged.len() <= 2 + 4, "{:?}", bed.asked());
        assert!(answer.log.contains(&format!("first bad commit: [{}] c{first}", bed.ids[first])), "{}", answer.log);
        assert!(answer.judged(&bed.ids[first]).is_some_and(|judged| judged.ruling.mark == Mark::Bad));
    }
}

#[tokio::test]
async fn the_fix_is_found_in_reverse_and_the_log_says_so() {
    let bed = Bed::of(&["bad", "bad", "bad", "bad", "good", "good", "good"]);
    let question = Question { reverse: true, ..bed.question(6, 0) };
    let answer = bed.bisect(&question).await.unwrap();
    assert_eq!(subjects(&answer.found), ["c4"]);
    assert!(answer.log.contains("'--term-old=broken' '--term-new=fixed'"), "{}", answer.log);
    assert!(answer.log.contains(&format!("# first fixed commit: [{}] c4", bed.ids[4])), "{}", answer.log);
}

#[tokio::test]
async fn what_cannot_be_judged_is_skipped() {
    let mut states = breaks_at(7, 12);
    (states[5], states[6], states[9]) = ("unbuildable", "splat", "unbootable");
    let bed = Bed::of(&states);
    let answer = bed.bisect(&bed.question(0, 11)).await.unwrap();
    // c4 is good and c7 is bad, and nothing is known of what lies between.
    assert_eq!(subjects(&answer.found), ["c7", "c6", "c5"]);
    assert!(answer.log.contains("possible first bad commit"), "{}", answer.log);
    let splat = answer.judged(&bed.ids[6]).unwrap();
    assert_eq!(splat.ruling.why, "fails in another way, kernel-splat at elsewhere");

    let any = Question { any_failure: true, ..bed.question(0, 11) };
    assert_eq!(subjects(&bed.bisect(&any).await.unwrap().found), ["c6", "c5"]);

    // And away from the edge it costs nothing.
    let mut states = breaks_at(3, 12);
    (states[5], states[6]) = ("unbuildable", "unbootable");
    let bed = Bed::of(&states);
    assert_eq!(subjects(&bed.bisect(&bed.question(0, 11)).await.unwrap().found), ["c3"]);
}

#[tokio::test]
async fn what_the_user_leaves_out_is_not_judged() {
    let bed = Bed::of(&breaks_at(5, 9));
    let skip = vec![format!("{}..{}", bed.ids[2], bed.ids[4]), bed.ids[6].clone()];
    let answer = bed.bisect(&Question { skip, ..bed.question(0, 8) }).await.unwrap();
    assert_eq!(subjects(&answer.found), ["c5", "c4", "c3"]);
    let asked = bed.asked();
    assert!(["c3", "c4", "c6"].iter().all(|one| !asked.contains(&(*one).to_owned())), "{asked:?}");
}

#[tokio::test]
async fn only_commits_that_touch_the_paths_are_judged() {
    let mut bed = Bed::of(&["good", "good"]);
    let commit = |bed: &mut Bed, file: &str, subject: &str, state: &str| {
        fs::write(bed.repository().join(file), subject).unwrap();
        bed.commit(subject, state);
    };
    commit(&mut bed, "net", "n1", "good");
    commit(&mut bed, "pci", "p1", "good");
    commit(&mut bed, "net", "n2", "good");
    commit(&mut bed, "pci", "p2", "bad");
    commit(&mut bed, "net", "n3", "bad");
    let question = Question { paths: vec!["pci".to_owned()], ..bed.question(0, 6) };
    assert_eq!(subjects(&bed.bisect(&question).await.unwrap().found), ["p2"]);
    assert!(bed.asked().iter().all(|asked| ["c0", "n3", "p1", "p2"].contains(&asked.as_str())));
}

#[tokio::test]
async fn most_of_the_runs_decide() {
    let bed = Bed::of(&["ggg", "ggb", "gbg", "bgb", "bb", "bbb"]);
    let answer = bed.bisect(&Question { runs: 3, ..bed.question(0, 5) }).await.unwrap();
    assert_eq!(subjects(&answer.found), ["c3"]);
    let flaky = answer.judged(&bed.ids[3]).unwrap();
    assert!(flaky.ruling.flaky && flaky.ruling.why == "deadlock at show, 2 of 3 runs", "{:?}", flaky.ruling);
    assert!(!answer.judged(&bed.ids[5]).unwrap().ruling.flaky);
    // A majority of two needs no third.
    assert_eq!(bed.asked().iter().filter(|asked| *asked == "c5").count(), 2);
}

#[tokio::test]
async fn nothing_is_judged_twice() {
    let bed = Bed::of(&["good", "good=a", "good", "bad=b", "bad", "bad=b", "bad"]);
    let first = bed.bisect(&bed.question(0, 6)).await.unwrap();
    assert!(!bed.asked().is_empty() && first.judged.iter().all(|judged| !judged.remembered));
    let again = bed.bisect(&bed.question(0, 6)).await.unwrap();
    assert_eq!(bed.asked(), [""; 0]);
    assert!(again.judged.iter().all(|judged| judged.remembered) && again.found == first.found);
    // Another commit with the same content is known, to whoever asks.
    let same = git::revision(&bed.repository(), &bed.ids[5]).await.unwrap();
    let judge = async |_: &Revision| -> Observed { panic!("it is known") };
    let known = bed.bisect(&Question { bad: bed.ids[5].clone(), ..bed.question(0, 6) }).await.unwrap();
    assert_eq!(subjects(&known.found), ["c3"]);
    assert_eq!(step(&same, 1, &Wanted::Any, &bed.memory(), judge).await.unwrap().ruling.mark, Mark::Bad);
    // Another question has answers of its own.
    let other = Memory::new(Cache::at(bed.folder.path().join("cache")), vec![("scenario", "t".to_owned())]);
    assert!(other.of(&same).await.unwrap().observed().is_empty());
    // And all can be forgotten.
    bed.asked();
    let judge = async |revision: &Revision| bed.run(revision).await;
    let afresh = bisect(&bed.question(0, 6), &bed.memory().afresh(), judge, |_| {}).await.unwrap();
    assert!(!bed.asked().is_empty() && afresh.found == first.found);
}

#[tokio::test]
async fn an_interrupted_bisection_goes_on_where_it_was() {
    let bed = Bed::of(&breaks_at(6, 12));
    let question = bed.question(0, 11);
    let steps = Cell::new(0);
    let enough = tokio::sync::Notify::new();
    let judge = async |revision: &Revision| {
        steps.set(steps.get() + 1);
        if steps.get() == 4 {
            enough.notify_one();
            std::future::pending::<()>().await;
        }
        bed.run(revision).await
    };
    let memory = bed.memory();
    tokio::select! {
        _ = bisect(&question, &memory, judge, |_| {}) => panic!("not interrupted"),
        () = enough.notified() => {}
    }
    let before = bed.asked();
    assert_eq!(before.len(), 3);
    assert!(!bed.git(&["worktree", "list"]).contains("cache"), "something is left behind");
    let answer = bed.bisect(&question).await.unwrap();
    assert_eq!(subjects(&answer.found), ["c6"]);
    assert!(bed.asked().iter().all(|asked| !before.contains(asked)));
    assert_eq!(answer.judged.iter().filter(|judged| judged.remembered).count(), 3);
}

#[tokio::test]
async fn what_a_killed_bisection_left_is_in_nobodys_way() {
    let bed = Bed::of(&breaks_at(2, 5));
    let question = bed.question(0, 4);
    let key = bed.memory().question().with("old", &bed.ids[0]).with("new", &bed.ids[4]).finish();
    let left = bed.folder.path().join("cache/bisect").join(key.as_str());
    for entirely in [true, false] {
        bed.git(&["worktree", "add", "--quiet", "--detach", left.to_str().unwrap(), "HEAD~1"]);
        if entirely {
            // Somebody has cleared the cache, and git still knows of a worktree there.
            fs::remove_dir_all(&left).unwrap();
        }
        assert_eq!(subjects(&bed.bisect(&question).await.unwrap().found), ["c2"]);
        assert!(!left.exists() && !bed.git(&["worktree", "list"]).contains("cache"));
    }
}

#[tokio::test]
async fn two_that_ask_the_same_at_once_do_not_meet() {
    let mut states = breaks_at(4, 8);
    states[4] = "stuck";
    let bed = Bed::of(&states);
    let question = bed.question(0, 7);
    let reached = tokio::sync::Notify::new();
    let memory = bed.memory();
    let first = bisect(
        &question,
        &memory,
        async |revision: &Revision| bed.run(revision).await,
        |event| {
            if matches!(event, Event::Judging { revision, .. } if revision.subject == "c4") {
                reached.notify_one();
            }
        },
    );
    tokio::pin!(first);
    tokio::select! {
        _ = &mut first => panic!("it ended"),
        () = reached.notified() => {}
    }
    assert!(bed.says(&question).await.contains("under way in another process"));
}

#[tokio::test]
async fn trouble_ends_it_and_nothing_is_lost() {
    let mut bed = Bed::of(&breaks_at(5, 9));
    let question = bed.question(0, 8);
    let at = bed.bisect(&question).await.unwrap().judged[2].revision.subject.clone();
    let number: usize = at[1..].parse().unwrap();
    let mut states = breaks_at(5, 9);
    states[number] = "trouble";
    bed = Bed::of(&states);
    let question = bed.question(0, 8);
    let said = bed.says(&question).await;
    assert!(said.contains("disk full") && said.contains(&at) && said.contains("--skip"), "{said}");
    assert_eq!(bed.asked(), ["c8".to_owned(), "c0".to_owned(), at.clone()]);
    // It is tried again, and what was judged is not.
    bed.says(&question).await;
    assert_eq!(bed.asked(), [at.as_str()]);
    let around = Question { skip: vec![bed.ids[number].clone()], ..question };
    assert_eq!(subjects(&bed.bisect(&around).await.unwrap().found)[0], "c5");
}

#[tokio::test]
async fn what_the_test_bed_spoils_is_tried_again_before_it_ends_anything() {
    let mut states = breaks_at(4, 7);
    states[4] = "shaky";
    let bed = Bed::of(&states);
    let again = RefCell::new(Vec::new());
    let tell = |event: Event<'_>| {
        if let Event::Again { revision, why, .. } = event {
            again.borrow_mut().push(format!("{}: {why}", revision.subject));
        }
    };
    let judge = async |revision: &Revision| bed.run(revision).await;
    let answer = bisect(&bed.question(0, 6), &bed.memory(), judge, tell).await.unwrap();
    assert_eq!(subjects(&answer.found), ["c4"]);
    assert_eq!(again.take(), ["c4: the agent is silent"]);
    assert_eq!(answer.judged(&bed.ids[4]).unwrap().observed.len(), 1, "the first one says nothing");

    let bed = Bed::of(&["good", "shaken", "bad"]);
    let said = bed.says(&bed.question(0, 2)).await;
    assert!(said.contains("the agent is silent") && said.contains("--skip"), "{said}");
    assert_eq!(bed.asked(), ["c2", "c0", "c1", "c1", "c1"]);
    let bed = Bed::of(&["good", "bad", "shaken"]);
    let said = bed.says(&bed.question(0, 2)).await;
    assert!(!said.contains("--skip"), "an end cannot be left out: {said}");
}

#[tokio::test]
async fn ends_that_are_none_are_explained() {
    let bed = Bed::of(&["good", "bad", "good", "unbuildable", "bad", "bad"]);
    let reverse = |good, bad| Question { reverse: true, ..bed.question(good, bad) };
    for (question, expected) in [
        (bed.question(1, 1), "the same commit"),
        (bed.question(5, 0), "add --reverse"),
        (reverse(0, 5), "leave --reverse out"),
        (bed.question(1, 2), "mixed up: good"),
        (reverse(1, 0), "mixed up: good"),
        (bed.question(0, 2), "is not bad: it passes"),
        (bed.question(1, 5), "is not good: deadlock at show. Choose an older one"),
        (reverse(5, 1), "Choose a newer one"),
        (bed.question(0, 3), "the bad end"),
        (bed.question(3, 5), "the good end"),
    ] {
        let said = bed.says(&question).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let unknown = Question { good: "v9.99".to_owned(), ..bed.question(0, 1) };
    assert!(bed.says(&unknown).await.contains("no revision `v9.99`"));
    let option = Question { good: "--all".to_owned(), ..bed.question(0, 1) };
    assert!(bed.says(&option).await.contains("no revision `--all`"));
}

#[tokio::test]
async fn histories_that_have_parted_are_judged_where_they_did() {
    // main: base - m1(good) - m2(good);  side: base - s1 - s2(bad)
    let branch = |base| {
        let mut bed = Bed::of(&[base, "good", "good"]);
        bed.git(&["checkout", "--quiet", "-b", "side", &bed.ids[0].clone()]);
        bed.commit("s1", "bad=1");
        bed.commit("s2", "bad=2");
        bed
    };
    let bed = branch("good");
    assert_eq!(subjects(&bed.bisect(&bed.question(2, 4)).await.unwrap().found), ["s1"]);
    let bed = branch("bad");
    let said = bed.says(&bed.question(2, 4)).await;
    assert!(said.contains("does not fit them") && said.contains("merge base"), "{said}");

    let mut bed = Bed::of(&["good", "good"]);
    bed.git(&["checkout", "--quiet", "--orphan", "elsewhere"]);
    bed.commit("o1", "bad");
    assert!(bed.says(&bed.question(0, 2)).await.contains("no commit in common"));
}

#[tokio::test]
async fn without_a_repository_it_is_said() {
    let bed = Bed::of(&["good", "bad"]);
    let question = Question { repository: bed.folder.path().to_owned(), ..bed.question(0, 1) };
    let said = bed.says(&question).await;
    assert!(said.contains("is not in a git repository"), "{said}");
}

#[tokio::test]
async fn the_users_checkout_stays_as_it_is() {
    let mut states = breaks_at(6, 12);
    states[4] = "unbuildable";
    let bed = Bed::of(&states);
    // In the middle of a bisection of the user's own, with work that is not committed.
    bed.git(&["bisect", "start", "HEAD", "HEAD~5"]);
    let hook = bed.repository().join(".git/hooks/post-checkout");
    fs::write(&hook, "#!/bin/sh\ntouch hook-ran\n").unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(bed.repository().join("state"), "dirty").unwrap();
    fs::write(bed.repository().join("staged"), "staged").unwrap();
    bed.git(&["add", "staged"]);
    fs::write(bed.repository().join("untracked"), "untracked").unwrap();
    let before = files(&bed.repository());
    for question in [bed.question(0, 11), bed.question(2, 0), bed.question(0, 2)] {
        let _ = bed.bisect(&question).await;
        let after = files(&bed.repository());
        let changed: Vec<_> =
            before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
        assert!(changed.is_empty(), "{changed:?}");
    }
    assert!(bed.asked().len() > 4);
}

#[tokio::test]
async fn what_is_checked_out_is_judged_with_what_was_changed() {
    let bed = Bed::of(&["good", "bad"]);
    let folder = bed.repository();
    assert_eq!(checked_out(&folder).await.unwrap(), (git::revision(&folder, "HEAD").await.unwrap(), false));
    fs::write(folder.join("state"), "good").unwrap();
    fs::write(folder.join("staged"), "staged").unwrap();
    bed.git(&["add", "staged"]);
    fs::write(folder.join("untracked"), "untracked").unwrap();
    let objects = |path: &PathBuf| path.starts_with(folder.join(".git/objects"));
    let state = || files(&folder).into_iter().filter(|(path, _)| !objects(path)).collect::<BTreeMap<_, _>>();
    let before = state();
    let (dirty, changed) = checked_out(&folder).await.unwrap();
    assert!(changed && before == state());
    assert_eq!(bed.git(&["show", &format!("{}:state", dirty.id)]), "good");
    assert_eq!(bed.git(&["ls-tree", "--name-only", &dirty.id]), "other\nstaged\nstate\n");
    assert_eq!(bed.git(&["rev-parse", &format!("{}^", dirty.id)]).trim(), bed.ids[1]);
    assert_eq!(checked_out(&folder).await.unwrap().0, dirty);
}
