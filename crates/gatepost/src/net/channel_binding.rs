//! What binds a log-in to the TLS beneath it, so that nobody who ends that TLS in between can pass the log-in on
//! (RFC 5056): `tls-exporter` (RFC 9266) and `tls-server-end-point` (RFC 5929).
//!
//! rustls says neither which certificate it served nor, on its unbuffered interface, the exporter's secret.
//! Both pass through hooks that a configuration has, so a connection whose log-in may be bound gets a copy of its
//! own, with a [`Witness`] in them.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hkdf;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{KeyLog, ServerConfig};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// The types of binding, as clients name them.
const EXPORTER: &str = "tls-exporter";
const END_POINT: &str = "tls-server-end-point";
/// The label that the key log has for the secret of TLS 1.3's exporter.
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";
/// RFC 9266, section 2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
const EXPORTER_BYTES: usize = 32;

/// Sees what binds to one connection.
#[derive(Debug)]
pub(crate) struct Witness {
    certificates: Arc<dyn ResolvesServerCert>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    exporter: Option<Zeroizing<Vec<u8>>>,
    leaf: Option<CertificateDer<'static>>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl Witness {
    /// A copy of `config` for one connection, with a witness of it.
    pub(crate) fn of(config: &ServerConfig) -> (Arc<ServerConfig>, Arc<Self>) {
        let mut config = config.clone();
        let certificates = Arc::clone(&config.cert_resolver);
        let witness = Arc::new(Self { certificates, seen: Mutex::default() });
        config.cert_resolver = Arc::clone(&witness) as Arc<dyn ResolvesServerCert>;
        config.key_log = Arc::clone(&witness) as Arc<dyn KeyLog>;
        (Arc::new(config), witness)
    }

    /// The bytes that bind by this type; `None`: there are none on this connection.
    pub(crate) fn binding(&self, kind: &str) -> Option<Vec<u8>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            EXPORTER => exporter(seen.exporter.as_ref()?),
            END_POINT => end_point(seen.leaf.as_ref()?),
            _ => None,
        }
    }

    /// Whether something binds to this connection.
    pub(crate) fn can_bind(&self) -> bool {
        [EXPORTER, END_POINT].into_iter().any(|kind| self.binding(kind).is_some())
    }

    /// Forgets all of it: the copy of the configuration lasts as long as the connection.
    pub(crate) fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::default();
    }
}

impl KeyLog for Witness {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == EXPORTER_SECRET {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.exporter = Some(Zeroizing::new(secret.to_vec()));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER_SECRET
    }
}

impl ResolvesServerCert for Witness {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.certificates.resolve(client_hello)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.leaf = chosen.cert.first().cloned();
        Some(chosen)
    }
}

/// RFC 8446, section 7.5: HKDF-Expand-Label(Derive-Secret(secret, label, ""), "exporter", Hash(""), length).
fn exporter(secret: &[u8]) -> Option<Vec<u8>> {
    let (algorithm, empty) = match secret.len() {
        32 => (hkdf::HKDF_SHA256, Sha256::digest(b"").to_vec()),
        48 => (hkdf::HKDF_SHA384, Sha384::digest(b"").to_vec()),
        _ => return None,
    };
    let derived = expand_label(algorithm, secret, EXPORTER_LABEL, &empty, secret.len())?;
    expand_label(algorithm, &derived, b"exporter", &empty, EXPORTER_BYTES).map(|bytes| bytes.to_vec())
}

/// RFC 8446, section 7.1.
fn expand_label(
    algorithm: hkdf::Algorithm,
    secret: &[u8],
    label: &[u8],
    context: &[u8],
    length: usize,
) -> Option<Zeroizing<Vec<u8>>> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let whole = [b"tls13 ", label].concat();
    let head = u16::try_from(length).ok()?.to_be_bytes();
    let lengths = [u8::try_from(whole.len()).ok()?, u8::try_from(context.len()).ok()?];
    let info = [&head[..], &lengths[..1], &whole, &lengths[1..], context];
    let mut out = Zeroizing::new(vec![0; length]);
    let prk = hkdf::Prk::new_less_safe(algorithm, secret);
    prk.expand(&info, Length(length)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

/// RFC 5929, section 4.1: the certificate's hash, by the function that its signature uses, but no older than SHA-256.
fn end_point(leaf: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    match certificate.signature_algorithm.algorithm.to_id_string().as_str() {
        // RSA and ECDSA with SHA-1, RSA with MD5, and both with SHA-256.
        "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2" => Some(Sha256::digest(leaf).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(leaf).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(leaf).to_vec()),
        // Of others, such as Ed25519 with no such function, this binding is not defined.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ends::configurations;

    /// The same binding as rustls' own, on a connection between its buffered sides.
    #[test]
    fn both_sides_of_a_connection_are_bound_by_the_same_bytes() {
        let (server, client, leaf) = configurations();
        let (server, witness) = Witness::of(&server);
        let name = "localhost".try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(client, name).expect("a client");
        let mut server = rustls::ServerConnection::new(server).expect("a server");
        let mut pipe = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            pipe.clear();
            client.write_tls(&mut pipe).expect("records");
            let mut rest = &pipe[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).expect("records");
                server.process_new_packets().expect("a handshake");
            }
            pipe.clear();
            server.write_tls(&mut pipe).expect("records");
            let mut rest = &pipe[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("records");
                client.process_new_packets().expect("a handshake");
            }
        }
        let expected = client.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, Some(b""));
        assert_eq!(witness.binding("tls-exporter"), Some(expected.expect("an exporter").to_vec()));
        assert_eq!(witness.binding("tls-server-end-point"), Some(Sha256::digest(&leaf).to_vec()));
        assert_eq!(witness.binding("tls-unique"), None);
        witness.forget();
        assert_eq!(witness.binding("tls-exporter"), None);
    }
}
