//! One line of a console: what the kernel said in it.

use std::sync::LazyLock;

use regex::Regex;

/// What `CONFIG_PRINTK_TIME` and `CONFIG_PRINTK_CALLER` put before a message (`kernel/printk/printk.c`,
/// `info_print_prefix()`), and `/dev/kmsg`-like level prefixes before that.
static PREFIX: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:<\d{1,3}>)?\[ *\d+\.\d{6}\](?: ?\[ *[TC]\d+\])? ?").expect("a constant expression")
});

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The text, without prefixes.
    pub text: &'a str,
    /// It has a timestamp: the kernel said it.
    pub is_stamped: bool,
}

/// The messages in a line: more than one if two writers were torn into each other.
pub fn messages(line: &str) -> impl Iterator<Item = Message<'_>> {
    let mut rest = Some(line.trim_end());
    std::iter::from_fn(move || {
        let line = rest?;
        // A prefix at the beginning belongs to this message; the next one begins another.
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

/// What precedes `WARN()` and `BUG()` (`include/asm-generic/bug.h`, `CUT_HERE`).
pub fn is_cut_here(text: &str) -> bool {
    text.contains("[ cut here ]")
}

/// A line of nothing but `=`, at least 20.
pub fn is_ruler(text: &str) -> bool {
    text.len() >= 20 && text.bytes().all(|byte| byte == b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_go_and_torn_lines_come_apart() {
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
