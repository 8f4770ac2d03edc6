//! Text for a mail.

use std::fmt::Write as _;

/// What a line of a mail may have at most.
pub(crate) const WIDTH: usize = 72;

/// Adds a paragraph: its first line begins with `first`, the others with `rest`.
pub(crate) fn wrap(text: &mut String, first: &str, rest: &str, words: &str) {
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    // Names of tasks and of options have hyphens.
    let splitter = textwrap::WordSplitter::NoHyphenation;
    let options = textwrap::Options::new(WIDTH).initial_indent(first).subsequent_indent(rest).word_splitter(splitter);
    for line in textwrap::wrap(&words, options) {
        let _ = writeln!(text, "{line}");
    }
}
