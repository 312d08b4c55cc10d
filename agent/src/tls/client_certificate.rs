//! The certificate that the agent shows to a target which asks for one.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TrustError;

/// A chain or key file larger than this is refused; a chain of ten with large keys is a
/// sixteenth of it.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A certificate with its chain, and its key.
pub(crate) struct ClientCertificate {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientCertificate")
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl ClientCertificate {
    /// Reads both files. Whether they belong together is known when a TLS client is made of them.
    pub(crate) fn read(cert_file: &Path, key_file: &Path) -> Result<Self, TrustError> {
        let certificate = |reason: String| TrustError::ClientCertificate {
            path: cert_file.display().to_string(),
            reason,
        };
        let text = read_bounded(cert_file).map_err(certificate)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| certificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(certificate("it holds no `CERTIFICATE` block".to_owned()));
        }

        let key = |reason: String| TrustError::ClientKey {
            path: key_file.display().to_string(),
            reason,
        };
        let text = read_bounded(key_file).map_err(key)?;
        let found = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
            key(if matches!(error, PemError::NoItemsFound) {
                "it holds no private key in PEM; an encrypted one cannot be used".to_owned()
            } else {
                error.to_string()
            })
        })?;
        Ok(Self { chain, key: found })
    }

    /// The certificate itself, without what vouches for it.
    pub(crate) fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }
}

/// The length is bounded while reading, so that a pipe or a device cannot fill the memory.
fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::path::PathBuf;

    use super::*;
    use crate::tls::{client, roots_of};

    struct Files {
        _folder: tempfile::TempDir,
        cert: PathBuf,
        key: PathBuf,
    }

    fn files(cert: &str, key: &str) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let written = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Files {
            cert: written("cert.pem", cert),
            key: written("key.pem", key),
            _folder: folder,
        }
    }

    fn pair() -> (String, String) {
        let signed = rcgen::generate_simple_self_signed(vec!["agent.test".to_owned()]).unwrap();
        (signed.cert.pem(), signed.signing_key.serialize_pem())
    }

    fn refused(cert: &str, key: &str) -> String {
        let files = files(cert, key);
        ClientCertificate::read(&files.cert, &files.key)
            .and_then(|found| client(roots_of(&[])?, &[], Some(found)))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_pair_is_taken() {
        let (cert, key) = pair();
        let files = files(&format!("{cert}{cert}"), &key);
        let found = ClientCertificate::read(&files.cert, &files.key).unwrap();
        assert_eq!(found.chain.len(), 2);
        client(roots_of(&[]).unwrap(), &[], Some(found)).unwrap();
    }

    #[test]
    fn each_fault_names_its_file_and_no_key_is_shown() {
        let (cert, key) = pair();
        let (_, other_key) = pair();
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let body = key.lines().nth(1).unwrap().to_owned();
        for (cert, key, expected) in [
            (
                "",
                key.as_str(),
                "cert.pem` cannot be used: it holds no `CERTIFICATE` block",
            ),
            (
                &cert,
                "",
                "key.pem` cannot be used: it holds no private key in PEM",
            ),
            (&cert, &encrypted, "an encrypted one cannot be used"),
            (&cert, &other_key, "they do not belong together"),
            (
                &cert.replacen("MII", "M!I", 1),
                &key,
                "cert.pem` cannot be used",
            ),
            (
                &cert,
                &key.replacen("MI", "M!", 1),
                "key.pem` cannot be used",
            ),
        ] {
            let error = refused(cert, key);
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(!error.contains(&body), "{error}");
        }
    }

    #[test]
    fn an_absent_or_endless_file_is_told() {
        let error = ClientCertificate::read(Path::new("/nowhere/cert.pem"), Path::new("/x"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("`/nowhere/cert.pem`"), "{error}");
        let error = ClientCertificate::read(Path::new("/dev/zero"), Path::new("/x"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("is longer than"), "{error}");
    }
}
