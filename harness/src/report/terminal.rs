//! What a table is drawn on.

use std::io::{IsTerminal, Stdout};

/// The width of a table, and whether it has colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Columns; none if lines may be as long as they like.
    pub width: Option<u16>,
    /// Use colours. The table says the same without them.
    pub color: bool,
}

impl Terminal {
    /// What standard output is. A file gets long lines and no colours; neither does a terminal with `NO_COLOR` set
    /// (<https://no-color.org>) get any.
    pub fn of_stdout(stdout: &Stdout) -> Terminal {
        if !stdout.is_terminal() {
            return Terminal::default();
        }
        let width = rustix::termios::tcgetwinsize(stdout).ok().map(|size| size.ws_col).filter(|width| *width > 0);
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Terminal { width, color }
    }
}
