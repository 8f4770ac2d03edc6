//! What stands before a message in the forms in which people have kernel logs.
//!
//! A program that stores, forwards or shows the log puts its own prefix before that of the kernel. Each form of prefix is
//! one row of [`FORMS`]. A line may have several, such as `Dec 22 19:30:00 host kernel: [  790.817077] `.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// One form of prefix.
struct Form {
    /// A regular expression. Its optional groups are those of [`Prefix`].
    pattern: &'static str,
    /// A line with this prefix before the message `text`.
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the form, and is what the test reads"))]
    example: &'static str,
}

/// A clock time, with a fraction of a second or without.
macro_rules! clock {
    () => {
        r"\d\d:\d\d:\d\d(?:[.,]\d+)?"
    };
}

/// What ends a prefix. At the end of an empty message it may be missing.
macro_rules! blank {
    () => {
        "(?: |$)"
    };
}

/// All forms. A form that is longer than another and begins like it precedes it.
const FORMS: &[Form] = &[
    // Mail, and bugzilla: a quoted line.
    Form { pattern: r"[>|] ?", example: "> text" },
    // rsyslog, `journalctl -o short-iso`, `dmesg --time-format iso`, logs of CI systems, `ts`.
    Form {
        pattern: concat!(r"\[?\d{4}[-/]\d\d[-/]\d\d[T ]", clock!(), r"(?:Z| ?[+-]\d\d:?\d\d)?\]?", blank!()),
        example: "2024-12-22T19:30:00,817077+01:00 text",
    },
    // syslog, `journalctl`, with year or without.
    Form {
        pattern: concat!(r"[^\W\d_]{3,4}\.? [ \d]\d (?:\d{4} )?", clock!(), blank!()),
        example: "Dec 22 19:30:00 host kernel: text",
    },
    // `journalctl -o short-full`.
    Form {
        pattern: concat!(r"[^\W\d_]{2,4}\.? \d{4}-\d\d-\d\d ", clock!(), r" [A-Z\d:+-]{1,6}", blank!()),
        example: "Sun 2024-12-22 19:30:00 CET host kernel: text",
    },
    // `journalctl -o short-unix`.
    Form { pattern: concat!(r"\d{10}\.\d{3,6}", blank!()), example: "1734892200.817077 host kernel: text" },
    // `grabserial`, terminals.
    Form { pattern: concat!(r"\[?", clock!(), r"\]?", blank!()), example: "[19:30:00.817] text" },
    // `journalctl -o verbose`.
    Form { pattern: r"\s*MESSAGE=", example: "    MESSAGE=text" },
    // What syslog and journald put between time and message.
    Form { pattern: concat!(r"(?P<store>(?:[\w.-]+ )?kernel(?:\[\d+\])?:)", blank!()), example: "kernel: text" },
    Form {
        pattern: concat!(r"(?P<store5424>[\w.-]+ kernel - - -)", blank!()),
        example: "<4>1 2024-12-22T19:30:00Z host kernel - - - text",
    },
    // `dmesg -x`.
    Form { pattern: r"(?:kern|user|daemon|syslog)\s*:[a-z]{3,6}\s*:(?: |$)", example: "kern  :warn  : text" },
    // Levels: `dmesg -r`, and syslog over a network.
    Form { pattern: r"<\d{1,3}>(?:1 )?", example: "<4>text" },
    // /dev/kmsg and extended netconsole (kernel/printk/printk.c, info_print_ext_header()). netconsole may put the release
    // first, and whoever receives it the host.
    Form {
        pattern: r"(?:[\w.-]+ )?(?:\d+\.\d+[^,;\s]*,)?\d{1,3},\d+,(?P<micros>\d+),[c+-](?:,(?:caller=(?P<owner>[TC]\d+)|[^,;\s]*))*;",
        example: "4,339,790817077,-,caller=T145;text",
    },
    // `dmesg -T`, and `dmesg -H`: the time at the first line of each minute, and then how much later the next lines came.
    Form {
        pattern: concat!(r"\s*\[\w{2,5}\.? \w{3,5}\.? [ \d]\d ", clock!(), r" \d{4}\](?P<wall> |$)"),
        example: "[Sun Dec 22 19:30:00 2024] text",
    },
    Form { pattern: r"\[[A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d\](?P<minute> |$)", example: "[Dec22 19:30] text" },
    Form { pattern: r"\[ *\+\d+\.\d+\](?P<later> |$)", example: "[  +0.083437] text" },
    // The kernel's own (kernel/printk/printk.c, info_print_prefix()), with CONFIG_PRINTK_TIME and CONFIG_PRINTK_CALLER, and
    // `dmesg -d`.
    Form {
        pattern: r"\s*\[ *(?P<seconds>\d+\.\d{2,6})(?: <[ \d.]+>)?\](?: ?\[ *(?P<caller>[TC]\d+)(?:@C\d+)?\])? ?",
        example: "[  790.817077][  T145] text",
    },
];

static ONE: LazyLock<Regex> = LazyLock::new(|| {
    let forms: Vec<_> = FORMS.iter().map(|form| form.pattern).collect();
    Regex::new(&format!("^(?:{})", forms.join("|"))).expect("constant expressions")
});

/// The last form alone, which most lines have, and which is faster to match.
static KERNELS: LazyLock<Regex> = LazyLock::new(|| {
    let last = FORMS.last().map_or("", |form| form.pattern);
    Regex::new(&format!("^(?:{last})")).expect("a constant expression")
});

/// The kernel's own prefix at any place of a line.
static OWN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:<\d{1,3}>)?\[ *\d+\.\d{6}\](?: ?\[ *[TC]\d+(?:@C\d+)?\])? ?").expect("a constant expression")
});

/// What `journalctl -o short-monotonic` puts after a time that looks like the kernel's own.
static STORE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?:[\w.-]+ )?kernel(?:\[\d+\])?:(?: |$)").expect("a constant expression"));

/// No line has more prefixes than this.
const MOST: usize = 6;

/// Who printed a message: a task, or a CPU in an interrupt. With `CONFIG_PRINTK_CALLER` the log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Caller {
    /// A task, by its number.
    Task(u32),
    /// A CPU.
    Cpu(u32),
}

impl Caller {
    fn parse(text: &str) -> Option<Caller> {
        let number = text.get(1..)?.parse().ok()?;
        Some(if text.starts_with('T') { Caller::Task(number) } else { Caller::Cpu(number) })
    }
}

/// What the prefixes of a line say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prefix {
    /// How many bytes they have.
    pub len: usize,
    /// When the kernel printed the message, in seconds after its start.
    pub seconds: Option<f64>,
    /// Who printed it.
    pub caller: Option<Caller>,
    /// The kernel printed it: programs that print to the same console print without a time.
    pub is_kernels: bool,
    /// It comes from a log that outlives the kernel, such as that of syslog.
    pub is_stored: bool,
    /// Special characters are written as `\x0a`.
    pub is_escaped: bool,
}

/// The prefixes at the beginning of a line.
pub fn of(line: &str) -> Prefix {
    let mut prefix = Prefix::default();
    for _ in 0..MOST {
        let rest = &line[prefix.len..];
        let Some(captures) = KERNELS.captures(rest).or_else(|| ONE.captures(rest)) else { break };
        prefix.len += captures[0].len();
        prefix.note(&captures);
        if prefix.is_own(&captures) {
            prefix.take_store(line);
            break;
        }
    }
    prefix
}

/// Where the next prefix of the kernel begins. Then another writer has torn the line.
pub fn next(text: &str) -> Option<usize> {
    OWN.find(text).map(|prefix| prefix.start())
}

impl Prefix {
    fn note(&mut self, captures: &Captures<'_>) {
        let text = |name| captures.name(name).map(|group| group.as_str());
        let has = |name| captures.name(name).is_some();
        self.is_stored |= has("store") || has("store5424");
        self.is_escaped |= has("micros");
        self.is_kernels |= self.is_stored || self.is_own(captures);
        let micros = text("micros").and_then(|micros| micros.parse::<f64>().ok()).map(|micros| micros / 1e6);
        self.seconds = self.seconds.or(micros).or_else(|| text("seconds")?.parse().ok());
        self.caller = self.caller.or_else(|| Caller::parse(text("caller").or(text("owner"))?));
    }

    fn take_store(&mut self, line: &str) {
        if let Some(store) = STORE.find(&line[self.len..]) {
            self.len += store.len();
            self.is_stored = true;
        }
    }

    /// Whether the last prefix is the kernel's own, after which the message begins.
    fn is_own(&self, captures: &Captures<'_>) -> bool {
        ["micros", "wall", "minute", "later", "seconds"].into_iter().any(|name| captures.name(name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_removed() {
        for form in FORMS {
            assert_eq!(&form.example[of(form.example).len..], "text", "{}", form.example);
        }
    }

    #[test]
    fn a_message_keeps_its_indentation() {
        for line in [
            "[  790.817077]  <TASK>",
            "[  790.817077][  T145]  <TASK>",
            "[Sun Dec 22 19:30:00 2024]  <TASK>",
            "[  +0.000003]  <TASK>",
            "Dec 22 19:30:00 host kernel:  <TASK>",
            "Dec 22 19:30:00 host kernel: [  790.817077]  <TASK>",
            "2026-05-28T12:24:00.8170777Z [  790.817077]  <TASK>",
            "2024-12-22T19:30:00,817077+01:00  <TASK>",
            "6,339,790817077,-; <TASK>",
            "> [  790.817077]  <TASK>",
            "kern  :warn  : [  790.817077]  <TASK>",
            "[  790.817077 <    0.083437>]  <TASK>",
            "<6>[  125.323852][  T140]  <TASK>",
            "[  790.817077] host kernel:  <TASK>",
            "[  790.817077] kernel:  <TASK>",
            "Dec 22 19:30:00 host 4,339,790817077,-,caller=C0; <TASK>",
            "lis 02 20:23:06 host kernel:  <TASK>",
            "[2024-12-22 19:30:00.817] [  790.817077]  <TASK>",
            " <TASK>",
        ] {
            assert_eq!(&line[of(line).len..], " <TASK>", "{line}");
        }
    }

    #[test]
    fn an_empty_message_has_no_blank_before_it() {
        for form in FORMS {
            let line = form.example.strip_suffix("text").unwrap().trim_end();
            assert_eq!(of(line).len, line.len(), "{line}");
        }
    }

    #[test]
    fn time_and_writer_are_known() {
        let seen = |line| (of(line).seconds, of(line).caller);
        assert_eq!(seen("[    2.500000][  T145] x"), (Some(2.5), Some(Caller::Task(145))));
        assert_eq!(seen("[    2.500000] [    C1] x"), (Some(2.5), Some(Caller::Cpu(1))));
        assert_eq!(seen("4,339,2500000,-,caller=T145;x"), (Some(2.5), Some(Caller::Task(145))));
        assert_eq!(seen("x"), (None, None));
        // A number that no task has.
        assert_eq!(seen("[    2.500000][T99999999999] x"), (Some(2.5), None));
    }
}
