//! Certificates of clients: which are taken, and whose they are.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gatepost_wire::sasl;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::asn1_rs::{Any, FromDer as _, Oid, Utf8String, oid};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::AttributeTypeAndValue;

use super::tls::roots_from;
use crate::config::{CertificateName, ClientCertificates, Problem};

/// Microsoft's user principal name, as a name of another form.
const UPN: Oid<'static> = oid!(1.3.6.1.4.1.311.20.2.3);
/// The user id of a subject (RFC 4519, section 2.39).
const USER_ID: Oid<'static> = oid!(0.9.2342.19200300.100.1.1);

/// Checks clients' certificates as `settings` say: authority, time, and whether they are revoked.
pub(super) fn verifier(
    settings: &ClientCertificates,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    let roots = Arc::new(roots_from(&settings.ca)?);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    if let Some(path) = &settings.crl {
        let lists = CertificateRevocationListDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| path.problem(format_args!("can't be read as revocation lists in PEM: {error}")))?;
        if lists.is_empty() {
            return Err(path.problem("holds no revocation list (-----BEGIN X509 CRL-----)"));
        }
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    if !settings.required {
        builder = builder.allow_unauthenticated();
    }
    let file = settings.crl.as_ref().unwrap_or(&settings.ca);
    builder.build().map_err(|error| file.problem(format_args!("can't be used to check clients: {error}")))
}

/// The names of users that a certificate holds in the first of `fields` in which it has any. A session that is
/// resumed is not checked against the clock by TLS: one that has ended since holds none.
pub(crate) fn names(certificate: &CertificateDer<'_>, fields: &[CertificateName]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0) < now {
        return Vec::new();
    }
    fields.iter().map(|field| read(&certificate, *field)).find(|names| !names.is_empty()).unwrap_or_default()
}

fn read(certificate: &X509Certificate<'_>, field: CertificateName) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    let subject = certificate.subject();
    let text = |attribute: &AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    let found: Vec<String> = match field {
        CertificateName::Email => alternatives.filter_map(email).collect(),
        CertificateName::Upn => alternatives.filter_map(upn).collect(),
        // Of a subject's names the last is its own: those before it say where it belongs.
        CertificateName::CommonName => subject.iter_common_name().filter_map(text).last().into_iter().collect(),
        CertificateName::UserId => subject.iter_by_oid(&USER_ID).filter_map(text).last().into_iter().collect(),
    };
    // An authority may sign what no log-in could say.
    found.into_iter().filter_map(|name| sasl::user_name(name.as_bytes())).collect()
}

fn email(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::RFC822Name(address) => Some((*address).to_owned()),
        _ => None,
    }
}

fn upn(name: &GeneralName<'_>) -> Option<String> {
    let GeneralName::OtherName(kind, value) = name else { return None };
    (*kind == UPN).then_some(())?;
    // [0] EXPLICIT UTF8String (RFC 5280, section 4.2.1.6).
    let (_, wrapped) = Any::from_der(value).ok()?;
    let (_, text) = Utf8String::from_der(wrapped.data).ok()?;
    Some(text.string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, OtherNameValue, SanType};

    fn certificate(alternatives: Vec<SanType>, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = alternatives;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, "Kim of Example");
        let user_id = DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]);
        parameters.distinguished_name.push(user_id, DnValue::Utf8String("kim".into()));
        change(&mut parameters);
        let key = KeyPair::generate().expect("a key");
        parameters.self_signed(&key).expect("a certificate").der().clone()
    }

    fn address(text: &str) -> SanType {
        SanType::Rfc822Name(text.try_into().expect("an address"))
    }

    #[test]
    fn each_field_is_found_and_the_first_that_is_there_counts() {
        use CertificateName::{CommonName, Email, Upn, UserId};
        let upn = (vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], OtherNameValue::Utf8String("kim@corp.example".into()));
        let all = [address("kim@a.org"), address("kim@b.org"), SanType::OtherName(upn)];
        let whole = certificate(all.to_vec(), |_| {});
        assert_eq!(names(&whole, &[Email]), ["kim@a.org", "kim@b.org"]);
        assert_eq!(names(&whole, &[Upn, Email]), ["kim@corp.example"]);
        assert_eq!(names(&whole, &[CommonName]), ["Kim of Example"]);
        assert_eq!(names(&whole, &[UserId]), ["kim"]);
        let bare = certificate(Vec::new(), |_| {});
        assert!(names(&bare, &[Email, Upn]).is_empty());
        assert_eq!(names(&bare, &[Email, UserId]), ["kim"]);
    }

    #[test]
    fn what_has_ended_or_makes_no_sense_names_nobody() {
        let past = certificate(vec![address("kim@a.org")], |parameters| {
            parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        assert!(names(&past, &[CertificateName::Email]).is_empty());
        let strange = certificate(Vec::new(), |parameters| {
            parameters.distinguished_name.push(DnType::CommonName, "kim\u{1b}[2J");
        });
        assert!(names(&strange, &[CertificateName::CommonName]).is_empty());
        assert!(names(&CertificateDer::from(vec![0x30, 3, 1]), &[CertificateName::Email]).is_empty());
    }
}
