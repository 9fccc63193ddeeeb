//! Texts with places for a user's name, as LDAP's filters and names of entries have them.

use std::borrow::Cow;

use toml::de::DeValue;

use super::values::{Value, quoted};

/// `%u` stands for the whole name, `%n` for its local part, `%d` for its domain, `%%` for a percent sign.
///
/// What is put in is escaped by whoever knows what the text is, and never looked at again: a name that
/// holds `%u` itself stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    User,
    Local,
    Domain,
}

impl Template {
    /// Reads a text; `None` where a percent sign stands before anything else than `u`, `n`, `d` and `%`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let piece = match c {
                '%' => match chars.next()? {
                    'u' => Piece::User,
                    'n' => Piece::Local,
                    'd' => Piece::Domain,
                    '%' => {
                        plain.push('%');
                        continue;
                    }
                    _ => return None,
                },
                c => {
                    plain.push(c);
                    continue;
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Some(Self { text: text.to_owned(), pieces })
    }

    /// Puts a name in. `None`: the domain is asked for, and the name has none.
    pub(crate) fn render<'n>(&self, user: &'n str, escape: impl Fn(&'n str) -> Cow<'n, str>) -> Option<String> {
        let (local, domain) = split(user);
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::User => text.push_str(&escape(user)),
                Piece::Local => text.push_str(&escape(local)),
                Piece::Domain => text.push_str(&escape(domain?)),
            }
        }
        Some(text)
    }

    /// Whether any part of the name stands in it.
    pub(super) fn names_the_user(&self) -> bool {
        self.pieces.iter().any(|piece| !matches!(piece, Piece::Text(_)))
    }
}

/// A name's local part and its domain, divided at the last `@`.
pub(crate) fn split(user: &str) -> (&str, Option<&str>) {
    match user.rsplit_once('@') {
        Some((local, domain)) => (local, Some(domain)),
        None => (user, None),
    }
}

impl Value for Template {
    const EXPECTED: &'static str = "a text in quotes with %u (whole name), %n (local part) or %d (domain) in it";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        String::read(value).and_then(|text| Self::parse(&text))
    }

    fn show(&self) -> String {
        quoted(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, user: &str) -> Option<String> {
        Template::parse(template)?.render(user, Cow::Borrowed)
    }

    #[test]
    fn parts_of_the_name_are_put_in_once() {
        assert_eq!(render("(mail=%u)", "kim@a.org").as_deref(), Some("(mail=kim@a.org)"));
        assert_eq!(render("%n at %d, 100%%", "kim@a.org").as_deref(), Some("kim at a.org, 100%"));
        assert_eq!(render("%n", "kim").as_deref(), Some("kim"));
        assert_eq!(render("%n/%d", "a@b@c").as_deref(), Some("a@b/c"));
        assert_eq!(render("%u", "%n%d").as_deref(), Some("%n%d"), "a name is never a template");
        assert_eq!(render("%d", "kim"), None, "there is no domain");
        assert_eq!(render("%x", "kim"), None);
        assert_eq!(render("%", "kim"), None);
    }
}
