//! Which tokens count for a viewer, and that none counts for an agent as well.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value as Json, json};

use super::provider::{TestKey, claims, key_set};
use super::{seconds, security, verify};
use crate::config::{ClaimsConfig, Secret};
use crate::identity::{AuthError, Authenticator, ViewerIdentity, ViewerTokens};

const ISSUER: &str = "https://idp.example";

#[tokio::test]
async fn a_viewers_claims_are_read() {
    let setup = Setup::new(Algorithm::ES256, "");
    let identity = setup
        .ask(&json!({
            "email": "ann@example.com", "email_verified": true, "amr": ["pwd", "mfa", 7],
            "auth_time": 1_700_000_000, "groups": ["ops", 7, "dba"], "dept": "it", "level": 3,
            "agent_id": null, "nested": {"a": 1},
        }))
        .await
        .unwrap();
    assert_eq!(identity.subject, "client-7");
    assert_eq!(&*identity.issuer, ISSUER);
    assert_eq!(identity.email.as_deref(), Some("ann@example.com"));
    assert_eq!(identity.email_verified, Some(true));
    assert_eq!(identity.amr, ["pwd", "mfa"]);
    assert_eq!(identity.groups, ["ops", "dba"]);
    let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(identity.tags, [tag("dept", "it"), tag("level", "3")]);
    assert!(identity.auth_time.is_some());
}

#[tokio::test]
async fn a_token_of_an_agent_is_none_of_a_viewer_and_the_other_way_round() {
    let setup = Setup::new(Algorithm::EdDSA, "");
    let of_agent = setup.key.sign(&claims(ISSUER));
    assert_eq!(
        setup.ask_with(&of_agent).await,
        Err(AuthError::WrongAudience)
    );
    let of_viewer = setup.key.sign(&viewers(&json!({})));
    assert!(setup.ask_with(&of_viewer).await.is_ok());
    assert_eq!(
        verify(&setup.authenticator, &of_viewer).await,
        Err(AuthError::WrongAudience)
    );
}

#[tokio::test]
async fn what_does_not_count_for_an_agent_does_not_for_a_viewer() {
    let setup = Setup::new(Algorithm::RS256, "");
    for (changes, expected) in [
        (json!({"aud": "other"}), AuthError::WrongAudience),
        (json!({"aud": ["a", "b"]}), AuthError::WrongAudience),
        (
            json!({"aud": null}),
            AuthError::MissingClaim("aud".to_owned()),
        ),
        (
            json!({"iss": "https://other.example"}),
            AuthError::UnknownIssuer,
        ),
        (json!({"exp": seconds(-120)}), AuthError::Expired),
        (
            json!({"exp": null}),
            AuthError::MissingClaim("exp".to_owned()),
        ),
        (json!({"nbf": seconds(600)}), AuthError::NotYetValid),
        (
            json!({"sub": null}),
            AuthError::MissingClaim("sub".to_owned()),
        ),
    ] {
        assert_eq!(setup.ask(&changes).await, Err(expected), "{changes}");
    }
    for sub in [json!(""), json!("a".repeat(257))] {
        let refused = setup.ask(&json!({ "sub": sub })).await;
        assert!(
            matches!(refused, Err(AuthError::BadClaim(..))),
            "{refused:?}"
        );
    }
}

/// Whoever is let in with a token is not cut for it a moment later.
#[tokio::test]
async fn a_token_is_good_for_as_long_as_it_is_accepted() {
    let setup = Setup::new(Algorithm::EdDSA, "");
    let expired = seconds(-10);
    let token = setup.key.sign(&viewers(&json!({ "exp": expired })));
    let identity = setup.ask_with(&token).await.unwrap();
    assert!(identity.good_until > SystemTime::now());
    let just_before = identity.good_until - Duration::from_millis(1);
    assert!(setup.ask_at(&token, just_before).await.is_ok());
    let refused = setup.ask_at(&token, identity.good_until).await;
    assert_eq!(refused, Err(AuthError::Expired));
}

#[tokio::test]
async fn no_algorithm_but_the_keys_own_counts() {
    let setup = Setup::new(Algorithm::RS256, "");
    let body = viewers(&json!({})).to_string();
    for algorithm in ["none", "None", "HS256", "HS512", "RS512", ""] {
        let header = json!({ "alg": algorithm, "kid": "k" }).to_string();
        let token = setup.key.sign_raw(&header, &body);
        assert_eq!(
            setup.ask_with(&token).await,
            Err(AuthError::AlgorithmNotAllowed),
            "{algorithm}"
        );
    }
    // Without a signature at all.
    let signed = setup.key.sign(&viewers(&json!({})));
    let (unsigned, _) = signed.rsplit_once('.').unwrap();
    for token in [format!("{unsigned}."), unsigned.to_owned()] {
        assert!(setup.ask_with(&token).await.is_err(), "{token}");
    }
    // The public key as a shared secret.
    let public = setup.key.jwk()["n"].as_str().unwrap().to_owned();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("k".to_owned());
    let secret = EncodingKey::from_secret(public.as_bytes());
    let token = jsonwebtoken::encode(&header, &viewers(&json!({})), &secret).unwrap();
    assert_eq!(
        setup.ask_with(&token).await,
        Err(AuthError::AlgorithmNotAllowed)
    );
    // Another key's signature under the same name.
    let other = TestKey::new("k", Algorithm::EdDSA);
    let token = other.sign(&viewers(&json!({})));
    assert_eq!(setup.ask_with(&token).await, Err(AuthError::UnknownKey));
}

#[tokio::test]
async fn an_issuer_speaks_for_its_tenants_only() {
    let setup = Setup::new(Algorithm::EdDSA, ", tenant_claim: org, tenants: [acme]");
    let acme = setup.ask(&json!({"org": "acme"})).await.unwrap();
    assert_eq!(acme.tenant.as_str(), "acme");
    let other = setup.ask(&json!({"org": "other"})).await;
    assert!(
        matches!(other, Err(AuthError::TenantNotAllowed(_))),
        "{other:?}"
    );
    assert!(setup.ask(&json!({})).await.is_err());
}

struct Setup {
    key: TestKey,
    authenticator: Authenticator,
}

impl Setup {
    fn new(algorithm: Algorithm, more: &str) -> Self {
        let key = TestKey::new("k", algorithm);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        std::fs::write(&file, key_set(&[&key])).unwrap();
        let config = security(&format!(
            "  issuers: [{{issuer: '{ISSUER}', jwks_file: '{}'{more}}}]\n",
            file.display()
        ));
        Self {
            key,
            authenticator: Authenticator::new(&config).unwrap(),
        }
    }

    async fn ask(&self, changes: &Json) -> Result<ViewerIdentity, AuthError> {
        self.ask_with(&self.key.sign(&viewers(changes))).await
    }

    async fn ask_with(&self, token: &str) -> Result<ViewerIdentity, AuthError> {
        self.ask_at(token, SystemTime::now()).await
    }

    async fn ask_at(&self, token: &str, now: SystemTime) -> Result<ViewerIdentity, AuthError> {
        let claims = ClaimsConfig {
            tags: vec!["dept".to_owned(), "level".to_owned(), "nested".to_owned()],
            groups: Some("groups".to_owned()),
        };
        let wanted = ViewerTokens {
            audience: "shop",
            claims: &claims,
        };
        let token = Secret::new(token);
        self.authenticator
            .verify_viewer_at(&token, wanted, now)
            .await
    }
}

/// A viewer's good claims with some of them changed; `null` removes one.
fn viewers(changes: &Json) -> Json {
    let mut claims = claims(ISSUER);
    let object = claims.as_object_mut().unwrap();
    object.insert("aud".to_owned(), json!("shop"));
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    claims
}
