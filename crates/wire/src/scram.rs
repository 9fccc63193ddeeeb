//! The messages of SCRAM (RFC 5802, section 7), as a server reads and writes them. What they prove is checked
//! elsewhere: nothing here knows a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits::SCRAM_MESSAGE_BYTES_MAX;
use crate::sasl::{unescape, user_name};
use crate::secret::Secret;

/// What binds an exchange to the TLS beneath it, as the client says in its first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// The client knows no channel binding (`n`).
    Unknown,
    /// The client knows some, and believes that the server doesn't (`y`). Where the server does, somebody between
    /// them has changed what it offered.
    Unoffered,
    /// This type, such as `tls-exporter` (RFC 9266) or `tls-server-end-point` (RFC 5929).
    Type(String),
}

/// A client's first message.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientFirst {
    /// How it is bound.
    pub binding: Binding,
    /// As whom it asks to act; empty: as itself.
    pub authzid: String,
    /// The user's name.
    pub user: String,
    /// The client's part of the nonce.
    pub nonce: String,
    /// The beginning of the message, which the last one repeats.
    pub header: String,
    /// The rest of the message, which is signed.
    pub bare: String,
}

/// A client's last message.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientFinal {
    /// The header of the first message and behind it what binds, as the client sees it.
    pub channel: Vec<u8>,
    /// Both parts of the nonce.
    pub nonce: String,
    /// What proves that the client knows the password.
    pub proof: Vec<u8>,
    /// The message up to the proof, which is signed.
    pub without_proof: String,
}

/// Reads a client's first message; `None`: it is none.
pub fn client_first(message: &Secret) -> Option<ClientFirst> {
    let text = text(message)?;
    let (flag, rest) = text.split_once(',')?;
    let (authzid, bare) = rest.split_once(',')?;
    let binding = match flag {
        "n" => Binding::Unknown,
        "y" => Binding::Unoffered,
        flag => Binding::Type(flag.strip_prefix("p=").filter(|name| is_binding_name(name))?.to_owned()),
    };
    let authzid = match authzid.strip_prefix("a=") {
        // The grammar has no empty name, but gsasl writes one.
        Some("") => String::new(),
        Some(name) => user_name(unescape(name)?.as_bytes())?,
        None if authzid.is_empty() => String::new(),
        None => return None,
    };
    let mut attributes = bare.split(',');
    // An extension that must be understood (`m=`) would stand before the name: none is.
    let user = user_name(unescape(attributes.next()?.strip_prefix("n=")?)?.as_bytes())?;
    let nonce = attributes.next()?.strip_prefix("r=").filter(|nonce| is_nonce(nonce))?.to_owned();
    if !attributes.all(is_extension) {
        return None;
    }
    let header = text[..text.len() - bare.len()].to_owned();
    Some(ClientFirst { binding, authzid, user, nonce, header, bare: bare.to_owned() })
}

/// Reads a client's last message; `None`: it is none.
pub fn client_final(message: &Secret) -> Option<ClientFinal> {
    let text = text(message)?;
    let (without_proof, proof) = text.rsplit_once(",p=")?;
    let mut attributes = without_proof.split(',');
    let channel = STANDARD.decode(attributes.next()?.strip_prefix("c=")?).ok()?;
    let nonce = attributes.next()?.strip_prefix("r=").filter(|nonce| is_nonce(nonce))?.to_owned();
    if !attributes.all(is_extension) {
        return None;
    }
    let proof = STANDARD.decode(proof).ok()?;
    Some(ClientFinal { channel, nonce, proof, without_proof: without_proof.to_owned() })
}

/// The server's first message. `nonce` is the client's part and the server's behind it.
pub fn server_first(nonce: &str, salt: &[u8], iterations: u32) -> String {
    format!("r={nonce},s={},i={iterations}", STANDARD.encode(salt))
}

/// The server's last message, by which the client knows it.
pub fn server_final(signature: &[u8]) -> String {
    format!("v={}", STANDARD.encode(signature))
}

fn text(message: &Secret) -> Option<&str> {
    std::str::from_utf8(message.expose()).ok().filter(|text| text.len() <= SCRAM_MESSAGE_BYTES_MAX)
}

fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn is_binding_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// A letter and something: an extension that need not be understood.
fn is_extension(attribute: &str) -> bool {
    matches!(attribute.as_bytes(), [letter, b'=', _, ..] if letter.is_ascii_alphabetic() && *letter != b'm')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn the_messages_of_rfc_7677() {
        let first = client_first(&secret("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")).expect("a first message");
        let expected = ClientFirst {
            binding: Binding::Unknown,
            authzid: String::new(),
            user: "user".into(),
            nonce: "rOprNGfwEbeRWgbNEkqO".into(),
            header: "n,,".into(),
            bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".into(),
        };
        assert_eq!(first, expected);
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let text = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let last = client_final(&secret(&text)).expect("a last message");
        assert_eq!((last.channel.as_slice(), last.nonce.as_str(), last.proof.len()), (&b"n,,"[..], nonce, 32));
        assert_eq!(last.without_proof, format!("c=biws,r={nonce}"));
    }

    #[test]
    fn names_and_bindings() {
        let read = |text: &str| client_first(&secret(text)).map(|first| (first.binding, first.authzid, first.user));
        let kind = |name: &str| Binding::Type(name.to_owned());
        let none = String::new;
        assert_eq!(read("n,a=,n=kim,r=x"), Some((Binding::Unknown, none(), "kim".into())));
        assert_eq!(read("y,,n=k=2Cm=3D,r=x"), Some((Binding::Unoffered, none(), "k,m=".into())));
        assert_eq!(read("p=tls-exporter,,n=kim,r=x,z=1"), Some((kind("tls-exporter"), none(), "kim".into())));
        assert_eq!(read("n,a=lee@a.org,n=kim,r=x"), Some((Binding::Unknown, "lee@a.org".into(), "kim".into())));
    }

    #[test]
    fn anything_else_is_no_message() {
        for bad in [
            "",
            "n,,",
            "n,n=kim,r=x",
            "x,,n=kim,r=x",
            "p=,,n=kim,r=x",
            "p=a b,,n=kim,r=x",
            "n,b=lee,n=kim,r=x",
            "n,,n=,r=x",
            "n,,n=k=m,r=x",
            "n,,n=k=2cm,r=x",
            "n,,n=k=\u{e9},r=x",
            "n,,n=kim",
            "n,,n=kim,r=",
            "n,,n=kim,r=a b",
            "n,,m=1,n=kim,r=x",
            "n,,n=kim,r=x,",
            "n,,n=kim,r=x,m=1",
            "n,,n=k\nm,r=x",
        ] {
            assert_eq!(client_first(&secret(bad)), None, "{bad:?}");
        }
        for bad in ["", "c=biws,r=x", "c=biws,p=eA==", "c=!,r=x,p=eA==", "r=x,c=biws,p=eA==", "c=biws,r=x,p=!"] {
            assert_eq!(client_final(&secret(bad)), None, "{bad:?}");
        }
        assert_eq!(client_first(&secret(&format!("n,,n=kim,r={}", "x".repeat(SCRAM_MESSAGE_BYTES_MAX)))), None);
    }
}
