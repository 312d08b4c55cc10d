//! The requests to a control API.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Protocol, Published};
use crate::backoff::REFUSED_WAIT;
use crate::config::Outbound;
use crate::fetch::{self, Request};
use crate::plain::plain;
use crate::secret::Secret;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The wait after an answer that asks for fewer requests and does not say for how long.
const LIMITED_WAIT: Duration = Duration::from_secs(10);
/// A management token is asked for anew this long before it ends.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// A management token is believed to live no longer than this, which keeps clock arithmetic in
/// range.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// An explanation of the API is shown up to this many characters.
const DETAIL_CHARS_MAX: usize = 300;

/// Where the API is and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlPoint {
    /// Scheme, host and port, without a slash at the end.
    pub(crate) url: String,
    /// The client, where the hub asks for one.
    pub(crate) client: Option<ControlClient>,
}

/// A client that an operator has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlClient {
    pub(crate) id: String,
    pub(crate) secret_file: PathBuf,
}

/// What is wished for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// One label of a host name; the API chooses one where there is none.
    pub(crate) name: Option<String>,
    pub(crate) protocol: Protocol,
    pub(crate) region: Option<String>,
}

/// Why there is no tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("`{url}`: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("`{url}` refuses ({code}): {detail}")]
    Refused {
        url: String,
        code: String,
        detail: String,
        /// What the answer asks for.
        retry_after: Option<Duration>,
    },
    #[error("client secret file `{path}` cannot be read: {reason}")]
    ClientSecret { path: String, reason: String },
}

impl PublishError {
    /// Whether what was shown does not count, such as a token of a tunnel that the hub has
    /// forgotten.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "unauthenticated")
    }

    /// Not before that is asking again of use; `None` where it may be at any time.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { .. } => None,
            Self::Refused {
                retry_after: Some(after),
                ..
            } => Some(*after),
            Self::Refused { code, .. } => match code.as_str() {
                "unavailable" | "timeout" => None,
                "rate_limited" => Some(LIMITED_WAIT),
                _ => Some(REFUSED_WAIT),
            },
            Self::ClientSecret { .. } => Some(REFUSED_WAIT),
        }
    }
}

/// Tells one wish for a tunnel from the next, so that one whose answer was lost is asked for again
/// and not twice.
#[derive(Debug)]
pub(crate) struct Key(Option<String>);

impl Key {
    pub(crate) fn random() -> Self {
        let mut bytes = [0_u8; 16];
        // Without randomness from the system two wishes could meet: then none has a key.
        let drawn = getrandom::fill(&mut bytes).ok();
        Self(drawn.map(|()| format!("{:032x}", u128::from_le_bytes(bytes))))
    }
}

#[derive(Serialize)]
struct CreateBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_name: Option<&'a str>,
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    region_hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recreate_token: Option<&'a str>,
}

#[derive(Serialize)]
struct TokenBody<'a> {
    grant_type: &'a str,
    client_id: &'a str,
    client_secret: &'a str,
}

/// RFC 9457, with a stable code.
#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    detail: String,
}

#[derive(Deserialize)]
struct GivenToken {
    token: Secret,
    expires_in: u64,
}

/// The API, with the management token that it gave.
#[derive(Debug)]
pub(crate) struct ControlApi {
    point: ControlPoint,
    outbound: Outbound,
    token: Option<(Secret, SystemTime)>,
}

impl ControlApi {
    pub(crate) fn new(point: ControlPoint, outbound: Outbound) -> Self {
        Self {
            point,
            outbound,
            token: None,
        }
    }

    /// Makes a tunnel, or the one of `recreate` again. A new one is made once for each `key`,
    /// however often it is asked for.
    pub(crate) async fn create(
        &mut self,
        wish: &Wish,
        recreate: Option<&Secret>,
        key: &Key,
        deadline: Instant,
    ) -> Result<Published, PublishError> {
        let had_token = self.token.is_some();
        let created = self.create_once(wish, recreate, key, deadline).await;
        match created {
            // It may be the management token that ended before its time.
            Err(error) if had_token && error.is_unauthenticated() => {
                self.token = None;
                self.create_once(wish, recreate, key, deadline).await
            }
            other => other,
        }
    }

    async fn create_once(
        &mut self,
        wish: &Wish,
        recreate: Option<&Secret>,
        key: &Key,
        deadline: Instant,
    ) -> Result<Published, PublishError> {
        let body = CreateBody {
            requested_name: wish.name.as_deref().filter(|_| recreate.is_none()),
            protocol: wish.protocol.as_str(),
            region_hint: wish.region.as_deref(),
            recreate_token: recreate.map(Secret::expose),
        };
        let bearer = self.management_token(deadline).await?;
        let mut headers = HeaderMap::new();
        if recreate.is_none()
            && let Some(key) = &key.0
            && let Ok(key) = HeaderValue::from_str(key)
        {
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        self.post("/tunnels/create", &body, headers, bearer.as_ref(), deadline)
            .await
    }

    async fn management_token(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Secret>, PublishError> {
        let Some(client) = &self.point.client else {
            return Ok(None);
        };
        let now = SystemTime::now();
        if let Some((token, until)) = &self.token
            && now + TOKEN_MARGIN < *until
        {
            return Ok(Some(token.clone()));
        }
        let secret = crate::secret::read_file(&client.secret_file).map_err(|reason| {
            PublishError::ClientSecret {
                path: client.secret_file.display().to_string(),
                reason,
            }
        })?;
        let ask = TokenBody {
            grant_type: "client_credentials",
            client_id: &client.id,
            client_secret: secret.expose(),
        };
        let given: GivenToken = self
            .post("/auth/token", &ask, HeaderMap::new(), None, deadline)
            .await?;
        let life = Duration::from_secs(given.expires_in).min(TOKEN_LIFE_MAX);
        self.token = Some((given.token.clone(), now + life));
        Ok(Some(given.token))
    }

    async fn post<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        body: &impl Serialize,
        mut headers: HeaderMap,
        bearer: Option<&Secret>,
        deadline: Instant,
    ) -> Result<T, PublishError> {
        let url = format!("{}{path}", self.point.url);
        let failed = |reason: String| PublishError::Unreachable {
            url: self.point.url.clone(),
            reason,
        };
        headers.insert(ACCEPT, JSON);
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(bearer) = bearer {
            let mut value = HeaderValue::try_from(format!("Bearer {}", bearer.expose()))
                .map_err(|_| failed("it gave a token that no header can hold".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let request = Request {
            method: Method::POST,
            url: &url,
            headers,
            body: serde_json::to_string(body).map_err(|error| failed(error.to_string()))?,
        };
        let answer = fetch::fetch(&self.outbound, request, deadline)
            .await
            .map_err(|error| failed(error.to_string()))?;
        if !(200..300).contains(&answer.status) {
            return Err(match serde_json::from_slice::<Problem>(&answer.body) {
                Ok(problem) => PublishError::Refused {
                    url: self.point.url.clone(),
                    code: plain(&problem.code, DETAIL_CHARS_MAX),
                    detail: plain(&problem.detail, DETAIL_CHARS_MAX),
                    retry_after: answer.retry_after,
                },
                Err(_) => failed(format!(
                    "it answered {} and no reason; is this a control API?",
                    answer.status
                )),
            });
        }
        // The text of a parser's error could quote the answer, which holds tokens.
        serde_json::from_slice(&answer.body)
            .map_err(|_| failed("it answered what is no tunnel; is this a control API?".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_at_its_word_and_else_by_its_code() {
        let refused = |code: &str, seconds: Option<u64>| {
            let error = PublishError::Refused {
                url: String::new(),
                code: code.to_owned(),
                detail: String::new(),
                retry_after: seconds.map(Duration::from_secs),
            };
            error.retry_after()
        };
        for code in ["rate_limited", "unavailable", "name_taken"] {
            assert_eq!(refused(code, Some(3)), Some(Duration::from_secs(3)));
        }
        assert_eq!(refused("rate_limited", None), Some(LIMITED_WAIT));
        assert_eq!(refused("unavailable", None), None);
        assert_eq!(refused("name_taken", None), Some(REFUSED_WAIT));
    }
}
