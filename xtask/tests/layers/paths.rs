//! Which modules a source file uses, and where.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, LitStr, Macro, UseTree};

/// A place in the source where a module is named.
#[derive(Clone, Debug)]
pub struct Use {
    /// The file, below the top of the workspace.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The module that the place is in, with its crate first.
    pub from: Vec<String>,
    /// What is named, with its crate first.
    pub path: Vec<String>,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: uses {}", self.file.display(), self.line, self.path.join("::"))
    }
}

/// Everything that the files below a `src` folder use. `folder` is the folder of the crate, from the top of the
/// workspace.
pub fn read(src: &Path, folder: &str) -> Result<Vec<Use>, String> {
    let each = |file: &Path, code: &str| of_source(folder, file, code);
    Ok(sources(src)?.iter().map(|(file, code)| each(file, code)).collect::<Result<Vec<_>, _>>()?.concat())
}

/// All string literals below a `src` folder, except those in tests, each with its place.
pub fn literals(src: &Path, folder: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for (file, code) in sources(src)? {
        let mut reader = Reader::new(folder, &file);
        reader.visit_file(&parse(&file, &code)?);
        found.extend(reader.literals);
    }
    Ok(found)
}

/// Everything that one file uses. Its path is relative to `src`. The result includes paths of std and of external
/// crates.
pub fn of_source(folder: &str, file: &Path, code: &str) -> Result<Vec<Use>, String> {
    let mut reader = Reader::new(folder, file);
    reader.visit_file(&parse(file, code)?);
    Ok(reader.uses)
}

fn parse(file: &Path, code: &str) -> Result<syn::File, String> {
    syn::parse_file(code).map_err(|error| format!("{} is not Rust: {error}", file.display()))
}

/// All Rust files below a folder except those of unit tests: the path from the folder, and the text.
fn sources(src: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let unreadable = |path: &Path, error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut found = Vec::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| unreadable(&folder, error))? {
            let path = entry.map_err(|error| unreadable(&folder, error))?.path();
            if path.ends_with("tests") {
                // The files of a `tests.rs` beside it.
            } else if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs") {
                let code = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
                found.push((path.strip_prefix(src).unwrap_or(&path).to_owned(), code));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Collects the paths and string literals of a file.
struct Reader {
    file: PathBuf,
    /// The module that is being read.
    within: Vec<String>,
    uses: Vec<Use>,
    literals: Vec<(String, String)>,
}

impl Reader {
    fn new(folder: &str, file: &Path) -> Reader {
        let krate = folder.rsplit('/').next().unwrap_or(folder).replace('-', "_");
        let krate = match krate.as_str() {
            "protocol" => "guest_protocol".to_owned(),
            "agent" => "guest_agent".to_owned(),
            _ => krate,
        };
        let within = file.with_extension("");
        let within =
            within.iter().filter_map(|part| part.to_str()).filter(|part| !["lib", "main", "mod"].contains(part));
        let within = std::iter::once(krate).chain(within.map(str::to_owned)).collect();
        let file = Path::new(folder).join("src").join(file);
        Reader { file, within, uses: Vec::new(), literals: Vec::new() }
    }

    fn named(&mut self, words: &[String], at: Span) {
        let Some(path) = self.whole(words) else { return };
        self.uses.push(Use { file: self.file.clone(), line: at.start().line, from: self.within.clone(), path });
    }

    /// A path with its crate first; `None` for a single word, which is relative to this module.
    fn whole(&self, words: &[String]) -> Option<Vec<String>> {
        let ups = words.iter().take_while(|word| *word == "super").count();
        let (mut path, rest) = match words.first()?.as_str() {
            "crate" => (self.within[..1].to_vec(), &words[1..]),
            "self" => (self.within.clone(), &words[1..]),
            "super" => (self.within[..self.within.len().checked_sub(ups)?].to_vec(), &words[ups..]),
            _ if words.len() > 1 => (Vec::new(), words),
            _ => return None,
        };
        path.extend(rest.iter().cloned());
        (!path.is_empty()).then_some(path)
    }

    fn tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |word: String| [before, &[word]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&path.tree, &with(path.ident.to_string())),
            UseTree::Name(name) => self.named(&with(name.ident.to_string()), name.span()),
            UseTree::Rename(name) => self.named(&with(name.ident.to_string()), name.span()),
            UseTree::Glob(glob) => self.named(before, glob.span()),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item, before)),
        }
    }

    /// The arguments of a macro are not parsed as Rust, so this finds paths by their form: words joined by `::`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut words: Vec<String> = Vec::new();
        let mut at = Span::call_site();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.named(&std::mem::take(&mut words), at);
                        at = ident.span();
                    }
                    words.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.named(&std::mem::take(&mut words), at);
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Literal(literal) => {
                            if let syn::Lit::Str(text) = syn::Lit::new(literal.clone()) {
                                self.literal(&text.value(), literal.span().start().line);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        self.named(&words, at);
    }

    fn literal(&mut self, text: &str, line: usize) {
        self.literals.push((format!("{}:{line}", self.file.display()), text.to_owned()));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !attributes(item).iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.within.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.within.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.named(&words, path.span());
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {
        // Doc comments may name anything.
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        self.literal(&literal.value(), literal.span().start().line);
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
