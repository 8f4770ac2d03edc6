//! apt's sources (sources.list(5)) in both of their formats, and new entries that are derived from them.

use std::fs;
use std::path::{Path, PathBuf};

use deb822_fast::{Deb822, Paragraph};

use super::targets::Target;

/// An entry of apt's sources that is enabled and of the type `deb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    file: PathBuf,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// A stanza of a `.sources` file.
    Stanza(Paragraph),
    /// A line of a `.list` file. The options are verbatim, with their brackets.
    Line { options: Option<String>, uri: String, suite: String, components: String },
}

/// All entries on this machine. Files that cannot be read or parsed are left out: apt itself reports them.
pub fn of_this_machine() -> Vec<Entry> {
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.push("/etc/apt/sources.list".into());
    files.sort();
    files.iter().filter_map(|file| Some(parse(file, &fs::read_to_string(file).ok()?))).flatten().collect()
}

/// Parses a file of apt's sources. The extension of its name determines the format. Like apt, it ignores files with
/// other extensions.
pub fn parse(file: &Path, text: &str) -> Vec<Entry> {
    let forms: Vec<Form> = match file.extension().and_then(|extension| extension.to_str()) {
        Some("sources") => {
            let stanzas: Vec<Paragraph> = text.parse().map_or_else(|_| Vec::new(), |stanzas: Deb822| stanzas.into());
            stanzas.into_iter().filter(is_in_use).map(Form::Stanza).collect()
        }
        Some("list") => text.lines().filter_map(parse_line).collect(),
        _ => Vec::new(),
    };
    forms.into_iter().map(|form| Entry { file: file.to_owned(), form }).collect()
}

fn is_in_use(stanza: &Paragraph) -> bool {
    let off = ["no", "false", "without", "off", "disable", "0"];
    let enabled = stanza.get("Enabled").is_none_or(|value| !off.contains(&value.trim()));
    enabled && words(stanza, "Types").any(|kind| kind == "deb")
}

fn words<'a>(stanza: &'a Paragraph, field: &str) -> impl Iterator<Item = &'a str> {
    stanza.get(field).unwrap_or_default().split_whitespace()
}

/// `deb [options] uri suite [component...] # comment`
fn parse_line(line: &str) -> Option<Form> {
    let line = line.split('#').next().unwrap_or_default();
    let rest = line.trim().strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t']))?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => {
            let (options, rest) = inside.split_once(']')?;
            (Some(format!("[{options}]")), rest)
        }
        None => (None, rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Form::Line { options, uri, suite, components: words.collect::<Vec<_>>().join(" ") })
}

impl Entry {
    /// Whether it names a suite.
    pub fn has_suite(&self, suite: &str) -> bool {
        match &self.form {
            Form::Stanza(stanza) => words(stanza, "Suites").any(|other| other == suite),
            Form::Line { suite: other, .. } => other == suite,
        }
    }

    fn has_uri(&self, uri: &str) -> bool {
        let same = |other: &str| other.trim_end_matches('/') == uri.trim_end_matches('/');
        match &self.form {
            Form::Stanza(stanza) => words(stanza, "URIs").any(same),
            Form::Line { uri: other, .. } => same(other),
        }
    }

    /// The first address that it names.
    pub fn uri(&self) -> Option<&str> {
        match &self.form {
            Form::Stanza(stanza) => words(stanza, "URIs").next(),
            Form::Line { uri, .. } => Some(uri),
        }
    }

    /// Whether apt downloaded an index because of this entry.
    pub fn is_behind(&self, target: &Target) -> bool {
        self.file == target.file && self.has_suite(&target.release) && self.has_uri(&target.uri)
    }

    /// The file that has it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The keyring that its archive must be signed with, or the keys themselves, if the entry says so.
    pub fn signed_by(&self) -> Option<&str> {
        match &self.form {
            Form::Stanza(stanza) => stanza.get("Signed-By"),
            Form::Line { options, .. } => {
                let options = options.as_deref()?.trim_matches(['[', ']']);
                options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="))
            }
        }
    }

    /// The same entry for another suite of the archive at this address: the extension that its file must have, and its
    /// text. It has the components, architectures and signing keys of this entry.
    pub fn for_suite(&self, suite: &str, uri: &str) -> (&'static str, String) {
        match &self.form {
            Form::Stanza(stanza) => {
                let mut stanza = stanza.clone();
                for (field, value) in [("Types", "deb"), ("URIs", uri), ("Suites", suite)] {
                    stanza.set(field, value);
                }
                ("sources", stanza.to_string())
            }
            Form::Line { options, components, .. } => {
                let words = ["deb", options.as_deref().unwrap_or_default(), uri, suite, components];
                let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
                ("list", format!("{}\n", words.join(" ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STANZAS: &str = "\
# Installed by debian-installer
Types: deb deb-src
# The nearest mirror.
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://mirror.example.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example.org/debian
Suites: bookworm-backports
Components: main
Enabled: no

Types: deb-src
URIs: http://mirror.example.org/debian
Suites: sid
Components: main
";

    const LINES: &str = "\
# deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb-src http://mirror.example.org/debian bookworm main
deb http://mirror.example.org/debian bookworm main contrib # mirror
deb\t[ arch=amd64 signed-by=/usr/share/keyrings/k.gpg ]  https://example.org/debian/ bookworm stable
";

    fn target(file: &str, uri: &str) -> Target {
        Target { file: file.into(), uri: uri.to_owned(), release: "bookworm".to_owned(), ..Target::default() }
    }

    #[test]
    fn enabled_stanzas_are_parsed() {
        let entries = parse(Path::new("/d.sources"), STANZAS);
        assert_eq!(entries.len(), 2);
        assert!(entries[0].has_suite("bookworm") && entries[0].has_suite("bookworm-updates"));
        assert!(!entries.iter().any(|entry| entry.has_suite("bookworm-backports")));
    }

    #[test]
    fn enabled_lines_are_parsed() {
        let entries = parse(Path::new("/d.list"), LINES);
        assert_eq!(entries.len(), 2);
        let behind = |uri| entries.iter().position(|entry| entry.is_behind(&target("/d.list", uri)));
        assert_eq!(behind("http://mirror.example.org/debian/"), Some(0));
        assert_eq!(behind("https://example.org/debian/"), Some(1));
        assert_eq!(behind("https://elsewhere.example.org/"), None);
        assert_eq!(parse(Path::new("/d.list.save"), LINES), []);
    }

    #[test]
    fn a_new_stanza_keeps_the_fields_of_the_old_one() {
        let entries = parse(Path::new("/d.sources"), STANZAS);
        let (extension, text) = entries[0].for_suite("bookworm-backports", "http://mirror.example.org/debian/");
        insta::assert_snapshot!(text, @"
        Types: deb
        URIs: http://mirror.example.org/debian/
        Suites: bookworm-backports
        Components: main non-free-firmware
        Signed-By: 
         -----BEGIN PGP PUBLIC KEY BLOCK-----
         .
         mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS
         -----END PGP PUBLIC KEY BLOCK-----
        ");
        let file = Path::new("/new").with_extension(extension);
        assert!(parse(&file, &text)[0].has_suite("bookworm-backports"));
    }

    #[test]
    fn a_new_line_keeps_the_parts_of_the_old_one() {
        let new: Vec<_> = parse(Path::new("/d.list"), LINES)
            .iter()
            .map(|entry| entry.for_suite("bookworm-backports", "http://x/"))
            .collect();
        let lines: String = new.iter().map(|(_, line)| line.as_str()).collect();
        insta::assert_snapshot!(lines, @"
        deb http://x/ bookworm-backports main contrib
        deb [ arch=amd64 signed-by=/usr/share/keyrings/k.gpg ] http://x/ bookworm-backports stable
        ");
        assert_eq!(new[1].0, "list");
        assert!(parse(Path::new("/d.list"), &new[1].1)[0].has_suite("bookworm-backports"));
    }

    #[test]
    fn the_keyring_of_an_entry_is_read() {
        let entries = parse(Path::new("/d.list"), LINES);
        assert_eq!(entries[0].signed_by(), None);
        assert_eq!(entries[1].signed_by(), Some("/usr/share/keyrings/k.gpg"));
        let entries = parse(Path::new("/d.sources"), STANZAS);
        assert!(entries[0].signed_by().unwrap().contains("BEGIN PGP PUBLIC KEY BLOCK"));
        assert_eq!(entries[1].signed_by(), Some("/usr/share/keyrings/debian-archive-keyring.gpg"));
    }

    proptest! {
        #[test]
        fn anything_parses(text in "(?s).*") {
            parse(Path::new("/d.list"), &text);
            parse(Path::new("/d.sources"), &text);
        }

        #[test]
        fn a_line_keeps_its_parts(
            uri in "https?://[a-z.]{1,20}/[a-z]{0,9}",
            suite in "[a-z][a-z-]{0,15}",
            space in "[ \t]{1,3}",
        ) {
            let line = format!("deb{space}[trusted=yes]{space}{uri}{space}{suite}{space}main");
            let entries = parse(Path::new("/d.list"), &line);
            prop_assert_eq!(entries.len(), 1);
            prop_assert!(entries[0].has_suite(&suite) && entries[0].has_uri(&uri));
        }
    }
}
