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

/// A text with the passwords of its URLs (RFC 3986, section 3.2.1) struck out.
fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, behind) = rest.split_at(at + 3);
        shown.push_str(scheme);
        let ends = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '"' | '\'');
        let (authority, after) = behind.split_at(behind.find(ends).unwrap_or(behind.len()));
        match authority.rsplit_once('@').and_then(|(who, host)| Some((who.split_once(':')?.0, host))) {
            Some((name, host)) => shown.extend([name, ":***@", host]),
            None => shown.push_str(authority),
        }
        rest = after;
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
}
