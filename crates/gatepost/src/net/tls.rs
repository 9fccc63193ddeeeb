//! Certificates, keys and what is trusted: from files to rustls' configurations.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::client_certificate;
use crate::config::{CertificateFiles, ClientCertificates, NamedFile, Problem, TlsMode, TlsVersion, Trust};

/// A certificate that ends within this time is warned of.
pub(crate) const EXPIRY_WARNING: Duration = Duration::from_hours(336);

/// The one crypto provider, passed explicitly wherever one is needed.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        // SHA-256 runs in hardware where SHA-384 doesn't, and a handshake is a dozen hashes: a tenth of its cost.
        provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
            suite if suite.as_str().is_some_and(|name| name.starts_with("TLS13_")) => 1,
            suite if suite.as_str().is_some_and(|name| name.contains("AES_128_GCM")) => 2,
            _ => 3,
        });
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
static FROM_TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

const fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        TlsVersion::Tls12 => &FROM_TLS12,
        TlsVersion::Tls13 => &FROM_TLS13,
    }
}

/// A certificate read from its files, with what must be known of it.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    key: Arc<CertifiedKey>,
    /// The DNS names it is for, in lower case; wildcards with their `*`.
    names: Vec<String>,
    expires: SystemTime,
}

impl Certificate {
    /// Reads a chain and its key; a key that isn't the certificate's is an error.
    pub(crate) fn load(files: &CertificateFiles) -> Result<Self, Problem> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.chain)
            .and_then(Iterator::collect)
            .map_err(|error| files.chain.problem(format_args!("can't be read as certificates in PEM: {error}")))?;
        let leaf =
            chain.first().ok_or_else(|| files.chain.problem("holds no certificate (-----BEGIN CERTIFICATE-----)"))?;
        let (names, expires) = read_leaf(leaf)
            .map_err(|error| files.chain.problem(format_args!("holds a broken certificate: {error}")))?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| files.key.problem(format_args!("can't be read as a private key in PEM: {error}")))?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                files.key.problem(format_args!("is not the key of the certificate in {}", files.chain.display()))
            }
            error => files.key.problem(format_args!("can't be used as a key: {error}")),
        })?;
        Ok(Self { key: Arc::new(key), names, expires })
    }

    /// The DNS names it is for.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The end of its time.
    pub(crate) fn expires(&self) -> SystemTime {
        self.expires
    }

    /// What an administrator should know about its time, if anything.
    pub(crate) fn expiry_warning(&self, files: &CertificateFiles, now: SystemTime) -> Option<Problem> {
        let message = match self.expires.duration_since(now) {
            Err(_) => "this certificate has expired: clients will refuse it".to_owned(),
            Ok(left) if left < EXPIRY_WARNING => {
                format!("this certificate expires in {} days", left.as_secs() / 86_400)
            }
            Ok(_) => return None,
        };
        Some(files.chain.problem(message))
    }
}

fn read_leaf(der: &CertificateDer<'_>) -> Result<(Vec<String>, SystemTime), String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let names = names.collect();
    let expires = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok((names, UNIX_EPOCH + Duration::from_secs(expires)))
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the part behind `*`, with its dot.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    fallback: Arc<CertifiedKey>,
}

impl ByName {
    fn new(certificates: &[Certificate]) -> Option<Self> {
        let fallback = Arc::clone(&certificates.first()?.key);
        let mut resolver = Self { exact: HashMap::new(), wildcard: HashMap::new(), fallback };
        for certificate in certificates {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix('*') {
                    Some(suffix) => (&mut resolver.wildcard, suffix),
                    None => (&mut resolver.exact, name.as_str()),
                };
                // The first in the file wins, as it does without a name.
                map.entry(name.to_owned()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        Some(resolver)
    }

    fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let found = name.map(str::to_ascii_lowercase).and_then(|name| {
            let suffix = name.find('.').map(|dot| &name[dot..]);
            self.exact.get(&name).or_else(|| self.wildcard.get(suffix?))
        });
        found.unwrap_or(&self.fallback)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(client_hello.server_name())))
    }
}

/// When a connection comes to TLS, with what that takes.
#[derive(Debug, Clone)]
pub(crate) enum Spoken<C> {
    Never,
    /// When the client asks for it.
    StartTls(C),
    /// At once.
    Implicit(C),
}

impl<C> Spoken<C> {
    /// As the settings have it; what it takes is made only where it is spoken.
    pub(crate) fn new<E>(mode: TlsMode, config: impl FnOnce() -> Result<C, E>) -> Result<Self, E> {
        Ok(match mode {
            TlsMode::None => Self::Never,
            TlsMode::StartTls => Self::StartTls(config()?),
            TlsMode::Implicit => Self::Implicit(config()?),
        })
    }

    pub(crate) fn is_starttls(&self) -> bool {
        matches!(self, Self::StartTls(_))
    }

    pub(crate) fn is_implicit(&self) -> bool {
        matches!(self, Self::Implicit(_))
    }
}

/// How TLS is spoken towards clients; `None` without a certificate.
pub(crate) fn server_config(
    certificates: &[Certificate],
    min: TlsVersion,
    alpn: &[u8],
    clients: Option<&ClientCertificates>,
) -> Result<Option<Arc<ServerConfig>>, Problem> {
    let Some(resolver) = ByName::new(certificates) else { return Ok(None) };
    let fault = |error: rustls::Error| Problem::of("tls", error.to_string());
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions(min)).map_err(fault)?;
    let builder = match clients {
        Some(settings) => builder.with_client_cert_verifier(client_certificate::verifier(settings, provider())?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.ignore_client_order = true;
    // Tickets keep nothing here for sessions that may never come back, and one is enough for a client
    // that opens connections one after another.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(fault)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Some(Arc::new(config)))
}

/// How TLS is spoken towards a server.
pub(crate) fn client_config(trust: &Trust, min: TlsVersion) -> Result<Arc<ClientConfig>, Problem> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(min))
        .map_err(|error| Problem::of("tls", error.to_string()))?;
    let builder = builder.dangerous();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::By(ca) => {
            let roots = match ca {
                Some(path) => roots_from(path)?,
                None => system_roots()?,
            };
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| Problem::of("tls", format!("no authority to check servers against: {error}")))?
        }
        Trust::Pinned(pins) => {
            let accepted = Accepted::Pinned(pins.iter().map(|pin| pin.0).collect());
            Arc::new(OneCertificate { provider, accepted })
        }
        Trust::Unchecked => Arc::new(OneCertificate { provider, accepted: Accepted::Any }),
    };
    let config = builder.with_custom_certificate_verifier(verifier);
    Ok(Arc::new(config.with_no_client_auth()))
}

pub(super) fn roots_from(path: &NamedFile) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| path.problem(format_args!("can't be read as certificates in PEM: {error}")))?;
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| path.problem(format_args!("holds an authority that can't be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(path.problem("holds no certificate (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let message =
            "the system has no certificate authorities: install ca-certificates, or set `ca` where the server is named";
        return Err(Problem::of("TLS towards servers", message));
    }
    Ok(roots)
}

/// The name that a server's certificate must carry.
pub(crate) fn server_name(host: &str) -> Option<ServerName<'static>> {
    match host.parse::<IpAddr>() {
        Ok(address) => Some(ServerName::IpAddress(address.into())),
        Err(_) => ServerName::try_from(host.to_owned()).ok(),
    }
}

/// Judges a back end's certificate by itself alone. That the back end has its key is always checked.
#[derive(Debug)]
struct OneCertificate {
    provider: Arc<CryptoProvider>,
    accepted: Accepted,
}

#[derive(Debug)]
enum Accepted {
    /// These, by their SHA-256.
    Pinned(Vec<[u8; 32]>),
    /// Any: only where the administrator says so.
    Any,
}

impl ServerCertVerifier for OneCertificate {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.accepted {
            Accepted::Pinned(pins) if !pins.contains(&Sha256::digest(certificate).into()) => {
                Err(rustls::Error::General("the certificate is none of those pinned".into()))
            }
            Accepted::Pinned(_) | Accepted::Any => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
