//! Which tokens count, and what is read from them.

use base64::Engine as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nowconnect_protocol::TenantName;
use serde_json::{Value as Json, json};

use super::provider::{TestKey, claims, key_set};
use super::{seconds, security, verify};
use crate::identity::{AgentIdentity, AuthError, Authenticator};

const ISSUER: &str = "https://idp.example";

#[tokio::test]
async fn every_algorithm_is_accepted_with_its_own_key() {
    for algorithm in [
        Algorithm::RS256,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ] {
        let setup = Setup::new(algorithm, "");
        let identity = setup.accepted(&claims(ISSUER)).await;
        assert_eq!(identity.agent_id.as_str(), "edge-7");
        assert!(identity.tenant.is_default());
        assert_eq!(identity.subject.as_deref(), Some("client-7"));
        assert_eq!(identity.jti.as_deref(), Some("token-1"));
        assert_eq!(identity.scopes, None);
        assert!(!identity.is_expired(std::time::SystemTime::now()));
    }
}

#[tokio::test]
async fn an_algorithm_that_is_not_configured_is_refused() {
    let setup = Setup::new(Algorithm::RS256, "algorithms: [ES256, EdDSA]");
    assert_eq!(
        setup.refused(&claims(ISSUER)).await,
        AuthError::AlgorithmNotAllowed
    );
}

#[tokio::test]
async fn none_and_shared_secrets_are_refused() {
    let setup = Setup::new(Algorithm::RS256, "");
    for algorithm in [
        "none", "None", "NONE", "HS256", "HS512", "RS512", "", "rs256",
    ] {
        let token = setup.key.sign_raw(
            &json!({ "alg": algorithm, "kid": "k" }).to_string(),
            &claims(ISSUER).to_string(),
        );
        assert_eq!(
            verify(&setup.authenticator, &token).await,
            Err(AuthError::AlgorithmNotAllowed),
            "{algorithm}"
        );
    }
    // The public key as a shared secret: what confused verifiers once took for a signature.
    let public = setup.key.jwk()["n"].as_str().unwrap().to_owned();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("k".to_owned());
    let token = jsonwebtoken::encode(
        &header,
        &claims(ISSUER),
        &EncodingKey::from_secret(public.as_bytes()),
    )
    .unwrap();
    assert_eq!(
        verify(&setup.authenticator, &token).await,
        Err(AuthError::AlgorithmNotAllowed)
    );
}

#[tokio::test]
async fn a_key_only_serves_its_own_algorithm() {
    let rsa = TestKey::new("k", Algorithm::RS256);
    // The same RSA key is bound to RS256 by its `alg`, so PS256 may not use it.
    let setup = Setup::with_keys(&[&rsa], "");
    let mut header = rsa.header();
    header.alg = Algorithm::PS256;
    let token = rsa.sign_with(&header, &claims(ISSUER));
    assert_eq!(
        verify(&setup.authenticator, &token).await,
        Err(AuthError::UnknownKey)
    );
    // An ES256 header that names the RSA key.
    let ec = TestKey::new("k", Algorithm::ES256);
    assert_eq!(
        verify(&setup.authenticator, &ec.sign(&claims(ISSUER))).await,
        Err(AuthError::UnknownKey)
    );
}

#[tokio::test]
async fn keys_inside_a_token_are_ignored() {
    let setup = Setup::new(Algorithm::ES256, "");
    let attacker = TestKey::new("k", Algorithm::ES256);
    let header = json!({
        "alg": "ES256", "kid": "k", "jwk": attacker.jwk(),
        "jku": "http://127.0.0.1:1/jwks", "x5u": "http://127.0.0.1:1/x",
    });
    let token = attacker.sign_raw(&header.to_string(), &claims(ISSUER).to_string());
    assert_eq!(
        verify(&setup.authenticator, &token).await,
        Err(AuthError::BadSignature)
    );
    let header = json!({ "alg": "ES256", "kid": "k", "crit": ["exp"] });
    let token = setup
        .key
        .sign_raw(&header.to_string(), &claims(ISSUER).to_string());
    assert!(matches!(
        verify(&setup.authenticator, &token).await,
        Err(AuthError::Malformed(_))
    ));
}

#[tokio::test]
async fn without_kid_only_a_single_key_counts() {
    let first = TestKey::new("a", Algorithm::ES256);
    let second = TestKey::new("b", Algorithm::ES256);
    let mut header = first.header();
    header.kid = None;
    let token = first.sign_with(&header, &claims(ISSUER));
    let one = Setup::with_keys(&[&first], "");
    assert!(verify(&one.authenticator, &token).await.is_ok());
    let two = Setup::with_keys(&[&first, &second], "");
    assert_eq!(
        verify(&two.authenticator, &token).await,
        Err(AuthError::UnknownKey)
    );
    let unknown = TestKey::new("c", Algorithm::ES256);
    assert_eq!(
        verify(&two.authenticator, &unknown.sign(&claims(ISSUER))).await,
        Err(AuthError::UnknownKey)
    );
}

#[tokio::test]
async fn issuer_audience_and_times_are_always_checked() {
    let setup = Setup::new(Algorithm::ES256, "");
    for (changes, expected) in [
        (
            json!({"iss": "https://other.example"}),
            AuthError::UnknownIssuer,
        ),
        (json!({"iss": null}), AuthError::UnknownIssuer),
        (json!({"iss": [ISSUER]}), AuthError::UnknownIssuer),
        (
            json!({"iss": format!("{ISSUER}/")}),
            AuthError::UnknownIssuer,
        ),
        (json!({"aud": "other"}), AuthError::WrongAudience),
        (
            json!({"aud": ["other", "another"]}),
            AuthError::WrongAudience,
        ),
        (json!({"aud": []}), AuthError::WrongAudience),
        (
            json!({"aud": {"nowconnect": true}}),
            AuthError::MissingClaim("aud".to_owned()),
        ),
        (
            json!({"aud": null}),
            AuthError::MissingClaim("aud".to_owned()),
        ),
        (
            json!({"exp": null}),
            AuthError::MissingClaim("exp".to_owned()),
        ),
        (json!({"exp": seconds(-61)}), AuthError::Expired),
        (json!({"exp": 0}), AuthError::Expired),
        (json!({"nbf": seconds(120)}), AuthError::NotYetValid),
        (json!({"iat": seconds(120)}), AuthError::NotYetValid),
        (
            json!({"agent_id": null}),
            AuthError::MissingClaim("agent_id".to_owned()),
        ),
        (
            json!({"agent_id": 7}),
            AuthError::MissingClaim("agent_id".to_owned()),
        ),
    ] {
        let token = changed(&changes);
        assert_eq!(setup.refused(&token).await, expected, "{changes}");
    }
    for changes in [
        json!({"exp": -1}),
        json!({"exp": 1e300}),
        json!({"nbf": "soon"}),
        json!({"iat": true}),
        json!({"agent_id": "a b"}),
        json!({"agent_id": ""}),
        json!({"agent_id": "x".repeat(129)}),
        json!({"connectors": {"a": 1}}),
        json!({"connectors": 5}),
    ] {
        let refused = setup.refused(&changed(&changes)).await;
        assert!(
            matches!(
                refused,
                AuthError::BadClaim(..) | AuthError::MissingClaim(_)
            ),
            "{changes}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn clocks_may_differ_by_the_skew() {
    let setup = Setup::new(Algorithm::ES256, "");
    for changes in [
        json!({"exp": seconds(-30)}),
        json!({"nbf": seconds(30)}),
        json!({"iat": seconds(30)}),
        json!({"exp": seconds(300) as f64 + 0.5}),
        json!({"aud": ["other", "nowconnect"]}),
    ] {
        setup.accepted(&changed(&changes)).await;
    }
    // Accepted by the skew, but expired by its own word.
    let identity = setup
        .accepted(&changed(&json!({"exp": seconds(-30)})))
        .await;
    assert!(identity.is_expired(std::time::SystemTime::now()));
}

#[tokio::test]
async fn a_repeated_name_refuses_the_token() {
    let setup = Setup::new(Algorithm::ES256, "");
    let good = claims(ISSUER).to_string();
    let header = r#"{"alg":"ES256","kid":"k"}"#;
    let accepted = setup.key.sign_raw(header, &good);
    assert!(verify(&setup.authenticator, &accepted).await.is_ok());
    for claims in [
        good.replacen('{', r#"{"agent_id":"other","#, 1),
        good.replacen('{', r#"{"aud":"nowconnect","#, 1),
        good.replacen('{', r#"{"deep":{"a":1,"a":2},"#, 1),
        good.replacen('{', r#"{"deep":[{"b":1,"b":1}],"#, 1),
        good.replacen('{', r#"{"agent\u005fid":"other","#, 1),
    ] {
        let token = setup.key.sign_raw(header, &claims);
        let refused = verify(&setup.authenticator, &token).await;
        assert!(matches!(refused, Err(AuthError::Malformed(_))), "{claims}");
    }
    let token = setup
        .key
        .sign_raw(r#"{"alg":"none","alg":"ES256","kid":"k"}"#, &good);
    assert!(matches!(
        verify(&setup.authenticator, &token).await,
        Err(AuthError::Malformed(_))
    ));
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    let setup = Setup::new(Algorithm::EdDSA, "");
    let token = setup.key.sign(&claims(ISSUER));
    let parts: Vec<&str> = token.split('.').collect();
    let other = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(changed(&json!({"agent_id": "admin"})).to_string());
    for forged in [
        format!("{}.{other}.{}", parts[0], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(parts[2].len())),
        format!("{}.{}.", parts[0], parts[1]),
    ] {
        let refused = verify(&setup.authenticator, &forged).await.unwrap_err();
        assert!(
            matches!(refused, AuthError::BadSignature | AuthError::Malformed(_)),
            "{refused:?}"
        );
    }
    for nonsense in [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "a.b.c",
        "ä.ö.ü",
        &"a".repeat(20_000),
    ] {
        assert!(matches!(
            verify(&setup.authenticator, nonsense).await,
            Err(AuthError::Malformed(_))
        ));
    }
}

#[tokio::test]
async fn scopes_are_read_from_either_claim() {
    let setup = Setup::new(Algorithm::ES256, "");
    let scopes = async |changes: Json| {
        let identity = setup.accepted(&changed(&changes)).await;
        identity.scopes.map(|scopes| {
            let names: Vec<String> = scopes.iter().map(ToString::to_string).collect();
            names.join(",")
        })
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        scopes(json!({"connectors": ["b", "a", "b"]})).await,
        some("a,b")
    );
    assert_eq!(
        scopes(json!({"scp": "ldap openid https://x/y"})).await,
        some("ldap,openid")
    );
    assert_eq!(scopes(json!({"scp": ["ssh", 5, null]})).await, some("ssh"));
    assert_eq!(
        scopes(json!({"connectors": ["a"], "scp": ["b"]})).await,
        some("a"),
        "the first claim wins"
    );
    assert_eq!(scopes(json!({"connectors": []})).await, some(""));
    assert_eq!(scopes(json!({})).await, None);
    let many = "a ".repeat(2049);
    let refused = setup.refused(&changed(&json!({"scp": many}))).await;
    assert!(matches!(refused, AuthError::BadClaim(name, _) if name == "scp"));
}

#[tokio::test]
async fn an_issuer_speaks_only_for_its_tenants() {
    let fixed = Setup::new(Algorithm::ES256, "tenant: acme");
    let identity = fixed.accepted(&changed(&json!({"tenant": "globex"}))).await;
    assert_eq!(identity.tenant, TenantName::parse("acme").unwrap());

    let claimed = Setup::new(
        Algorithm::ES256,
        "tenant_claim: org, tenants: [acme, globex]",
    );
    let identity = claimed.accepted(&changed(&json!({"org": "globex"}))).await;
    assert_eq!(identity.tenant, TenantName::parse("globex").unwrap());
    assert_eq!(
        claimed.refused(&changed(&json!({"org": "initech"}))).await,
        AuthError::TenantNotAllowed(TenantName::parse("initech").unwrap())
    );
    assert_eq!(
        claimed.refused(&changed(&json!({}))).await,
        AuthError::MissingClaim("org".to_owned())
    );
}

#[tokio::test]
async fn one_issuers_key_does_not_prove_anothers_token() {
    let (a, b) = (
        TestKey::new("k", Algorithm::ES256),
        TestKey::new("k", Algorithm::ES256),
    );
    let folder = tempfile::tempdir().unwrap();
    let (file_a, file_b) = (folder.path().join("a"), folder.path().join("b"));
    std::fs::write(&file_a, key_set(&[&a])).unwrap();
    std::fs::write(&file_b, key_set(&[&b])).unwrap();
    let config = security(&format!(
        "  issuers:\n  - {{issuer: 'https://a', jwks_file: '{}', tenant: a}}\n  \
         - {{issuer: 'https://b', jwks_file: '{}', tenant: b}}\n",
        file_a.display(),
        file_b.display()
    ));
    let authenticator = Authenticator::new(&config).unwrap();
    let identity = verify(&authenticator, &a.sign(&claims("https://a"))).await;
    assert_eq!(identity.unwrap().tenant.as_str(), "a");
    assert_eq!(
        verify(&authenticator, &b.sign(&claims("https://a"))).await,
        Err(AuthError::BadSignature)
    );
}

#[tokio::test]
async fn claims_for_policies_are_bounded() {
    let key = TestKey::new("k", Algorithm::ES256);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, key_set(&[&key])).unwrap();
    let config = security(&format!(
        "  claims: {{tags: [site, level, prod, gone, list], groups: teams}}\n  \
         max_token_lifetime_ms: 600000\n  \
         issuers: [{{issuer: '{ISSUER}', jwks_file: '{}', agent_id_claim: azp, \
         connectors_claim: c, audience: mine}}]\n",
        file.display()
    ));
    let authenticator = Authenticator::new(&config).unwrap();
    let good = json!({
        "azp": "edge-9", "aud": "mine", "site": "ä".repeat(300), "level": 3, "prod": true,
        "list": [1], "teams": ["a", 1, "", "b"], "c": ["x"], "connectors": ["y"],
    });
    let identity = verify(&authenticator, &key.sign(&changed(&good)))
        .await
        .unwrap();
    assert_eq!(identity.agent_id.as_str(), "edge-9");
    assert_eq!(identity.tags["site"].len(), 256);
    assert_eq!(identity.tags["level"], "3");
    assert_eq!(identity.tags["prod"], "true");
    assert_eq!(identity.tags.len(), 3);
    assert_eq!(identity.groups, ["a", "b"]);
    assert_eq!(identity.scopes.unwrap()[0].as_str(), "x");

    let mut long = changed(&good);
    long["exp"] = json!(seconds(3600));
    assert_eq!(
        verify(&authenticator, &key.sign(&long)).await,
        Err(AuthError::LivesTooLong {
            max_token_lifetime_ms: 600_000
        })
    );
    let mut unknown = changed(&good);
    unknown.as_object_mut().unwrap().remove("iat");
    assert_eq!(
        verify(&authenticator, &key.sign(&unknown)).await,
        Err(AuthError::MissingClaim("iat".to_owned()))
    );
}

#[tokio::test]
async fn no_error_shows_the_token() {
    let setup = Setup::new(Algorithm::ES256, "");
    let token = TestKey::new("k", Algorithm::ES256).sign(&claims(ISSUER));
    let error = verify(&setup.authenticator, &token).await.unwrap_err();
    let secret = crate::config::Secret::new(&token);
    let shown = format!("{error} {error:?} {secret} {secret:?}");
    assert!(!shown.contains(&token[..20]), "{shown}");
    assert_eq!(error.code().status(), 401);
    assert_eq!(error.code().as_str(), "token_signature");
}

#[tokio::test]
async fn weak_and_foreign_keys_are_passed_over() {
    let good = TestKey::new("good", Algorithm::ES256);
    let mut weak = TestKey::new("weak", Algorithm::RS256).jwk();
    // 1024 bits.
    weak["n"] = json!(weak["n"].as_str().unwrap()[..171]);
    let mut encryption = good.jwk();
    encryption["kid"] = json!("enc");
    encryption["use"] = json!("enc");
    let set = json!({"keys": [
        weak, encryption, good.jwk(), {"kty": "oct", "k": "AAAA", "kid": "s"},
        {"kty": "EC", "crv": "P-384", "x": "AAAA", "y": "AAAA", "kid": "p384"},
        {"kty": "new", "kid": "n"}, 5, null, {},
    ]});
    let setup = Setup::with_key_text(good.clone(), &set.to_string(), "");
    assert_eq!(setup.authenticator.status()[0].keys, 1);
    setup.accepted(&claims(ISSUER)).await;
}

#[test]
fn a_key_file_that_is_none_is_found_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let config = security(&format!(
        "  issuers: [{{issuer: a, jwks_file: '{}'}}]\n",
        file.display()
    ));
    assert!(Authenticator::new(&config).is_err(), "it does not exist");
    for text in ["", "[]", "{}", r#"{"keys": []}"#, r#"{"keys": [{}]}"#] {
        std::fs::write(&file, text).unwrap();
        let error = Authenticator::new(&config).unwrap_err().to_string();
        assert!(error.contains("keys.json"), "{error}");
    }
}

/// An authenticator with one issuer whose keys are in a file.
struct Setup {
    key: TestKey,
    authenticator: Authenticator,
}

impl Setup {
    fn new(algorithm: Algorithm, more: &str) -> Self {
        let key = TestKey::new("k", algorithm);
        Self::with_keys(&[&key], more)
    }

    fn with_keys(keys: &[&TestKey], more: &str) -> Self {
        Self::with_key_text(keys[0].clone(), &key_set(keys), more)
    }

    fn with_key_text(key: TestKey, text: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        std::fs::write(&file, text).unwrap();
        let comma = if more.is_empty() { "" } else { ", " };
        let config = security(&format!(
            "  issuers: [{{issuer: '{ISSUER}', jwks_file: '{}'{comma}{more}}}]\n",
            file.display()
        ));
        Self {
            key,
            authenticator: Authenticator::new(&config).unwrap(),
        }
    }

    async fn accepted(&self, claims: &Json) -> AgentIdentity {
        verify(&self.authenticator, &self.key.sign(claims))
            .await
            .unwrap_or_else(|error| panic!("{error}: {claims}"))
    }

    async fn refused(&self, claims: &Json) -> AuthError {
        match verify(&self.authenticator, &self.key.sign(claims)).await {
            Ok(identity) => panic!("this was accepted: {identity:?}"),
            Err(error) => error,
        }
    }
}

/// Good claims with some of them changed; `null` removes one.
fn changed(changes: &Json) -> Json {
    let mut claims = claims(ISSUER);
    let object = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    claims
}
