//! Parses one mail: its headers, and its text as the sender wrote it.

use mailparse::{MailHeaderMap, ParsedMail, dateparse, parse_mail};

use super::SeriesError;
use super::mbox::{Raw, is_header};
use super::subject::Subject;

/// A mail, its text decoded.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    /// Where it was found, for error messages.
    pub place: String,
    pub subject: Subject,
    pub author: String,
    /// The address in the mail's own `From:`. This may be somebody other than the author.
    pub sender: String,
    /// When it was sent, in seconds since 1970. 0 if it does not say so.
    pub date: i64,
    /// The message ids of the mails that it answers.
    pub answers: Vec<String>,
    pub message_id: Option<String>,
    /// The plain text and the attached patches, with the bytes that the sender had.
    pub text: Vec<u8>,
    /// The only text is HTML.
    pub html: bool,
}

impl Mail {
    /// Parses a mail. A patch without mail headers becomes a mail whose subject is the name of its file.
    pub(super) fn parse(raw: &Raw) -> Result<Mail, SeriesError> {
        let bytes = with_newlines(&raw.bytes);
        let wrong = |why: String| SeriesError::Mail { place: raw.place.clone(), why };
        if !is_header(&bytes) {
            return Ok(Mail {
                place: raw.place.clone(),
                subject: Subject::parse(&raw.name),
                author: String::new(),
                sender: String::new(),
                date: 0,
                answers: Vec::new(),
                message_id: None,
                text: bytes,
                html: false,
            });
        }
        let parsed = parse_mail(&bytes).map_err(|error| wrong(error.to_string()))?;
        let header = |name: &str| parsed.headers.get_first_value(name);
        let mut found = Found::default();
        found.collect(&parsed).map_err(wrong)?;
        let from = header("From").unwrap_or_default();
        let sender = address(&from);
        let author = author_in(&found.text).unwrap_or(from);
        Ok(Mail {
            place: raw.place.clone(),
            subject: Subject::parse(&header("Subject").unwrap_or_else(|| raw.name.clone())),
            author: author.trim().to_owned(),
            sender,
            date: header("Date").and_then(|date| dateparse(&date).ok()).unwrap_or_default(),
            answers: header("In-Reply-To").as_deref().map(ids).unwrap_or_default(),
            message_id: header("Message-ID").map(|id| id.trim().trim_matches(['<', '>']).to_owned()),
            html: found.text.is_empty() && found.html,
            text: found.text,
        })
    }

    /// Its title, for messages.
    pub(super) fn title(&self) -> &str {
        if self.subject.title.is_empty() { "without a subject" } else { &self.subject.title }
    }
}

/// What was found in the parts of a mail.
#[derive(Default)]
struct Found {
    text: Vec<u8>,
    html: bool,
}

impl Found {
    fn collect(&mut self, part: &ParsedMail<'_>) -> Result<(), String> {
        if !part.subparts.is_empty() {
            return part.subparts.iter().try_for_each(|part| self.collect(part));
        }
        let disposition = part.get_content_disposition();
        let name = disposition.params.get("filename").or_else(|| part.ctype.params.get("name"));
        let is_patch = |name: &String| name.ends_with(".patch") || name.ends_with(".diff");
        match part.ctype.mimetype.as_str() {
            "text/html" => self.html = true,
            "text/plain" | "text/x-patch" | "text/x-diff" => self.take(part)?,
            _ if name.is_some_and(is_patch) => self.take(part)?,
            _ => {}
        }
        Ok(())
    }

    fn take(&mut self, part: &ParsedMail<'_>) -> Result<(), String> {
        let charset = part.ctype.charset.to_ascii_lowercase();
        let decoded = match charset.starts_with("utf-16") || charset.starts_with("utf-32") {
            true => part.get_body().map(String::into_bytes),
            // A patch changes bytes, so its character set must not be converted.
            false => part.get_body_raw(),
        };
        let text = with_newlines(&decoded.map_err(|error| error.to_string())?);
        let has = |name: &str, value: &str| part.ctype.params.get(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
        let text = if has("format", "flowed") { unflowed(&text, has("delsp", "yes")) } else { text };
        self.text.extend(without_armor(text));
        if self.text.last().is_some_and(|&last| last != b'\n') {
            self.text.push(b'\n');
        }
        Ok(())
    }
}

/// Undoes the CR LF line ends that mail transport adds. They are only removed if all lines have them. If only some
/// lines end with CR LF, it belongs to the text: the patch is for a file with such lines.
fn with_newlines(text: &[u8]) -> Vec<u8> {
    let lines = || text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    if lines().next().is_none() || !lines().all(|line| line.ends_with(b"\r\n")) {
        return text.to_vec();
    }
    let mut plain = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => plain.extend([line, b"\n"].concat()),
            None => plain.extend(line),
        }
    }
    plain
}

/// Undoes `format=flowed` (RFC 3676): a space at the end of a line joins it to the next line, and a space at its
/// beginning is removed. A line of only spaces is not joined: in a diff it stands for an empty line, and a paragraph
/// has no such line.
fn unflowed(text: &[u8], delsp: bool) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_prefix(b" ").unwrap_or(line);
        let is_soft = line.ends_with(b" ") && line != b"-- " && line.iter().any(|&byte| byte != b' ');
        match (is_soft, delsp) {
            (true, true) => plain.extend(&line[..line.len() - 1]),
            (true, false) => plain.extend(line),
            (false, _) => plain.extend([line, b"\n"].concat()),
        }
    }
    plain
}

/// Removes an OpenPGP signature around the text (RFC 9580, section 7). In a signed text, `- ` stands before each line
/// that begins with a dash.
fn without_armor(text: Vec<u8>) -> Vec<u8> {
    const BEGIN: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
    const END: &[u8] = b"-----BEGIN PGP SIGNATURE-----";
    if !text.starts_with(BEGIN) {
        return text;
    }
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let signed =
        lines.skip_while(|line| !line.trim_ascii().is_empty()).skip(1).take_while(|line| !line.starts_with(END));
    signed.flat_map(|line| line.strip_prefix(b"- ").unwrap_or(line)).copied().collect()
}

/// The address in a header: that in angle brackets, or all of it.
fn address(header: &str) -> String {
    let inside = header.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(inside, _)| inside);
    inside.unwrap_or(header).trim().to_lowercase()
}

/// The message ids in a header, without their angle brackets.
fn ids(header: &str) -> Vec<String> {
    let inside = |part: &str| part.split_once('>').map(|(id, _)| id.trim().to_owned());
    header.split('<').skip(1).filter_map(inside).collect()
}

/// The author, if somebody else has sent the mail: `From:` in the first line of the text.
fn author_in(text: &[u8]) -> Option<String> {
    let first = text.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty())?;
    Some(String::from_utf8_lossy(first.strip_prefix(b"From: ")?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(text: &str) -> Mail {
        let raw = Raw { place: "a.eml".to_owned(), name: "a.eml".to_owned(), bytes: text.as_bytes().to_vec() };
        Mail::parse(&raw).unwrap()
    }

    fn text(mail: &Mail) -> &str {
        str::from_utf8(&mail.text).unwrap()
    }

    #[test]
    fn headers_are_decoded() {
        let mail = mail(
            "From: =?UTF-8?Q?J=C3=BCrgen?= <j@example.org>\r\nSubject: [PATCH v2 1/2]\r\n =?UTF-8?B?UENJOiDDoA==?=\r\n\
             Date: Thu, 1 Jan 1970 01:00:07 +0100\r\nIn-Reply-To: <0@example.org> (words)\r\n\
             Message-ID: <1@example.org>\r\n\r\none\r\ntwo\r\n",
        );
        assert_eq!(mail.author, "Jürgen <j@example.org>");
        assert_eq!((mail.subject.title.as_str(), mail.subject.number), ("PCI: à", Some((1, 2))));
        assert_eq!(
            (mail.sender.as_str(), mail.date, mail.answers.as_slice()),
            ("j@example.org", 7, &["0@example.org".to_owned()][..])
        );
        assert_eq!(mail.message_id.as_deref(), Some("1@example.org"));
        assert_eq!(text(&mail), "one\ntwo\n");
    }

    #[test]
    fn the_author_in_the_text_overrides_the_sender() {
        assert_eq!(mail("From: list\nSubject: a\n\nFrom: A <a@example.org>\n\nwords\n").author, "A <a@example.org>");
    }

    #[test]
    fn plain_text_and_attached_patches_are_joined() {
        let parts = "Subject: a\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/plain\n\nwords\n\
            --x\nContent-Type: text/html\n\n<p>\n--x\nContent-Type: application/octet-stream; name=a.patch\n\
            Content-Transfer-Encoding: base64\n\ncGF0Y2gK\n--x--\n";
        let mail = mail(parts);
        assert_eq!(text(&mail), "words\npatch\n");
        assert!(!mail.html);
    }

    #[test]
    fn a_mail_with_only_html_is_marked() {
        assert!(mail("Subject: a\nContent-Type: text/html\n\n<pre>\n").html);
        assert!(!mail("Subject: a\n\n").html);
    }

    #[test]
    fn flowed_text_is_joined() {
        let flowed = "a long \nline\n  indented\n  \n-- \nname\n";
        assert_eq!(unflowed(flowed.as_bytes(), false), b"a long line\n indented\n \n-- \nname\n");
        assert_eq!(unflowed(b"a lo \nng\n", true), b"a long\n");
    }

    #[test]
    fn a_signature_around_the_text_is_removed() {
        let signed = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nwords\n- ---\n- --- a/f\n- -x\n+y\n\
            -----BEGIN PGP SIGNATURE-----\nabc\n";
        assert_eq!(without_armor(signed.into()), b"words\n---\n--- a/f\n-x\n+y\n");
    }

    #[test]
    fn carriage_returns_are_removed_only_if_all_lines_have_one() {
        assert_eq!(with_newlines(b"a\r\nb\r\n"), b"a\nb\n");
        assert_eq!(with_newlines(b"a\nb\r\n"), b"a\nb\r\n");
        assert_eq!(with_newlines(b"a"), b"a");
    }

    #[test]
    fn a_patch_without_headers_has_its_file_name_as_subject() {
        let bare = mail("diff --git a/f b/f\n--- a/f\n");
        assert_eq!(bare.title(), "a.eml");
        assert!(text(&bare).starts_with("diff --git"));
    }
}
