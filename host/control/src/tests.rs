#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nowconnect_store::{ClaimRefused, EndpointFilter, Limits, NameLimits, Store};
use serde_json::{Value, json};

use crate::*;

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 1440 * MINUTE_MS;
const START: u64 = 1_800_000_000_000;
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn key_settings(algorithm: Algorithm) -> KeySettings {
    KeySettings {
        algorithm,
        signs: 30 * DAY,
        shown_before: DAY,
        proves_after: 31 * DAY,
    }
}

fn settings() -> Settings {
    Settings {
        issuer: "https://hub.example".to_owned(),
        audience: "nowconnect".to_owned(),
        domain: "tunnels.example".to_owned(),
        anonymous_tenant: Some("public".to_owned()),
        ephemeral: Duration::from_secs(300),
        recreate_anonymous: DAY,
        recreate_registered: 30 * DAY,
        management: DAY,
        grace: Duration::from_secs(30),
        names: NameRules {
            kept: BTreeSet::from(["admin".to_owned()]),
        },
        anonymous_endpoints: 3,
        tcp_ports: None,
        name_limits: NameLimits {
            per_tenant: 10,
            total: 100,
        },
        limits: Limits {
            per_tenant: 3,
            total: 10,
            deleted_per_tenant: 100,
            deleted_per_source: 50,
        },
    }
}

fn client() -> Client {
    let scopes = ["tunnels".to_owned(), "names".to_owned()];
    Client::new(
        "ops",
        "s3cret-s3cret",
        "acme",
        &scopes,
        Role("admin".to_owned()),
    )
}

fn control_with(algorithm: Algorithm, settings: Settings) -> Control {
    let store = Arc::new(Store::in_memory().unwrap());
    let keys = KeyRing::open(Arc::clone(&store), key_settings(algorithm), START).unwrap();
    Control::new(
        store,
        Arc::new(keys),
        ClientRegister::new([client()]),
        settings,
    )
}

fn control() -> Control {
    control_with(Algorithm::EdDsa, settings())
}

fn create(control: &Control, name: Option<&str>, now: u64) -> Result<Created, ControlError> {
    let request = TunnelRequest {
        name: name.map(str::to_owned),
        protocol: "http".to_owned(),
        ..TunnelRequest::default()
    };
    let planned = control.plan(&Maker::Anonymous, &request, FROM, now)?;
    publish(control, planned, now)
}

fn publish(control: &Control, planned: Planned, now: u64) -> Result<Created, ControlError> {
    let others = control.others_of_maker(planned.endpoint())?;
    let offered = control.offer(planned, others, now)?;
    control.publish(offered, now, |_| false, None)
}

fn again(control: &Control, maker: &Maker, token: &str, now: u64) -> Result<Created, ControlError> {
    let request = TunnelRequest {
        recreate_token: Some(token.to_owned()),
        protocol: "http".to_owned(),
        ..TunnelRequest::default()
    };
    let planned = control.plan(maker, &request, FROM, now)?;
    publish(control, planned, now)
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn an_ephemeral_token_says_what_the_tunnel_port_asks_for() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Rs256, Algorithm::Hs256] {
        let control = control_with(algorithm, settings());
        let created = create(&control, Some("Shop"), START).unwrap();
        assert_eq!(created.host, "shop.tunnels.example");
        let id = &created.endpoint.id;
        let said = claims(&created.ephemeral_token);
        let jti = said["jti"].as_str().unwrap();
        assert_eq!(
            said,
            json!({
                "iss": "https://hub.example", "aud": "nowconnect", "sub": id, "agent_id": id,
                "tenant": "public", "name": "shop", "connectors": [id], "jti": jti,
                "iat": START / 1000, "exp": START / 1000 + 300,
            })
        );
        assert_eq!(created.endpoint.token_id.as_deref(), Some(jti));
    }
}

#[test]
fn an_ephemeral_token_counts_once_and_only_the_last_one() {
    let control = control();
    let first = create(&control, Some("shop"), START).unwrap();
    let jti = |created: &Created| created.endpoint.token_id.clone().unwrap();
    let admit = |created: &Created, now| control.admit(&created.endpoint.id, &jti(created), now);
    assert_eq!(admit(&first, START).unwrap().name, "shop");
    assert!(matches!(
        admit(&first, START),
        Err(ControlError::Token(TokenRefused::Withdrawn))
    ));
    let second = again(&control, &Maker::Anonymous, &first.recreate_token, START).unwrap();
    let third = again(&control, &Maker::Anonymous, &first.recreate_token, START).unwrap();
    assert_eq!(third.endpoint.id, first.endpoint.id);
    assert!(admit(&second, START).is_err(), "there is a newer one");
    assert!(admit(&third, START).is_ok());
}

#[test]
fn a_name_comes_back_to_who_has_its_recreate_token() {
    let control = control();
    let first = create(&control, Some("shop"), START).unwrap();
    let taken = create(&control, Some("shop"), START).unwrap_err();
    assert!(matches!(
        taken,
        ControlError::Claim(ClaimRefused::Taken { .. })
    ));
    // Also when the name's time is over, as long as nobody else took it.
    let late = START + 300_000;
    let back = again(&control, &Maker::Anonymous, &first.recreate_token, late).unwrap();
    assert_eq!(back.endpoint.id, first.endpoint.id);
    assert_eq!(back.endpoint.name, "shop");

    let later = late + 300_000;
    let other = create(&control, Some("shop"), later).unwrap();
    assert_ne!(other.endpoint.id, first.endpoint.id);
    let lost = again(&control, &Maker::Anonymous, &first.recreate_token, later).unwrap_err();
    assert!(matches!(
        lost,
        ControlError::Claim(ClaimRefused::Taken { .. })
    ));

    let over = START + DAY_MS + MINUTE_MS;
    let expired = again(&control, &Maker::Anonymous, &first.recreate_token, over).unwrap_err();
    assert!(matches!(
        expired,
        ControlError::Token(TokenRefused::Expired)
    ));
}

#[test]
fn a_deleted_endpoint_does_not_come_back() {
    let control = control();
    let first = create(&control, Some("shop"), START).unwrap();
    let delete = || control.delete(&first.endpoint.id, "public", START).unwrap();
    assert!(delete().is_some());
    assert!(delete().is_none());
    let gone = again(&control, &Maker::Anonymous, &first.recreate_token, START).unwrap_err();
    assert!(matches!(gone, ControlError::Token(TokenRefused::Withdrawn)));
    let jti = first.endpoint.token_id.clone().unwrap();
    assert!(control.admit(&first.endpoint.id, &jti, START).is_err());
    create(&control, Some("shop"), START).unwrap();
}

#[test]
fn a_tunnel_whose_name_is_over_can_be_deleted() {
    let control = control();
    let first = create(&control, Some("shop"), START).unwrap();
    let (id, token) = (&first.endpoint.id, &first.recreate_token);
    let late = START + 300_000;
    let step = control.tidy(late, None, |_| false).unwrap();
    assert_eq!((step.gone.len(), step.next), (1, None));
    let tenant = control.tenant_by_recreate_token(id, token, late).unwrap();
    assert_eq!(tenant, "public");
    assert!(control.delete(id, &tenant, late).unwrap().is_none());
    let back = again(&control, &Maker::Anonymous, token, late).unwrap_err();
    assert!(matches!(back, ControlError::Token(TokenRefused::Withdrawn)));
    let other = control.tenant_by_recreate_token("tun_other", token, late);
    assert_eq!(other, Err(TokenRefused::Invalid));
    assert!(Control::is_id(id) && !Control::is_id("tun_short") && !Control::is_id(""));
}

#[test]
fn what_was_planned_before_a_delete_is_not_published_after() {
    let control = control();
    let first = create(&control, Some("shop"), START).unwrap();
    let request = TunnelRequest {
        recreate_token: Some(first.recreate_token.clone()),
        protocol: "http".to_owned(),
        ..TunnelRequest::default()
    };
    let planned = control
        .plan(&Maker::Anonymous, &request, FROM, START)
        .unwrap();
    control
        .delete(&first.endpoint.id, "public", START)
        .unwrap()
        .unwrap();
    let late = publish(&control, planned, START).unwrap_err();
    assert!(matches!(late, ControlError::Token(TokenRefused::Withdrawn)));
    assert!(control.find(&first.endpoint.id).unwrap().is_none());
}

#[test]
fn a_name_that_the_operator_keeps_by_now_does_not_come_back() {
    let control = control();
    let first = create(&control, Some("shop"), START).unwrap();
    let mut stricter = settings();
    stricter.names.kept.insert("shop".to_owned());
    let control = Control::new(
        Arc::clone(control.store()),
        Arc::clone(control.keys()),
        ClientRegister::default(),
        stricter,
    );
    let kept = again(&control, &Maker::Anonymous, &first.recreate_token, START).unwrap_err();
    let is_kept = matches!(kept, ControlError::Name(NameRefused::Kept { .. }));
    assert!(is_kept, "{kept}");
}

#[test]
fn the_wished_life_of_a_recreate_token_is_bounded_both_ways() {
    let control = control();
    for (wished, seconds) in [
        (None, 86_400),
        (Some(1), 60),
        (Some(600), 600),
        (Some(1 << 40), 86_400),
    ] {
        let request = TunnelRequest {
            recreate_ttl: wished.map(Duration::from_secs),
            protocol: "http".to_owned(),
            ..TunnelRequest::default()
        };
        let planned = control
            .plan(&Maker::Anonymous, &request, FROM, START)
            .unwrap();
        let created = publish(&control, planned, START).unwrap();
        let said = claims(&created.recreate_token);
        assert_eq!(said["exp"].as_u64().unwrap() - START / 1000, seconds);
        let id = &created.endpoint.id;
        control.delete(id, "public", START).unwrap();
    }
}

#[test]
fn a_client_manages_its_own_tenant_and_only_while_it_is_registered() {
    let control = control();
    for (id, secret) in [("ops", "wrong"), ("other", "s3cret-s3cret"), ("", "")] {
        let refused = control.management_token(id, secret, START).unwrap_err();
        assert!(matches!(refused, ControlError::BadClient));
    }
    let (token, _) = control
        .management_token("ops", "s3cret-s3cret", START)
        .unwrap();
    let proven = control.prove_management(&token, START).unwrap();
    assert!(proven.allows("tunnels") && proven.allows("names") && !proven.allows("tunnel"));
    let over = control.prove_management(&token, START + DAY_MS + MINUTE_MS);
    assert_eq!(over, Err(TokenRefused::Expired));

    let anonymous = create(&control, Some("shop"), START).unwrap();
    let maker = Maker::Client(Box::new(proven));
    let foreign = again(&control, &maker, &anonymous.recreate_token, START).unwrap_err();
    assert!(matches!(
        foreign,
        ControlError::Token(TokenRefused::Invalid)
    ));

    let without = Control::new(
        Arc::clone(control.store()),
        Arc::clone(control.keys()),
        ClientRegister::default(),
        settings(),
    );
    let gone = without.prove_management(&token, START);
    assert_eq!(gone, Err(TokenRefused::Withdrawn));
}

#[test]
fn a_management_token_is_worth_what_its_registration_is_worth_now() {
    let control = control();
    let (token, _) = control
        .management_token("ops", "s3cret-s3cret", START)
        .unwrap();
    let with = |secret: &str, scopes: &[&str], role: &str| {
        let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
        let client = Client::new("ops", secret, "acme", &scopes, Role(role.to_owned()));
        let control = Control::new(
            Arc::clone(control.store()),
            Arc::clone(control.keys()),
            ClientRegister::new([client]),
            settings(),
        );
        control.prove_management(&token, START)
    };
    let less = with("s3cret-s3cret", &["tunnels", "sessions"], "viewer").unwrap();
    assert!(less.allows("tunnels"));
    assert!(!less.allows("names"), "it was taken away");
    assert!(!less.allows("sessions"), "the token was not given for it");
    assert_eq!(less.role, "viewer");
    let rotated = with("another-secret", &["tunnels", "names"], "admin");
    assert_eq!(rotated, Err(TokenRefused::Withdrawn));
}

#[test]
fn no_kind_of_token_passes_for_another() {
    let control = control();
    let created = create(&control, Some("shop"), START).unwrap();
    let (management, _) = control
        .management_token("ops", "s3cret-s3cret", START)
        .unwrap();
    for token in [&created.ephemeral_token, &created.recreate_token] {
        let refused = control.prove_management(token, START);
        assert_eq!(refused, Err(TokenRefused::Invalid));
    }
    for token in [&created.ephemeral_token, &management] {
        let refused = again(&control, &Maker::Anonymous, token, START).unwrap_err();
        assert!(matches!(
            refused,
            ControlError::Token(TokenRefused::Invalid)
        ));
    }
}

#[test]
fn anonymous_callers_get_nothing_where_the_operator_says_so() {
    let mut settings = settings();
    settings.anonymous_tenant = None;
    let control = control_with(Algorithm::EdDsa, settings);
    let refused = create(&control, None, START).unwrap_err();
    assert!(matches!(refused, ControlError::NotAnonymous));
}

#[test]
fn quotas_are_a_tenants() {
    let control = control();
    for _ in 0..3 {
        create(&control, None, START).unwrap();
    }
    let full = create(&control, None, START).unwrap_err();
    assert!(matches!(
        full,
        ControlError::Claim(ClaimRefused::Quota { limit: 3 })
    ));
    let (token, _) = control
        .management_token("ops", "s3cret-s3cret", START)
        .unwrap();
    let maker = Maker::Client(Box::new(control.prove_management(&token, START).unwrap()));
    let planned = control
        .plan(&maker, &TunnelRequest::default(), FROM, START)
        .unwrap();
    assert_eq!(planned.endpoint().tenant, "acme");
    publish(&control, planned, START).unwrap();
    let all = control.list(&EndpointFilter::default(), 100).unwrap();
    assert_eq!(all.len(), 4);
}

/// Takes a token apart and signs it with another algorithm or key.
fn forged(token: &str, change: impl FnOnce(&mut Value), key: &jsonwebtoken::EncodingKey) -> String {
    let mut header = jsonwebtoken::decode_header(token).unwrap();
    header.alg = jsonwebtoken::Algorithm::HS256;
    let mut said = claims(token);
    change(&mut said);
    jsonwebtoken::encode(&header, &said, key).unwrap()
}

#[test]
fn a_public_key_is_no_shared_secret() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Rs256] {
        let control = control_with(algorithm, settings());
        let (token, _) = control
            .management_token("ops", "s3cret-s3cret", START)
            .unwrap();
        let jwks = control.keys().jwks(START);
        let public = &jwks["keys"][0];
        let material = public["x"].as_str().or(public["n"].as_str()).unwrap();
        for secret in [
            material.as_bytes().to_vec(),
            URL_SAFE_NO_PAD.decode(material).unwrap(),
            serde_json::to_vec(public).unwrap(),
            Vec::new(),
        ] {
            let key = jsonwebtoken::EncodingKey::from_secret(&secret);
            let bad = forged(&token, |said| said["tenant"] = json!("victim"), &key);
            let refused = control.prove_management(&bad, START);
            assert_eq!(refused, Err(TokenRefused::Invalid));
        }
        let mut parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        parts[0] = &none;
        parts[2] = "";
        let unsigned = control.prove_management(&parts.join("."), START);
        assert_eq!(unsigned, Err(TokenRefused::Invalid));
    }
}

#[test]
fn a_shared_secret_is_never_shown() {
    let control = control_with(Algorithm::Hs256, settings());
    assert_eq!(control.keys().jwks(START), json!({"keys": []}));
    assert!(
        control
            .management_token("ops", "s3cret-s3cret", START)
            .is_ok()
    );
}

#[test]
fn keys_overlap_when_they_change() {
    let control = control();
    let keys = control.keys();
    let (old, _) = control
        .management_token("ops", "s3cret-s3cret", START)
        .unwrap();
    let ids = |now| -> usize { keys.jwks(now)["keys"].as_array().unwrap().len() };
    assert_eq!(ids(START), 1);
    let kid = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid.unwrap();

    // A day before the first ends the second is shown, and does not sign yet.
    let eve = START + 29 * DAY_MS + MINUTE_MS;
    keys.tidy(eve).unwrap();
    assert_eq!(ids(eve), 2);
    let (still, _) = control
        .management_token("ops", "s3cret-s3cret", eve)
        .unwrap();
    assert_eq!(kid(&still), kid(&old));

    let after = START + 30 * DAY_MS + MINUTE_MS;
    keys.tidy(after).unwrap();
    let (new, _) = control
        .management_token("ops", "s3cret-s3cret", after)
        .unwrap();
    assert_ne!(kid(&new), kid(&old));
    assert!(control.prove_management(&still, after).is_ok());

    let end = START + 61 * DAY_MS + MINUTE_MS;
    keys.tidy(end).unwrap();
    assert!(control.prove_management(&still, end).is_err());
}

#[test]
fn a_key_that_is_distrusted_proves_nothing_at_once() {
    let control = control();
    let token = |now| {
        control
            .management_token("ops", "s3cret-s3cret", now)
            .unwrap()
            .0
    };
    let first = token(START);
    control.keys().rotate(START + 1, false).unwrap();
    let second = token(START + 1);
    assert!(control.prove_management(&first, START + 1).is_ok());
    control.keys().rotate(START + 2, true).unwrap();
    for old in [&first, &second] {
        let refused = control.prove_management(old, START + 2);
        assert_eq!(refused, Err(TokenRefused::Invalid));
    }
    assert!(
        control
            .prove_management(&token(START + 2), START + 2)
            .is_ok()
    );
}

#[test]
fn keys_survive_a_restart() {
    let store = Arc::new(Store::in_memory().unwrap());
    let open = || {
        let keys = KeyRing::open(Arc::clone(&store), key_settings(Algorithm::EdDsa), START);
        let clients = ClientRegister::new([client()]);
        Control::new(
            Arc::clone(&store),
            Arc::new(keys.unwrap()),
            clients,
            settings(),
        )
    };
    let (token, _) = open()
        .management_token("ops", "s3cret-s3cret", START)
        .unwrap();
    assert!(open().prove_management(&token, START).is_ok());
}

fn ring(store: &Arc<Store>, settings: KeySettings, now: u64) -> Arc<KeyRing> {
    Arc::new(KeyRing::open(Arc::clone(store), settings, now).unwrap())
}

fn with_keys(store: &Arc<Store>, keys: Arc<KeyRing>) -> Control {
    let clients = ClientRegister::new([client()]);
    Control::new(Arc::clone(store), keys, clients, settings())
}

fn management(control: &Control, now: u64) -> String {
    let token = control.management_token("ops", "s3cret-s3cret", now);
    token.unwrap().0
}

#[test]
fn another_algorithm_signs_at_once_and_the_old_keys_still_prove() {
    let store = Arc::new(Store::in_memory().unwrap());
    let open = |algorithm| with_keys(&store, ring(&store, key_settings(algorithm), START));
    let old = management(&open(Algorithm::Hs256), START);
    let control = open(Algorithm::EdDsa);
    let new = management(&control, START);
    let algorithm = |token: &str| jsonwebtoken::decode_header(token).unwrap().alg;
    assert_eq!(algorithm(&old), jsonwebtoken::Algorithm::HS256);
    assert_eq!(algorithm(&new), jsonwebtoken::Algorithm::EdDSA);
    assert!(control.prove_management(&old, START).is_ok());
    control.keys().set(key_settings(Algorithm::Rs256));
    control.keys().tidy(START).unwrap();
    let newest = management(&control, START);
    assert_eq!(algorithm(&newest), jsonwebtoken::Algorithm::RS256);
}

#[test]
fn a_key_proves_as_long_as_the_longest_token_of_today() {
    let store = Arc::new(Store::in_memory().unwrap());
    let short = KeySettings {
        proves_after: DAY,
        ..key_settings(Algorithm::EdDsa)
    };
    drop(ring(&store, short, START));
    drop(ring(&store, key_settings(Algorithm::EdDsa), START));
    let keys = store.signing_keys().unwrap();
    assert_eq!(keys.len(), 1, "the same key");
    assert_eq!(keys[0].proves_until_ms, START + 61 * DAY_MS);
}

#[test]
fn a_clock_that_was_years_ahead_costs_no_key() {
    let store = Arc::new(Store::in_memory().unwrap());
    let open = |now| with_keys(&store, ring(&store, key_settings(Algorithm::EdDsa), now));
    let token = management(&open(START), START);
    let wrong = START + 3 * 365 * DAY_MS;
    let control = open(wrong);
    control.keys().tidy(wrong).unwrap();
    assert!(control.prove_management(&token, wrong).is_err());
    let control = open(START);
    assert!(control.prove_management(&token, START).is_ok());
    // What was made in the wrong time does not sign in the right one, also later.
    let later = START + 40 * DAY_MS;
    control.keys().tidy(later).unwrap();
    let kid = jsonwebtoken::decode_header(management(&control, later))
        .unwrap()
        .kid;
    let keys = store.signing_keys().unwrap();
    let signed = keys
        .iter()
        .find(|key| Some(&key.id) == kid.as_ref())
        .unwrap();
    assert!(signed.made_ms <= later);
}

#[test]
fn a_key_that_cannot_be_read_takes_no_other_with_it() {
    let store = Arc::new(Store::in_memory().unwrap());
    let token = management(
        &with_keys(&store, ring(&store, key_settings(Algorithm::EdDsa), START)),
        START,
    );
    let mut broken = store.signing_keys().unwrap().remove(0);
    broken.id = "broken".to_owned();
    broken.private = "no key".to_owned();
    store.put_signing_keys(&[broken], &[]).unwrap();
    let control = with_keys(&store, ring(&store, key_settings(Algorithm::EdDsa), START));
    assert_eq!(control.keys().unreadable(), ["broken"]);
    assert!(control.prove_management(&token, START).is_ok());
}
