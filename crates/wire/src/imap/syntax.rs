//! The pieces of IMAP's grammar that are needed before log-in (RFC 9051, section 9).

use crate::cursor::Cursor;
use crate::limits::{ID_KEY_BYTES_MAX, ID_PAIRS_MAX, ID_VALUE_BYTES_MAX, TAG_BYTES_MAX};
use crate::text::{behind, push_quoted};

impl<'a> Cursor<'a> {
    /// `tag = 1*<any ASTRING-CHAR except "+">`, of bounded length since it is echoed.
    pub(super) fn tag(&mut self) -> Option<&'a str> {
        let tag = self.take_while(|b| is_astring_char(b) && b != b'+');
        let sound = !tag.is_empty() && tag.len() <= TAG_BYTES_MAX;
        sound.then(|| std::str::from_utf8(tag).ok()).flatten()
    }

    /// `astring = 1*ASTRING-CHAR / string`.
    pub(super) fn astring(&mut self) -> Option<Vec<u8>> {
        match self.rest().first()? {
            b'"' | b'{' => self.string(),
            _ => {
                let atom = self.take_while(is_astring_char);
                (!atom.is_empty()).then(|| atom.to_vec())
            }
        }
    }

    /// `id-params-list = "(" [string SP nstring *(SP string SP nstring)] ")" / nil`, within RFC 2971's bounds.
    pub(super) fn id_parameters(&mut self) -> Option<Vec<(String, String)>> {
        if behind(self.rest(), b"NIL").is_some() {
            self.take(3);
            return Some(Vec::new());
        }
        self.expect(b"(")?;
        let mut pairs = Vec::new();
        if self.expect(b")").is_some() {
            return Some(pairs);
        }
        loop {
            (pairs.len() < ID_PAIRS_MAX).then_some(())?;
            let key = self.id_text(ID_KEY_BYTES_MAX)?;
            self.expect(b" ")?;
            if behind(self.rest(), b"NIL").is_some() {
                self.take(3);
            } else {
                pairs.push((key, self.id_text(ID_VALUE_BYTES_MAX)?));
            }
            if self.expect(b")").is_some() {
                return Some(pairs);
            }
            self.expect(b" ")?;
        }
    }

    /// A key or value of ID. It reaches the back end and its logs, so control characters end it.
    fn id_text(&mut self, bytes_max: usize) -> Option<String> {
        let text = String::from_utf8(self.string()?).ok()?;
        (text.len() <= bytes_max && !text.chars().any(char::is_control)).then_some(text)
    }
}

/// `ASTRING-CHAR`: any character but those that have a meaning in the grammar.
fn is_astring_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\')
}

/// Appends ID's argument. The texts hold no CR, LF or NUL: the parser refuses them, and our own have none.
pub(super) fn push_id(pairs: &[(String, String)], out: &mut Vec<u8>) {
    out.push(b'(');
    for (n, (key, value)) in pairs.iter().enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        push_quoted(key.as_bytes(), out);
        out.push(b' ');
        push_quoted(value.as_bytes(), out);
    }
    out.push(b')');
}

/// The content of a leading response code: `[CODE args] text` gives `CODE args`.
pub(super) fn response_code(text: &[u8]) -> Option<&[u8]> {
    let inner = text.strip_prefix(b"[")?;
    let end = inner.iter().position(|&b| b == b']')?;
    Some(&inner[..end])
}

/// The capability list in a CAPABILITY response code or response, `CAPABILITY a b c`.
pub(super) fn capability_list(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let (word, list) = text.split_once(' ')?;
    let sound = word.eq_ignore_ascii_case("CAPABILITY") && !list.chars().any(char::is_control);
    sound.then(|| list.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn astring(text: &str) -> Option<(Vec<u8>, &str)> {
        let mut cursor = Cursor::new(text.as_bytes());
        let value = cursor.astring()?;
        Some((value, std::str::from_utf8(cursor.rest()).expect("the rest of a str, cut behind ASCII")))
    }

    #[test]
    fn every_form_of_astring() {
        assert_eq!(astring("user] x"), Some((b"user]".to_vec(), " x")));
        assert_eq!(astring(r#""a\"b\\c" x"#), Some((br#"a"b\c"#.to_vec(), " x")));
        assert_eq!(astring("{3}\r\na\r\n x"), Some((b"a\r\n".to_vec(), " x")));
        assert_eq!(astring("{3+}\r\nabc"), Some((b"abc".to_vec(), "")));
        assert_eq!(astring("\"\""), Some((Vec::new(), "")));
        for bad in ["", "\"a", r#""a\b""#, "{3}\r\nab", "{}", "{-1}", "{3}abc", "{99999999999999999999}\r\n", "(a", "*"]
        {
            assert_eq!(astring(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn id_is_bounded() {
        let parse = |text: &str| Cursor::new(text.as_bytes()).id_parameters();
        assert_eq!(parse("NIL"), Some(vec![]));
        assert_eq!(parse("()"), Some(vec![]));
        assert_eq!(parse("(\"name\" {4+}\r\nmutt \"x\" nil)"), Some(vec![("name".to_owned(), "mutt".to_owned())]));
        let pairs = |n: usize| format!("({})", vec!["\"k\" \"v\""; n].join(" "));
        assert!(parse(&pairs(30)).is_some());
        assert!(parse(&pairs(31)).is_none());
        assert!(parse(&format!("(\"k\" \"{}\")", "v".repeat(1025))).is_none());
        assert!(parse("(\"k\" {2}\r\n\r\n)").is_none());
    }
}
