//! Error messages that a kernel says in a cell and another kernel does not say in the same cell. They are shown, and are no
//! failure.

use std::collections::BTreeSet;

/// The error messages of all repeats of a cell on one kernel. None if one of them is not known.
pub fn of_all<'a>(repeats: impl Iterator<Item = Option<&'a Vec<String>>>) -> Option<BTreeSet<String>> {
    let mut all = None;
    for messages in repeats {
        all.get_or_insert_with(BTreeSet::new).extend(messages?.iter().cloned());
    }
    all
}

/// The messages that are new on a kernel. None are if those of one of the two kernels are not known.
pub fn new(before: Option<&BTreeSet<String>>, after: Option<&BTreeSet<String>>) -> Vec<String> {
    match (before, after) {
        (Some(before), Some(after)) => after.difference(before).cloned().collect(),
        _ => Vec::new(),
    }
}

/// Each message once, with the first cell that has it: `"MESSAGE" in CELL, and 2 more`.
pub fn by_message<'a>(cells: impl IntoIterator<Item = (String, &'a [String])>) -> Vec<String> {
    let mut told: Vec<(&str, String, usize)> = Vec::new();
    for (cell, messages) in cells {
        for message in messages {
            match told.iter_mut().find(|(known, ..)| known == message) {
                Some((_, _, count)) => *count += 1,
                None => told.push((message, cell.clone(), 0)),
            }
        }
    }
    let line = |(message, cell, more): (&str, String, usize)| match more {
        0 => format!("\"{message}\" in {cell}"),
        _ => format!("\"{message}\" in {cell}, and {more} more"),
    };
    told.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_message_is_new_only_if_no_repeat_of_the_other_kernel_has_it() {
        let (one, both) = (messages(&["a"]), messages(&["a", "b", "c"]));
        let before = of_all([Some(&one), Some(&messages(&["c"]))].into_iter());
        let after = of_all([Some(&one), Some(&both)].into_iter());
        assert_eq!(new(before.as_ref(), after.as_ref()), ["b"]);
        assert!(new(after.as_ref(), before.as_ref()).is_empty());
    }

    #[test]
    fn nothing_is_new_if_the_messages_of_a_repeat_are_not_known() {
        let both = messages(&["a", "b"]);
        let unknown = of_all([Some(&both), None].into_iter());
        let known = of_all([Some(&both)].into_iter());
        let silent = of_all([Some(&Vec::new())].into_iter());
        assert_eq!((&unknown, of_all(std::iter::empty())), (&None, None));
        assert!(new(unknown.as_ref(), known.as_ref()).is_empty() && new(known.as_ref(), unknown.as_ref()).is_empty());
        assert_eq!(new(silent.as_ref(), known.as_ref()), ["a", "b"]);
    }

    #[test]
    fn a_message_is_told_once() {
        let (one, other) = (messages(&["a", "b"]), messages(&["a"]));
        let cells = [("x (igb)".to_owned(), one.as_slice()), ("y (igb, yank)".to_owned(), &other)];
        assert_eq!(by_message(cells), ["\"a\" in x (igb), and 1 more", "\"b\" in x (igb)"]);
    }
}
