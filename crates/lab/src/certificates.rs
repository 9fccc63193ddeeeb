//! Throw-away certificates.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};

use crate::{Result, context};

/// An authority of our own.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate and its key as files, PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority whose files live in `folder`.
    pub fn create(folder: &Path) -> Result<Self> {
        let mut parameters = context(CertificateParams::new(Vec::new()), "authority")?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, "Gatepost lab");
        let key = context(KeyPair::generate(), "authority")?;
        let certificate = context(parameters.self_signed(&key), "authority")?;
        let path = folder.join("ca.pem");
        context(std::fs::write(&path, certificate.pem()), path.display())?;
        Ok(Self { certificate: path, issuer: Issuer::new(parameters, key), folder: folder.to_owned() })
    }

    /// Issues a certificate for `names`, host names or addresses, in files named `file`.
    pub fn issue(&self, file: &str, names: &[&str]) -> Result<Certificate> {
        self.issue_until(file, names, SystemTime::now() + Duration::from_hours(8760))
    }

    /// As [`Authority::issue`], ending at `end`.
    pub fn issue_until(&self, file: &str, names: &[&str], end: SystemTime) -> Result<Certificate> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        self.sign(file, context(CertificateParams::new(names), file)?, end)
    }

    /// Issues a certificate for a person with these e-mail addresses, in files named `file`.
    pub fn issue_to_person(&self, file: &str, addresses: &[&str]) -> Result<Certificate> {
        let mut parameters = CertificateParams::default();
        for address in addresses {
            parameters.subject_alt_names.push(SanType::Rfc822Name(context((*address).try_into(), address)?));
        }
        parameters.serial_number = Some(serial(file));
        self.sign(file, parameters, SystemTime::now() + Duration::from_hours(8760))
    }

    /// Writes the list of what is revoked: these people's certificates, by their files' names.
    pub fn revoke(&self, files: &[&str]) -> Result<PathBuf> {
        let now = SystemTime::now();
        let revoked = |file: &&str| RevokedCertParams {
            serial_number: serial(file),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_hours(24)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: files.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = context(context(list.signed_by(&self.issuer), "revocation list")?.pem(), "revocation list")?;
        let path = self.folder.join("crl.pem");
        context(std::fs::write(&path, list), path.display())?;
        Ok(path)
    }

    fn sign(&self, file: &str, mut parameters: CertificateParams, end: SystemTime) -> Result<Certificate> {
        parameters.distinguished_name.push(DnType::CommonName, file);
        parameters.not_before = (end.min(SystemTime::now()) - Duration::from_hours(24)).into();
        parameters.not_after = end.into();
        let key = context(KeyPair::generate(), file)?;
        let certificate = context(parameters.signed_by(&key, &self.issuer), file)?;
        let paths = Certificate {
            chain: self.folder.join(format!("{file}.pem")),
            key: self.folder.join(format!("{file}.key")),
        };
        context(std::fs::write(&paths.chain, certificate.pem()), file)?;
        context(std::fs::write(&paths.key, key.serialize_pem()), file)?;
        Ok(paths)
    }
}

/// The serial number of a person's certificate, by its file's name.
fn serial(file: &str) -> SerialNumber {
    SerialNumber::from_slice(file.as_bytes())
}
