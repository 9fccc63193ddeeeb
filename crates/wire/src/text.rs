//! Text from peers, and for them.

/// As it may stand in a log or be passed on: one line, printable, of bounded length.
pub(crate) fn printable(text: &[u8], bytes_max: usize) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(bytes_max)]);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// What follows a word that the text begins with, in whatever case.
pub(crate) fn behind<'t>(text: &'t [u8], word: &[u8]) -> Option<&'t [u8]> {
    let (begin, rest) = text.split_at_checked(word.len())?;
    begin.eq_ignore_ascii_case(word).then_some(rest)
}

/// Whether a text begins with one of these codes, in whatever case it has them.
pub(crate) fn begins_with_any(text: &str, codes: &[&str]) -> bool {
    codes.iter().any(|code| behind(text.as_bytes(), code.as_bytes()).is_some())
}

/// Appends `text` as a quoted string. The caller knows that it holds no CR, LF or NUL.
pub(crate) fn push_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    // What needs nothing, which is nearly all, goes over as one.
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'\\', rest[at]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// A text as a quoted string.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    push_quoted(text.as_bytes(), &mut quoted);
    String::from_utf8_lossy(&quoted).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_quoted_string_is_escaped() {
        for (text, quoted) in [
            ("", r#""""#),
            ("kim", r#""kim""#),
            (r#"""#, r#""\"""#),
            (r"\", r#""\\""#),
            (r#"\"k\im"i"#, r#""\\\"k\\im\"i""#),
        ] {
            assert_eq!(quote(text), quoted, "{text}");
        }
    }
}
