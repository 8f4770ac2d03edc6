//! Short texts for descriptions: what a guest sends may be long, and may hold line ends.

/// Most characters of one text that a description repeats.
pub(crate) const SHOWN: usize = 120;

/// The beginning of a text, on one line. Three dots stand for what is left out.
pub(crate) fn short(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    let mut short: String = text.chars().take(SHOWN).map(escaped).collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push_str("...");
    }
    short
}

/// The same in quotation marks. Backslashes and quotation marks in the text are escaped.
pub(crate) fn quoted(text: &str) -> String {
    let escaped: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    let dots = if text.chars().nth(SHOWN).is_some() { "..." } else { "" };
    format!("\"{escaped}{dots}\"")
}

/// A list in words: `a`, `a and b`, `a, b and c`.
pub(crate) fn listed<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut items: Vec<T> = items.into_iter().collect();
    let Some(last) = items.pop() else { return "nothing".to_owned() };
    if items.is_empty() {
        return last.as_ref().to_owned();
    }
    let first: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("{} and {}", first.join(", "), last.as_ref())
}

/// A number of things, with their name in the singular or the plural: `1 name`, `2 names`.
pub(crate) fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_a_short_one_is_not() {
        let exact = "a".repeat(SHOWN);
        assert_eq!(short(&exact), exact);
        assert_eq!(short(&format!("{exact}b")), format!("{exact}..."));
        assert_eq!(quoted(&exact), format!("\"{exact}\""));
        assert_eq!(quoted(&format!("{exact}b")), format!("\"{exact}...\""));
    }

    #[test]
    fn line_ends_and_control_characters_are_escaped() {
        assert_eq!(short("one\ntwo\0 \"three\" \\ é"), "one\\ntwo\\0 \"three\" \\ é");
        assert_eq!(quoted("one\ntwo\0 \"three\" \\ é"), r#""one\ntwo\0 \"three\" \\ é""#);
    }

    #[test]
    fn a_list_is_joined_with_commas_and_one_and() {
        assert_eq!(listed([""; 0]), "nothing");
        assert_eq!(listed(["a"]), "a");
        assert_eq!(listed(["a", "b"]), "a and b");
        assert_eq!(listed(["a", "b", "c"]), "a, b and c");
    }
}
