//! One line of a console log: the kernel's messages in it.

use std::sync::LazyLock;

use regex::Regex;

/// The prefix of a message with `CONFIG_PRINTK_TIME` and `CONFIG_PRINTK_CALLER` (`kernel/printk/printk.c`,
/// `info_print_prefix()`). A level prefix as in `/dev/kmsg` may precede it.
static PREFIX: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:<\d{1,3}>)?\[ *\d+\.\d{6}\](?: ?\[ *[TC]\d+\])? ?").expect("a constant expression")
});

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The text, without prefixes.
    pub text: &'a str,
    /// It has a timestamp, so the kernel printed it.
    pub is_stamped: bool,
}

/// The messages in a line. There is more than one if the output of two writers is interleaved.
pub fn messages(line: &str) -> impl Iterator<Item = Message<'_>> {
    let mut rest = Some(line.trim_end());
    std::iter::from_fn(move || {
        let line = rest?;
        // A prefix at the beginning belongs to this message. The next prefix begins another message.
        let start = PREFIX.find(line).filter(|prefix| prefix.start() == 0).map_or(0, |prefix| prefix.end());
        let body = &line[start..];
        let next = PREFIX.find(body).map(|prefix| prefix.start());
        rest = next.map(|next| &body[next..]);
        Some(Message { text: &body[..next.unwrap_or(body.len())], is_stamped: start > 0 })
    })
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
            ("[    1.000000] ", &[""]),
            ("", &[""]),
        ] {
            assert_eq!(messages(line).map(|message| message.text).collect::<Vec<_>>(), expected, "{line:?}");
        }
    }
}
