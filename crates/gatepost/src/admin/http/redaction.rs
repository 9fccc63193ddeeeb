//! Answers as those see them who may look at everything but passwords.

use serde_json::Value;

/// Takes passwords out of the URLs in an answer.
pub(super) fn strike_out(answer: &mut Value) {
    match answer {
        Value::String(text) if text.contains("://") => *text = without_passwords(text),
        Value::Array(list) => list.iter_mut().for_each(strike_out),
        Value::Object(fields) => fields.values_mut().for_each(strike_out),
        _ => {}
    }
}

/// A text with the passwords of its URLs (RFC 3986, section 3.2.1) struck out, and those that a query gives a database. Where a
/// URL ends, only whoever reads it as one knows, and a password may hold quotes and blanks: rather too much goes than too little.
fn without_passwords(text: &str) -> String {
    let text = without_queried(text);
    let mut shown = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find("://") {
        let (scheme, behind) = rest.split_at(at + 3);
        shown.push_str(scheme);
        let ends = |c: char| c.is_control() || matches!(c, '/' | '?' | '#');
        let (authority, after) = behind.split_at(behind.find(ends).unwrap_or(behind.len()));
        match authority.rsplit_once('@').and_then(|(who, host)| Some((who.split_once(':')?.0, host))) {
            Some((name, host)) => shown.extend([name, ":***@", host]),
            None => shown.push_str(authority),
        }
        rest = after;
    }
    shown + rest
}

/// A text without what queries give as a password.
fn without_queried(text: &str) -> String {
    const NAME: &str = "password=";
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(NAME) {
        let (before, behind) = rest.split_at(at + NAME.len());
        shown.push_str(before);
        rest = behind;
        if rest.is_empty() || !before[..at].ends_with(['?', '&']) {
            continue;
        }
        shown.push_str("***");
        let ends = |c: char| c.is_control() || matches!(c, '&' | '#' | '"');
        rest = &rest[rest.find(ends).unwrap_or(rest.len())..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn passwords_in_urls_are_struck_out_and_nothing_else() {
        let mut answer = json!({ "settings": [{
            "text": "url = \"postgres://mail:s3cr@et@db.example:5432/users\"\nhost = 'http://10.0.0.1/x:y@z'",
            "list": ["mysql://mail:x@db", "ldaps://ldap.example", "ldap://kim@ldap.example"],
            "undo": 1,
        }] });
        strike_out(&mut answer);
        let expected = json!({ "settings": [{
            "text": "url = \"postgres://mail:***@db.example:5432/users\"\nhost = 'http://10.0.0.1/x:y@z'",
            "list": ["mysql://mail:***@db", "ldaps://ldap.example", "ldap://kim@ldap.example"],
            "undo": 1,
        }] });
        assert_eq!(answer, expected);
    }

    #[test]
    fn whatever_a_password_is_made_of_it_is_struck_out() {
        for (text, shown) in [
            ("url = \"mysql://mail:it's@db/users\"\n", "url = \"mysql://mail:***@db/users\"\n"),
            ("url = 'postgres://u:a\"b c@h/d'", "url = 'postgres://u:***@h/d'"),
            ("\"postgres://h/d?user=u&password=s'ecret&x=1\"", "\"postgres://h/d?user=u&password=***&x=1\""),
            ("url = \"postgres://h/d?password=secret\"\nb = 1", "url = \"postgres://h/d?password=***\"\nb = 1"),
            ("a = \"ldap://a\" # by kim@x\nb = \"no://x y:z\"\n", "a = \"ldap://a\" # by kim@x\nb = \"no://x y:z\"\n"),
            ("\"postgres://h/d?password=a://b\"", "\"postgres://h/d?password=***\""),
            ("the_password=kept://x", "the_password=kept://x"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
