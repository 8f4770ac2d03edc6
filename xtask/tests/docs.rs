//! The pages of the project: every link has a target, the book has every page, and the table in the README is that of
//! the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The pages of the book, below the top of the repository.
const BOOK: &str = "docs";
const SUMMARY: &str = "docs/SUMMARY.md";

/// What these tests look at in a page.
#[derive(Debug, Default)]
struct Page {
    links: Vec<String>,
    anchors: BTreeSet<String>,
    tables: Vec<Table>,
}

/// A table, by rows. The cells are Markdown; the first row is the head.
type Table = Vec<Vec<String>>;

impl Page {
    fn parse(text: &str) -> Page {
        let mut page = Page::default();
        let mut headings = BTreeMap::new();
        let mut heading: Option<String> = None;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(part) | Event::Code(part) => heading.iter_mut().for_each(|text| text.push_str(&part)),
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors.insert(anchor(&heading.take().unwrap_or_default(), &mut headings));
                }
                Event::Start(Tag::Table(_)) => page.tables.push(Table::new()),
                Event::Start(Tag::TableHead | Tag::TableRow) => {
                    page.tables.last_mut().expect("a row is in a table").push(Vec::new());
                }
                Event::Start(Tag::TableCell) => {
                    let row = page.tables.last_mut().and_then(|table| table.last_mut()).expect("a cell is in a row");
                    row.push(text[range].trim().to_owned());
                }
                _ => {}
            }
        }
        page
    }
}

/// The anchor that GitHub gives a heading: in lower case, with `-` for each space, without punctuation, and with a
/// number if the page has had the same heading before. mdBook does the same.
fn anchor(heading: &str, seen: &mut BTreeMap<String, usize>) -> String {
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    let slug = heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
    let count = seen.entry(slug.clone()).or_default();
    *count += 1;
    if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
}

/// The pages at the top of the repository and those of the book, by their path from the top.
fn pages(top: &Path) -> BTreeMap<PathBuf, Page> {
    let mut pages = BTreeMap::new();
    for folder in [top.to_owned(), top.join(BOOK)] {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(top).unwrap().to_owned();
                pages.insert(name, Page::parse(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    pages
}

/// Broken relative links of all pages, each with the reason.
fn broken_links(top: &Path, pages: &BTreeMap<PathBuf, Page>) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, page) in pages {
        for link in page.links.iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            if let Some(why) = broken_link(top, pages, name, link) {
                broken.push(format!("{}: {link}: {why}", name.display()));
            }
        }
    }
    broken
}

fn broken_link(top: &Path, pages: &BTreeMap<PathBuf, Page>, from: &Path, link: &str) -> Option<&'static str> {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let Some(to) = target(from, path) else { return Some("the target is outside the repository") };
    if !top.join(&to).exists() {
        return Some("there is no such file");
    }
    if from.starts_with(BOOK) && !to.starts_with(BOOK) {
        return Some("a page of the book links to pages of the book only");
    }
    let anchor = anchor?;
    let found = pages.get(&to).is_some_and(|page| page.anchors.contains(anchor));
    (!found).then_some("there is no such heading")
}

/// The target of a relative link of a page, as a path from the top of the repository; `None` if it is outside.
fn target(from: &Path, link: &str) -> Option<PathBuf> {
    if link.is_empty() {
        return Some(from.to_owned());
    }
    let mut to = from.parent()?.to_owned();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." if to.pop() => {}
            ".." => return None,
            part => to.push(part),
        }
    }
    Some(to)
}

/// Pages that the book's list of pages does not have exactly once.
fn faults_of_summary(pages: &BTreeMap<PathBuf, Page>) -> Vec<String> {
    let summary = Path::new(SUMMARY);
    let listed: Vec<_> = pages[summary].links.iter().filter_map(|link| target(summary, link)).collect();
    let times = |page: &Path| listed.iter().filter(|listed| *listed == page).count();
    let of_book = pages.keys().filter(|page| page.starts_with(BOOK) && *page != summary);
    of_book
        .filter(|page| times(page) != 1)
        .map(|page| format!("{} is listed {} times", page.display(), times(page)))
        .collect()
}

/// Differences between two tables. Their rows must have the same names; the second may have more columns.
fn differences(table: &Table, with: &Table) -> Vec<String> {
    let names = |table: &Table| table.iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    if names(table) != names(with) {
        return vec![format!("the rows are {:?} and {:?}", names(table), names(with))];
    }
    let mut differences = Vec::new();
    for (column, kernel) in table[0].iter().enumerate() {
        let Some(other) = with[0].iter().position(|name| name == kernel) else {
            differences.push(format!("only one has the column {kernel}"));
            continue;
        };
        for (row, other_row) in table.iter().zip(with).filter(|(row, other_row)| row[column] != other_row[other]) {
            differences.push(format!("{}, {kernel}: {} and {}", row[0], row[column], other_row[other]));
        }
    }
    differences
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn every_relative_link_has_a_target() {
    let pages = pages(&top());
    let links: usize = pages.values().map(|page| page.links.len()).sum();
    assert!(links > 0, "no links in {:?}", pages.keys());
    let broken = broken_links(&top(), &pages);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_book_has_every_page_once() {
    let faults = faults_of_summary(&pages(&top()));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_readme_has_the_table_of_the_catalogue() {
    let pages = pages(&top());
    let table = |name: &str| pages[Path::new(name)].tables.first().expect("the page begins with a table").clone();
    let differences = differences(&table("README.md"), &table("docs/catalogue.md"));
    assert!(differences.is_empty(), "README.md and docs/catalogue.md differ:\n{}", differences.join("\n"));
}

#[test]
fn broken_links_and_unlisted_pages_are_found() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir(top.path().join(BOOK)).unwrap();
    let write = |name: &str, text: &str| fs::write(top.path().join(name), text).unwrap();
    write("LICENSE", "");
    write(
        "README.md",
        "# A `b` (c)!\n# A b c\n[1](#a-b-c-1) [2](docs/one.md#two-words) [3](LICENSE) [4](https://example.org/#x)",
    );
    write("docs/one.md", "# Two words\n[good](SUMMARY.md)");
    write("docs/two.md", "[1](no.md) [2](one.md#no) [3](../LICENSE) [4](../../x) [5](#no)\n\n    [code](no.md)\n");
    write(SUMMARY, "- [One](one.md)\n- [One](./one.md)\n");
    let pages = pages(top.path());
    let broken = [
        "docs/two.md: no.md: there is no such file",
        "docs/two.md: one.md#no: there is no such heading",
        "docs/two.md: ../LICENSE: a page of the book links to pages of the book only",
        "docs/two.md: ../../x: the target is outside the repository",
        "docs/two.md: #no: there is no such heading",
    ];
    assert_eq!(broken_links(top.path(), &pages), broken);
    assert_eq!(faults_of_summary(&pages), ["docs/one.md is listed 2 times", "docs/two.md is listed 0 times"]);
}

#[test]
fn differences_between_tables_are_found() {
    let table = |text: &str| Page::parse(text).tables.remove(0);
    let wide = table("|  | a | b |\n|--|--|--|\n| 1 | ok | **bad** |\n| 2 | ok | ok, 1 s |\n");
    assert!(differences(&table("|  | b |\n|--|--|\n| 1 | **bad** |\n| 2 | ok, 1 s |\n"), &wide).is_empty());
    let other = table("|  | b | c |\n|--|--|--|\n| 1 | bad | ok |\n| 2 | ok, 2 s | ok |\n");
    let found = ["1, b: bad and **bad**", "2, b: ok, 2 s and ok, 1 s", "only one has the column c"];
    assert_eq!(differences(&other, &wide), found);
    assert_eq!(differences(&table("|  | a |\n|--|--|\n| 1 | ok |\n"), &wide).len(), 1);
}
