//! The certificates that a port has from files, and which of them fits a name.
//!
//! A certificate is known under every DNS name in it. A name in full comes before a wildcard, and
//! a wildcard stands for one label (RFC 9525, 6.3). Where two certificates hold the same name, the
//! one that is written first counts, the default one before all.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::{TlsError, earliest_not_after, read_pair, validity};
use crate::config::TlsFiles;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct CertificateSet {
    certificates: Vec<SetCertificate>,
    exact: FxHashMap<Box<str>, usize>,
    /// By what follows `*.`.
    below: FxHashMap<Box<str>, usize>,
    /// Whether the first one is shown where none fits.
    has_default: bool,
}

/// One of them.
pub(crate) struct SetCertificate {
    /// Where its chain was read.
    pub(crate) file: PathBuf,
    /// The DNS names in it, in lower case, as they stand there.
    pub(crate) names: Vec<String>,
    /// When its first certificate began to be good, in seconds since 1970.
    pub(crate) not_before: Option<i64>,
    /// When its chain stops being good, in seconds since 1970.
    pub(crate) not_after: Option<i64>,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for SetCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetCertificate")
            .field("file", &self.file)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl CertificateSet {
    /// Reads them all. `default` is shown where none fits.
    ///
    /// # Errors
    /// One of them cannot be read, as [`ServerTls::load`](super::ServerTls::load); or one that is
    /// chosen by name holds no name.
    pub(crate) fn load(default: Option<&TlsFiles>, by_name: &[TlsFiles]) -> Result<Self, TlsError> {
        let mut set = Self {
            has_default: default.is_some(),
            ..Self::default()
        };
        for files in default.into_iter().chain(by_name) {
            set.add(SetCertificate::load(files)?);
        }
        let mut chosen = set.certificates.iter().skip(usize::from(set.has_default));
        if let Some(nameless) = chosen.find(|certificate| certificate.names.is_empty()) {
            return Err(TlsError::malformed(
                &nameless.file,
                "no DNS name stands in its first certificate, so it would never be chosen: name \
                 it as the listener's own `cert_file`, or take one with subject alternative names",
            ));
        }
        Ok(set)
    }

    fn add(&mut self, certificate: SetCertificate) {
        let index = self.certificates.len();
        for name in &certificate.names {
            let (names, key) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.below, parent),
                None => (&mut self.exact, name.as_str()),
            };
            names.entry(key.into()).or_insert(index);
        }
        self.certificates.push(certificate);
    }

    /// The one that holds the name in full.
    pub(crate) fn exact(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.key(*self.exact.get(name)?)
    }

    /// The one whose wildcard stands for the name.
    pub(crate) fn wildcard(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let (label, parent) = name.split_once('.')?;
        if label.is_empty() {
            return None;
        }
        self.key(*self.below.get(parent)?)
    }

    /// The one for those who ask for no name, or for one that no certificate fits.
    pub(crate) fn default_one(&self) -> Option<&Arc<CertifiedKey>> {
        self.has_default.then(|| self.key(0)).flatten()
    }

    /// Whether one of them fits the name.
    pub(crate) fn covers(&self, name: &str) -> bool {
        self.exact(name).is_some() || self.wildcard(name).is_some()
    }

    /// When the one that ends first does, in seconds since 1970.
    pub(crate) fn not_after(&self) -> Option<i64> {
        self.iter().filter_map(|one| one.not_after).min()
    }

    /// All of them, the default one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SetCertificate> {
        self.certificates.iter()
    }

    fn key(&self, index: usize) -> Option<&Arc<CertifiedKey>> {
        self.certificates
            .get(index)
            .map(|certificate| &certificate.key)
    }
}

impl SetCertificate {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let key = read_pair(files)?;
        Ok(Self {
            file: files.cert_file.clone(),
            names: dns_names(&key).map_err(|error| TlsError::malformed(&files.cert_file, error))?,
            not_before: validity(&key.cert).map(|(begin, _)| begin),
            not_after: earliest_not_after(&key.cert),
            key: Arc::new(key),
        })
    }
}

/// Whether a certificate holds this name, in full.
pub(crate) fn fits(key: &CertifiedKey, name: &str) -> bool {
    dns_names(key).is_ok_and(|names| names.iter().any(|held| held == name))
}

/// The DNS names of the leaf. Other kinds of names are not asked for in a handshake.
fn dns_names(key: &CertifiedKey) -> Result<Vec<String>, String> {
    let Some(leaf) = key.cert.first() else {
        return Ok(Vec::new());
    };
    let unreadable =
        |error: &dyn fmt::Display| format!("its first certificate cannot be read: {error}");
    let (_, parsed) =
        x509_parser::parse_x509_certificate(leaf).map_err(|error| unreadable(&error))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| unreadable(&error))?;
    let names = names
        .into_iter()
        .flat_map(|names| &names.value.general_names);
    Ok(names
        .filter_map(|name| {
            let GeneralName::DNSName(name) = name else {
                return None;
            };
            Some(name.to_ascii_lowercase())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use tempfile::TempDir;

    use super::*;

    fn pair(folder: &TempDir, file: &str, names: &[&str]) -> TlsFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let files = TlsFiles {
            cert_file: folder.path().join(format!("{file}.pem")),
            key_file: folder.path().join(format!("{file}.key")),
        };
        std::fs::write(&files.cert_file, made.cert.pem()).unwrap();
        std::fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_full_name_comes_before_a_wildcard_and_that_before_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let default = pair(&folder, "default", &["hub.example"]);
        let further = [
            pair(&folder, "wild", &["*.Example.com"]),
            pair(&folder, "shop", &["shop.example.com", "www.shop.test"]),
            pair(&folder, "again", &["shop.example.com"]),
        ];
        let set = CertificateSet::load(Some(&default), &further).unwrap();
        let file = |key: Option<&Arc<CertifiedKey>>| {
            let found = set
                .iter()
                .find(|one| key.is_some_and(|key| Arc::ptr_eq(key, &one.key)));
            found.map(|one| one.file.file_stem().unwrap().to_str().unwrap())
        };
        assert_eq!(file(set.exact("shop.example.com")), Some("shop"));
        assert_eq!(file(set.exact("www.shop.test")), Some("shop"));
        assert_eq!(file(set.wildcard("shop.example.com")), Some("wild"));
        assert_eq!(file(set.wildcard("other.example.com")), Some("wild"));
        assert_eq!(file(set.exact("other.example.com")), None);
        assert_eq!(
            file(set.wildcard("a.b.example.com")),
            None,
            "one label only"
        );
        assert_eq!(file(set.wildcard("example.com")), None);
        assert_eq!(file(set.wildcard(".example.com")), None);
        assert_eq!(file(set.default_one()), Some("default"));
        assert!(set.covers("hub.example") && !set.covers("example.com"));
    }

    #[test]
    fn one_that_could_never_be_chosen_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let nameless = pair(&folder, "nameless", &[]);
        let error = CertificateSet::load(None, std::slice::from_ref(&nameless)).unwrap_err();
        assert!(error.to_string().contains("no DNS name"), "{error}");
        let set = CertificateSet::load(Some(&nameless), &[]).unwrap();
        assert!(set.default_one().is_some() && !set.covers("hub.example"));
        assert!(
            CertificateSet::load(None, &[])
                .unwrap()
                .default_one()
                .is_none()
        );
    }
}
