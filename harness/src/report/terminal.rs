//! The terminal on which a table is printed.

use std::io::{IsTerminal, Stdout};

/// The width of a table, and whether it has colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Columns; none for no limit.
    pub width: Option<u16>,
    /// Whether to use colours. The table says the same without them.
    pub color: bool,
    /// Whether to show all rows: also those of families of which every cell passes.
    pub whole: bool,
}

impl Terminal {
    /// The terminal of standard output. A file has no limit on the length of lines, and no colours. A terminal with
    /// `NO_COLOR` (<https://no-color.org>) has no colours either.
    pub fn of_stdout(stdout: &Stdout) -> Terminal {
        if !stdout.is_terminal() {
            return Terminal::default();
        }
        let width = rustix::termios::tcgetwinsize(stdout).ok().map(|size| size.ws_col).filter(|width| *width > 0);
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Terminal { width, color, whole: false }
    }
}
