//! TLS of a public HTTP port: which certificate a viewer is shown.
//!
//! ```text
//! ClientHello ─► asks for acme-tls/1? ─► the answer to an authority, if one waits for that name
//!                      │ no
//!                      ▼
//!     file, by full name ─► issued ─► file, by wildcard ─► on its way: wait ─► default file
//!                                                                │ too long      │ none
//!                                                                ▼               ▼
//!                                                         alert unrecognized_name
//! ```
//! A name that certificates are issued for is never shown the default one: it would not fit, and
//! a viewer who looks past that would talk to nobody who proved anything. Looking at a ClientHello
//! asks no authority for anything; which names get certificates is decided elsewhere.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::{CertificateSet, TlsError, server_config};
use crate::certificates::{ACME_TLS, Issued};
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

/// How a handshake has ended.
pub(crate) enum Accepted<S> {
    /// A viewer has come.
    Viewer(Box<TlsStream<S>>),
    /// An authority has seen what it wanted to see.
    Authority,
}

impl ViewerTls {
    /// Reads the certificates of a port, and the authorities that vouch for its clients, where
    /// these are asked for theirs. `alpn` is what is offered, in order of preference; `issued`
    /// brings certificates that are in no file.
    ///
    /// # Errors
    /// As [`CertificateSet::load`], and an authority cannot be read.
    pub(crate) fn load(
        tls: &HttpTls,
        clients: Option<&ClientCertificates>,
        alpn: &[&str],
        issued: &Arc<Issued>,
    ) -> Result<Self, TlsError> {
        let chosen = Arc::new(Chosen {
            files: CertificateSet::load(tls.default.as_ref(), &tls.certificates)?,
            issued: Arc::clone(issued),
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

    /// Does the handshake within `timeout`, of which a name whose first certificate is on its way
    /// may take a part, as [`Issued::arrives`] says.
    ///
    /// # Errors
    /// The peer is too slow, speaks no TLS, shares no parameters, or asks for a name without a
    /// certificate.
    pub(crate) async fn accept<S>(&self, io: S, timeout: Duration) -> Result<Accepted<S>, TlsError>
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

    async fn shake_hands<S>(&self, io: S) -> Result<Accepted<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), io)
            .await
            .map_err(TlsError::Handshake)?;
        let asked = Asked::of(&begun.client_hello());
        if asked.by_authority {
            let Some(answer) = self.chosen.issued.challenges().tls_answer(&asked.name) else {
                return refuse(begun).await;
            };
            let mut stream = begun
                .into_stream(answer)
                .await
                .map_err(TlsError::Handshake)?;
            // It has seen the certificate; whether it waits for our end is its own affair.
            let _ = stream.shutdown().await;
            return Ok(Accepted::Authority);
        }
        if !self.chosen.has(&asked.name) && !self.chosen.issued.arrives(&asked.name).await {
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
        Ok(Accepted::Viewer(Box::new(stream)))
    }
}

/// What a ClientHello asks for.
struct Asked {
    /// In lower case; empty where none is named.
    name: String,
    /// Whether it speaks nothing but `acme-tls/1` (RFC 8737, 3).
    by_authority: bool,
}

impl Asked {
    fn of(hello: &ClientHello<'_>) -> Self {
        let mut offered = hello.alpn().into_iter().flatten();
        Self {
            name: hello.server_name().unwrap_or_default().to_ascii_lowercase(),
            by_authority: offered.next() == Some(ACME_TLS) && offered.next().is_none(),
        }
    }
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
struct Chosen {
    files: CertificateSet,
    issued: Arc<Issued>,
}

impl Chosen {
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        if let Some(key) = self.files.exact(name) {
            return Some(Arc::clone(key));
        }
        if let Some(key) = self.issued.find(name) {
            return Some(key);
        }
        if let Some(key) = self.files.wildcard(name) {
            return Some(Arc::clone(key));
        }
        if self.issued.is_wanted(name) {
            return None;
        }
        self.files.default_one().map(Arc::clone)
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}

impl ResolvesServerCert for Chosen {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(&Asked::of(&hello).name)
    }
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chosen")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
