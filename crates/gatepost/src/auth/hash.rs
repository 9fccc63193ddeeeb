//! Password hashes as directories keep them: `{SCHEME}hash`, Dovecot's notation.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_wire::Secret;
use sha_crypt::ShaCrypt;
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;

use super::scram::Verifier;

/// How a verifier begins that is written as RFC 5803 has it.
const RFC5803_PREFIX: &str = "SCRAM-SHA-256$";

/// A hash that can't be checked: the administrator's business, never the user's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    UnknownScheme,
    Malformed,
    /// Gatepost is going down.
    Stopped,
    /// The kernel gives no randomness, or there is too little memory: nothing can be made.
    Short,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownScheme => "its password has a scheme that is not supported",
            Self::Malformed => "its password hash is malformed",
            Self::Stopped => "the check was interrupted",
            Self::Short => "there is too little memory or randomness",
        })
    }
}

/// Makes a hash to keep: Argon2id.
pub(crate) fn make(password: &Secret) -> Result<String, Unusable> {
    let hash = Argon2::default().hash_password(password.expose()).map_err(|_| Unusable::Short)?;
    Ok(format!("{{ARGON2ID}}{hash}"))
}

/// Makes a verifier to keep, by which a client can prove that it knows the password without showing it.
pub(crate) fn make_scram(password: &Secret) -> Result<String, Unusable> {
    Ok(format!("{{SCRAM-SHA-256}}{}", Verifier::make(password)?))
}

/// The verifier for SCRAM-SHA-256 that `stored` is; `None`: it is something else.
pub(crate) fn scram(stored: &str) -> Option<Result<Verifier, Unusable>> {
    if let Some((begin, rest)) = stored.split_at_checked(RFC5803_PREFIX.len())
        && begin.eq_ignore_ascii_case(RFC5803_PREFIX)
    {
        return Some(Verifier::parse_rfc5803(rest));
    }
    let (scheme, rest) = stored.strip_prefix('{')?.split_once('}')?;
    scheme.eq_ignore_ascii_case("SCRAM-SHA-256").then(|| Verifier::parse(rest))
}

/// A hash of what nobody knows, at the cost of those that [`make`] makes.
pub(super) fn nobody() -> &'static str {
    "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$Z2F0ZXBvc3Qtbm9ib2R5IQ$Jr7y7tYVnXhPFKNqkNRgP+O0WhxcE3dJHfKQ0yZHLbI"
}

/// What a directory keeps, by how a password is compared with it.
enum Kept<'s> {
    Plain(&'s str),
    Argon2(&'s str),
    /// SHA-256 or SHA-512 as crypt(3) has them.
    ShaCrypt(&'s str),
    Bcrypt(&'s str),
    Salted {
        digest: Vec<u8>,
        salt: Vec<u8>,
        of: fn(&[u8], &[u8]) -> Vec<u8>,
    },
    Scram(Verifier),
}

/// Reads what is kept, as far as its form shows what it is. Without a scheme, only the self-describing forms are taken: what
/// else it is would be a guess.
fn read(stored: &str) -> Result<Kept<'_>, Unusable> {
    if let Some(verifier) = scram(stored) {
        return verifier.map(Kept::Scram);
    }
    let named = stored.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let (scheme, hash) = named.unwrap_or(("CRYPT", stored));
    match scheme.to_ascii_uppercase().as_str() {
        "PLAIN" | "CLEAR" | "CLEARTEXT" => Ok(Kept::Plain(hash)),
        "ARGON2ID" | "ARGON2I" | "ARGON2" if hash.starts_with("$argon2") => Ok(Kept::Argon2(hash)),
        "ARGON2ID" | "ARGON2I" | "ARGON2" => Err(Unusable::Malformed),
        "SHA512-CRYPT" | "SHA256-CRYPT" | "BLF-CRYPT" | "CRYPT" => read_crypt(hash),
        "SSHA" => read_salted::<Sha1>(hash),
        "SSHA256" | "SHA256" => read_salted::<Sha256>(hash),
        "SSHA512" | "SHA512" => read_salted::<Sha512>(hash),
        _ => Err(Unusable::UnknownScheme),
    }
}

/// A hash in crypt(3)'s modular form names its own algorithm.
fn read_crypt(hash: &str) -> Result<Kept<'_>, Unusable> {
    if hash.starts_with("$argon2") {
        Ok(Kept::Argon2(hash))
    } else if hash.starts_with("$5$") || hash.starts_with("$6$") {
        Ok(Kept::ShaCrypt(hash))
    } else if hash.starts_with("$2") {
        Ok(Kept::Bcrypt(hash))
    } else {
        Err(Unusable::UnknownScheme)
    }
}

/// The digest of password and salt, and the salt, which may be empty: in base64 one behind the other.
fn read_salted<D: sha2::Digest>(hash: &str) -> Result<Kept<'_>, Unusable> {
    let mut digest = STANDARD.decode(hash).map_err(|_| Unusable::Malformed)?;
    let length = <D as sha2::Digest>::output_size();
    if digest.len() < length {
        return Err(Unusable::Malformed);
    }
    let salt = digest.split_off(length);
    let of = |password: &[u8], salt: &[u8]| D::new().chain_update(password).chain_update(salt).finalize().to_vec();
    Ok(Kept::Salted { digest, salt, of })
}

/// Whether a hash could be checked at all, as far as its form shows.
pub(crate) fn is_usable(stored: &str) -> bool {
    read(stored).is_ok()
}

/// Whether `password` is the one that `stored` was made of.
pub(crate) fn verify(stored: &str, password: &Secret) -> Result<bool, Unusable> {
    let said = password.expose();
    match read(stored)? {
        Kept::Plain(kept) => Ok(same(kept.as_bytes(), said)),
        Kept::Argon2(hash) => {
            let hash = PasswordHash::new(hash).map_err(|_| Unusable::Malformed)?;
            Ok(Argon2::default().verify_password(said, &hash).is_ok())
        }
        // Whether it is malformed or doesn't match is one answer of this library.
        Kept::ShaCrypt(hash) => Ok(ShaCrypt::default().verify_password(said, hash).is_ok()),
        Kept::Bcrypt(hash) => bcrypt::verify(said, hash).map_err(|_| Unusable::Malformed),
        Kept::Salted { digest, salt, of } => Ok(same(&of(said, &salt), &digest)),
        Kept::Scram(verifier) => Ok(verifier.fits(password)),
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stored: &str, password: &str) -> Result<bool, Unusable> {
        verify(stored, &Secret::new(password.as_bytes().to_vec()))
    }

    #[test]
    fn hashes_of_other_programs_are_understood() {
        // Made by `doveadm pw -s SCHEME -p secret`.
        for stored in [
            "{PLAIN}secret",
            "{SHA512-CRYPT}$6$3hG40srmhHj2m4.g$A9/kWp46qrT9J54XJ8l0ZiMGZC0hFrUfAPeISyV77rS52VFN6yDJrAzvKlj48fv85P95bVUck7Zs94T3sVzc80",
            "{CRYPT}$5$/7e4R47VPJi2INnE$huXibkIYX2ocf3dqRCnpvOv12na39zKiNE/lRsCQiM.",
            "$5$/7e4R47VPJi2INnE$huXibkIYX2ocf3dqRCnpvOv12na39zKiNE/lRsCQiM.",
            "{BLF-CRYPT}$2y$05$cXnK2w/m0VWOFopnIDfOAeHU9B1PnV13H7zGbKqw/WcnKYii40Hfe",
            "{SSHA}O9TyzEN9oWiQ/ZGknVFdVHGPf1Y4twRb",
            "{SSHA256}zZ9q8CRio54cekbyhUXyh3IHZka2TCJNxQ2bhEiU45gz02ya",
            "{SSHA512}tc2ydM9sThv7DuaIekt9QIJPU68DXvlThcMnZO8vzZFak24EiLUltHyZNt0QPl051X02WpSdcgwrHZQVvzdnUzhj5/c=",
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$kunq5nWinlvrZQbL8+GDiQ$X4tkmSE3R/HRXECJSrOO2H09+9KsEfgGp0i5d3VC2RM",
            "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$rxg++/4t0F8al6BvqIx6Ug$SjqsTuVGkq8JvDupcoJJrbzvjKYUUb266Gr95qNBVAo",
            "{SCRAM-SHA-256}4096,8NVuZEKZQp59OpSTPdX42Q==,UsyM4ksGpWForet2WSc457SGHO5GlqVXQcu4pCqQCKU=,Qew8cPSHYmb1F63iyZzfuMxSBw0ahyWP9QvZadIt0E4=",
            "SCRAM-SHA-256$4096:8NVuZEKZQp59OpSTPdX42Q==$UsyM4ksGpWForet2WSc457SGHO5GlqVXQcu4pCqQCKU=:Qew8cPSHYmb1F63iyZzfuMxSBw0ahyWP9QvZadIt0E4=",
            "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
            "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==",
        ] {
            assert!(is_usable(stored), "{stored}");
            assert_eq!(check(stored, "secret"), Ok(true), "{stored}");
            assert_eq!(check(stored, "Secret"), Ok(false), "{stored}");
        }
    }

    #[test]
    fn our_own_hash_and_nobodys() {
        for make in [make, make_scram] {
            let stored = make(&Secret::new(b"s3cret".to_vec())).expect("a hash");
            assert!(is_usable(&stored));
            assert_eq!(check(&stored, "s3cret"), Ok(true));
            assert_eq!(check(&stored, "other"), Ok(false));
        }
        assert_eq!(check(nobody(), "other"), Ok(false));
    }

    #[test]
    fn what_is_not_understood_is_an_error_not_a_wrong_password() {
        for (bad, expected) in [
            ("secret", Unusable::UnknownScheme),
            ("", Unusable::UnknownScheme),
            ("{NTLM}00", Unusable::UnknownScheme),
            ("{CRYPT}$1$abc$def", Unusable::UnknownScheme),
            ("{SSHA}%%", Unusable::Malformed),
            ("{SSHA}YQ==", Unusable::Malformed),
            ("{ARGON2ID}x", Unusable::Malformed),
            ("{SCRAM-SHA-256}x", Unusable::Malformed),
        ] {
            assert!(!is_usable(bad), "{bad}");
            assert_eq!(check(bad, "secret"), Err(expected), "{bad}");
        }
        // Of these, only trying shows what is wrong.
        for bad in ["{ARGON2ID}$argon2id$x", "{BLF-CRYPT}$2y$x"] {
            assert!(is_usable(bad), "{bad}");
            assert_eq!(check(bad, "secret"), Err(Unusable::Malformed), "{bad}");
        }
    }
}
