//! TLS of a public HTTP port: which certificate a viewer is shown.
//!
//! ```text
//! ClientHello ─► file, by full name ─► file, by wildcard ─► default file
//!                                                                │ none
//!                                                                ▼
//!                                                     alert unrecognized_name
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::{CertificateSet, TlsError, server_config};
use crate::config::{ClientCertificates, HttpTls};

/// A fatal alert `unrecognized_name` (RFC 8446, 5.1 and 6; RFC 6066, 3), as a record: the library
/// has no word for it before a handshake.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ViewerTls {
    chosen: Arc<Chosen>,
    config: Arc<ServerConfig>,
}

impl ViewerTls {
    /// Reads the certificates of a port, and the authorities that vouch for its clients, where
    /// these are asked for theirs. `alpn` is what is offered, in order of preference.
    ///
    /// # Errors
    /// As [`CertificateSet::load`], and an authority cannot be read.
    pub(crate) fn load(
        tls: &HttpTls,
        clients: Option<&ClientCertificates>,
        alpn: &[&str],
    ) -> Result<Self, TlsError> {
        let chosen = Arc::new(Chosen {
            files: CertificateSet::load(tls.default.as_ref(), &tls.certificates)?,
        });
        let resolver: Arc<Chosen> = Arc::clone(&chosen);
        let config = server_config(resolver, alpn, clients)?;
        Ok(Self {
            chosen,
            config: Arc::new(config),
        })
    }

    /// Those from files.
    pub(crate) fn files(&self) -> &CertificateSet {
        &self.chosen.files
    }

    /// Does the handshake within `timeout`.
    ///
    /// # Errors
    /// The peer is too slow, speaks no TLS, shares no parameters, or asks for a name without a
    /// certificate.
    pub(crate) async fn accept<S>(&self, io: S, timeout: Duration) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match tokio::time::timeout(timeout, self.shake_hands(io)).await {
            Ok(done) => done,
            Err(_) => Err(TlsError::Timeout {
                timeout_ms: timeout.as_millis(),
            }),
        }
    }

    async fn shake_hands<S>(&self, io: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), io)
            .await
            .map_err(TlsError::Handshake)?;
        if self
            .chosen
            .find(&asked_name(&begun.client_hello()))
            .is_none()
        {
            return refuse(begun).await;
        }
        let mut stream = begun
            .into_stream(Arc::clone(&self.config))
            .await
            .map_err(TlsError::Handshake)?;
        stream
            .get_mut()
            .1
            .set_buffer_limit(Some(nowconnect_tunnel::TLS_BUFFER_BYTES));
        Ok(stream)
    }
}

/// The name that a client asks for, in lower case; empty where it names none.
fn asked_name(hello: &ClientHello<'_>) -> String {
    hello.server_name().unwrap_or_default().to_ascii_lowercase()
}

async fn refuse<S, T>(begun: StartHandshake<S>) -> Result<T, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut io = begun.io;
    let told: io::Result<()> = async {
        io.write_all(&UNRECOGNIZED_NAME).await?;
        io.shutdown().await
    }
    .await;
    // Who has left needs no telling.
    drop(told);
    Err(TlsError::NoCertificate)
}

/// The certificates of a port, by the name that is asked for.
#[derive(Debug)]
struct Chosen {
    files: CertificateSet,
}

impl Chosen {
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let files = &self.files;
        let fitting = files.exact(name).or_else(|| files.wildcard(name));
        fitting.or_else(|| files.default_one()).map(Arc::clone)
    }
}

impl ResolvesServerCert for Chosen {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(&asked_name(&hello))
    }
}

#[cfg(test)]
mod tests;
