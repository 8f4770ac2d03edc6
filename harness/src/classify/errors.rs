//! The error messages of a kernel in a form that two kernels, or two runs, can be compared by.

use std::collections::BTreeSet;

use guest_protocol::Message;

/// Syslog severity "error" (`include/linux/kern_levels.h`). Smaller numbers are more severe.
const ERROR: u8 = 3;

/// What stands for a number, an address, or the name of a PCI function.
const ANY: char = '#';

/// The text of a kernel message of level "error" or above, in its [`normal`] form.
pub fn error(message: &Message) -> Option<String> {
    match message {
        Message::Kmsg { level, text, .. } if *level <= ERROR => Some(normal(text)),
        _ => None,
    }
}

/// Messages without duplicates, in order.
pub fn distinct(messages: impl IntoIterator<Item = String>) -> Vec<String> {
    messages.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// A message without what differs from run to run: each PCI address, number and hexadecimal address becomes `#`. So
/// `pcieport 0000:00:10.0: Slot(16): Link Up after 250 ms` becomes `pcieport #: Slot(#): Link Up after # ms`.
pub fn normal(text: &str) -> String {
    let mut normal = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = is_part_of_word(first);
        let end = rest.find(|next| is_part_of_word(next) != is_word).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(if is_word { bdf(rest).unwrap_or(end) } else { end });
        match is_word {
            true => push_word(piece, &mut normal),
            false => normal.push_str(piece),
        }
        rest = after;
    }
    normal
}

fn is_part_of_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

/// Adds a word. A number, also a hexadecimal one, becomes a mark, and so does a number in a name: `eth0`.
fn push_word(word: &str, normal: &mut String) {
    let is_number = |word: &str| word.chars().all(|char| char.is_ascii_hexdigit() || char == ':' || char == '.');
    let has_digit = word.contains(|char: char| char.is_ascii_digit());
    if word.strip_prefix("0x").is_some_and(is_number) || (is_number(word) && (has_digit || word.contains(':'))) {
        normal.push(ANY);
        return;
    }
    let mut in_number = false;
    for char in word.chars() {
        match char.is_ascii_digit() {
            true if in_number => {}
            true => normal.push(ANY),
            false => normal.push(char),
        }
        in_number = char.is_ascii_digit();
    }
}

/// The length of a PCI address (`0000:01:00.0`) at the beginning of a text.
fn bdf(text: &str) -> Option<usize> {
    let form = "xxxx:xx:xx.x";
    let head = text.get(..form.len())?;
    let fits = |(char, form): (char, char)| if form == 'x' { char.is_ascii_hexdigit() } else { char == form };
    let ends = !text[form.len()..].starts_with(is_part_of_word);
    (ends && head.chars().zip(form.chars()).all(fits)).then_some(form.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_differs_from_run_to_run_becomes_a_mark() {
        for (text, shown) in [
            ("pcieport 0000:00:10.0: Slot(16): Link Up after 250 ms", "pcieport #: Slot(#): Link Up after # ms"),
            ("igb abcd:ef:ab.c eth0: PCIe link lost", "igb # eth#: PCIe link lost"),
            (
                "DMAR: [DMA Read] Request device [01:00.0] fault addr 0xfee00000",
                "DMAR: [DMA Read] Request device [#:#.#] fault addr #",
            ),
            ("BAR 0 [mem 0xfea00000-0xfea1ffff]: bad face ffff888003a4b000", "BAR # [mem #-#]: bad face #"),
            ("igb_rd32 failed", "igb_rd# failed"),
        ] {
            assert_eq!(normal(text), shown);
        }
    }

    #[test]
    fn only_errors_count() {
        let message = |level| Message::Kmsg { at: 1, seq: 1, level, text: "reset 1 failed".to_owned() };
        assert_eq!(error(&message(0)).as_deref(), Some("reset # failed"));
        assert_eq!(error(&message(3)).as_deref(), Some("reset # failed"));
        assert_eq!(error(&message(4)), None);
    }

    proptest! {
        #[test]
        fn a_normal_form_has_no_digit_and_is_its_own(text in ".*") {
            let shown = normal(&text);
            prop_assert!(!shown.contains(|char: char| char.is_ascii_digit()), "{shown}");
            prop_assert_eq!(normal(&shown), shown);
        }

        #[test]
        fn numbers_and_addresses_make_no_difference(
            text in "[a-z ]{0,9} ",
            (one, other) in (any::<u64>(), any::<u64>()),
            (bus, device, function) in (any::<u8>(), 0u8..32, 0u8..8),
        ) {
            let of = |number: u64, bus: u8| {
                normal(&format!("{text}0000:{bus:02x}:{device:02x}.{function}: {number} eth{number} {number:#x} f+{number:#x}"))
            };
            prop_assert_eq!(of(one, bus), of(other, bus.wrapping_add(1)));
        }
    }
}
