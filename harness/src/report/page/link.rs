//! Links from a page to files, and within it.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

/// The address of a file, as seen from a page in a folder. Both paths are absolute.
pub fn to(from: &Path, file: &Path) -> String {
    let (from, file): (Vec<_>, Vec<_>) = (parts(from), parts(file));
    let same = from.iter().zip(&file).take_while(|(one, other)| one == other).count();
    let mut way: Vec<String> = vec!["..".to_owned(); from.len() - same];
    way.extend(file[same..].iter().map(|part| encoded(&part.to_string_lossy())));
    if way.is_empty() { ".".to_owned() } else { way.join("/") }
}

/// A path without `.`, and with `..` carried out.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()),
            other => parts.push(PathBuf::from(other.as_os_str())),
        }
    }
    parts
}

/// A part of a path, with everything escaped that has a meaning in an address.
fn encoded(part: &str) -> String {
    part.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~+:,@".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// The name of a place on the page, made of a text.
pub fn id(kind: &str, text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    format!("{kind}-{}", text.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_and_escaped() {
        let from = Path::new("/runs/one");
        assert_eq!(to(from, Path::new("/runs/one/a.b#2/x.log")), "a.b%232/x.log");
        assert_eq!(to(from, Path::new("/runs/two/50%")), "../two/50%25");
        assert_eq!(to(Path::new("/runs/./one/../one"), Path::new("/runs/one")), ".");
        assert_eq!(id("k", "v6.12 <b>"), "k-v6.12__b_");
    }
}
