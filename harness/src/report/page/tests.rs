use std::fs;

use super::stories::Told;
use super::*;
use crate::evidence::{BisectionNote, BisectionStep, Mark};
use crate::report::Report;
use crate::report::tests::{bad, good, id, own, run, stale};

/// Every link of a page within the page, and every id.
fn links_and_ids(page: &str) -> (Vec<String>, Vec<String>) {
    let found = |pattern: &str| {
        let pattern = regex::Regex::new(pattern).unwrap();
        pattern.captures_iter(page).map(|found| found[1].to_owned()).collect::<Vec<_>>()
    };
    (found("href=\"#([^\"]*)\""), found(" id=\"([^\"]*)\""))
}

#[test]
fn every_link_has_a_target_and_nothing_is_fetched() {
    for cells in [good(), bad(), own(), Vec::new()] {
        let (_out, report) = run(&cells, &[id("a::b", None, "stock", 1)]);
        let page = render(&report);
        let (links, ids) = links_and_ids(&page);
        for link in &links {
            assert!(ids.contains(link), "no #{link}");
        }
        let mut once = ids.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), ids.len(), "an id comes twice: {ids:?}");
        for address in ["src=", "url(", "@import", "<link"] {
            assert!(!page.contains(address), "{address}");
        }
    }
}

#[test]
fn a_cell_that_did_not_begin_has_a_line() {
    let ids: Vec<_> = (1..=500).map(|repeat| id("a::b", None, "stock", repeat)).collect();
    let (_out, report) = run(&good(), &ids);
    let page = render(&report);
    let more = page.len() - render(&run(&good(), &[]).1).len();
    assert!(more < 500 * 300, "{} bytes for each", more / 500);
    assert!(page.contains("id=\"c506\""));
}

#[test]
fn kernels_without_results_side_by_side_share_a_field() {
    let mut cells = good();
    for number in 0..40 {
        cells.push((id("other::one", None, &format!("k{number}"), 1), crate::verdict::Expected::Pass, Verdict::Pass));
    }
    let (_out, report) = run(&cells, &[]);
    let page = render(&report);
    assert!(page.contains("<td colspan=\"40\"></td>") && page.contains("<td colspan=\"2\"></td>"), "{page}");
    let rows = page.split("<tr ").filter(|row| row.starts_with("data-family=\"other\""));
    assert_eq!(rows.map(|row| row.matches("<td").count()).collect::<Vec<_>>(), [1 + 1 + 40]);
}

#[test]
fn what_does_not_fit_is_told_short_and_the_page_says_so() {
    let (_out, report) = run(&bad(), &[]);
    let page = Page::of(&report);
    let (all, none) = (Stories::of(&page, 0), Stories::of(&page, usize::MAX));
    let cells = || report.run.cells.iter();
    let count = |stories: &Stories, wanted| cells().filter(|cell| stories.told(cell) == wanted).count();
    let whole = count(&all, Told::Whole);
    assert!(whole > 3 && count(&all, Told::Short) == 0 && all.note(&page).0.is_empty());
    assert_eq!((count(&none, Told::Whole), count(&none, Told::Short)), (0, whole));
    assert!(none.note(&page).0.contains("told short here"), "{}", none.note(&page).0);
    // Room for one: it goes to a cell that is not as expected.
    let least = |taken: usize| count(&Stories::of(&page, taken), Told::Whole);
    let taken = (0..5_000_000).step_by(500).find(|taken| least(5_000_000 - taken) > 0).unwrap();
    let one = Stories::of(&page, 5_000_000 - taken);
    let told: Vec<_> = cells().filter(|cell| one.told(cell) == Told::Whole).collect();
    assert!(!told.is_empty() && told.iter().all(|cell| !cell.record.is_as_expected()), "{told:?}");
}

/// The answer of a bisection whose first step was judged by a run that is there, and the last by one that is gone.
fn bisection(run: &Report) -> BisectionNote {
    let step = |commit: &str, mark, found, cell: PathBuf| BisectionStep {
        commit: commit.to_owned(),
        subject: "PCI: Say <b>".to_owned(),
        mark,
        why: "deadlock at sriov_numvfs_show".to_owned(),
        flaky: false,
        remembered: found,
        found,
        cells: vec![cell],
    };
    let cell = run.run.cells[0].evidence.clone().unwrap();
    BisectionNote {
        answer: "2222 is the first bad commit: PCI: Say <b>".to_owned(),
        wanted: "deadlock at sriov_numvfs_show".to_owned(),
        cell: "a::b on igb, yank".to_owned(),
        steps: vec![
            step("1111", Mark::Bad, false, cell),
            step("0000", Mark::Good, false, "/gone/run/cell".into()),
            step("2222", Mark::Bad, true, "/gone/run/cell".into()),
            step("3333", Mark::Skip, false, "/gone/run/other".into()),
        ],
        log: "git bisect start".to_owned(),
    }
}

#[test]
fn the_page_of_a_bisection_has_its_steps() {
    let (_out, of_run) = run(&good(), &[]);
    let folder = tempfile::tempdir().unwrap();
    bisection(&of_run).write(folder.path()).unwrap();
    let report = Report::of(folder.path()).unwrap();
    report.write_files().unwrap();
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    let (links, ids) = links_and_ids(&page);
    assert!(links.iter().all(|link| ids.contains(link)), "{links:?}");
    assert!(page.contains("<h1>2222 is the first bad commit: PCI: Say &lt;b&gt;.</h1>"), "{page}");
    let steps = page.split("<section id=\"steps\">").nth(1).unwrap().split("</section>").next().unwrap();
    for wanted in
        ["bad end", "good end", "<td>1</td>", "<td>2</td>", "skipped", "the answer", "judged before", "href=\"#c1\""]
    {
        assert!(steps.contains(wanted), "{wanted}: {steps}");
    }
    assert_eq!(report.run.missing.len(), 1, "the run that is gone is named once: {:?}", report.run.missing);
}

#[test]
fn the_bad_commits_of_a_bisection_are_what_it_looks_for() {
    let (_out, of_run) = run(&bad(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let cells = of_run.run.cells.iter().filter_map(|cell| cell.evidence.clone()).collect();
    let mut note = bisection(&of_run);
    note.steps[0].cells = cells;
    note.write(folder.path()).unwrap();
    let report = Report::of(folder.path()).unwrap();
    let listed = |report: &Report| {
        let page = render(report);
        let section = page.split("<section id=\"unexpected\">").nth(1).unwrap_or_default();
        section.split("</section>").next().unwrap_or_default().matches("<li>").count()
    };
    let broken = report.run.cells.iter().filter(|cell| matches!(cell.record.verdict, Verdict::Infra(_))).count();
    assert!(broken > 0 && listed(&of_run) > broken);
    assert_eq!(listed(&report), broken);
}

#[test]
fn a_bisection_of_which_nothing_is_left_has_its_answer() {
    let (out, of_run) = run(&good(), &[]);
    let folder = tempfile::tempdir().unwrap();
    bisection(&of_run).write(folder.path()).unwrap();
    drop(out);
    let page = render(&Report::of(folder.path()).unwrap());
    assert!(page.contains("<h1>2222 is the first bad commit") && page.contains("the answer"), "{page}");
}

#[test]
fn each_bug_of_the_catalogue_has_a_page() {
    let (_out, report) = run(&good(), &[]);
    let manifest = kernels::Manifest::of_project().unwrap();
    let measured = [("numvfs-show-vfio-remove".to_owned(), "stock 3/4".to_owned())].into();
    let pages = report.bug_pages(&manifest, &[], &measured);
    assert_eq!(pages.len(), manifest.bugs.len() + 1);
    for (name, text) in &pages {
        let (links, ids) = links_and_ids(text);
        assert!(links.iter().all(|link| ids.contains(link)), "{name}: {links:?}");
    }
    let page = |wanted: &str| &pages.iter().find(|(name, _)| name == wanted).unwrap().1;
    let deadlock = page("numvfs-show-vfio-remove.html");
    for wanted in
        ["it showed in 2 cells on stock", "stock 3/4", "numvfs_read::owner_rescans_on_removal", "href=\"index.html\""]
    {
        assert!(deadlock.contains(wanted), "{wanted}: {deadlock}");
    }
    assert!(!deadlock.contains("numvfs_events"), "no cell of this family shows the bug");
    let (index, other) = (page("index.html"), page("uevent-show-bystander.html"));
    assert!(index.contains("href=\"numvfs-show-vfio-remove.html\"") && index.contains("did not run"), "{index}");
    assert!(other.contains("none of its scenarios ran"), "{other}");
}

#[test]
fn a_report_of_some_cells_has_only_these() {
    let (_out, report) = run(&good(), &[]);
    let part = report.clone().only(|cell| cell.variant == "stock");
    assert_eq!((part.counts().cells, report.counts().cells), (3, 6));
    assert!(!render(&part).contains("data-kernel=\"revert-only\""));
}

#[test]
fn links_to_files_lead_to_files() {
    let (_out, report) = run(&bad(), &[]);
    let page = render(&report);
    let pattern = regex::Regex::new("href=\"([^#\"][^\"]*)\"").unwrap();
    let files: Vec<_> = pattern.captures_iter(&page).map(|found| found[1].to_owned()).collect();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let path = file.replace("%23", "#").replace("%25", "%");
        assert!(report.run.path.join(&path).exists(), "{file}");
    }
}

#[test]
fn nothing_in_the_evidence_is_markup() {
    let evil = "</pre><script>alert(1)</script>\"'&";
    let mut cells = good();
    let Verdict::Fail(mut failure) = stale() else { panic!("a stale read is a failure") };
    (failure.summary, failure.function) = (evil.to_owned(), Some(evil.to_owned()));
    cells[0].2 = Verdict::Fail(failure);
    cells[1].0.variant = evil.to_owned();
    let (_out, report) = run(&cells, &[]);
    let page = render(&report);
    assert_eq!(page.matches("<script>").count(), 1, "only our own");
    assert!(page.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn a_page_of_a_bad_run() {
    let (_out, report) = run(&bad(), &[id("a::b", None, "stock", 1)]);
    let page = render(&report);
    let body = page.split("<body>").nth(1).unwrap().split("<script>").next().unwrap();
    let lines = body.replace("><", ">\n<").replace(report.run.path.to_str().unwrap(), "[run]");
    insta::assert_snapshot!("bad-page", lines);
    assert!(fs::metadata(report.run.path.join("run.json")).is_ok());
}

#[test]
fn a_page_elsewhere_links_to_the_evidence() {
    let (_out, report) = run(&good(), &[]);
    let out = tempfile::tempdir().unwrap();
    let report: Report = report.placed_in(out.path());
    let page = render(&report);
    let pattern = regex::Regex::new("href=\"(\\.\\./[^\"]*/repro.sh)\"").unwrap();
    let link = &pattern.captures(&page).unwrap()[1];
    assert!(out.path().join(link).exists(), "{link}");
}
