//! A JWT's claims, read without trust.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The claims that an agent looks at. None of them is proven here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) algorithm: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) agent_id: Option<String>,
    pub(crate) connectors: Option<Vec<String>>,
    pub(crate) expires_at_s: Option<u64>,
    pub(crate) not_before_s: Option<u64>,
}

impl Claims {
    /// The claims of `token`, or nothing where it is not a JWT.
    pub(crate) fn decode(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let header = object(parts.next()?)?;
        let payload = object(parts.next()?)?;
        parts.next()?;
        if parts.next().is_some() {
            return None;
        }
        let text = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            algorithm: header.get("alg").and_then(Value::as_str).map(str::to_owned),
            issuer: text("iss"),
            subject: text("sub"),
            audience: payload.get("aud").and_then(words).unwrap_or_default(),
            agent_id: text("agent_id"),
            connectors: ["connectors", "scp"]
                .iter()
                .find_map(|name| payload.get(*name).and_then(words)),
            expires_at_s: payload.get("exp").and_then(seconds),
            not_before_s: payload.get("nbf").and_then(seconds),
        })
    }

    pub(crate) fn expires_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.expires_at_s?))
    }
}

fn object(part: &str) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    value.is_object().then_some(value)
}

/// A list of texts, or one text with spaces between its words.
fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// A NumericDate: whole or with a fraction, which is dropped.
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let seconds = value.as_f64()?;
        (0.0..1e15)
            .contains(&seconds)
            .then(|| Duration::from_secs_f64(seconds).as_secs())
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_of_a_jwt() {
        let claims = Claims::decode(&jwt(&json!({
            "iss": "https://idp", "aud": "nowconnect", "agent_id": "premise-1",
            "exp": 1_700_000_000.5, "scp": "ssh ldap",
        })))
        .unwrap();
        assert_eq!(claims.algorithm.as_deref(), Some("RS256"));
        assert_eq!(claims.audience, ["nowconnect"]);
        assert_eq!(claims.agent_id.as_deref(), Some("premise-1"));
        assert_eq!(claims.expires_at_s, Some(1_700_000_000));
        assert_eq!(claims.connectors.unwrap(), ["ssh", "ldap"]);
    }

    #[test]
    fn an_absurd_expiry_does_not_panic() {
        for exp in [json!(u64::MAX), json!(1e300), json!(-1), json!("soon")] {
            let claims = Claims::decode(&jwt(&json!({ "exp": exp }))).unwrap();
            assert!(claims.expires_at().is_none_or(|end| end > UNIX_EPOCH));
        }
    }

    #[test]
    fn anything_else_has_no_claims() {
        for text in ["", "opaque", "a.b.c", "e30.e30", "e30.e30.x.y", "W10.e30.x"] {
            assert_eq!(Claims::decode(text), None, "{text}");
        }
    }

    fn jwt(payload: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
        format!("{header}.{payload}.c2ln")
    }
}
