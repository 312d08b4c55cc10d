//! What a token says, read strictly.
//!
//! JSON allows a name twice and leaves open which one counts; two readers of one token could then
//! see two agents. Here a repeated name, at any depth, refuses the token.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nowconnect_protocol::{AgentId, ConnectorName, TenantName};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

use super::{AgentIdentity, AuthError};
use crate::config::{ClaimsConfig, IssuerConfig, TenantRule};

/// The most connectors that are read from a token: more than a HELLO may announce.
const MAX_SCOPES: usize = 2048;

/// The most groups that are read from a token.
const MAX_GROUPS: usize = 64;

/// The most bytes of a claim that reaches policies or logs.
pub(super) const MAX_CLAIM_BYTES: usize = 256;

/// A JSON object without repeated names, at any depth.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StrictObject(Map<String, Json>);

impl StrictObject {
    /// The object in one part of a token.
    pub(crate) fn decode(part: &str) -> Result<Self, AuthError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| AuthError::Malformed("a part is not base64url"))?;
        serde_json::from_slice(&bytes)
            .map_err(|_| AuthError::Malformed("a part is not one JSON object with each name once"))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        self.0.get(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Json::as_str)
    }
}

impl<'de> Deserialize<'de> for StrictObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match StrictJson::deserialize(deserializer)?.0 {
            Json::Object(object) => Ok(Self(object)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                Err(de::Error::custom("expected an object"))
            }
        }
    }
}

struct StrictJson(Json);

impl<'de> Deserialize<'de> for StrictJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<StrictJson>()? {
            items.push(item.0);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some((name, value)) = map.next_entry::<String, StrictJson>()? {
            if object.insert(name, value.0).is_some() {
                return Err(de::Error::custom("a name is there twice"));
            }
        }
        Ok(Json::Object(object))
    }
}

/// How far a token is checked against the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: SystemTime,
    pub(crate) skew: Duration,
    pub(crate) max_lifetime: Option<Duration>,
}

/// What the claims of an issuer's tokens have to be, and where in them is what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) audience: &'a str,
    pub(crate) tenant: &'a TenantRule,
    pub(crate) agent_id_claim: &'a str,
    pub(crate) connectors_claims: &'a [String],
}

impl<'a> Expected<'a> {
    pub(crate) fn of(issuer: &'a IssuerConfig) -> Self {
        Self {
            issuer: &issuer.issuer,
            audience: &issuer.audience,
            tenant: &issuer.tenant,
            agent_id_claim: &issuer.agent_id_claim,
            connectors_claims: &issuer.connectors_claims,
        }
    }
}

/// Turns the claims of a token with a proven signature into an identity, checking each.
pub(crate) fn identity(
    claims: &StrictObject,
    expected: &Expected<'_>,
    wanted: &ClaimsConfig,
    clock: Clock,
) -> Result<AgentIdentity, AuthError> {
    if claims.text("iss") != Some(expected.issuer) {
        return Err(AuthError::WrongIssuer);
    }
    if !names_audience(claims, expected.audience) {
        return Err(AuthError::WrongAudience);
    }
    let (issued_at, expires_at) = times(claims, clock)?;
    let agent_id_claim = || expected.agent_id_claim.to_owned();
    let agent_id = claims
        .text(expected.agent_id_claim)
        .ok_or_else(|| AuthError::MissingClaim(agent_id_claim()))?;
    let agent_id = AgentId::parse(agent_id)
        .map_err(|error| AuthError::BadClaim(agent_id_claim(), error.to_string()))?;
    Ok(AgentIdentity {
        tenant: tenant(claims, expected.tenant)?,
        agent_id,
        issuer: Arc::from(expected.issuer),
        subject: claims.text("sub").map(cut),
        jti: claims.text("jti").map(cut),
        issued_at,
        expires_at,
        scopes: scopes(claims, expected.connectors_claims)?,
        tags: tags(claims, &wanted.tags),
        groups: wanted
            .groups
            .as_ref()
            .map(|claim| groups(claims, claim))
            .unwrap_or_default(),
        ephemeral: false,
    })
}

pub(super) fn names_audience(claims: &StrictObject, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Json::String(one)) => one == audience,
        Some(Json::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
        Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_)) | None => false,
    }
}

/// `iat` and `exp`, both within reason; `nbf` is checked on the way.
pub(super) fn times(
    claims: &StrictObject,
    clock: Clock,
) -> Result<(Option<SystemTime>, SystemTime), AuthError> {
    let expires_at =
        time(claims, "exp")?.ok_or_else(|| AuthError::MissingClaim("exp".to_owned()))?;
    let latest = clock.now + clock.skew;
    if expires_at + clock.skew <= clock.now {
        return Err(AuthError::Expired);
    }
    if time(claims, "nbf")?.is_some_and(|not_before| not_before > latest) {
        return Err(AuthError::NotYetValid);
    }
    let issued_at = time(claims, "iat")?;
    if issued_at.is_some_and(|issued_at| issued_at > latest) {
        return Err(AuthError::NotYetValid);
    }
    if let Some(bound) = clock.max_lifetime {
        let issued_at = issued_at.ok_or_else(|| AuthError::MissingClaim("iat".to_owned()))?;
        if expires_at
            .duration_since(issued_at)
            .is_ok_and(|lifetime| lifetime > bound)
        {
            return Err(AuthError::LivesTooLong {
                max_token_lifetime_ms: bound.as_millis(),
            });
        }
    }
    Ok((issued_at, expires_at))
}

/// A NumericDate. The year 9999 bounds it, so that sums with it stay within what the system's
/// clock can say.
pub(super) fn time(claims: &StrictObject, name: &str) -> Result<Option<SystemTime>, AuthError> {
    const LATEST_SECONDS: f64 = 253_402_300_799.0;
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value
        .as_f64()
        .filter(|seconds| (0.0..=LATEST_SECONDS).contains(seconds))
        .ok_or_else(|| AuthError::BadClaim(name.to_owned(), "it is no time".to_owned()))?;
    Ok(Some(UNIX_EPOCH + Duration::from_secs_f64(seconds)))
}

pub(super) fn tenant(claims: &StrictObject, rule: &TenantRule) -> Result<TenantName, AuthError> {
    match rule {
        TenantRule::Fixed(tenant) => Ok(tenant.clone()),
        TenantRule::Claim { claim, allowed } => {
            let text = claims
                .text(claim)
                .ok_or_else(|| AuthError::MissingClaim(claim.clone()))?;
            let tenant = TenantName::parse(text)
                .map_err(|error| AuthError::BadClaim(claim.clone(), error.to_string()))?;
            if allowed.is_empty() || allowed.contains(&tenant) {
                Ok(tenant)
            } else {
                Err(AuthError::TenantNotAllowed(tenant))
            }
        }
    }
}

/// The connectors of the first claim that is there: a list, or a text with blanks between.
/// Entries that cannot be a connector's name (other services' scopes) are passed over: they can
/// match none.
fn scopes(
    claims: &StrictObject,
    names: &[String],
) -> Result<Option<Vec<ConnectorName>>, AuthError> {
    let Some((name, value)) = names
        .iter()
        .find_map(|name| claims.get(name).map(|value| (name, value)))
    else {
        return Ok(None);
    };
    let entries: Vec<&str> = match value {
        Json::String(text) => text.split_whitespace().collect(),
        Json::Array(items) => items.iter().filter_map(Json::as_str).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => {
            return Err(AuthError::BadClaim(
                name.clone(),
                "it is no list of names".to_owned(),
            ));
        }
    };
    if entries.len() > MAX_SCOPES {
        return Err(AuthError::BadClaim(
            name.clone(),
            format!("it has more than {MAX_SCOPES} entries"),
        ));
    }
    let mut scopes: Vec<ConnectorName> = entries
        .into_iter()
        .filter_map(|entry| ConnectorName::parse(entry).ok())
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    Ok(Some(scopes))
}

pub(super) fn tags(claims: &StrictObject, names: &[String]) -> BTreeMap<String, String> {
    names
        .iter()
        .filter_map(|name| {
            let text = match claims.get(name)? {
                Json::String(text) => cut(text),
                Json::Bool(value) => value.to_string(),
                Json::Number(number) => number.to_string(),
                Json::Null | Json::Array(_) | Json::Object(_) => return None,
            };
            Some((name.clone(), text))
        })
        .collect()
}

pub(super) fn groups(claims: &StrictObject, name: &str) -> Vec<String> {
    let items = claims.get(name).and_then(Json::as_array);
    items
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .filter(|group| !group.is_empty() && group.len() <= MAX_CLAIM_BYTES)
        .take(MAX_GROUPS)
        .map(str::to_owned)
        .collect()
}

/// At most [`MAX_CLAIM_BYTES`], ending between characters.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_CLAIM_BYTES)].to_owned()
}
