//! What the configuration says that proves a caller over TCP, read from its files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::server::AdminProof;
use crate::config::{AdminConfig, Secret, TlsFiles};
use crate::tls::ServerTls;

/// The largest token file that is read, in bytes: far above any token.
const MAX_TOKEN_FILE_BYTES: u64 = 64 * 1024;

impl AdminProof {
    /// Reads the token and the certificates of `admin`.
    ///
    /// # Errors
    /// A sentence that names the key, the file and what is wrong with it.
    pub(crate) fn read(config: &AdminConfig) -> Result<Self, String> {
        let token = match &config.token_file {
            Some(path) => Some(token(path)?),
            None => None,
        };
        let tls = match &config.tls {
            Some(tls) => {
                let files = TlsFiles {
                    cert_file: tls.cert_file.clone(),
                    key_file: tls.key_file.clone(),
                };
                let alpn = ["http/1.1"];
                let loaded = match &tls.client_ca_file {
                    Some(roots) => ServerTls::load_with_clients(&files, &alpn, roots),
                    None => ServerTls::load(&files, &alpn),
                };
                Some(loaded.map_err(|error| format!("`admin.tls`: {error}"))?)
            }
            None => None,
        };
        Ok(Self {
            token,
            client_certificates: config
                .tls
                .as_ref()
                .is_some_and(|tls| tls.client_ca_file.is_some()),
            tls,
            allowed_hosts: config.allowed_hosts.clone(),
        })
    }
}

fn token(path: &Path) -> Result<Secret, String> {
    let wrong = |why: &dyn std::fmt::Display| {
        format!(
            "`admin.token_file`: cannot read `{}`: {why}",
            path.display()
        )
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| {
            file.take(MAX_TOKEN_FILE_BYTES + 1)
                .read_to_string(&mut text)
        })
        .map_err(|error| wrong(&error))?;
    if text.len() as u64 > MAX_TOKEN_FILE_BYTES {
        return Err(wrong(&format!(
            "it is larger than {MAX_TOKEN_FILE_BYTES} bytes"
        )));
    }
    Ok(Secret::new(text.trim()))
}
