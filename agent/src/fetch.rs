//! One bounded HTTP request, dialled like the tunnel: same proxy, same trust, same eyeballs.
//!
//! Redirects are not followed: whoever is asked must answer itself, since the request carries a
//! secret.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use crate::backoff;
use crate::config::{FetchUrl, Outbound, UrlError};
use crate::hub_dial::{DialFailure, Transport, open_transport};

/// Bodies of answers are at most this long: a token or an issuer's metadata fits many times.
const BODY_BYTES_MAX: usize = 256 * 1024;

pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// When it asks to be asked again.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error(transparent)]
    Dial(#[from] DialFailure),
    #[error("no answer in time")]
    Timeout,
    #[error("answered a redirect ({0}), which is not followed; configure the final address")]
    Redirect(u16),
    #[error("answer is not understood: {0}")]
    Http(String),
}

/// Sends `request` and reads the whole answer before `deadline`.
pub(crate) async fn fetch(
    outbound: &Outbound,
    request: Request<'_>,
    deadline: Instant,
) -> Result<Answer, FetchError> {
    let url = FetchUrl::parse(request.url)?;
    let route = Transport {
        host: &url.host,
        port: url.port,
        tls: url.tls,
        server_name: None,
        proxy: outbound
            .https_proxy
            .as_ref()
            .filter(|_| !outbound.no_proxy.covers(&url.host, url.port)),
        ca_bundle: outbound.ca_bundle.as_deref(),
    };
    let stream = open_transport(&route, deadline).await?;
    timeout_at(deadline, exchange(TokioIo::new(stream), &url, request))
        .await
        .map_err(|_| FetchError::Timeout)?
}

async fn exchange<S>(stream: S, url: &FetchUrl, request: Request<'_>) -> Result<Answer, FetchError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let broken = |error: hyper::Error| FetchError::Http(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(broken)?;
    let http_request = build(url, request)?;
    let answered = async {
        let response = sender.send_request(http_request).await.map_err(broken)?;
        let status = response.status().as_u16();
        if (300..400).contains(&status) {
            return Err(FetchError::Redirect(status));
        }
        let retry_after = backoff::retry_after(response.headers());
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| FetchError::Http(error.to_string()))?;
        Ok(Answer {
            status,
            retry_after,
            body: body.to_bytes().to_vec(),
        })
    };
    tokio::pin!(answered);
    tokio::pin!(connection);
    let mut connected = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answered => return answer,
            _ = &mut connection, if connected => connected = false,
        }
    }
}

fn build(
    url: &FetchUrl,
    request: Request<'_>,
) -> Result<http::Request<Full<bytes::Bytes>>, FetchError> {
    let malformed = |error: http::Error| FetchError::Http(error.to_string());
    let mut built = http::Request::builder()
        .method(request.method)
        .uri(&url.path_and_query)
        .body(Full::from(request.body.clone()))
        .map_err(malformed)?;
    let host = HeaderValue::try_from(url.authority())
        .map_err(|error| malformed(http::Error::from(error)))?;
    *built.headers_mut() = request.headers;
    let headers = built.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
    if !request.body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(request.body.len()));
    }
    Ok(built)
}
