//! Records of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`).

use guest_protocol::Message;

/// Size of the read buffer. A longer record would be lost (`EINVAL`), but `PRINTK_MESSAGE_MAX` in
/// `kernel/printk/internal.h` is 2048.
pub const LARGEST: usize = 8192;

/// Parses a record: `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,...];TEXT`, then lines of `KEY=VALUE` that begin with a
/// space. None if it has another form.
pub fn parse(record: &[u8]) -> Option<Message> {
    let record = String::from_utf8_lossy(record);
    let (prefix, body) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let seq = fields.next()?.parse().ok()?;
    let micros: u64 = fields.next()?.parse().ok()?;
    Some(Message::Kmsg {
        at: micros.saturating_mul(1000),
        seq,
        level: (priority & 7) as u8,
        text: unescape(body.split('\n').next()?),
    })
}

/// Replaces the kernel's `\xHH` escapes (`msg_add_ext_text()` in `kernel/printk/printk.c`). They stand for a line end
/// inside of a record, other control characters, bytes that are not ASCII, and the backslash.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'\\', b'x', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[4..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_of_a_record_is_left_out() {
        let record = b"6,339,5140900,-;pci 0000:01:00.0: removed\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n";
        let text = "pci 0000:01:00.0: removed".to_owned();
        assert_eq!(parse(record), Some(Message::Kmsg { at: 5_140_900_000, seq: 339, level: 6, text }));
    }

    #[test]
    fn facility_and_further_fields_are_ignored() {
        let text = "systemd; started".to_owned();
        assert_eq!(
            parse(b"30,1,7,-,caller=T1;systemd; started\n"),
            Some(Message::Kmsg { at: 7000, seq: 1, level: 6, text })
        );
    }

    #[test]
    fn escapes_are_replaced() {
        assert_eq!(unescape(r"a\x0ab\x5cx0a \xzz \x4"), "a\nb\\x0a \\xzz \\x4");
        assert_eq!(unescape(r"\xc3\xa9"), "é");
    }

    proptest! {
        #[test]
        fn no_record_makes_it_panic(record in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&record);
        }

        #[test]
        fn a_record_of_the_kernel_is_parsed(
            priority in 0u32..2048, seq: u64, micros in 0..u64::MAX / 1000, text in "[ -~\n\t\\\\]{0,60}"
        ) {
            let escaped: String = text
                .chars()
                .map(|c| if c < ' ' || c == '\\' { format!("\\x{:02x}", c as u32) } else { c.to_string() })
                .collect();
            let record = format!("{priority},{seq},{micros},-;{escaped}\n KEY=value\n");
            let level = (priority & 7) as u8;
            prop_assert_eq!(parse(record.as_bytes()), Some(Message::Kmsg { at: micros * 1000, seq, level, text }));
        }
    }
}
