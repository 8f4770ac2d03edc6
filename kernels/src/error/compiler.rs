//! The first error of a failed build.

use std::fmt;

/// The first error of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompilerError {
    /// The file, relative to the kernel's source. `None` for an error without a file, such as the linker's.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The message of the compiler, the linker or make.
    pub message: String,
}

impl fmt::Display for CompilerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}
