//! Mutants: kernels with one plausible mistake each, which measure how much the scenarios see. Each is a patch in a
//! folder, and a row of the table in the README of that folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cache::KeyMaker;
use crate::manifest::Variant;
use crate::series::{SeriesError, SeriesPatch};

/// The file with the table.
const INDEX: &str = "README.md";

/// One mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name: that of its file, without `.patch`.
    pub name: String,
    /// The source file that it changes, as `drivers/pci/iov.c`.
    pub file: String,
    /// The function that it changes. None if the table does not have the mutant.
    pub function: Option<String>,
    /// What a user of the kernel sees. None if the table does not have the mutant.
    pub shows: Option<String>,
    /// The patch, as an absolute path.
    pub patch: PathBuf,
    /// A hash of the patch.
    digest: String,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The file, without `drivers/`.
    pub file: String,
    /// The function.
    pub function: String,
    /// What kind of mistake it is.
    pub kind: String,
    /// What a user of the kernel sees.
    pub shows: String,
}

/// Why mutants cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MutantError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not a patch.
    #[error(transparent)]
    Patch(#[from] SeriesError),
    /// There is no patch in the folder.
    #[error("there is no *.patch in {}", .0.display())]
    None(PathBuf),
    /// A row of the table has another form than the others.
    #[error("{}: a row must be `name`, `file`: `function`, kind and what a user sees, but it is: {row}", path.display())]
    Row {
        /// The file with the table.
        path: PathBuf,
        /// The row.
        row: String,
    },
}

impl Mutant {
    /// The folder with the mutants of this project.
    pub fn folder_of_project() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants")
    }

    /// The mutants in a folder, by name.
    ///
    /// # Errors
    /// [`MutantError`].
    pub fn read(folder: &Path) -> Result<Vec<Mutant>, MutantError> {
        let cannot = |path: &Path| {
            let path = path.to_owned();
            move |source| MutantError::Read { path, source }
        };
        let folder = std::path::absolute(folder).map_err(cannot(folder))?;
        let mut index = Mutant::index(&folder)?;
        let mut mutants = Vec::new();
        for entry in fs::read_dir(&folder).map_err(cannot(&folder))? {
            let patch = entry.map_err(cannot(&folder))?.path();
            if patch.extension().is_none_or(|extension| extension != "patch") {
                continue;
            }
            let text = fs::read(&patch).map_err(cannot(&patch))?;
            let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let (function, shows) = index.remove(&name).map(|row| (row.function, row.shows)).unzip();
            let file = SeriesPatch::of_file(&patch)?.diff.paths().into_iter().collect::<Vec<_>>().join(" ");
            let digest = KeyMaker::new().with("patch", &text).finish().as_str().to_owned();
            mutants.push(Mutant { name, file, function, shows, patch, digest });
        }
        mutants.sort_by(|one, other| one.name.cmp(&other.name));
        if mutants.is_empty() { Err(MutantError::None(folder)) } else { Ok(mutants) }
    }

    /// The rows of the table in a folder, by the name of the mutant. No rows if there is no table.
    ///
    /// # Errors
    /// The file cannot be read, or a row is malformed.
    pub fn index(folder: &Path) -> Result<BTreeMap<String, Row>, MutantError> {
        let path = folder.join(INDEX);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            text => text.map_err(|source| MutantError::Read { path: path.clone(), source })?,
        };
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        let read = |line: &str| row(line).ok_or_else(|| MutantError::Row { path: path.clone(), row: line.to_owned() });
        rows.map(read).collect()
    }

    /// A choice of mutants that is spread over the files: one of each file, then a second of each, and so on, until
    /// there are `count`. A hash of each patch gives the order, so the same patches give the same choice, and a larger
    /// choice has all of a smaller one.
    pub fn sample(mutants: Vec<Mutant>, count: usize) -> Vec<Mutant> {
        let mut by_hash = mutants;
        by_hash.sort_by(|one, other| one.digest.cmp(&other.digest));
        let mut of_file: BTreeMap<String, usize> = BTreeMap::new();
        let mut ranked: Vec<(usize, Mutant)> = Vec::new();
        for mutant in by_hash {
            let rank = of_file.entry(mutant.file.clone()).or_default();
            ranked.push((*rank, mutant));
            *rank += 1;
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, mutant)| mutant).take(count).collect()
    }

    /// The kernel: another kernel with this patch on top. Its bugs are not known.
    pub fn on(&self, kernel: &Variant) -> Variant {
        let patches = kernel.patches.iter().chain([&self.patch]).cloned().collect();
        let about = format!("{} with the mistake {}", kernel.name, self.name);
        let config = kernel.config.clone();
        Variant { config, ..Variant::unknown(&self.name, &about, &kernel.base, patches) }
    }
}

/// A row of the table, and the name in it.
fn row(line: &str) -> Option<(String, Row)> {
    let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches([' ', '|'])).collect();
    let [name, place, kind, shows] = cells[..] else { return None };
    let (file, function) = place.split_once(": ")?;
    let plain = |word: &str| word.trim_matches('`').to_owned();
    let row = Row { file: plain(file), function: plain(function), kind: kind.to_owned(), shows: shows.to_owned() };
    let is_whole = ![&row.file, &row.function, &row.kind, &row.shows].into_iter().any(String::is_empty);
    is_whole.then(|| (plain(name), row))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these mutants: names, and the files that they change.
    fn folder(mutants: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, file) in mutants {
            let diff = format!("--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-{name}\n+x\n");
            let text = format!("Subject: {name}\n---\ndiff --git a/{file} b/{file}\n{diff}");
            fs::write(folder.path().join(format!("{name}.patch")), text).unwrap();
        }
        folder
    }

    #[test]
    fn mutants_have_their_file_and_what_the_table_says() {
        let folder = folder(&[("b-two", "drivers/b.c"), ("a-one", "drivers/a.c")]);
        let table = "| Name |\n| --- |\n| `a-one` | `a.c`: `probe` | a leak | memory goes |\n";
        fs::write(folder.path().join(INDEX), table).unwrap();
        let mutants = Mutant::read(folder.path()).unwrap();
        let said: Vec<_> = mutants
            .iter()
            .map(|one| (one.name.as_str(), one.file.as_str(), one.function.as_deref(), one.shows.as_deref()))
            .collect();
        let (first, second) =
            (("a-one", "drivers/a.c", Some("probe"), Some("memory goes")), ("b-two", "drivers/b.c", None, None));
        assert_eq!(said, [first, second]);
    }

    #[test]
    fn a_malformed_row_and_an_empty_folder_are_errors() {
        let folder = folder(&[]);
        assert!(Mutant::read(folder.path()).unwrap_err().to_string().contains("there is no *.patch in"));
        fs::write(folder.path().join(INDEX), "| `a` | `a.c` | leak | memory |\n").unwrap();
        assert!(Mutant::read(folder.path()).unwrap_err().to_string().contains("| `a` | `a.c` | leak"));
    }

    #[test]
    fn a_sample_is_spread_over_the_files_and_always_the_same() {
        let folder =
            folder(&[("a1", "a.c"), ("a2", "a.c"), ("a3", "a.c"), ("b1", "b.c"), ("c1", "c.c"), ("c2", "c.c")]);
        let all = Mutant::read(folder.path()).unwrap();
        let sample = |count| Mutant::sample(all.clone(), count);
        let files = |count| sample(count).into_iter().map(|one| one.file).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(files(3).len(), 3, "one of each file");
        let mut reversed = all.clone();
        reversed.reverse();
        assert_eq!(Mutant::sample(reversed, 4), sample(4));
        assert_eq!(sample(3), sample(5)[..3]);
        assert_eq!(sample(100).len(), 6);
    }
}
