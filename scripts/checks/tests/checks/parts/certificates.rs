//! A certificate authority of a test's own.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority, and the folder with what it issued.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
pub(crate) struct Certificate {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

impl Authority {
    /// A new authority; its own certificate is `ca.pem` in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Where the authority's certificate is.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for these names and addresses, as `<name>.pem` and `<name>.key`.
    pub(crate) fn issue(&self, name: &str, subjects: &[&str]) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let subjects: Vec<_> = subjects.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(subjects).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Certificate {
            cert_file: self.folder.join(format!("{name}.pem")),
            key_file: self.folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.cert_file, certificate.pem()).unwrap();
        std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        files
    }
}
