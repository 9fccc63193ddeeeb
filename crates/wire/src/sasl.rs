//! The SASL mechanisms' messages (RFC 4422): PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login),
//! OAUTHBEARER (RFC 7628), XOAUTH2 (as Google documents it) and EXTERNAL (RFC 4422, appendix A).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits::{PASSWORD_BYTES_MAX, TOKEN_BYTES_MAX, USER_BYTES_MAX};
use crate::protocols::{OAuthHints, TokenMechanism};
use crate::secret::Secret;
use crate::text::quote;

/// The prompts of the LOGIN mechanism, in base64 as they go over the wire.
pub(crate) const LOGIN_PROMPTS: [&str; 2] = ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"];

/// A response, which comes in base64. `=` is an empty one.
pub(crate) fn decode(text: &[u8]) -> Option<Secret> {
    if text == b"=" { Some(Secret::default()) } else { Secret::from_base64(text) }
}

/// The user name and password of a PLAIN message.
///
/// The message must be `authzid NUL authcid NUL password`, with nothing missing and nothing more. An
/// authorisation identity that differs from the authentication identity asks to act for somebody else,
/// which nobody is granted here: it fails like any other malformed message.
pub(crate) fn plain(message: &Secret) -> Option<(String, Secret)> {
    let mut parts = message.expose().split(|&b| b == 0);
    let (authzid, authcid, password) = (parts.next()?, parts.next()?, parts.next()?);
    let stands_alone = parts.next().is_none() && (authzid.is_empty() || authzid == authcid);
    stands_alone.then_some(())?;
    Some((user_name(authcid)?, self::password(password)?))
}

/// The PLAIN message for a back end.
pub(crate) fn plain_message(authzid: &str, authcid: &str, password: &Secret) -> Secret {
    let mut message = Vec::with_capacity(authzid.len() + authcid.len() + password.expose().len() + 2);
    message.extend_from_slice(authzid.as_bytes());
    message.push(0);
    message.extend_from_slice(authcid.as_bytes());
    message.push(0);
    message.extend_from_slice(password.expose());
    Secret::new(message)
}

/// The user name, which may be left out, and the token of an OAUTHBEARER message: a GS2 header such as
/// `n,a=user,`, then pairs `key=value`, each behind `^A`, and `^A^A` at the end.
pub(crate) fn oauth_bearer(message: &Secret) -> Option<(Option<String>, Secret)> {
    let (header, pairs) = split_at_byte(message.expose().strip_suffix(b"\x01\x01")?, 1)?;
    let header = std::str::from_utf8(header).ok()?;
    // Channel binding is not offered, so that a client may only say that it has none, or could have.
    let authzid = header.strip_prefix("n,").or_else(|| header.strip_prefix("y,"))?.strip_suffix(',')?;
    let user = match authzid.strip_prefix("a=") {
        Some(name) => Some(user_name(unescape(name)?.as_bytes())?),
        None if authzid.is_empty() => None,
        None => return None,
    };
    let mut auth = pairs.split(|&b| b == 1).filter_map(|pair| pair.strip_prefix(b"auth="));
    let token = bearer(auth.next()?)?;
    auth.next().is_none().then_some((user, token))
}

/// The user name and the token of an XOAUTH2 message: `user=NAME^Aauth=Bearer TOKEN^A^A`.
pub(crate) fn xoauth2(message: &Secret) -> Option<(Option<String>, Secret)> {
    let (user, auth) = split_at_byte(message.expose().strip_suffix(b"\x01\x01")?, 1)?;
    Some((Some(user_name(user.strip_prefix(b"user=")?)?), bearer(auth.strip_prefix(b"auth=")?)?))
}

/// A name in the header of a message, in which `,` and `=` stand as `=2C` and `=3D`, and no `=` by itself (RFC 5801, section 4).
pub(crate) fn unescape(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut plain = pieces.next()?.to_owned();
    for piece in pieces {
        let (letter, rest) = match piece.as_bytes() {
            [b'2', b'C', ..] => (',', &piece[2..]),
            [b'3', b'D', ..] => ('=', &piece[2..]),
            _ => return None,
        };
        plain.push(letter);
        plain.push_str(rest);
    }
    Some(plain)
}

fn split_at_byte(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&b| b == byte)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The token behind `Bearer` (RFC 6750, section 2.1).
fn bearer(value: &[u8]) -> Option<Secret> {
    let (scheme, token) = value.split_at_checked(7)?;
    let sound = scheme.eq_ignore_ascii_case(b"Bearer ")
        && !token.is_empty()
        && token.len() <= TOKEN_BYTES_MAX
        && token.iter().all(|&b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b));
    sound.then(|| Secret::new(token.to_vec()))
}

/// As whom a client asks to act that proves by other means who it is.
#[derive(Debug, PartialEq, Eq)]
pub enum ActAs {
    /// As the one whom it proves to be.
    Itself,
    /// As the user of this name.
    User(String),
}

/// As whom an EXTERNAL message asks to act; `None`: as somebody who can be no user.
pub fn external(message: &Secret) -> Option<ActAs> {
    if message.is_empty() { Some(ActAs::Itself) } else { user_name(message.expose()).map(ActAs::User) }
}

/// The message for a back end that takes tokens by this mechanism.
pub(crate) fn token_message(mechanism: TokenMechanism, user: &str, token: &Secret) -> Secret {
    let head = match mechanism {
        TokenMechanism::XOAuth2 => format!("user={user}\x01auth=Bearer "),
        TokenMechanism::OAuthBearer => format!("n,a={},\x01auth=Bearer ", user.replace('=', "=3D").replace(',', "=2C")),
    };
    Secret::new([head.as_bytes(), token.expose(), b"\x01\x01"].concat())
}

/// What a client is told, in base64, whose token is refused (RFC 7628, section 3.2.2).
pub(crate) fn token_refused(mechanism: TokenMechanism, hints: &OAuthHints) -> String {
    let mut pairs = match mechanism {
        TokenMechanism::XOAuth2 => vec![("status", "401"), ("schemes", "bearer")],
        TokenMechanism::OAuthBearer => vec![("status", "invalid_token")],
    };
    pairs.extend(hints.scope.as_deref().map(|scope| ("scope", scope)));
    pairs.extend(hints.configuration.as_deref().map(|url| ("openid-configuration", url)));
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("\"{key}\":{}", quote(value))).collect();
    STANDARD.encode(format!("{{{}}}", pairs.join(",")))
}

/// The message that ends an exchange after a refused token: `^A` for OAUTHBEARER, nothing for XOAUTH2.
pub(crate) const fn token_dismissal(mechanism: TokenMechanism) -> &'static [u8] {
    match mechanism {
        TokenMechanism::XOAuth2 => b"",
        TokenMechanism::OAuthBearer => b"AQ==",
    }
}

/// What a user's name must be, for whoever gives another.
pub const USER_NAME: &str =
    "a user name is not empty, of at most 512 bytes, and without control characters, blanks at an end or two together";

/// A name as a client may give it: UTF-8, not empty, of bounded length and without control characters,
/// which no protocol, directory or log could carry safely; nor spaces at an end or two together, which some
/// directories take for none and one.
pub fn user_name(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    let sound = !name.is_empty()
        && name.len() <= USER_BYTES_MAX
        && !name.chars().any(char::is_control)
        && name.trim() == name
        && !name.contains("  ");
    sound.then(|| name.to_owned())
}

/// A password as a client may give it: not empty (an LDAP bind with an empty one succeeds as nobody,
/// RFC 4513, section 5.1.2), of bounded length, and without NUL.
pub(crate) fn password(bytes: &[u8]) -> Option<Secret> {
    let sound = !bytes.is_empty() && bytes.len() <= PASSWORD_BYTES_MAX && !bytes.contains(&0);
    sound.then(|| Secret::new(bytes.to_vec()))
}

/// A message in base64.
pub(crate) fn encode(message: &[u8]) -> String {
    STANDARD.encode(message)
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
            b"\0 u\0p",
            b"\0u \0p",
            b"\0u  v\0p",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn tokens_come_in_two_wrappings() {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        let bearer = |text| oauth_bearer(&secret(text)).map(|(user, token)| (user, token.expose().to_vec()));
        let google = |text| xoauth2(&secret(text)).map(|(user, token)| (user, token.expose().to_vec()));
        let kim = Some((Some("kim@a.org".to_owned()), b"t.o-k~e+n/==".to_vec()));
        assert_eq!(bearer("n,a=kim@a.org,\x01host=h\x01port=143\x01auth=Bearer t.o-k~e+n/==\x01\x01"), kim);
        assert_eq!(bearer("y,,\x01auth=bearer t\x01\x01"), Some((None, b"t".to_vec())));
        assert_eq!(bearer("n,a=k=2Cm=3D,\x01auth=Bearer t\x01\x01"), Some((Some("k,m=".to_owned()), b"t".to_vec())));
        assert_eq!(google("user=kim@a.org\x01auth=Bearer t.o-k~e+n/==\x01\x01"), kim);
        for mechanism in [TokenMechanism::OAuthBearer, TokenMechanism::XOAuth2] {
            let message = token_message(mechanism, "k,m=", &secret("t"));
            let read = match mechanism {
                TokenMechanism::OAuthBearer => oauth_bearer(&message),
                TokenMechanism::XOAuth2 => xoauth2(&message),
            };
            assert_eq!(read.and_then(|(user, _)| user).as_deref(), Some("k,m="));
        }
        for bad in [
            "",
            "\x01\x01",
            "n,,\x01\x01",
            "n,,\x01auth=Bearer \x01\x01",
            "n,,\x01auth=Basic t\x01\x01",
            "n,kim,\x01auth=Bearer t\x01\x01",
            "n,,\x01auth=Bearer t t\x01\x01",
            "n,,\x01auth=Bearer t\x01",
            "n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01",
            "p=tls-exporter,,\x01auth=Bearer t\x01\x01",
            "n,a=,\x01auth=Bearer t\x01\x01",
            "n,a=k\n,\x01auth=Bearer t\x01\x01",
        ] {
            assert_eq!(bearer(bad), None, "{bad:?}");
        }
        for bad in ["user=\x01auth=Bearer t\x01\x01", "auth=Bearer t\x01\x01", "user=k\x01auth=Bearer t"] {
            assert_eq!(google(bad), None, "{bad:?}");
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
