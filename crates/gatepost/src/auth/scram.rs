//! SCRAM-SHA-256 (RFC 5802, RFC 7677): what is kept of a password, and the proof that a client knows it.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_wire::Secret;
use gatepost_wire::scram::{ClientFinal, ClientFirst, server_final, server_first};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::hash::Unusable;
use crate::config::Level;
use crate::log::Logger;
use crate::secret_file;

/// How often a password that is kept here is hashed: what Dovecot and `PostgreSQL` use too (and RFC 7677 asks for at least),
/// so that users whom nobody knows are told what most of those are told who are known.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
/// What a client would have to compute is bounded: it would give up beyond, and Gatepost itself where it checks a password.
const ITERATIONS_MAX: u32 = 1_000_000;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 18;
const KEY_BYTES: usize = 32;

type Key = [u8; KEY_BYTES];

/// What is kept of a password: enough to check a proof of it, and too little to make one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    salt: Vec<u8>,
    iterations: NonZeroU32,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    /// Reads one as directories keep it: `iterations,salt,stored key,server key` (Dovecot's form, behind its
    /// `{SCRAM-SHA-256}`).
    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        let fields: Vec<_> = text.split(',').collect();
        let [iterations, salt, stored_key, server_key] = fields[..] else { return Err(Unusable::Malformed) };
        Self::of(iterations, salt, stored_key, server_key)
    }

    /// Reads one in the form of RFC 5803, which `PostgreSQL` keeps too, behind its `SCRAM-SHA-256$`:
    /// `iterations:salt$stored key:server key`.
    pub(super) fn parse_rfc5803(text: &str) -> Result<Self, Unusable> {
        let parts = text.split_once('$').and_then(|(work, keys)| Some((work.split_once(':')?, keys.split_once(':')?)));
        let ((iterations, salt), (stored_key, server_key)) = parts.ok_or(Unusable::Malformed)?;
        Self::of(iterations, salt, stored_key, server_key)
    }

    fn of(iterations: &str, salt: &str, stored_key: &str, server_key: &str) -> Result<Self, Unusable> {
        let key = |text: &str| STANDARD.decode(text).ok().and_then(|bytes| Key::try_from(bytes).ok());
        let read = || {
            let iterations = iterations.parse().ok().filter(|&count: &NonZeroU32| count.get() <= ITERATIONS_MAX)?;
            let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
            Some(Self { salt, iterations, stored_key: key(stored_key)?, server_key: key(server_key)? })
        };
        read().ok_or(Unusable::Malformed)
    }

    /// Makes one to keep, in Dovecot's form without the scheme.
    pub(super) fn make(password: &Secret) -> Result<String, Unusable> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| Unusable::Short)?;
        let (stored_key, server_key) = keys(password, &salt, ITERATIONS);
        let [salt, stored_key, server_key] = [&salt[..], &stored_key, &server_key].map(|bytes| STANDARD.encode(bytes));
        Ok(format!("{ITERATIONS},{salt},{stored_key},{server_key}"))
    }

    /// Whether `password` is the one that it was made of.
    pub(super) fn fits(&self, password: &Secret) -> bool {
        keys(password, &self.salt, self.iterations).0.ct_eq(&self.stored_key).into()
    }

    /// One for somebody who has none: it looks like those that are made here, the same each time for the same user,
    /// and no proof fits it.
    fn decoy(key: &hmac::Key, user: &str) -> Self {
        let salt = hmac::sign(key, user.as_bytes()).as_ref()[..SALT_BYTES].to_vec();
        // Nothing is known that hashes to this.
        Self { salt, iterations: ITERATIONS, stored_key: [0; KEY_BYTES], server_key: [0; KEY_BYTES] }
    }
}

/// Verifiers for those who have none: the same each time, and after a restart, so that nobody learns from them which
/// users exist.
#[derive(Debug)]
pub(crate) struct Decoys {
    /// Where their key is kept.
    file: PathBuf,
    key: OnceLock<hmac::Key>,
}

impl Decoys {
    /// `state` is the folder for what Gatepost keeps. Nothing is done there before it is needed.
    pub(crate) fn new(state: &Path) -> Self {
        Self { file: state.join("unknown-users.key"), key: OnceLock::new() }
    }

    /// What a user seems to have.
    pub(crate) fn verifier(&self, user: &str, log: &Logger) -> Verifier {
        let key = self.key.get_or_init(|| {
            let secret = secret_file::read_or_make(&self.file).unwrap_or_else(|(error, secret)| {
                let what = "the key that hides which users are unknown can't be kept, and is another after a restart";
                log.record(Level::Warning, "server", what)
                    .with("file", self.file.display().to_string())
                    .with("fault", error.to_string())
                    .write();
                secret
            });
            hmac::Key::new(hmac::HMAC_SHA256, secret.expose())
        });
        Verifier::decoy(key, user)
    }
}

/// The stored key and the server's key (RFC 5802, section 3).
fn keys(password: &Secret, salt: &[u8], iterations: NonZeroU32) -> (Key, Key) {
    let prepared = prepare(password);
    let mut salted = Zeroizing::new([0; KEY_BYTES]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, prepared.expose(), &mut *salted);
    let client_key = Zeroizing::new(sign(&*salted, b"Client Key"));
    (Sha256::digest(*client_key).into(), sign(&*salted, b"Server Key"))
}

/// A password as it is hashed: by `SASLprep` (RFC 4013), or where that forbids it, as it is, as other servers do.
fn prepare(password: &Secret) -> Secret {
    let text = std::str::from_utf8(password.expose()).ok().filter(|text| !text.is_ascii());
    match text.and_then(|text| stringprep::saslprep(text).ok()) {
        Some(prepared) => Secret::new(prepared.into_owned().into_bytes()),
        None => password.duplicate(),
    }
}

fn sign(key: &[u8], message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut signature = [0; KEY_BYTES];
    signature.copy_from_slice(tag.as_ref());
    signature
}

/// An exchange in which the client has been challenged.
pub(crate) struct Challenge {
    first: ClientFirst,
    verifier: Verifier,
    nonce: String,
    /// What the client was told.
    told: String,
    /// The bytes that bind, where the exchange is bound.
    binding: Vec<u8>,
}

impl Challenge {
    /// Answers a client's first message. `binding` is what its type of binding gives here.
    pub(crate) fn new(first: ClientFirst, verifier: Verifier, binding: Vec<u8>) -> Result<Self, Unusable> {
        let mut random = [0; NONCE_BYTES];
        getrandom::fill(&mut random).map_err(|_| Unusable::Short)?;
        Ok(Self::with_nonce(first, verifier, binding, &STANDARD.encode(random)))
    }

    fn with_nonce(first: ClientFirst, verifier: Verifier, binding: Vec<u8>, own: &str) -> Self {
        let nonce = format!("{}{own}", first.nonce);
        let told = server_first(&nonce, &verifier.salt, verifier.iterations.get());
        Self { first, verifier, nonce, told, binding }
    }

    /// What the client is told.
    pub(crate) fn told(&self) -> &str {
        &self.told
    }

    /// Whether the client's last message proves that it knows the password, in this exchange over this connection.
    pub(crate) fn is_met(&self, last: &ClientFinal) -> bool {
        let channel = [self.first.header.as_bytes(), &self.binding].concat();
        let is_same_exchange = last.nonce == self.nonce && bool::from(last.channel.ct_eq(&channel));
        let Ok(proof) = Key::try_from(last.proof.as_slice()) else { return false };
        let signature = sign(&self.verifier.stored_key, self.signed(last).as_bytes());
        let mut client_key = Zeroizing::new(proof);
        client_key.iter_mut().zip(signature).for_each(|(byte, other)| *byte ^= other);
        let is_known: bool = Sha256::digest(*client_key).ct_eq(&self.verifier.stored_key).into();
        is_same_exchange && is_known
    }

    /// What tells the client in turn that this is who knows its verifier.
    pub(crate) fn signature(&self, last: &ClientFinal) -> String {
        server_final(&sign(&self.verifier.server_key, self.signed(last).as_bytes()))
    }

    fn signed(&self, last: &ClientFinal) -> String {
        format!("{},{},{}", self.first.bare, self.told, last.without_proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatepost_wire::scram::{client_final, client_first};

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    /// The exchange of RFC 7677, section 3.
    fn example() -> (Challenge, ClientFinal) {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let iterations = NonZeroU32::new(4096).expect("a count");
        let (stored_key, server_key) = keys(&secret("pencil"), &salt, iterations);
        let verifier = Verifier { salt, iterations, stored_key, server_key };
        let first = client_first(&secret("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")).expect("a message");
        let challenge = Challenge::with_nonce(first, verifier, Vec::new(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        (challenge, client_final(&secret(last)).expect("a message"))
    }

    #[test]
    fn the_exchange_of_rfc_7677() {
        let (challenge, last) = example();
        let told = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(challenge.told(), told);
        assert!(challenge.is_met(&last));
        assert_eq!(challenge.signature(&last), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn nothing_of_it_may_be_another() {
        let (challenge, _) = example();
        let changed = |change: &dyn Fn(&mut ClientFinal)| {
            let (_, mut last) = example();
            change(&mut last);
            challenge.is_met(&last)
        };
        assert!(changed(&|_| {}));
        assert!(!changed(&|last| last.proof[0] ^= 1));
        assert!(!changed(&|last| last.proof.truncate(31)));
        assert!(!changed(&|last| last.nonce.push('x')));
        assert!(!changed(&|last| last.channel = b"y,,".to_vec()));
        assert!(!changed(&|last| last.without_proof.push('x')));
        let decoy = Verifier::decoy(&hmac::Key::new(hmac::HMAC_SHA256, b"key"), "kim");
        let first = client_first(&secret("n,,n=kim,r=x")).expect("a message");
        let (_, last) = example();
        assert!(!Challenge::with_nonce(first, decoy, Vec::new(), "y").is_met(&last));
    }

    #[test]
    fn a_bound_exchange_is_met_on_its_own_connection_alone() {
        let (_, mut last) = example();
        let first = || client_first(&secret("p=tls-exporter,,n=user,r=abc")).expect("a message");
        let password = secret("pencil");
        let verifier = Verifier::parse(&Verifier::make(&password).expect("a verifier")).expect("a verifier");
        let here = Challenge::with_nonce(first(), verifier.clone(), b"here".to_vec(), "def");
        let elsewhere = Challenge::with_nonce(first(), verifier.clone(), b"elsewhere".to_vec(), "def");
        last.channel = b"p=tls-exporter,,here".to_vec();
        last.nonce = "abcdef".into();
        last.without_proof = format!("c={},r=abcdef", STANDARD.encode(&last.channel));
        // As a client makes its proof.
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, verifier.iterations, &verifier.salt, b"pencil", &mut salted);
        let client_key = sign(&salted, b"Client Key");
        let signature = sign(&Sha256::digest(client_key), here.signed(&last).as_bytes());
        last.proof = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        assert!(here.is_met(&last));
        assert!(!elsewhere.is_met(&last));
    }

    #[test]
    fn what_is_no_verifier_is_not_taken() {
        for bad in ["", "4096", "0,YQ==,YQ==,YQ==", "4096,,YQ==,YQ==", "4096,YQ==,YQ==,YQ==", "9999999,YQ==,x,y"] {
            assert!(Verifier::parse(bad).is_err() && Verifier::parse_rfc5803(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_prepared() {
        let kept = Verifier::make(&secret("I\u{ad}X \u{aa}")).expect("a verifier");
        let verifier = Verifier::parse(&kept).expect("a verifier");
        assert!(verifier.fits(&secret("IX a")) && !verifier.fits(&secret("ix a")));
        let odd = Verifier::parse(&Verifier::make(&secret("a\u{7}\u{e9}")).expect("a verifier")).expect("a verifier");
        assert!(odd.fits(&secret("a\u{7}\u{e9}")));
    }
}
