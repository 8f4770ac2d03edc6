//! One line of a log: the kernel's messages in it.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::prefix::{self, Prefix};

/// The escape sequences with which `dmesg` and terminals set colours.
static COLOUR: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[[0-9;?]*[A-Za-z]").expect("a constant expression"));

/// A character as `/dev/kmsg` writes it if it is not printable (`kernel/printk/printk.c`, `msg_add_ext_text()`).
static ESCAPE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\\x([0-7][0-9a-f])").expect("a constant expression"));

/// Longer messages are cut off here. The kernel prints no message that is longer (`LOG_LINE_MAX`).
const LONGEST: usize = 4096;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// The text, without prefixes.
    pub text: Cow<'a, str>,
    /// What the prefixes say.
    pub prefix: Prefix,
    /// The prefixes themselves. All lines of one message have the same.
    pub stamp: &'a str,
}

/// The line without the colours of a terminal.
pub fn without_colours(line: &str) -> Cow<'_, str> {
    if line.contains('\x1b') { COLOUR.replace_all(line, "") } else { Cow::Borrowed(line) }
}

/// The messages in a line. There is more than one if the output of two writers is interleaved.
pub fn messages(line: &str) -> impl Iterator<Item = Message<'_>> {
    let mut rest = Some(line.trim_end());
    std::iter::from_fn(move || {
        let line = rest?;
        // A prefix at the beginning belongs to this message. The next prefix begins another message.
        let prefix = prefix::of(line);
        let (stamp, body) = line.split_at(prefix.len);
        let next = prefix::next(body);
        rest = next.map(|next| &body[next..]);
        let text = shortened(&body[..next.unwrap_or(body.len())]);
        let text = if prefix.is_escaped { ESCAPE.replace_all(text, character) } else { Cow::Borrowed(text) };
        Some(Message { text, prefix, stamp })
    })
}

fn character(escape: &Captures<'_>) -> String {
    u8::from_str_radix(&escape[1], 16).map_or(String::new(), |byte| char::from(byte).to_string())
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The first line of a boot (`init/version-timestamp.c`, `linux_banner`).
pub fn is_banner(text: &str) -> bool {
    text.starts_with("Linux version ")
}

/// The line before the reports of `WARN()` and `BUG()` (`include/asm-generic/bug.h`, `CUT_HERE`).
pub fn is_cut_here(text: &str) -> bool {
    text.contains("[ cut here ]")
}

/// A line that consists of `=`, at least 20 of them.
pub fn is_ruler(text: &str) -> bool {
    text.len() >= 20 && text.bytes().all(|byte| byte == b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_removed_and_interleaved_messages_are_split() {
        for (line, expected) in [
            ("[    1.883202] sysrq: Trigger a crash\r", &["sysrq: Trigger a crash"][..]),
            ("<4>[   12.000001] [  T37] \tindented", &["\tindented"]),
            ("[   12.000001][  C1]  vfs_read+0x1/0x2", &[" vfs_read+0x1/0x2"]),
            ("no time at all", &["no time at all"]),
            ("init: do[    1.000000] BUG: x", &["init: do", "BUG: x"]),
            ("[    1.000000] BU[    1.000001] WARNING: y", &["BU", "WARNING: y"]),
            (
                "** 12 printk messages dropped ** [    1.000000] BUG: x",
                &["** 12 printk messages dropped ** ", "BUG: x"],
            ),
            ("4,339,5140900,-;two\\x0alines", &["two\nlines"]),
            ("[    1.000000] ", &[""]),
            ("", &[""]),
        ] {
            assert_eq!(messages(line).map(|message| message.text).collect::<Vec<_>>(), expected, "{line:?}");
        }
    }

    #[test]
    fn colours_are_removed() {
        let line = "\x1b[32m[  790.817077] \x1b[0m\x1b[31mBUG: x\x1b[0m";
        assert_eq!(without_colours(line), "[  790.817077] BUG: x");
    }

    #[test]
    fn a_message_without_end_is_cut_off() {
        let line = "ü".repeat(LONGEST);
        assert_eq!(messages(&line).next().unwrap().text.len(), LONGEST);
    }
}
