use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::*;
use crate::cell::PlannedCell;
use crate::evidence::tests::{id, record, start};
use crate::evidence::{RunDir, RunInfo, Share, SplitCell, SplitNote, VariantNote, read_run};
use crate::report::Report;
use crate::verdict::{Expected, Verdict};

const VARIANTS: [&str; 4] = ["stock", "revert-only", "v2-series", "candidate"];

/// A plan of eight cells in `parts` parts, cell by cell.
fn plan(parts: u32) -> SplitNote {
    let cells = ["a::one", "b::two"].into_iter().flat_map(|name| VARIANTS.map(|variant| id(name, None, variant, 1)));
    let cell =
        |(id, number): (_, u32)| SplitCell { id, expected: Expected::Pass, part: number % parts + 1, seconds: None };
    SplitNote::new("count", parts, cells.zip(0..).map(cell).collect())
}

fn variants(cells: &[PlannedCell]) -> Vec<VariantNote> {
    let is_used = |name: &&str| cells.iter().any(|cell| cell.id.variant == **name);
    let note = |name: &str| VariantNote { name: name.to_owned(), about: String::new(), bugs: Vec::new() };
    VARIANTS.into_iter().filter(is_used).map(note).collect()
}

/// Runs a part: every cell passes. Returns the folder of runs.
fn run(place: &Path, split: &SplitNote, part: u32) -> PathBuf {
    let share = Share { split: split.clone(), part };
    let out = place.join(format!("part-{part}"));
    let info = RunInfo {
        planned: share.cells(),
        variants: variants(&share.cells()),
        part: Some(share.note()),
        qemu: "10.0.2".to_owned(),
        jobs: 2,
        ..RunInfo::default()
    };
    let run = RunDir::create(&out, info).unwrap();
    split.write(run.path()).unwrap();
    for cell in share.cells() {
        let start = start(cell.id, cell.expected);
        run.cell(&start).unwrap().finish(&record(&start, Verdict::Pass, 1.0)).unwrap();
    }
    out
}

fn merged(paths: &[PathBuf], out: &Path, partial: bool) -> Result<Merged, String> {
    merge(paths, out, partial, vec!["merge".to_owned()], |_| {}).map_err(|error| error.to_string())
}

#[test]
fn the_parts_become_one_run() {
    let place = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (1..=3).map(|part| run(place.path(), &plan(3), part)).collect();
    let out = place.path().join("whole");
    let merged = merged(&paths, &out, false).unwrap();
    assert!(!merged.is_series && merged.differences.is_empty(), "{merged:?}");
    let whole = read_run(&out.join("latest")).unwrap();
    let cells: Vec<_> = whole.cells.iter().map(|cell| cell.record.cell.clone()).collect();
    assert_eq!(cells, plan(3).planned().into_iter().map(|cell| cell.id).collect::<Vec<_>>());
    assert!(whole.cells.iter().all(|cell| cell.record.verdict == Verdict::Pass));
    let names: Vec<_> = whole.info.variants.iter().map(|variant| variant.name.as_str()).collect();
    assert_eq!(names, VARIANTS);
    assert_eq!((whole.info.jobs, whole.info.part), (6, None));
    assert_eq!(whole.info.merged.unwrap().of.len(), 3);
    assert_eq!(Report::of(&merged.run).unwrap().exit_code(), 0);
}

#[test]
fn parts_may_be_in_one_folder_and_in_archives() {
    let place = tempfile::tempdir().unwrap();
    (1..=4).for_each(|part| drop(run(place.path(), &plan(4), part)));
    let archive = |name: &str| place.path().join(name);
    let folder = |part: u32| place.path().join(format!("part-{part}"));
    let tar = |mut content: tar::Builder<Box<dyn Write>>, part| {
        content.follow_symlinks(false);
        content.append_dir_all("target/runs", folder(part)).unwrap();
        content.into_inner().unwrap().flush().unwrap();
    };
    let file = |name| File::create(archive(name)).unwrap();
    tar(tar::Builder::new(Box::new(file("1.tar"))), 1);
    let gz = flate2::write::GzEncoder::new(file("2.tgz"), flate2::Compression::fast());
    tar(tar::Builder::new(Box::new(gz)), 2);
    tar(tar::Builder::new(Box::new(zstd::Encoder::new(file("3.tar.zst"), 1).unwrap().auto_finish())), 3);
    zipped(&archive("4.zip"), &folder(4));
    let all: Vec<_> = ["1.tar", "2.tgz", "3.tar.zst", "4.zip"].map(archive).into();
    let out = archive("from-archives");
    assert_eq!(read_run(&merged(&all, &out, false).unwrap().run).unwrap().cells.len(), 8);
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "what was unpacked is left: {left:?}");
    all.iter().for_each(|archive| fs::remove_file(archive).unwrap());
    fs::remove_dir_all(&out).unwrap();
    let out = tempfile::tempdir().unwrap();
    assert_eq!(read_run(&merged(&[place.path().to_owned()], out.path(), false).unwrap().run).unwrap().cells.len(), 8);
}

/// Zips a folder as GitHub does: with a copy of the newest run in place of the link to it.
fn zipped(archive: &Path, folder: &Path) {
    let mut zip = zip::ZipWriter::new(File::create(archive).unwrap());
    let mut below = vec![folder.to_owned()];
    while let Some(one) = below.pop() {
        if one.is_dir() {
            below.extend(fs::read_dir(&one).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = one.strip_prefix(folder).unwrap().to_str().unwrap();
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&fs::read(&one).unwrap()).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn what_is_no_archive_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("part.tar.gz");
    let out = place.path().join("out");
    for content in [
        &b"no archive, but long enough for a header of tar: "[..],
        b"",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"\x28\xb5\x2f\xfd",
    ] {
        fs::write(&file, content.repeat(20)).unwrap();
        let error = merged(std::slice::from_ref(&file), &out, false).unwrap_err();
        assert!(
            error.contains("part.tar.gz") && (error.contains("cannot unpack") || error.contains("no run")),
            "{error}"
        );
    }
    let error = merged(&[place.path().to_owned()], &out, false).unwrap_err();
    assert!(error.starts_with("there is no run in"), "{error}");
}

#[test]
fn a_missing_part_is_named_and_partial_says_so_in_the_report() {
    let place = tempfile::tempdir().unwrap();
    let paths: Vec<_> = [1, 3].map(|part| run(place.path(), &plan(4), part)).into();
    let out = place.path().join("out");
    let error = merged(&paths, &out, false).unwrap_err();
    assert!(error.contains("part 2 of 4 is missing: 2 cells") && error.contains("part 4 of 4"), "{error}");
    let whole = Report::of(&merged(&paths, &out, true).unwrap().run).unwrap();
    assert_eq!(whole.exit_code(), 2);
    let table = whole.table(crate::report::Terminal::default());
    assert!(table.contains("! PARTIAL: parts 2, 4 of 4 are missing"), "{table}");
    assert!(table.contains("did not begin because their part is missing, or ended before: 4"), "{table}");
    assert_eq!(whole.results()["run"]["merged"]["missing"], serde_json::json!([2, 4]));
}

#[test]
fn parts_of_other_plans_wholes_and_parts_that_are_there_twice_are_named() {
    let place = tempfile::tempdir().unwrap();
    let first = run(place.path(), &plan(2), 1);
    let second = run(place.path(), &plan(2), 2);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = run(elsewhere.path(), &plan(3), 2);
    let again = run(elsewhere.path(), &plan(2), 1);
    let whole = elsewhere.path().join("whole");
    RunDir::create(&whole, RunInfo::default()).unwrap();
    let out = place.path().join("out");
    let error = |paths: &[&PathBuf]| {
        let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).collect();
        merged(&paths, &out, true).unwrap_err()
    };
    let message = error(&[&first, &second, &other]);
    assert!(message.contains("is part 2 of 3 of another plan") && message.contains(&plan(2).digest), "{message}");
    let message = error(&[&first, &second, &again]);
    assert!(message.contains("part 1 is there 2 times, so its cells are: "), "{message}");
    let message = error(&[&first, &second, &whole]);
    assert!(message.contains("is no part: it was run without --partition"), "{message}");
    // A cell of the other part, in the folder of the first.
    let (to, from) = (first.join("latest"), second.join("latest"));
    let cell = plan(2).of_part(2)[0].id.clone();
    fs::rename(from.join(cell.folder()), to.join(cell.folder())).unwrap();
    let message = error(&[&first, &second]);
    assert!(message.contains(&format!("has {cell}, which is no cell of part 1")), "{message}");
}

#[test]
fn differences_between_machines_are_told() {
    let place = tempfile::tempdir().unwrap();
    let paths: Vec<_> = [1, 2].map(|part| run(place.path(), &plan(2), part)).into();
    let file = paths[1].join("latest/run.json");
    let changed = fs::read_to_string(&file).unwrap().replace("10.0.2", "11.1.3");
    fs::write(&file, changed).unwrap();
    let merged = merged(&paths, &place.path().join("out"), false).unwrap();
    assert_eq!(merged.differences, ["QEMU differs between parts: 10.0.2 in part 1; 11.1.3 in part 2"]);
    assert_eq!(read_run(&merged.run).unwrap().info.qemu, "10.0.2; 11.1.3");
}
