//! Stack frames in a log, as the architectures print them.

use std::sync::LazyLock;

use kernels::InFunction;
use regex::Regex;

use super::stack;

/// A function with its offset, as `%pS` and `%pB` print it, or with file and line, as `scripts/decode_stacktrace.sh` and
/// syzkaller print it.
macro_rules! function {
    () => {
        r"(?P<name>[A-Za-z_][\w.$]*)(?:\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]+)| \(?[\w./+-]+\.(?:[chS]|rs):\d+)"
    };
}

/// A reliable frame (` vfs_read+0xd6/0x117`); `? ` marks those that the unwinder only guesses
/// (`arch/x86/kernel/dumpstack.c`, `printk_stack_address()`). Older kernels and other architectures put the address first,
/// and powerpc also the stack pointer. The marks of a stack may stand before the frame.
static FRAME: LazyLock<Regex> = LazyLock::new(|| {
    let before = r"^\s*(?:</?[A-Z]+>\s*)?\(?(?:\[<?\s*(?:[0-9a-fp]{8,16}|inline)\s*>?\]\s*){0,2}";
    Regex::new(&format!(r"{before}(?P<guess>\? )?{}", function!())).expect("constant expressions")
});

/// A frame of arm: the function, and then the one that called it.
static CALLED: LazyLock<Regex> = LazyLock::new(|| {
    let address = r"(?:\[<[0-9a-f]{8}>\] ?)?";
    Regex::new(&format!(
        r"^\s*{address}\(?(?P<name>[A-Za-z_][\w.]*)(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?\)? from {address}\(?[\w.]+"
    ))
    .expect("constant expressions")
});

/// The instruction pointer in kernel mode, or else the link register. On x86 the code segment of the kernel is 0010, or e030 under Xen, or 0060 on
/// i386; that of user space is another (`show_ip()`).
static POINTER: LazyLock<Regex> = LazyLock::new(|| {
    let registers = [
        r"RIP: (?:0010|e030|[0-9a-f]{4}:0010):",
        r"EIP: (?:0060:|0010:)?",
        r"E?IP(?: is at|:) ",
        // arm64, arm, riscv and mips, powerpc, s390, loongarch.
        r"pc : ",
        r"PC is at ",
        r"epc ?: ",
        r"NIP ",
        // The link register follows the instruction pointer. It shows who jumped to an address where nothing is, or who
        // called a function that only reports.
        r"lr : ",
        r"LR is at ",
        r"LR ",
        r"Krnl PSW : [0-9a-f]+ [0-9a-f]+ \(",
        r"\s*ERA: [0-9a-f]+ ",
    ];
    let before = format!(r"^(?:{})\s*(?:\[<?[0-9a-fp]+>?\]\s*){{0,2}}", registers.join("|"));
    Regex::new(&format!("{before}{}", function!())).expect("constant expressions")
});

/// A stack frame in a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A reliable frame: the function without compiler suffixes.
    Function(&'a str),
    /// A frame that the unwinder marks as a guess (`? `).
    Guess,
}

/// The stack frame in a message, if there is one.
pub fn frame(text: &str) -> Option<Frame<'_>> {
    let captures = CALLED.captures(text).or_else(|| FRAME.captures(text))?;
    if captures.name("guess").is_some() || text.ends_with("(unreliable)") {
        return Some(Frame::Guess);
    }
    Some(Frame::Function(stack::base(captures.name("name")?.as_str())))
}

/// The kernel function of the instruction pointer, in a message that shows the registers.
pub fn instruction_pointer(text: &str) -> Option<&str> {
    Some(stack::base(POINTER.captures(text)?.name("name")?.as_str()))
}

/// The place of a reliable frame or of the instruction pointer in the kernel's own code. A frame is where a call returns
/// to; its place is inside the call.
pub fn place(text: &str) -> Option<InFunction> {
    let (captures, back) = match POINTER.captures(text) {
        Some(captures) => (captures, 0),
        None => (FRAME.captures(text).filter(|captures| captures.name("guess").is_none())?, 1),
    };
    let number = |name| u64::from_str_radix(captures.name(name)?.as_str(), 16).ok();
    let (symbol, all) = (captures.name("name")?.as_str().to_owned(), captures.get(0)?.end());
    if text[all..].trim_start().starts_with('[') {
        return None;
    }
    Some(InFunction { symbol, offset: number("offset")?.saturating_sub(back), size: number("size")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_inside_the_call_and_not_in_a_module() {
        let place = |text| place(text).map(|place| (place.symbol, place.offset, place.size));
        let f = |symbol: &str, offset| Some((symbol.to_owned(), offset, 0x117));
        assert_eq!(place(" f+0xd6/0x117"), f("f", 0xd5));
        assert_eq!(place(" f.isra.0+0xd6/0x117"), f("f.isra.0", 0xd5));
        assert_eq!(place("RIP: 0010:f+0x44/0x117"), f("f", 0x44));
        assert_eq!(place(" ? f+0xd6/0x117"), None);
        assert_eq!(place(" f+0xd6/0x117 [module]"), None);
        assert_eq!(place("RIP: 0010:f+0x44/0x117 [module]"), None);
        assert_eq!(place(" f (mm/slub.c:4798 mm/slub.c:5658)"), None);
    }

    #[test]
    fn frames_of_all_architectures() {
        for line in [
            " f+0xd6/0x117",
            " f+0xd6/0x117 [module]",
            " f.isra.0+0xd6/0x117",
            "  [<ffffffff82d383a9>] f+0x12e/0x185",
            " <IRQ>  [<ffffffff816efb87>] f+0x12e/0x185",
            "[c00000017075f970] [c000000000214464] f+0x28/0x3c",
            "[<ffffffff80014264>] f+0x44c/0xbc0",
            "([<000000000012d4a8>] f+0x5a/0xa0)",
            " [<000000000012d4a8>] f+0x5a/0xa0 ",
            " f (mm/slub.c:4798 mm/slub.c:5658)",
            " f+0x1/0x2 net/core/dev.c:12",
            " f net/core/dev.c:12 [inline]",
            " [<     inline     >] f lib/dump_stack.c:15",
            "[<8011344c>] (f) from [<8010ef84>] (g+0x18/0x1c)",
            "[<c00142a8>] (f+0x0/0xf8) from [<c0061448>] (g+0x28/0xc4)",
            " f from g+0x10/0x14",
        ] {
            assert_eq!(frame(line), Some(Frame::Function("f")), "{line}");
        }
        for line in
            [" ? f+0x1/0x2", " [<ffffffff82d383a9>] ? f+0x1/0x2", "[c0000170] [c0000000] f+0x1/0x2 (unreliable)"]
        {
            assert_eq!(frame(line), Some(Frame::Guess), "{line}");
        }
        for line in ["Code: 00 00", "RIP: 0010:f+0x1/0x2", "handlers:", " </TASK>", "CPU: 1 PID: 2 Comm: f"] {
            assert_eq!(frame(line), None, "{line}");
        }
    }

    #[test]
    fn instruction_pointers_of_all_architectures() {
        for line in [
            "RIP: 0010:f+0x44/0x110",
            "RIP: 0010:f.cold+0x44/0x110 [module]",
            "RIP: 0010:[<ffffffff82d4e304>]  [<ffffffff82d4e304>] f+0x24/0x30",
            "RIP: 0010:f (lib/list_debug.c:51)",
            "IP: [<ffffffff82d4e304>] f+0x24/0x30",
            "IP: f+0x24/0x30",
            "EIP: f+0x1/0x2",
            "EIP is at f+0x1/0x2",
            "pc : f+0x6c/0x74",
            "PC is at f+0x6c/0x74",
            "epc : f+0x44c/0xbc0",
            "NIP [c000000000fad7d4] f+0x34/0x88",
            "LR is at f+0x44c/0xbc0",
            "Krnl PSW : 0704c00180000000 00000000001234 (f+0x12/0x34)",
            "   ERA: 9000000000223d2c f+0x10/0x20",
        ] {
            assert_eq!(instruction_pointer(line), Some("f"), "{line}");
        }
        for line in
            ["RIP: 0033:0x7f3c55d8f749", "RIP: 0033:f+0x1/0x2", "EIP: 0xb7d730cf", "NIP:  c000000000fad7d4 LR: c0"]
        {
            assert_eq!(instruction_pointer(line), None, "{line}");
        }
    }
}
