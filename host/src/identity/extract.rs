//! Where a token is in an upgrade request.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use nowconnect_control::{SCHEME, SignedError, SignedRequest};

use crate::config::Secret;

/// A token as it came, not yet proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedToken {
    /// The token.
    pub token: Secret,
    /// Where it was: the strongest place, if the same token was in several.
    pub source: TokenSource,
    /// The signed request that it came in, if it did; nothing of that is proven either.
    pub signed: Option<Box<SignedRequest>>,
}

/// The places for a token, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenSource {
    /// `Authorization: Bearer <token>`, or a signed request with the token in it.
    Authorization,
    /// `Sec-WebSocket-Protocol: nb_token|<token>`.
    Subprotocol,
    /// `?nb_token=<token>`.
    Query,
}

/// Why there is no token to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    /// None anywhere.
    #[error(
        "no token: send `Authorization: Bearer <token>`, the subprotocol `nb_token|<token>` or \
         `?nb_token=<token>`"
    )]
    Missing,
    /// Two places hold different tokens.
    #[error("two different tokens were sent: send one")]
    Ambiguous,
    /// A place holds something else.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// A signed request is not what it has to be.
    #[error("{0}")]
    Signed(SignedError),
}

/// The longest token that is looked at, in bytes: 16 KiB, twice what common proxies let pass in
/// one header field.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Takes the token out of an upgrade request: `Authorization`, then the subprotocol (its first
/// `nb_token` entry, `nb_token.v1|…` included), then (if `query_token`) the query string. Two
/// *different* tokens are refused whatever their order, so that a proxy in front and this hub
/// cannot mean different agents.
///
/// # Errors
/// There is none, there are several, or one cannot be a token.
pub fn extract_token(
    headers: &HeaderMap,
    query: Option<&str>,
    query_token: bool,
) -> Result<PresentedToken, ExtractError> {
    let mut found: Option<PresentedToken> = None;
    let mut take = |token: &str, source: TokenSource| {
        check(token)?;
        match &found {
            // The walk goes from the strongest place to the weakest, so the first one stays.
            Some(first) if first.token.expose() == token => Ok(()),
            Some(_) => Err(ExtractError::Ambiguous),
            None => {
                found = Some(PresentedToken {
                    token: Secret::new(token),
                    source,
                    signed: None,
                });
                Ok(())
            }
        }
    };
    let mut signed = None;
    for value in headers.get_all(AUTHORIZATION) {
        match authorization(value)? {
            Shown::Bearer(token) => take(token, TokenSource::Authorization)?,
            Shown::Signed(request) => {
                take(&request.token, TokenSource::Authorization)?;
                // Two would be of one token, and still two answers to who signed.
                if signed.replace(request).is_some() {
                    return Err(ExtractError::Ambiguous);
                }
            }
        }
    }
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let value = value
            .to_str()
            .map_err(|_| ExtractError::Malformed("the subprotocol is not text"))?;
        for token in value.split(',').filter_map(subprotocol_token) {
            take(token, TokenSource::Subprotocol)?;
        }
    }
    if query_token {
        for pair in query.unwrap_or_default().split('&') {
            if let Some(value) = pair.strip_prefix("nb_token=") {
                take(&percent_decoded(value)?, TokenSource::Query)?;
            }
        }
    }
    let found = found.ok_or(ExtractError::Missing)?;
    Ok(PresentedToken { signed, ..found })
}

/// What stands in `Authorization`.
enum Shown<'a> {
    Bearer(&'a str),
    Signed(Box<SignedRequest>),
}

fn authorization(value: &http::HeaderValue) -> Result<Shown<'_>, ExtractError> {
    let text = value
        .to_str()
        .map_err(|_| ExtractError::Malformed("`Authorization` is not text"))?
        .trim();
    let scheme_and_token = text.split_once(' ');
    match scheme_and_token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Shown::Bearer(token.trim()))
        }
        Some((scheme, fields)) if scheme.eq_ignore_ascii_case(SCHEME) => {
            let request = SignedRequest::parse(fields).map_err(ExtractError::Signed)?;
            Ok(Shown::Signed(Box::new(request)))
        }
        Some(_) | None => Err(ExtractError::Malformed(
            "`Authorization` has to be `Bearer <token>`, or a signed request",
        )),
    }
}

/// The token of a subprotocol entry `nb_token|<token>` or `nb_token.v1|<token>`; `None` for any
/// other subprotocol.
fn subprotocol_token(entry: &str) -> Option<&str> {
    let rest = entry.trim().strip_prefix("nb_token")?;
    match rest.split_once('|') {
        Some((version, token)) if version.is_empty() || version.starts_with('.') => Some(token),
        Some(_) => None,
        // `nb_token` alone promises a token and brings none: malformed, by the check of an empty
        // one.
        None if rest.is_empty() || rest.starts_with('.') => Some(""),
        None => None,
    }
}

/// A JWT is three parts of base64url; anything else is refused before it is compared or logged.
fn check(token: &str) -> Result<(), ExtractError> {
    if token.is_empty() {
        return Err(ExtractError::Malformed("it is empty"));
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(ExtractError::Malformed("it is longer than 16384 bytes"));
    }
    let mut parts = 0;
    for part in token.split('.') {
        parts += 1;
        if part.is_empty()
            || !part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            return Err(ExtractError::Malformed("it is not a signed JWT"));
        }
    }
    if parts == 3 {
        Ok(())
    } else {
        Err(ExtractError::Malformed("it is not a signed JWT"))
    }
}

/// A JWT needs no escapes, but some clients escape its dots and dashes.
fn percent_decoded(value: &str) -> Result<Cow<'_, str>, ExtractError> {
    const BAD: ExtractError = ExtractError::Malformed("its escapes in the query are broken");
    if !value.contains('%') {
        return Ok(Cow::Borrowed(value));
    }
    let mut bytes = value.bytes();
    let mut text = String::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            text.push(char::from(byte));
            continue;
        }
        let mut digit = || {
            bytes
                .next()
                .and_then(|digit| char::from(digit).to_digit(16))
                .ok_or(BAD)
        };
        let code = digit()? * 16 + digit()?;
        text.push(char::from_u32(code).filter(char::is_ascii).ok_or(BAD)?);
    }
    Ok(Cow::Owned(text))
}
