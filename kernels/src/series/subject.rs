//! Parses the subject of a mail with a patch: `[PATCH v2 1/2] PCI/IOV: Do this`.

use super::version::Version;

/// A parsed subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// The mail is a reply or is forwarded.
    pub reply: bool,
    /// The subject says `PATCH` or `RFC` in brackets.
    pub patch: bool,
    /// The version of the series.
    pub version: Version,
    /// The subject says in brackets that the mail was sent before.
    pub resend: bool,
    /// The number of the patch, and of how many.
    pub number: Option<(u32, u32)>,
    /// The subject without prefixes.
    pub title: String,
}

/// Prefixes that mail programs add to the subject of a reply.
const ANSWERS: &[&str] =
    &["re:", "aw:", "sv:", "vs:", "fw:", "fwd:", "antw:", "re：", "fw：", "回复:", "回复：", "答复:", "答复："];

/// How senders call a mail in brackets that they send again.
const AGAIN: &[&str] = &["resend", "resned", "resent", "repost"];

/// What separates words in brackets.
const BETWEEN: &[char] = &[' ', ',', ';', ':', '_', '(', ')'];

impl Subject {
    pub(super) fn parse(text: &str) -> Subject {
        let collapsed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut subject = Subject {
            reply: false,
            patch: false,
            version: Version::FIRST,
            resend: false,
            number: None,
            title: String::new(),
        };
        let mut rest = collapsed.as_str();
        loop {
            rest = rest.trim_start();
            if let Some(after) = ANSWERS.iter().find_map(|word| strip_ignoring_case(rest, word)) {
                subject.reply = true;
                rest = after;
            } else if let Some((group, after)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']'))
                && (!subject.patch || is_tag(group))
            {
                group.split(BETWEEN).for_each(|word| subject.word(word));
                rest = after;
            } else {
                break;
            }
        }
        subject.title = rest.to_owned();
        subject
    }

    /// Takes in a word from brackets, or several that are joined by `-`.
    fn word(&mut self, word: &str) {
        if let Some(after) = strip_any(word, &["patch", "rfc"]) {
            self.patch = true;
            self.word(after.trim_start_matches(['/', '-']));
        } else if let Some(number) = number(word) {
            self.number = Some(number);
        } else if let Some(version) = version(word) {
            self.version = version;
        } else if let Some(after) = strip_any(word, AGAIN) {
            self.resend = true;
            self.word(after);
        } else if let Some((first, rest)) = word.split_once('-') {
            self.word(first);
            self.word(rest);
        }
    }

    /// Its title, to compare it with others.
    pub(super) fn plain_title(&self) -> String {
        self.title.trim_end_matches('.').to_lowercase()
    }
}

/// Whether brackets after the first are a prefix, and not the beginning of the title.
fn is_tag(group: &str) -> bool {
    let is_rfc = |word: &str| ["rfc", "rft"].iter().any(|tag| word.eq_ignore_ascii_case(tag));
    let begins = |word: &str| strip_any(word, &["patch"]).or_else(|| strip_any(word, AGAIN)).is_some();
    group.split(BETWEEN).any(|word| number(word).is_some() || version(word).is_some() || begins(word) || is_rfc(word))
}

/// `v2`, `V1.1`, or `V1-1`.
fn version(word: &str) -> Option<Version> {
    strip_ignoring_case(word, "v")?.replacen('-', ".", 1).parse().ok()
}

/// `01/12`.
fn number(word: &str) -> Option<(u32, u32)> {
    let (number, of) = word.split_once('/')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(number) && digits(of) { Some((number.parse().ok()?, of.parse().ok()?)) } else { None }
}

fn strip_any<'a>(text: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| strip_ignoring_case(text, prefix))
}

fn strip_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_patches_are_parsed() {
        let patch = |version: &str, number, title: &str| Subject {
            reply: false,
            patch: true,
            version: version.trim_end_matches('+').parse().unwrap(),
            resend: version.ends_with('+'),
            number,
            title: title.to_owned(),
        };
        // A plus sign stands for a resend.
        for (text, wanted) in [
            ("[PATCH] PCI: a", patch("1", None, "PCI: a")),
            ("[PATCH 1/2] PCI: a", patch("1", Some((1, 2)), "PCI: a")),
            ("[PATCH v2 01/12] PCI: a", patch("2", Some((1, 12)), "PCI: a")),
            ("[PATCH 1/2 v3] PCI: a", patch("3", Some((1, 2)), "PCI: a")),
            ("[PATCHv4 0/2] PCI: a", patch("4", Some((0, 2)), "PCI: a")),
            ("[PATCH-v4 0/2] PCI: a", patch("4", Some((0, 2)), "PCI: a")),
            ("[PATCH v2,1/2] PCI: a", patch("2", Some((1, 2)), "PCI: a")),
            ("[PATCH][v2] PCI: a", patch("2", None, "PCI: a")),
            ("[PATCH] [RESEND v2 1/2] PCI: a", patch("2+", Some((1, 2)), "PCI: a")),
            ("[patch V1.1 02/38] x86: a", patch("1.1", Some((2, 38)), "x86: a")),
            ("[PATCH v3.1 2/5] PCI: a", patch("3.1", Some((2, 5)), "PCI: a")),
            ("[patch V4-1 01/21] PCI: a", patch("4.1", Some((1, 21)), "PCI: a")),
            ("[PATCH v2 (RESEND) 1/2] PCI: a", patch("2+", Some((1, 2)), "PCI: a")),
            ("[PATCH] [RFC] PCI: a", patch("1", None, "PCI: a")),
            ("[PATCH v2 resend] PCI: a", patch("2+", None, "PCI: a")),
            ("[RESEND PATCH v2] PCI: a", patch("2+", None, "PCI: a")),
            ("[RESEND][PATCH v2] PCI: a", patch("2+", None, "PCI: a")),
            ("[PATCH v2-resend 1/2] PCI: a", patch("2+", Some((1, 2)), "PCI: a")),
            ("[PATCH REPOSTv2 1/2] PCI: a", patch("2+", Some((1, 2)), "PCI: a")),
            ("[RFC PATCH net-next v2 1/2] a", patch("2", Some((1, 2)), "a")),
            ("[PATCH-next v2 1/2] a", patch("2", Some((1, 2)), "a")),
            ("[PATCH -next] a", patch("1", None, "a")),
            ("[RFC, v5 2/3] a", patch("5", Some((2, 3)), "a")),
            ("[RFCv2 2/3] a", patch("2", Some((2, 3)), "a")),
            ("[RFC v2 PATCH 1/3] a", patch("2", Some((1, 3)), "a")),
            ("[PATCH/RFC v2 1/3] a", patch("2", Some((1, 3)), "a")),
            ("[linux-pci] [PATCH RESEND v2\n 1/2] PCI: a\n  b", patch("2+", Some((1, 2)), "PCI: a b")),
            ("[PATCH 1/2] [media] a", patch("1", Some((1, 2)), "[media] a")),
            ("[PATCH 5.15.y 1/2] a", patch("1", Some((1, 2)), "a")),
            ("[PATCH] PCI: say [Card present] once", patch("1", None, "PCI: say [Card present] once")),
        ] {
            assert_eq!(Subject::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn replies_and_subjects_without_patch_are_recognised() {
        for text in
            ["RE: Re: [PATCH v2 1/2] PCI: a", "[External] Re: [PATCH v2 1/2] PCI: a", "回复：[PATCH v2 1/2] PCI: a"]
        {
            let answer = Subject::parse(text);
            assert!(answer.reply && answer.patch && answer.number == Some((1, 2)), "{answer:?}");
        }
        let words = Subject::parse("Does [this] v2 1/2 work?");
        assert!(!words.reply && !words.patch && words.number.is_none(), "{words:?}");
        assert_eq!(Subject::parse("[PATCH").title, "[PATCH");
        assert_eq!(Subject::parse("[PATCH 1/99999999999] a").number, None);
        assert!(!Subject::parse("Ré: a").reply);
    }
}
