//! Finds the splats in the messages of a log.

use std::collections::{HashMap, HashSet};

use super::line::{self, Message};
use super::prefix::Caller;
use super::report::Open;
use super::rules::{self, Rule};
use super::{Splat, SplatKind, body};

/// The headline follows `cut here` within this many lines. `WARN()` prints the caller's message in between.
const CUT_REACH: usize = 16;

/// Whoever has printed nothing for this many lines has ended its report.
const IDLE: usize = 4096;

/// How headlines begin that may be longer than a line.
const HEADS: [&str; 4] = ["INFO: task ", "WARNING: ", "Oops: ", "general protection fault"];

/// Whoever prints. Without `CONFIG_PRINTK_CALLER` nobody knows who that is, and all are one.
type Printer = Option<Caller>;

/// What one printer is about to report.
#[derive(Debug, Default)]
struct Report {
    open: Option<Open>,
    /// The line of the last `cut here`, until a headline follows.
    cut: Option<usize>,
    /// The last line that consists of `=`. Lockdep and KASAN print one before the headline.
    ruler: Option<usize>,
    /// A headline or another line whose end may be in the next line.
    torn: Option<Torn>,
    /// The line of the last message.
    last: usize,
    /// The report of another CPU that has asked this one for its stack.
    helps: Option<Printer>,
    /// The last splat, as an index, if it has no stack yet. With `panic_on_warn` the kernel panics before it prints that.
    bare: Option<usize>,
}

/// A line whose end may be in the next line.
#[derive(Debug)]
struct Torn {
    number: usize,
    text: String,
    stamp: String,
}

/// Finds splats.
#[derive(Debug, Default)]
pub struct Scan {
    found: Vec<Splat>,
    reports: HashMap<Printer, Report>,
    /// The reports that the kernel repeats and that were found.
    repeated: HashSet<(SplatKind, Option<String>)>,
    /// The printer whose report waits for the stacks of other CPUs.
    asking: Option<Printer>,
    /// The kernel has printed a message. (The log of a restored guest has no banner.)
    booted: bool,
    /// When nobody's idleness was checked since.
    checked: usize,
}

impl Scan {
    /// Takes a message, which is in line `number`.
    pub fn take(&mut self, number: usize, message: &Message<'_>) {
        let text = &*message.text;
        if line::is_banner(text) {
            return self.banner(number, message);
        }
        self.booted |= message.prefix.is_kernels;
        if number - self.checked >= IDLE {
            self.end_idle(number);
        }
        let printer = message.prefix.caller;
        let report = self.reports.entry(printer).or_default();
        report.last = number;
        let joined = report.torn.as_ref().and_then(|torn| Some((torn.number, torn.joined(message)?)));
        if let Some((start, whole)) = joined {
            report.torn = None;
            return self.take_whole(printer, start..number + 1, &whole);
        }
        self.end_torn(printer);
        if may_be_torn(text) {
            let report = self.reports.entry(printer).or_default();
            report.torn = Some(Torn { number, text: text.to_owned(), stamp: message.stamp.to_owned() });
            return;
        }
        self.take_whole(printer, number..number + 1, text);
    }

    /// Takes the text of a message, which may be in two lines.
    fn take_whole(&mut self, printer: Printer, lines: std::ops::Range<usize>, text: &str) {
        let report = self.reports.entry(printer).or_default();
        let number = lines.start;
        if line::is_cut_here(text) {
            let continues = report.open.as_ref().is_some_and(Open::may_warn);
            report.cut = Some(number);
            if !continues {
                self.close(printer);
            }
            return;
        }
        if let Some(rule) = rules::matching(text) {
            if report.open.as_mut().is_some_and(|open| open.absorbs(rule, lines.end - 1, text)) {
                report.cut = None;
                return;
            }
            let is_message = rule.may_be_message && report.cut.is_some_and(|cut| number - cut <= CUT_REACH);
            let is_between = rule.is_short() && report.open.as_ref().is_some_and(|open| !open.is_whole());
            if is_between {
                return self.keep(printer, Open::new(rule, number, number, text, false), false);
            }
            if !is_message {
                return self.begin(printer, rule, lines, text);
            }
        }
        if report.open.as_mut().is_some_and(|open| open.take(lines.end - 1, text)) {
            let asks = report.open.as_ref().is_some_and(Open::asks_cpus);
            self.asking = if asks { Some(printer) } else { self.asking.filter(|asking| *asking != printer) };
            return;
        }
        if report.open.is_none() && self.help(printer, lines.end - 1, text) {
            return;
        }
        self.close(printer);
        if line::is_ruler(text) {
            self.reports.entry(printer).or_default().ruler = Some(number);
        }
    }

    /// Takes a line of the stack of a CPU that another CPU has asked for it.
    fn help(&mut self, printer: Printer, number: usize, text: &str) -> bool {
        let Some(helper) = self.reports.get_mut(&printer) else { return false };
        if text.starts_with("NMI backtrace for cpu ") {
            helper.helps = self.asking.filter(|asking| *asking != printer);
        }
        let Some(asking) = helper.helps else { return false };
        let open = self.reports.get_mut(&asking).and_then(|report| report.open.as_mut());
        let takes = open.is_some_and(|open| open.take(number, text));
        if !takes && let Some(helper) = self.reports.get_mut(&printer) {
            helper.helps = None;
        }
        takes
    }

    fn begin(&mut self, printer: Printer, rule: &'static Rule, lines: std::ops::Range<usize>, text: &str) {
        self.close(printer);
        let report = self.reports.entry(printer).or_default();
        let number = lines.start;
        let cut = report.cut.take().filter(|cut| number - cut <= CUT_REACH);
        let ruler = report.ruler.take().filter(|ruler| number - ruler <= 1);
        let mut open = Open::new(rule, cut.or(ruler).unwrap_or(number), number, text, cut.is_some());
        open.extend(lines.end - 1);
        report.open = Some(open);
        report.helps = None;
    }

    /// Takes the first line of a boot. A second boot is an unexpected reboot. In a log that outlives the kernel it is not.
    fn banner(&mut self, number: usize, message: &Message<'_>) {
        self.cut_all_off(number);
        if std::mem::replace(&mut self.booted, true) && !message.prefix.is_stored {
            let title = format!("the kernel started again: {}", message.text);
            self.found.push(Splat::of_lines(SplatKind::Reboot, title, number..number + 1, false));
        }
    }

    fn end_idle(&mut self, number: usize) {
        self.checked = number;
        let idle = self.reports.iter().filter(|(_, report)| number - report.last >= IDLE);
        let idle: Vec<_> = idle.map(|(printer, _)| *printer).collect();
        for printer in idle {
            self.end_torn(printer);
            self.close(printer);
            self.reports.remove(&printer);
        }
    }

    fn close(&mut self, printer: Printer) {
        let open = self.reports.get_mut(&printer).and_then(|report| report.open.take());
        if let Some(open) = open {
            self.keep(printer, open, false);
        }
    }

    fn keep(&mut self, printer: Printer, open: Open, cut_off: bool) {
        if open.repeats().is_some_and(|repeated| !self.repeated.insert(repeated)) {
            return;
        }
        let splat = open.close(cut_off);
        let report = self.reports.entry(printer).or_default();
        let bare = report.bare.take().and_then(|index| self.found.get_mut(index));
        if let Some(bare) = bare.filter(|_| splat.kind == SplatKind::Panic) {
            bare.take_stack(&splat);
        }
        report.bare = splat.frames.is_empty().then_some(self.found.len());
        self.found.push(splat);
    }

    /// Takes a line whose end did not come.
    fn end_torn(&mut self, printer: Printer) {
        if let Some(torn) = self.reports.get_mut(&printer).and_then(|report| report.torn.take()) {
            self.take_whole(printer, torn.number..torn.number + 1, &torn.text);
        }
    }

    /// Closes the open splat of a printer, because the log ends here or another boot begins.
    fn cut_off(&mut self, printer: Printer, end: usize) {
        self.end_torn(printer);
        let open = self.reports.get_mut(&printer).and_then(|report| report.open.take());
        if let Some(open) = open {
            self.keep(printer, open, true);
        }
        let Some(report) = self.reports.remove(&printer) else { return };
        if let Some(cut) = report.cut.filter(|cut| end - cut <= CUT_REACH) {
            let title = "a report was cut off before its headline".to_owned();
            self.found.push(Splat::of_lines(SplatKind::Warning, title, cut..end.max(cut + 1), true));
        }
    }

    fn cut_all_off(&mut self, end: usize) {
        let printers: Vec<_> = self.reports.keys().copied().collect();
        printers.into_iter().for_each(|printer| self.cut_off(printer, end));
    }

    /// The splats of a log of `end` lines. `whole_lines`: its last line is complete.
    pub fn finish(mut self, end: usize, whole_lines: bool) -> Vec<Splat> {
        self.cut_all_off(end);
        let mut found = self.found;
        // Reports of several printers may overlap.
        found.sort_by_key(|splat| (splat.lines.start, splat.lines.end));
        if !whole_lines && let Some(last) = found.iter_mut().find(|splat| splat.lines.end == end) {
            last.corrupted = true;
        }
        found
    }
}

/// Whether the end of a line may be in the next line. The name of a task may contain a line feed, and mail programs break
/// long lines.
fn may_be_torn(text: &str) -> bool {
    let is_headline = HEADS.iter().any(|head| text.starts_with(head));
    (is_headline && rules::matching(text).is_none()) || body::is_torn(text)
}

impl Torn {
    /// The whole text, if a message is the other part.
    fn joined(&self, next: &Message<'_>) -> Option<String> {
        if rules::matching(&next.text).is_some() {
            return None;
        }
        let between: &[char] = match (self.stamp.as_str(), next.stamp) {
            // A log without times does not tell whether the name has a line feed or a mail program has broken the line.
            ("", "") => &['\n', ' '],
            (_, "") => &[' '],
            // All lines of a message have the same prefix.
            (own, other) if own == other => &['\n'],
            _ => &[],
        };
        let whole = |between: &char| format!("{}{between}{}", self.text, next.text);
        between
            .iter()
            .map(whole)
            .find(|whole| rules::matching(whole).is_some() || (body::is_torn(&self.text) && !body::is_torn(whole)))
    }
}
