//! OIDC client credentials (RFC 6749, section 4.4) with a discovery of our own.
//!
//! Two requests at most: the issuer's metadata, remembered after the first success, and the token
//! request. Both are bounded in time and size, follow no redirect, and go only over TLS or to this
//! machine.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

use super::{LIFETIME_MAX, Token, TokenError};
use crate::config::{OidcAuth, OidcEndpoint, Outbound};
use crate::fetch::{self, Request};
use crate::secret::Secret;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[derive(Debug)]
pub(crate) struct OidcClient {
    auth: OidcAuth,
    outbound: Outbound,
    metadata: Option<Metadata>,
    /// The last token, used again by a dial while most of its life is left, so that a hub that
    /// comes and goes does not become the issuer's trouble.
    cached: Option<(Token, Duration)>,
}

/// The part of an issuer's metadata that a client needs.
#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<u64>,
    error: Option<String>,
    error_description: Option<String>,
}

impl OidcClient {
    pub(super) fn new(auth: OidcAuth, outbound: Outbound) -> Self {
        Self {
            auth,
            outbound,
            metadata: None,
            cached: None,
        }
    }

    pub(super) fn forget(&mut self) {
        self.cached = None;
    }

    pub(super) fn describe(&self) -> String {
        match &self.auth.endpoint {
            OidcEndpoint::Issuer(url) | OidcEndpoint::TokenUrl(url) => format!("`{url}`"),
        }
    }

    pub(super) async fn fetch(&mut self, deadline: Instant) -> Result<Token, TokenError> {
        if let Some((token, whole)) = &self.cached
            && token
                .lifetime(SystemTime::now())
                .is_some_and(|left| left > *whole / 2)
        {
            return Ok(token.clone());
        }
        let token = self.fetch_anew(deadline).await?;
        self.cached = token
            .lifetime(SystemTime::now())
            .map(|whole| (token.clone(), whole));
        Ok(token)
    }

    async fn fetch_anew(&mut self, deadline: Instant) -> Result<Token, TokenError> {
        let client_secret = self.client_secret()?;
        let (url, in_body) = match &self.auth.endpoint {
            OidcEndpoint::TokenUrl(url) => (url.clone(), false),
            OidcEndpoint::Issuer(issuer) => {
                let metadata = self.discover(&issuer.clone(), deadline).await?;
                let methods = &metadata.token_endpoint_auth_methods_supported;
                // Without a list, RFC 8414 says `client_secret_basic`.
                let in_body = !methods.is_empty()
                    && !methods.iter().any(|method| method == "client_secret_basic")
                    && methods.iter().any(|method| method == "client_secret_post");
                (metadata.token_endpoint, in_body)
            }
        };
        self.request_token(&url, &client_secret, in_body, deadline)
            .await
    }

    /// Read at each use, because it may be replaced.
    pub(super) fn client_secret(&self) -> Result<Secret, TokenError> {
        let path = &self.auth.client_secret_file;
        crate::secret::read_file(path).map_err(|reason| TokenError::ClientSecret {
            path: path.display().to_string(),
            reason,
        })
    }

    async fn discover(&mut self, issuer: &str, deadline: Instant) -> Result<Metadata, TokenError> {
        if let Some(metadata) = &self.metadata {
            return Ok(metadata.clone());
        }
        let url = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, JSON);
        let request = Request {
            method: Method::GET,
            url: &url,
            headers,
            body: String::new(),
        };
        let failed = |reason: String| TokenError::Issuer {
            url: url.clone(),
            reason,
        };
        let answer = fetch::fetch(&self.outbound, request, deadline)
            .await
            .map_err(|error| failed(error.to_string()))?;
        if answer.status != 200 {
            return Err(failed(format!("answered {}", answer.status)));
        }
        let metadata: Metadata = serde_json::from_slice(&answer.body)
            .map_err(|error| failed(format!("answered no OIDC metadata: {error}")))?;
        // OpenID Connect Discovery, section 4.3: otherwise one issuer could speak for another.
        if metadata.issuer.trim_end_matches('/') != issuer.trim_end_matches('/') {
            return Err(failed(format!(
                "calls itself `{}`; write it so in `tunnel.auth.oidc.issuer`",
                metadata.issuer
            )));
        }
        self.metadata = Some(metadata.clone());
        Ok(metadata)
    }

    async fn request_token(
        &self,
        url: &str,
        client_secret: &Secret,
        in_body: bool,
        deadline: Instant,
    ) -> Result<Token, TokenError> {
        let failed = |reason: String| TokenError::Issuer {
            url: url.to_owned(),
            reason,
        };
        let mut body = "grant_type=client_credentials".to_owned();
        for (name, value) in [
            ("audience", &self.auth.audience),
            ("resource", &self.auth.resource),
            ("scope", &self.auth.scope),
        ] {
            if let Some(value) = value {
                push_field(&mut body, name, value);
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, FORM);
        headers.insert(ACCEPT, JSON);
        if in_body {
            push_field(&mut body, "client_id", &self.auth.client_id);
            push_field(&mut body, "client_secret", client_secret.expose());
        } else {
            let pair = format!(
                "{}:{}",
                encoded(&self.auth.client_id),
                encoded(client_secret.expose())
            );
            let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
                .map_err(|_| failed("the client's id or secret is too long".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let request = Request {
            method: Method::POST,
            url,
            headers,
            body,
        };
        let answer = fetch::fetch(&self.outbound, request, deadline)
            .await
            .map_err(|error| failed(error.to_string()))?;
        read_answer(&answer, url)
    }
}

fn read_answer(answer: &fetch::Answer, url: &str) -> Result<Token, TokenError> {
    let failed = |reason: String| TokenError::Issuer {
        url: url.to_owned(),
        reason,
    };
    let status = answer.status;
    let parsed: TokenAnswer = serde_json::from_slice(&answer.body)
        .map_err(|_| failed(format!("answered {status} without the JSON of a token")))?;
    if let Some(code) = parsed.error {
        let more = parsed
            .error_description
            .map_or_else(String::new, |text| format!(": {}", printable(&text)));
        return Err(failed(format!(
            "answered {status} `{}`{more}",
            printable(&code)
        )));
    }
    if status != 200 {
        return Err(failed(format!("answered {status}")));
    }
    let bearer = parsed
        .token_type
        .as_deref()
        .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
    if !bearer {
        return Err(failed(
            "answered a token that is not of type `Bearer`".to_owned(),
        ));
    }
    let text = parsed
        .access_token
        .ok_or_else(|| failed("answered no `access_token`".to_owned()))?;
    let mut token = Token::parse(&text, &format!("the answer of `{url}`"))?;
    if token.expires_at.is_none() {
        token.expires_at = parsed.expires_in.and_then(|seconds| {
            SystemTime::now().checked_add(Duration::from_secs(seconds).min(LIFETIME_MAX))
        });
    }
    Ok(token)
}

fn push_field(body: &mut String, name: &str, value: &str) {
    body.push('&');
    body.push_str(name);
    body.push('=');
    body.push_str(&encoded(value));
}

/// `application/x-www-form-urlencoded`, as RFC 6749 wants also inside basic authentication.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._*".contains(&byte) {
            out.push(char::from(byte));
        } else if byte == b' ' {
            out.push('+');
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn printable(text: &str) -> String {
    text.chars()
        .filter(|char| !char.is_control())
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests;
