//! Which functions and lines of the kernel's source guests have executed: QEMU's plugin `harness/plugin/coverage.c` notes
//! blocks of instructions, and the kernel's vmlinux says which source they come from ([`kernels::Code`]).

mod blocks;
mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use kernels::Code;
use serde::{Deserialize, Serialize};

pub use blocks::{Blocks, BlocksError};
pub use lines::{Lines, LinesError};

/// Functions and lines by source file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sources(pub BTreeMap<String, Source>);

/// Functions and lines of one source file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// The names of the functions.
    pub functions: BTreeSet<String>,
    /// The numbers of the lines.
    pub lines: Lines,
}

impl Sources {
    /// All functions and lines that have code.
    pub fn all(code: &Code) -> Sources {
        Sources::of(code, |_| true)
    }

    /// Those that were executed. One instruction is enough.
    pub fn executed(code: &Code, blocks: &Blocks) -> Sources {
        Sources::of(code, |range| blocks.overlap(range))
    }

    fn of(code: &Code, is_wanted: impl Fn(&Range<u64>) -> bool) -> Sources {
        let any = |ranges: &Vec<Range<u64>>| ranges.iter().any(&is_wanted);
        let mut sources = Sources::default();
        for (path, file) in &code.0 {
            let functions = file.functions.iter().filter(|(_, ranges)| any(ranges)).map(|(name, _)| name.clone());
            let lines = file.lines.iter().filter(|(_, ranges)| any(ranges)).map(|(line, _)| *line);
            let source = Source { functions: functions.collect(), lines: lines.collect() };
            if source != Source::default() {
                sources.0.insert(path.clone(), source);
            }
        }
        sources
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Sources) {
        for (path, source) in &other.0 {
            let own = self.0.entry(path.clone()).or_default();
            own.functions.extend(source.functions.iter().cloned());
            own.lines.add(&source.lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use kernels::SourceFile;

    use super::*;

    /// A file with `f` at 0x10 and, inlined, at 0x40, and with `g` at 0x20. Line 1 is in `f`, line 2 in `g`.
    fn code() -> Code {
        let at = |ranges: &[(u64, u64)]| ranges.iter().map(|(start, end)| *start..*end).collect::<Vec<_>>();
        let functions = [("f".to_owned(), at(&[(0x10, 0x18), (0x40, 0x44)])), ("g".to_owned(), at(&[(0x20, 0x30)]))];
        let lines = [(1, at(&[(0x10, 0x18)])), (2, at(&[(0x20, 0x30)]))];
        let (functions, lines) = (functions.into_iter().collect(), lines.into_iter().collect());
        Code([("a.c".to_owned(), SourceFile { functions, lines })].into_iter().collect())
    }

    fn executed(blocks: &[(u64, u64)]) -> String {
        let blocks = Blocks::parse(&blocks::tests::file(blocks)).unwrap();
        serde_json::to_string(&Sources::executed(&code(), &blocks)).unwrap()
    }

    #[test]
    fn a_function_was_executed_if_one_instruction_was() {
        assert_eq!(executed(&[(0x17, 1)]), r#"{"a.c":{"functions":["f"],"lines":"1"}}"#);
        assert_eq!(executed(&[(0x38, 0x10)]), r#"{"a.c":{"functions":["f"],"lines":""}}"#, "where it was inlined");
        assert_eq!(executed(&[(0x14, 0x20)]), r#"{"a.c":{"functions":["f","g"],"lines":"1-2"}}"#);
        assert_eq!(executed(&[(0x18, 8), (0x30, 0x10)]), "{}", "between them");
    }

    #[test]
    fn what_several_guests_executed_is_added_up() {
        let of = |json: &str| serde_json::from_str::<Sources>(json).unwrap();
        let mut sum = of(r#"{"a.c":{"functions":["f"],"lines":"1,7"},"b.c":{"functions":[],"lines":"3"}}"#);
        sum.add(&of(r#"{"a.c":{"functions":["g"],"lines":"2"},"c.c":{"functions":["h"],"lines":""}}"#));
        let whole = r#"{"a.c":{"functions":["f","g"],"lines":"1-2,7"},"b.c":{"functions":[],"lines":"3"},"c.c":{"functions":["h"],"lines":""}}"#;
        assert_eq!(serde_json::to_string(&sum).unwrap(), whole);
    }
}
