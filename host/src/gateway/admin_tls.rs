//! TLS of the admin port, with client certificates where they are asked for.

use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::AdminTls;

/// The server's side for the files of `admin.tls`, and when its certificate ends.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub(super) fn server_config(tls: &AdminTls) -> Result<(Arc<ServerConfig>, Option<i64>), String> {
    let chain = certificates(&tls.cert_file)?;
    let not_after = crate::tls::earliest_not_after(&chain);
    let key = PrivateKeyDer::from_pem_file(&tls.key_file)
        .map_err(|error| format!("`admin.tls`: `{}`: {error}", tls.key_file.display()))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|error| format!("`admin.tls`: {error}"))?;
    let builder = match &tls.client_ca_file {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(file)? {
                roots
                    .add(root)
                    .map_err(|error| format!("`admin.tls`: `{}`: {error}", file.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            )
            .build()
            .map_err(|error| format!("`admin.tls`: `{}`: {error}", file.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("`admin.tls`: certificate and key: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), not_after))
}

/// Every block counts: one that is malformed refuses the whole file.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong =
        |error: &dyn std::fmt::Display| format!("`admin.tls`: `{}`: {error}", file.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(|error| wrong(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&error))?;
    if found.is_empty() {
        return Err(wrong(&"it holds no certificate"));
    }
    Ok(found)
}
