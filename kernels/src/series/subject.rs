//! Parses the subject of a mail with a patch: `[PATCH v2 1/2] PCI/IOV: Do this`.

/// A parsed subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// The mail is a reply or is forwarded.
    pub reply: bool,
    /// The subject says `PATCH` or `RFC` in brackets.
    pub patch: bool,
    /// The version of the series. 1 if the subject has none.
    pub version: u32,
    /// The number of the patch, and of how many.
    pub number: Option<(u32, u32)>,
    /// The subject without prefixes.
    pub title: String,
}

/// Prefixes that mail programs add to the subject of a reply.
const ANSWERS: &[&str] = &["re:", "aw:", "sv:", "fw:", "fwd:"];

impl Subject {
    pub(super) fn parse(text: &str) -> Subject {
        let collapsed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut subject = Subject { reply: false, patch: false, version: 1, number: None, title: String::new() };
        let mut rest = collapsed.as_str();
        loop {
            rest = rest.trim_start();
            if let Some(after) = ANSWERS.iter().find_map(|word| strip_ignoring_case(rest, word)) {
                subject.reply = true;
                rest = after;
            } else if let Some((group, after)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']'))
                && (!subject.patch || is_tag(group))
            {
                group.split([' ', ',']).for_each(|word| subject.word(word));
                rest = after;
            } else {
                break;
            }
        }
        subject.title = rest.to_owned();
        subject
    }

    /// Takes in a word from brackets.
    fn word(&mut self, word: &str) {
        let version = |word: &str| strip_ignoring_case(word, "v").and_then(|digits| digits.parse().ok());
        if let Some(after) = strip_ignoring_case(word, "patch") {
            self.patch = true;
            self.version = version(after).unwrap_or(self.version);
        } else if word.eq_ignore_ascii_case("rfc") {
            self.patch = true;
        } else if let Some(number) = number(word) {
            self.number = Some(number);
        } else if let Some(version) = version(word) {
            self.version = version;
        }
    }
}

/// Whether brackets after the first are a prefix, and not the beginning of the title.
fn is_tag(group: &str) -> bool {
    group.split([' ', ',']).any(|word| number(word).is_some() || strip_ignoring_case(word, "patch").is_some())
}

/// `01/12`.
fn number(word: &str) -> Option<(u32, u32)> {
    let (number, of) = word.split_once('/')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(number) && digits(of) { Some((number.parse().ok()?, of.parse().ok()?)) } else { None }
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
        let patch = |version, number, title: &str| Subject {
            reply: false,
            patch: true,
            version,
            number,
            title: title.to_owned(),
        };
        for (text, wanted) in [
            ("[PATCH] PCI: a", patch(1, None, "PCI: a")),
            ("[PATCH 1/2] PCI: a", patch(1, Some((1, 2)), "PCI: a")),
            ("[PATCH v2 01/12] PCI: a", patch(2, Some((1, 12)), "PCI: a")),
            ("[PATCH 1/2 v3] PCI: a", patch(3, Some((1, 2)), "PCI: a")),
            ("[PATCHv4 0/2] PCI: a", patch(4, Some((0, 2)), "PCI: a")),
            ("[RFC PATCH net-next v2 1/2] a", patch(2, Some((1, 2)), "a")),
            ("[RFC, v5 2/3] a", patch(5, Some((2, 3)), "a")),
            ("[linux-pci] [PATCH RESEND v2\n 1/2] PCI: a\n  b", patch(2, Some((1, 2)), "PCI: a b")),
            ("[PATCH 1/2] [media] a", patch(1, Some((1, 2)), "[media] a")),
            ("[PATCH] PCI: say [Card present] once", patch(1, None, "PCI: say [Card present] once")),
        ] {
            assert_eq!(Subject::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn replies_and_subjects_without_patch_are_recognised() {
        let answer = Subject::parse("RE: Re: [PATCH v2 1/2] PCI: a");
        assert!(answer.reply && answer.patch && answer.number == Some((1, 2)), "{answer:?}");
        let words = Subject::parse("Does [this] v2 1/2 work?");
        assert!(!words.reply && !words.patch && words.number.is_none(), "{words:?}");
        assert_eq!(Subject::parse("[PATCH").title, "[PATCH");
        assert_eq!(Subject::parse("[PATCH 1/99999999999] a").number, None);
        assert!(!Subject::parse("Ré: a").reply);
    }
}
