//! Text for a mail.

use std::fmt::Write as _;

/// The maximum length of a line.
pub(crate) const WIDTH: usize = 72;

/// Adds a paragraph. `first` is put before its first line, `rest` before the others.
pub(crate) fn wrap(text: &mut String, first: &str, rest: &str, words: &str) {
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    // Names of tasks and options have hyphens. Lines must not break there.
    let splitter = textwrap::WordSplitter::NoHyphenation;
    let options = textwrap::Options::new(WIDTH).initial_indent(first).subsequent_indent(rest).word_splitter(splitter);
    for line in textwrap::wrap(&words, options) {
        let _ = writeln!(text, "{line}");
    }
}

/// Adds a script under the name of its scenario, so that others can run it. A line that is cut or wrapped would not run.
pub(crate) fn quote_script(text: &mut String, name: &str, script: &str) {
    let _ = writeln!(text, "\n{name}:\n");
    for line in script.lines() {
        let indent = if line.is_empty() { "" } else { "    " };
        let _ = writeln!(text, "{indent}{line}");
    }
}
