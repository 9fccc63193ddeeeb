//! The SASL mechanisms' messages (RFC 4422): PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits::{PASSWORD_BYTES_MAX, USER_BYTES_MAX};
use crate::secret::Secret;

/// The prompts of the LOGIN mechanism, in base64 as they go over the wire.
pub const LOGIN_PROMPTS: [&str; 2] = ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"];

/// Decodes a response's base64, strictly: padding where it belongs, no white space. `=` is an empty one.
pub fn decode(text: &[u8]) -> Option<Secret> {
    if text == b"=" {
        return Some(Secret::default());
    }
    STANDARD.decode(text).ok().map(Secret::new)
}

/// The user name and password of a PLAIN message.
///
/// The message must be `authzid NUL authcid NUL password`, with nothing missing and nothing more. An
/// authorisation identity that differs from the authentication identity asks to act for somebody else,
/// which nobody is granted here: it fails like any other malformed message.
pub fn plain(message: &Secret) -> Option<(String, Secret)> {
    let mut parts = message.expose().split(|&b| b == 0);
    let (authzid, authcid, password) = (parts.next()?, parts.next()?, parts.next()?);
    let stands_alone = parts.next().is_none() && (authzid.is_empty() || authzid == authcid);
    stands_alone.then_some(())?;
    Some((user_name(authcid)?, self::password(password)?))
}

/// The PLAIN message for a back end.
pub fn plain_message(authzid: &str, authcid: &str, password: &Secret) -> Secret {
    let mut message = Vec::with_capacity(authzid.len() + authcid.len() + password.expose().len() + 2);
    message.extend_from_slice(authzid.as_bytes());
    message.push(0);
    message.extend_from_slice(authcid.as_bytes());
    message.push(0);
    message.extend_from_slice(password.expose());
    Secret::new(message)
}

/// A name as a client may give it: UTF-8, not empty, of bounded length and without control characters,
/// which no protocol, directory or log could carry safely.
pub fn user_name(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    let sound = !name.is_empty() && name.len() <= USER_BYTES_MAX && !name.chars().any(char::is_control);
    sound.then(|| name.to_owned())
}

/// A password as a client may give it: not empty (an LDAP bind with an empty one succeeds as nobody,
/// RFC 4513, section 5.1.2), of bounded length, and without NUL.
pub fn password(bytes: &[u8]) -> Option<Secret> {
    let sound = !bytes.is_empty() && bytes.len() <= PASSWORD_BYTES_MAX && !bytes.contains(&0);
    sound.then(|| Secret::new(bytes.to_vec()))
}

/// A secret message in base64, which is no less secret.
pub fn encode_secret(message: &Secret) -> Secret {
    Secret::new(STANDARD.encode(message.expose()).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(message: &[u8]) -> Option<(String, Vec<u8>)> {
        plain(&Secret::new(message.to_vec())).map(|(user, password)| (user, password.expose().to_vec()))
    }

    #[test]
    fn plain_is_strict() {
        let good = Some(("u".to_owned(), b"p\r\n".to_vec()));
        assert_eq!(parse(b"\0u\0p\r\n"), good);
        assert_eq!(parse(b"u\0u\0p\r\n"), good);
        for bad in [
            &b""[..],
            b"u",
            b"u\0p",
            b"\0u\0",
            b"\0\0p",
            b"\0u\0p\0",
            b"\0u\0p\0x",
            b"other\0u\0p",
            b"\0u\n\0p",
            b"\0\xff\0p",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn base64_is_strict() {
        assert_eq!(decode(b"=").map(|s| s.is_empty()), Some(true));
        assert_eq!(decode(b"dQ==").map(|s| s.expose().to_vec()), Some(b"u".to_vec()));
        for bad in [&b"dQ"[..], b"d Q==", b"dQ==\r", b"%%%%", b"*"] {
            assert!(decode(bad).is_none(), "{bad:?}");
        }
    }
}
