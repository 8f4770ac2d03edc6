//! A set of line numbers, which is short when it is written: `12-14,20`.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Numbers of lines of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lines(BTreeSet<u32>);

/// A text is no list of line numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no line number and no range of line numbers up to {MAX}")]
pub struct LinesError(String);

/// No file of the kernel has as many lines. It bounds the memory for what is read from a file.
const MAX: u32 = 1 << 20;

impl Lines {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Lines) {
        self.0.extend(&other.0);
    }

    /// Those that the other does not have.
    pub fn without(&self, other: &Lines) -> Lines {
        self.0.difference(&other.0).copied().collect()
    }

    /// Ranges of adjacent lines.
    fn ranges(&self) -> Vec<RangeInclusive<u32>> {
        let mut ranges: Vec<RangeInclusive<u32>> = Vec::new();
        for &line in &self.0 {
            match ranges.last_mut() {
                Some(last) if last.end().checked_add(1) == Some(line) => *last = *last.start()..=line,
                _ => ranges.push(line..=line),
            }
        }
        ranges
    }
}

impl FromIterator<u32> for Lines {
    fn from_iter<T: IntoIterator<Item = u32>>(lines: T) -> Lines {
        Lines(lines.into_iter().collect())
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |range: &RangeInclusive<u32>| match (range.start(), range.end()) {
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start}-{end}"),
        };
        f.write_str(&self.ranges().iter().map(range).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Lines {
    type Err = LinesError;

    fn from_str(text: &str) -> Result<Lines, LinesError> {
        let range = |part: &str| {
            let (start, end) = part.split_once('-').unwrap_or((part, part));
            let (start, end): (u32, u32) = (start.parse().ok()?, end.parse().ok()?);
            (start <= end && end <= MAX).then_some(start..=end)
        };
        let parts = text.split(',').filter(|_| !text.is_empty());
        let ranges = parts.map(|part| range(part).ok_or_else(|| LinesError(part.to_owned())));
        Ok(ranges.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

impl TryFrom<String> for Lines {
    type Error = LinesError;

    fn try_from(text: String) -> Result<Lines, LinesError> {
        text.parse()
    }
}

impl From<Lines> for String {
    fn from(lines: Lines) -> String {
        lines.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn adjacent_lines_are_written_as_a_range() {
        let lines: Lines = [20, 12, 13, 14, 16].into_iter().collect();
        assert_eq!(lines.to_string(), "12-14,16,20");
        assert_eq!(lines.without(&"13-16".parse().unwrap()).to_string(), "12,20");
        assert_eq!("".parse::<Lines>().unwrap(), Lines::default());
    }

    #[test]
    fn a_text_that_is_no_list_is_an_error_that_names_the_part() {
        for (text, part) in [("1,x", "x"), ("1,,2", ""), ("7-3", "7-3"), ("1-4000000000", "1-4000000000"), ("-1", "-1")]
        {
            assert_eq!(text.parse::<Lines>(), Err(LinesError(part.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn lines_are_read_as_they_were_written(lines in prop::collection::btree_set(0..=MAX, 0..50)) {
            let lines = Lines(lines);
            prop_assert_eq!(lines.to_string().parse::<Lines>(), Ok(lines));
        }

        #[test]
        fn any_text_is_lines_or_an_error(text in "[0-9,x-]{0,20}") {
            let _ = text.parse::<Lines>();
        }
    }
}
