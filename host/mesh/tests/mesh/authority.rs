//! An authority that signs hubs, well and badly.

use std::path::Path;

use nowconnect_mesh::MeshFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use tempfile::TempDir;

/// What stands in a hub's certificate.
pub(crate) struct Leaf {
    pub(crate) uris: Vec<String>,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    /// Seconds from now.
    pub(crate) ends_in: i64,
}

impl Leaf {
    pub(crate) fn of(replica: &str) -> Self {
        Self {
            uris: vec![format!("nowconnect://replica/{replica}")],
            usages: vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ],
            ends_in: 3600,
        }
    }
}

/// A private authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key as PEM.
    pub(crate) fn sign(&self, leaf: &Leaf) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let address = "127.0.0.1".parse().unwrap();
        params.subject_alt_names.push(SanType::IpAddress(address));
        for uri in &leaf.uris {
            let uri = uri.as_str().try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.extended_key_usages.clone_from(&leaf.usages);
        let now = std::time::SystemTime::now();
        params.not_before = (now - std::time::Duration::from_secs(7200)).into();
        params.not_after = if leaf.ends_in < 0 {
            (now - std::time::Duration::from_secs(leaf.ends_in.unsigned_abs())).into()
        } else {
            (now + std::time::Duration::from_secs(leaf.ends_in.unsigned_abs())).into()
        };
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        (signed.pem(), key.serialize_pem())
    }
}

/// The files of one hub.
pub(crate) struct Files {
    folder: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Of a hub that `authority` signed and that trusts it alone.
    pub(crate) fn signed(authority: &Authority, replica: &str) -> Self {
        let files = Self::new();
        files.write_leaf(authority, &Leaf::of(replica));
        files.write_roots(&[authority]);
        files
    }

    pub(crate) fn write_leaf(&self, authority: &Authority, leaf: &Leaf) {
        let (certificate, key) = authority.sign(leaf);
        std::fs::write(self.path("hub.pem"), certificate).unwrap();
        std::fs::write(self.path("hub.key"), key).unwrap();
    }

    pub(crate) fn write_roots(&self, authorities: &[&Authority]) {
        let pem: String = authorities
            .iter()
            .map(|authority| authority.pem())
            .collect();
        std::fs::write(self.path("ca.pem"), pem).unwrap();
    }

    pub(crate) fn mesh_files(&self) -> MeshFiles {
        MeshFiles {
            ca_bundle: self.path("ca.pem"),
            cert_file: self.path("hub.pem"),
            key_file: self.path("hub.key"),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        let folder: &Path = self.folder.path();
        folder.join(name)
    }
}
