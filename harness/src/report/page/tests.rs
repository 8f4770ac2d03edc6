use std::fs;

use super::*;
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
    assert!(files.len() > 20, "{files:?}");
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
