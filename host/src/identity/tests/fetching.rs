//! How keys are found, kept and renewed.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::provider::{Answer, Provider, TestKey, claims, key_set};
use super::{eventually, security, verify};
use crate::identity::fetch::is_public;
use crate::identity::{AuthError, Authenticator};

#[tokio::test]
async fn keys_are_discovered_once_and_cached() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    let authenticator = discovering(&provider, "");
    let token = key.sign(&claims(&provider.url("")));
    for _ in 0..3 {
        verify(&authenticator, &token).await.unwrap();
    }
    assert_eq!(provider.requests(), 2, "one document, one key set");
    assert_eq!(authenticator.status()[0].keys, 1);
}

#[tokio::test]
async fn a_full_openid_configuration_is_understood() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    let url = provider.url("");
    provider.set(
        "/.well-known/openid-configuration",
        Answer::Body(
            json!({
                "issuer": url, "jwks_uri": provider.url("/jwks"),
                "authorization_endpoint": provider.url("/authorize"),
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            })
            .to_string(),
        ),
    );
    let authenticator = discovering(&provider, "");
    verify(&authenticator, &key.sign(&claims(&url)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (old, new) = (
        TestKey::new("old", Algorithm::ES256),
        TestKey::new("new", Algorithm::EdDSA),
    );
    let provider = Provider::with_keys(&[&old]).await;
    let authenticator = discovering(&provider, "jwks_refresh_min_ms: 0");
    let issuer = provider.url("");
    verify(&authenticator, &old.sign(&claims(&issuer)))
        .await
        .unwrap();
    provider.set("/jwks", Answer::Body(key_set(&[&old, &new])));
    verify(&authenticator, &new.sign(&claims(&issuer)))
        .await
        .unwrap();
    verify(&authenticator, &old.sign(&claims(&issuer)))
        .await
        .unwrap();
    // Withdrawn: gone with the next fetch, whatever caused that.
    provider.set("/jwks", Answer::Body(key_set(&[&new])));
    let unknown = TestKey::new("unknown", Algorithm::ES256);
    assert_eq!(
        verify(&authenticator, &unknown.sign(&claims(&issuer))).await,
        Err(AuthError::UnknownKey)
    );
    assert_eq!(
        verify(&authenticator, &old.sign(&claims(&issuer))).await,
        Err(AuthError::UnknownKey)
    );
}

#[tokio::test]
async fn unknown_keys_cause_few_fetches() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    let authenticator = discovering(&provider, "jwks_refresh_min_ms: 3600000");
    let issuer = provider.url("");
    verify(&authenticator, &key.sign(&claims(&issuer)))
        .await
        .unwrap();
    let fetched = provider.requests();
    for number in 0..20 {
        let unknown = TestKey::new(&format!("unknown-{number}"), Algorithm::EdDSA);
        assert_eq!(
            verify(&authenticator, &unknown.sign(&claims(&issuer))).await,
            Err(AuthError::UnknownKey)
        );
    }
    assert_eq!(provider.requests(), fetched);
}

#[tokio::test]
async fn many_agents_share_one_fetch() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    provider.set_delay(Duration::from_millis(50));
    let authenticator = discovering(&provider, "jwks_refresh_min_ms: 0");
    let token = key.sign(&claims(&provider.url("")));
    let mut agents = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (authenticator, token) = (authenticator.clone(), token.clone());
        agents.spawn(async move { verify(&authenticator, &token).await });
    }
    while let Some(verified) = agents.join_next().await {
        verified.unwrap().unwrap();
    }
    assert_eq!(provider.requests(), 2);
}

#[tokio::test]
async fn an_agent_that_gives_up_does_not_end_the_fetch() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    provider.set_delay(Duration::from_millis(100));
    let authenticator = discovering(&provider, "");
    let token = key.sign(&claims(&provider.url("")));
    let impatient = verify(&authenticator, &token);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), impatient)
            .await
            .is_err()
    );
    eventually("the keys came", || authenticator.status()[0].keys == 1).await;
}

#[tokio::test]
async fn keys_survive_an_outage_for_a_time() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    let authenticator = discovering(&provider, "jwks_refresh_min_ms: 0");
    let issuer = provider.url("");
    verify(&authenticator, &key.sign(&claims(&issuer)))
        .await
        .unwrap();
    provider.set("/jwks", Answer::Status(500));
    let unknown = TestKey::new("unknown", Algorithm::ES256);
    assert_eq!(
        verify(&authenticator, &unknown.sign(&claims(&issuer))).await,
        Err(AuthError::UnknownKey)
    );
    verify(&authenticator, &key.sign(&claims(&issuer)))
        .await
        .unwrap();
    let error = authenticator.status()[0].last_error.clone().unwrap();
    assert!(error.contains("answered 500"), "{error}");

    // The same with no time to survive: unavailable, until the provider is back.
    let strict = discovering(&provider, "jwks_refresh_min_ms: 0\n  jwks_stale_ms: 0");
    let token = key.sign(&claims(&issuer));
    let error = verify(&strict, &token).await.unwrap_err();
    assert_eq!(error, AuthError::KeysUnavailable);
    assert_eq!(error.code().status(), 503);
}

#[tokio::test]
async fn the_background_finds_a_new_key_by_itself() {
    let (old, new) = (
        TestKey::new("old", Algorithm::ES256),
        TestKey::new("new", Algorithm::ES256),
    );
    let provider = Provider::with_keys(&[&old]).await;
    let authenticator = discovering(&provider, "jwks_refresh_ms: 1000");
    let fresh = authenticator.keep_fresh();
    eventually("keys", || authenticator.status()[0].keys == 1).await;
    provider.set("/jwks", Answer::Body(key_set(&[&old, &new])));
    eventually("the new key", || authenticator.status()[0].keys == 2).await;
    drop(fresh);
}

#[tokio::test]
async fn a_rebuilt_authenticator_keeps_its_keys() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    let authenticator = discovering(&provider, "");
    let token = key.sign(&claims(&provider.url("")));
    verify(&authenticator, &token).await.unwrap();
    let fetched = provider.requests();
    let rebuilt = authenticator
        .rebuilt(&config(&provider, "audience: other"))
        .unwrap();
    assert_eq!(
        verify(&rebuilt, &token).await,
        Err(AuthError::WrongAudience)
    );
    assert_eq!(provider.requests(), fetched);
}

#[tokio::test]
async fn hostile_answers_are_bounded() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    let token = key.sign(&claims(&provider.url("")));
    let elsewhere = Provider::with_keys(&[&key]).await;
    for (answer, part) in [
        (Answer::Hang, "did not answer within"),
        (Answer::Endless, "answered more than"),
        (Answer::Status(404), "answered 404"),
        (Answer::Body("<html>".to_owned()), "no JSON Web Key Set"),
        (Answer::Body("[".repeat(10_000)), "no JSON Web Key Set"),
        (
            Answer::Redirect(elsewhere.url("/jwks")),
            "redirects elsewhere",
        ),
        (Answer::Redirect("/jwks".to_owned()), "redirects elsewhere"),
        (
            Answer::Redirect("http://169.254.169.254/".to_owned()),
            "redirects elsewhere",
        ),
    ] {
        provider.set("/jwks", answer.clone());
        let authenticator = discovering(&provider, "jwks_timeout_ms: 500");
        assert_eq!(
            verify(&authenticator, &token).await,
            Err(AuthError::KeysUnavailable),
            "{answer:?}"
        );
        let error = authenticator.status()[0].last_error.clone().unwrap();
        assert!(error.contains(part), "{answer:?}: {error}");
    }
    assert_eq!(elsewhere.requests(), 0);
    // A redirect on the same origin is followed.
    provider.set("/jwks", Answer::Redirect("/keys".to_owned()));
    provider.set("/keys", Answer::Body(key_set(&[&key])));
    verify(&discovering(&provider, ""), &token).await.unwrap();
}

#[tokio::test]
async fn a_document_may_not_lead_to_private_addresses() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    let inside = Provider::with_keys(&[&key]).await;
    let token = key.sign(&claims(&provider.url("")));
    let point_to = |jwks_uri: String| {
        provider.set(
            "/.well-known/openid-configuration",
            Answer::Body(json!({"issuer": provider.url(""), "jwks_uri": jwks_uri}).to_string()),
        );
    };
    let port = inside.address.port();
    for uri in [
        inside.url("/jwks"),
        format!("http://localhost:{port}/jwks"),
        format!("http://[::ffff:127.0.0.1]:{port}/jwks"),
        format!("http://2130706433:{port}/jwks"),
        "https://10.0.0.1/jwks".to_owned(),
        "https://169.254.169.254/latest".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        point_to(uri.clone());
        let authenticator = discovering(&provider, "");
        assert_eq!(
            verify(&authenticator, &token).await,
            Err(AuthError::KeysUnavailable),
            "{uri}"
        );
        let error = authenticator.status()[0].last_error.clone().unwrap();
        assert!(error.contains("is not fetched"), "{uri}: {error}");
    }
    assert_eq!(inside.requests(), 0);
    point_to(inside.url("/jwks"));
    let allowed = discovering(&provider, "jwks_allow_private: true");
    verify(&allowed, &token).await.unwrap();
}

#[tokio::test]
async fn a_configuration_of_another_issuer_is_refused() {
    let key = TestKey::new("k", Algorithm::ES256);
    let provider = Provider::with_keys(&[&key]).await;
    provider.set(
        "/.well-known/openid-configuration",
        Answer::Body(
            json!({"issuer": "https://other.example", "jwks_uri": provider.url("/jwks")})
                .to_string(),
        ),
    );
    let authenticator = discovering(&provider, "");
    let token = key.sign(&claims(&provider.url("")));
    assert_eq!(
        verify(&authenticator, &token).await,
        Err(AuthError::KeysUnavailable)
    );
    let error = authenticator.status()[0].last_error.clone().unwrap();
    assert!(error.contains("https://other.example"), "{error}");
}

#[tokio::test]
async fn a_changed_key_file_is_read_again() {
    let (old, new) = (
        TestKey::new("old", Algorithm::ES256),
        TestKey::new("new", Algorithm::ES256),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, key_set(&[&old])).unwrap();
    let config = security(&format!(
        "  issuers: [{{issuer: 'https://a', jwks_file: '{}'}}]\n",
        file.display()
    ));
    let authenticator = Authenticator::new(&config).unwrap();
    std::fs::write(&file, key_set(&[&new])).unwrap();
    let token = new.sign(&claims("https://a"));
    authenticator.reload_files().unwrap();
    verify(&authenticator, &token).await.unwrap();
    std::fs::write(&file, "broken").unwrap();
    assert!(authenticator.reload_files().is_err());
    verify(&authenticator, &token).await.unwrap();
}

#[tokio::test]
async fn a_bad_ca_bundle_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(
        &file,
        "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let config = security(&format!("  jwks_ca_bundle: '{}'\n", file.display()));
    let error = Authenticator::new(&config).unwrap_err().to_string();
    assert!(error.contains("ca.pem"), "{error}");
}

#[test]
fn only_public_addresses_are_public() {
    for private in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "192.0.0.8",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
    ] {
        assert!(!is_public(private.parse().unwrap()), "{private}");
    }
    for public in [
        "1.1.1.1",
        "93.184.216.34",
        "2606:4700::1111",
        "::ffff:1.1.1.1",
    ] {
        assert!(is_public(public.parse().unwrap()), "{public}");
    }
}

fn config(provider: &Provider, more: &str) -> crate::config::SecurityConfig {
    security(&format!("  issuer: '{}'\n  {more}\n", provider.url("")))
}

fn discovering(provider: &Provider, more: &str) -> Authenticator {
    Authenticator::new(&config(provider, more)).unwrap()
}
