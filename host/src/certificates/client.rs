//! HTTPS to an authority, with the bounds that the ACME library leaves to its callers.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::{Client, Url, redirect};

use super::trouble::Trouble;
use crate::codes::CertificateCode;
use crate::config::AcmeConfig;
use crate::identity::fetch::ca_bundle;

/// How long one question to an authority may take, from the name's look-up to the last byte.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes: a chain of certificates has some 8 KiB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The longest wait that an authority may ask for: a limit of a week is the longest in use.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(8 * 86_400);

tokio::task_local! {
    /// The `Retry-After` of the last answer that said no, which the library does not hand on.
    static ASKED_WAIT: Cell<Option<Duration>>;
}

/// Runs questions to an authority. Where they end in trouble, it holds how long the authority
/// wants us to wait.
pub(super) async fn heeding_waits<T>(
    questions: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let heeding = async {
        let done = questions.await;
        done.map_err(|trouble| Trouble {
            retry_after: ASKED_WAIT.with(Cell::take),
            ..trouble
        })
    };
    ASKED_WAIT.scope(Cell::new(None), heeding).await
}

/// See the module.
pub(super) struct AuthorityClient(Client);

impl AuthorityClient {
    /// # Errors
    /// The roots in `ingress.acme.ca_file` cannot be read.
    pub(super) fn new(config: &AcmeConfig) -> Result<Self, Trouble> {
        let mut builder = Client::builder()
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            // What is signed is for one URL.
            .redirect(redirect::Policy::none())
            .https_only(true);
        if let Some(path) = &config.ca_file {
            let (roots, _) = ca_bundle("ingress.acme.ca_file", path)
                .map_err(|error| Trouble::new(CertificateCode::AcmeUnreachable, error))?;
            builder = builder.tls_certs_merge(roots);
        }
        let client = builder
            .build()
            .map_err(|error| Trouble::new(CertificateCode::AcmeUnreachable, error))?;
        Ok(Self(client))
    }
}

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(ask(self.0.clone(), request))
    }
}

async fn ask(client: Client, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
    let (parts, body) = request.into_parts();
    let url = Url::parse(&parts.uri.to_string()).map_err(other)?;
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    };
    let mut request = client.request(parts.method, url).headers(parts.headers);
    if !body.is_empty() {
        request = request.body(body);
    }
    let mut answer = request.send().await.map_err(without_url)?;
    let mut read = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(without_url)? {
        if read.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Error::Str("an answer of the authority that has an end"));
        }
        read.extend_from_slice(&chunk);
    }
    let wait = answer.headers().get(RETRY_AFTER);
    let wait = wait.and_then(|wait| asked_wait(wait.to_str().ok()?, SystemTime::now()));
    // The library adds it to the time of now, whatever it is.
    if let Some(wait) = wait {
        let seconds = HeaderValue::from(wait.as_secs());
        answer.headers_mut().insert(RETRY_AFTER, seconds);
    }
    if !answer.status().is_success() {
        // Outside a task that heeds it, nobody wants to know.
        let _ = ASKED_WAIT.try_with(|asked| asked.set(wait));
    }
    let mut response = http::Response::new(());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    let (parts, ()) = response.into_parts();
    Ok(BytesResponse {
        parts,
        body: Box::new(read.freeze()),
    })
}

/// `Retry-After` in either form (RFC 9110, 10.2.3).
fn asked_wait(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .ok()?,
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

/// Orders and accounts are known by their URLs.
fn without_url(error: reqwest::Error) -> Error {
    other(error.without_url())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn both_forms_of_a_wait_are_read() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 60);
        let seconds = |text: &str| asked_wait(text, now).map(|wait| wait.as_secs());
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1984 08:49:37 GMT"), None, "it is past");
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("99999999999"), Some(MAX_RETRY_AFTER.as_secs()));
    }

    #[tokio::test]
    async fn trouble_tells_how_long_the_authority_wants_us_to_wait() {
        let trouble = heeding_waits(async {
            ASKED_WAIT.with(|asked| asked.set(Some(Duration::from_secs(9))));
            Err::<(), _>(Trouble::new(CertificateCode::AcmeRateLimited, "no"))
        });
        let trouble = trouble.await.expect_err("it was no");
        assert_eq!(trouble.retry_after, Some(Duration::from_secs(9)));
    }
}
