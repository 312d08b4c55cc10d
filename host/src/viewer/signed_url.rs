//! Signed URLs: what whoever has a key lets others fetch for a time.
//!
//! ```text
//! https://files.example.com/report.pdf?page=2&nc-expires=1767225600&nc-key=2026-01&nc-signature=…
//! ```
//! `nc-signature` is HMAC-SHA256 in base64url over these lines, each ended by a line feed:
//!
//! ```text
//! nowconnect-signed-url-1
//! GET                      method: of `nc-method`, else GET, which HEAD has with it
//! files.example.com        host: in lower case, without a port
//! /report.pdf              path: normalised, as routes and policies see it
//! page=2                   query: as it stands, without the parameters of the hub
//! 1767225600               nc-expires: seconds since 1970
//! ```
//! So another method, host, path or query has another signature; port and scheme are not in it.
//! No line can hold a line feed. A URL may be used until it ends, and as often as one likes.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;

use super::{Carried, Proven, Refusal, RefusalKind, ViewerAuthError};
use crate::config::{ListenerName, ViewerSignedUrl};

/// The first line of what is signed.
const FORM: &str = "nowconnect-signed-url-1";

const KEY: &str = "nc-key";
const EXPIRES: &str = "nc-expires";
const METHOD: &str = "nc-method";
const SIGNATURE: &str = "nc-signature";
const PARAMETERS: [&str; 4] = [KEY, EXPIRES, METHOD, SIGNATURE];

/// The least and the most bytes of a key.
const LEAST_KEY_BYTES: usize = 32;
const MAX_KEY_FILE_BYTES: u64 = 4096;

/// A secret that URLs are signed with.
pub(crate) struct UrlKey(hmac::Key);

impl fmt::Debug for UrlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlKey(***)")
    }
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    /// Without the parameters of the hub; empty where there is none.
    pub(crate) query: &'a str,
    pub(crate) expires_s: u64,
}

impl Terms<'_> {
    fn text(&self) -> String {
        let Self {
            method,
            host,
            path,
            query,
            expires_s,
        } = self;
        format!("{FORM}\n{method}\n{host}\n{path}\n{query}\n{expires_s}\n")
    }
}

impl UrlKey {
    /// Reads a key file.
    ///
    /// # Errors
    /// It cannot be read, or holds no key.
    pub(crate) fn read(path: &Path) -> Result<Self, ViewerAuthError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_KEY_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| ViewerAuthError::Unreadable {
                path: path.to_path_buf(),
                error,
            })?;
        Self::parse(&bytes).map_err(|reason| ViewerAuthError::Malformed {
            path: path.to_path_buf(),
            reason,
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let secret = bytes.trim_ascii();
        if secret.len() < LEAST_KEY_BYTES || bytes.len() as u64 > MAX_KEY_FILE_BYTES {
            return Err(format!(
                "a key has {LEAST_KEY_BYTES} to {MAX_KEY_FILE_BYTES} bytes; \
                 `openssl rand -base64 48` makes one"
            ));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// The parameters to be added to the query, with the first one's name as `key`.
    pub(crate) fn sign(&self, key: &ListenerName, terms: &Terms<'_>) -> String {
        let tag = hmac::sign(&self.0, terms.text().as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(tag.as_ref());
        let method = match terms.method {
            "GET" => String::new(),
            other => format!("&{METHOD}={other}"),
        };
        format!(
            "{EXPIRES}={}&{KEY}={key}{method}&{SIGNATURE}={signature}",
            terms.expires_s
        )
    }

    /// In constant time.
    fn has_signed(&self, terms: &Terms<'_>, signature: &[u8]) -> bool {
        hmac::verify(&self.0, terms.text().as_bytes(), signature).is_ok()
    }
}

/// The keys that count.
#[derive(Debug)]
pub(super) struct UrlKeys {
    keys: Vec<(ListenerName, UrlKey)>,
    max_lifetime: Duration,
}

impl UrlKeys {
    pub(super) fn read(config: &ViewerSignedUrl) -> Result<Self, ViewerAuthError> {
        let read = |(name, path): &(ListenerName, PathBuf)| {
            let key = UrlKey::read(path)?;
            Ok((name.clone(), key))
        };
        let keys: Result<_, ViewerAuthError> = config.keys.iter().map(read).collect();
        Ok(Self {
            keys: keys?,
            max_lifetime: config.max_lifetime,
        })
    }

    /// `None` where the request is not signed.
    pub(super) fn prove(
        &self,
        carried: &Carried<'_>,
        now: SystemTime,
    ) -> Result<Option<Proven>, Refusal> {
        let Some(signed) = carried.query.map(Signed::read).transpose()?.flatten() else {
            return Ok(None);
        };
        let refused = |why: &str| Err(Refusal::new(RefusalKind::UrlRefused, why));
        let key = self
            .keys
            .iter()
            .find(|(name, _)| name.as_str() == signed.key);
        let Some((name, key)) = key else {
            return refused("its key is none of those that count");
        };
        let terms = Terms {
            method: signed.method,
            host: carried.host,
            path: carried.path,
            query: &signed.query,
            expires_s: signed.expires_s,
        };
        if !key.has_signed(&terms, &signed.signature) {
            return refused("the signature does not fit");
        }
        let is_method = carried.method.as_str() == signed.method
            || signed.method == "GET" && *carried.method == Method::HEAD;
        if !is_method {
            return refused("it is signed for another method");
        }
        let until = UNIX_EPOCH + Duration::from_secs(signed.expires_s);
        let Ok(left) = until.duration_since(now) else {
            return Err(Refusal::new(RefusalKind::UrlExpired, "it has ended"));
        };
        if left > self.max_lifetime {
            return refused("it is good for longer than `max_lifetime_ms`");
        }
        let mut proven = Proven::named(carried.tenant, format!("url:{name}"), "signed_url");
        proven.until = Some(until);
        Ok(Some(proven))
    }
}

/// The parameters of a signed URL.
struct Signed<'a> {
    key: &'a str,
    expires_s: u64,
    method: &'a str,
    signature: Vec<u8>,
    /// What else stands in the query.
    query: String,
}

impl<'a> Signed<'a> {
    /// `None` where none of the parameters is there.
    fn read(query: &'a str) -> Result<Option<Self>, Refusal> {
        /// The year 9999, so that sums with it stay within what the system's clock can say.
        const LATEST_S: u64 = 253_402_300_799;
        let mut values: [Option<&str>; 4] = [None; 4];
        for part in query.split('&') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(index) = PARAMETERS.iter().position(|own| *own == name) else {
                continue;
            };
            if values[index].replace(value).is_some() {
                return Err(Refusal::ambiguous(
                    "a parameter of a signed URL is there twice",
                ));
            }
        }
        let (key, expires, method, signature) = match values {
            [None, None, None, None] => return Ok(None),
            [Some(key), Some(expires), method, Some(signature)] => {
                (key, expires, method.unwrap_or("GET"), signature)
            }
            _ => return Err(Refusal::ambiguous("a parameter of a signed URL is missing")),
        };
        let is_plain = !expires.is_empty() && expires.bytes().all(|byte| byte.is_ascii_digit());
        let expires_s = expires
            .parse()
            .ok()
            .filter(|expires_s| is_plain && *expires_s <= LATEST_S)
            .ok_or_else(|| Refusal::ambiguous("`nc-expires` is no time"))?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Refusal::ambiguous("`nc-signature` is no base64url"))?;
        Ok(Some(Self {
            key,
            expires_s,
            method,
            signature,
            query: without_parameters(query),
        }))
    }
}

/// The query without what is the hub's own, nothing else of it changed.
pub(crate) fn without_parameters(query: &str) -> String {
    let is_own = |part: &&str| {
        let name = part.split_once('=').map_or(*part, |(name, _)| name);
        PARAMETERS.contains(&name)
    };
    let kept: Vec<&str> = query.split('&').filter(|part| !is_own(part)).collect();
    kept.join("&")
}

/// Whether the query holds anything that is the hub's own.
pub(crate) fn has_parameters(query: &str) -> bool {
    query.split('&').any(|part| {
        let name = part.split_once('=').map_or(part, |(name, _)| name);
        PARAMETERS.contains(&name)
    })
}
