//! What an assertion says, for how long, and whose signature it has.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use nowconnect_control::{Algorithm as RingAlgorithm, KeyRing, KeySettings};
use nowconnect_policy::Name;
use nowconnect_store::Store;
use tempfile::TempDir;

use super::*;

#[test]
fn an_assertion_says_who_asks_and_where() {
    let at = Place::new();
    let assertions = at.with(&["one"], &[AssertedClaim::Groups, AssertedClaim::Amr]);
    let now = SystemTime::now();
    let token = told(&assertions, &ann(), now);
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!(header.typ.as_deref(), Some("nowconnect-viewer+jwt"));
    let claims = at.check(&assertions, None, &token).unwrap();
    let mut expected = serde_json::json!({
        "iss": "https://hub.example.com", "aud": "shop", "sub": "ann", "tenant": "acme",
        "host": "shop.example.com", "groups": ["ops"], "amr": ["pwd", "mfa"],
    });
    for of_time in ["iat", "exp", "jti"] {
        expected[of_time] = claims[of_time].clone();
    }
    assert_eq!(claims, expected);
    assert_eq!(
        claims["exp"].as_u64().unwrap(),
        unix_ms(now + LIFETIME).div_ceil(1000)
    );
    // And of what is asked for, nothing that nobody has said.
    let more = [
        AssertedClaim::Method,
        AssertedClaim::Issuer,
        AssertedClaim::Tag("dept".to_owned()),
        AssertedClaim::Tag("exp".to_owned()),
    ];
    let assertions = at.with(&["one"], &more);
    let claims = at.check(&assertions, None, &told(&assertions, &ann(), now));
    let claims = claims.unwrap();
    assert_eq!(claims["method"], "bearer");
    assert_eq!(claims["viewer_iss"], "https://idp.example");
    assert_eq!(claims["tags"], serde_json::json!({"dept": "it"}));
    assert_eq!(claims.get("groups"), None);
}

#[test]
fn nobody_is_told_of_under_no_name() {
    let at = Place::new();
    let assertions = at.with(&["one"], &[]);
    let nobody = SignedIn::default();
    let told = assertions.tell(&nobody, "shop.example.com", None, SystemTime::now());
    assert_eq!(told, Ok(None));
}

#[test]
fn one_is_told_again_for_half_of_its_life() {
    let at = Place::new();
    let assertions = at.with(&["one"], &[]);
    let now = SystemTime::now();
    let first = told(&assertions, &ann(), now);
    assert_eq!(
        told(&assertions, &ann(), now + LIFETIME / 2 - SECOND),
        first
    );
    assert_ne!(
        told(&assertions, &ann(), now + LIFETIME / 2 + SECOND),
        first
    );
    // Of another viewer, or for another host.
    let mut bob = ann();
    bob.plugin.subject = Some("bob".to_owned());
    assert_ne!(told(&assertions, &bob, now), first);
    let elsewhere = assertions.tell(&ann(), "docs.example.com", None, now);
    assert_ne!(elsewhere.unwrap().unwrap().to_str().unwrap(), first);
}

#[test]
fn it_ends_with_what_proved_the_viewer() {
    let at = Place::new();
    let assertions = at.with(&["one"], &[]);
    let now = SystemTime::now();
    let mut soon = ann();
    soon.until = Some(now + 10 * SECOND);
    let first = told(&assertions, &soon, now);
    let claims = at.check(&assertions, None, &first).unwrap();
    let exp = claims["exp"].as_u64().unwrap();
    assert_eq!(exp, unix_ms(now + 10 * SECOND).div_ceil(1000));
    // A later proof is not cut by an earlier one.
    soon.until = Some(now + 3600 * SECOND);
    assert_ne!(told(&assertions, &soon, now), first);
}

#[test]
fn keys_change_without_a_gap() {
    let at = Place::new();
    let now = SystemTime::now();
    let before = at.with(&["one"], &[]);
    let shown = at.with(&["one", "two"], &[]);
    let turned = at.with(&["two", "one"], &[]);
    let old = told(&before, &ann(), now);
    for keys in [&shown, &turned] {
        assert!(
            at.check(keys, None, &old).is_some(),
            "what is under way counts"
        );
    }
    let new = told(&turned, &ann(), now);
    assert!(
        at.check(&shown, None, &new).is_some(),
        "it was shown before it signed"
    );
    assert!(at.check(&before, None, &new).is_none());
    let after = at.with(&["two"], &[]);
    assert!(at.check(&after, None, &old).is_none());
}

#[test]
fn what_is_no_key_is_refused_without_a_word_of_it() {
    let at = Place::new();
    std::fs::write(at.folder.path().join("three"), "open sesame").unwrap();
    let error = Assertions::build(&at.config(&["one", "three"], &[])).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("openssl genpkey") && !error.contains("sesame"),
        "{error}"
    );
}

/// A key that is distrusted takes what it has signed with it.
#[test]
fn the_keys_of_the_control_api_sign_where_there_are_no_others() {
    let at = Place::new();
    let mut config = at.config(&[], &[]);
    config.issuer = None;
    let assertions = Assertions::build(&config).unwrap();
    let now = SystemTime::now();
    assert_eq!(
        assertions.tell(&ann(), "shop.example.com", None, now),
        Err(NoAssertion::NoKey)
    );
    let store = Arc::new(Store::in_memory().unwrap());
    let settings = KeySettings {
        algorithm: RingAlgorithm::EdDsa,
        signs: 3600 * SECOND,
        shown_before: 60 * SECOND,
        proves_after: 600 * SECOND,
    };
    let keys = KeyRing::open(store, settings, unix_ms(now)).unwrap();
    let ring = RingKeys {
        keys: &keys,
        issuer: "https://api.example.com",
    };
    let tell = || {
        let told = assertions.tell(&ann(), "shop.example.com", Some(ring), now);
        told.unwrap().unwrap().to_str().unwrap().to_owned()
    };
    let first = tell();
    assert_eq!(tell(), first);
    let claims = at.check(&assertions, Some(ring), &first).unwrap();
    assert_eq!(claims["iss"], "https://api.example.com");
    keys.rotate(unix_ms(now), true).unwrap();
    let next = tell();
    assert_ne!(next, first);
    assert!(at.check(&assertions, Some(ring), &first).is_none());
    assert!(at.check(&assertions, Some(ring), &next).is_some());
}

const SECOND: Duration = Duration::from_secs(1);
const LIFETIME: Duration = Duration::from_secs(60);

fn ann() -> SignedIn {
    let facts = ViewerFacts {
        viewer: Name::new("acme", "ann"),
        issuer: Some("https://idp.example".to_owned()),
        email: None,
        email_verified: None,
        amr: vec!["pwd".to_owned(), "mfa".to_owned()],
        auth_time_ms: None,
        groups: vec![Arc::from("ops")],
        tags: vec![("dept".to_owned(), "it".to_owned())],
    };
    SignedIn {
        viewer: Viewer::Known(Arc::new(facts)),
        plugin: nowconnect_plugins::Viewer {
            subject: Some("ann".to_owned()),
            ..nowconnect_plugins::Viewer::default()
        },
        method: Some("bearer"),
        until: None,
    }
}

fn told(assertions: &Assertions, viewer: &SignedIn, now: SystemTime) -> String {
    let told = assertions.tell(viewer, "shop.example.com", None, now);
    let value = told.unwrap().unwrap();
    assert!(value.is_sensitive());
    value.to_str().unwrap().to_owned()
}

/// A folder with the keys `one` and `two`.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["one", "two"] {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
            std::fs::write(folder.path().join(name), key.serialize_pem()).unwrap();
        }
        Self { folder }
    }

    fn config(&self, keys: &[&str], claims: &[AssertedClaim]) -> ViewerAssertion {
        ViewerAssertion {
            header: HeaderName::from_static("x-viewer-assertion"),
            audience: "shop".to_owned(),
            lifetime: LIFETIME,
            issuer: Some("https://hub.example.com".to_owned()),
            key_files: keys
                .iter()
                .map(|name| self.folder.path().join(name))
                .collect(),
            claims: claims.to_vec(),
        }
    }

    fn with(&self, keys: &[&str], claims: &[AssertedClaim]) -> Assertions {
        Assertions::build(&self.config(keys, claims)).unwrap()
    }

    /// As a service does it: the claims, if a published key has signed them.
    fn check(
        &self,
        assertions: &Assertions,
        ring: Option<RingKeys<'_>>,
        token: &str,
    ) -> Option<Json> {
        let published = assertions.jwks(ring, SystemTime::now())?;
        let keys: JwkSet = serde_json::from_value(published).unwrap();
        let kid = jsonwebtoken::decode_header(token).unwrap().kid?;
        let key = DecodingKey::from_jwk(keys.find(&kid)?).unwrap();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["shop"]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let checked = jsonwebtoken::decode::<Json>(token, &key, &validation);
        Some(checked.unwrap().claims)
    }
}
