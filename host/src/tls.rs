//! TLS in this process: certificates from files, taken over while it runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use crate::config::TlsFiles;

/// The server's side of TLS with a certificate that can be swapped. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<rustls::ServerConfig>,
}

impl ServerTls {
    /// Reads chain and key, and checks that they belong together. `alpn` is what is offered, in
    /// order of preference (`http/1.1`).
    ///
    /// # Errors
    /// A file is missing, malformed or empty, or key and leaf do not match; the message names the
    /// file and the way out.
    pub fn load(files: &TlsFiles, alpn: &[&str]) -> Result<Self, TlsError> {
        let _ = (files, alpn);
        todo!()
    }

    /// Reads the files again; new handshakes get the new certificate. On an error the last good
    /// one stays. `true` if the leaf differs.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reload(&self) -> Result<bool, TlsError> {
        todo!()
    }

    /// The configuration for a server of one's own.
    #[must_use]
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Does the handshake within `timeout`.
    ///
    /// # Errors
    /// The peer is too slow, speaks no TLS, or shares no parameters.
    pub async fn accept<S>(&self, io: S, timeout: Duration) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _ = (io, timeout);
        todo!()
    }
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);
