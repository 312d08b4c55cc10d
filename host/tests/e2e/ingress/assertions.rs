//! Services that check by a signature who asks, with the keys that the hub publishes for them.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::viewers::{ANN, ANN_SHOWS, PERMIT_VIEWERS};
use super::{PERMIT_HTTP, ingress, web};
use crate::cluster::web::{Message, ask, get, origin};
use crate::cluster::{HubPlan, TestHub, hub};

const ADMIN: &str = "name: admin, host: admin.example.com, connector: shop, viewer_auth: staff";
const OPEN: &str = "name: open, host: open.example.com, connector: shop, public: true";

const KEYS: &str = "/.well-known/nowconnect/jwks.json";

/// For the endpoint of the document.
const PERMIT_SHOP: &str = r#"
@id("shop")
permit (principal in NowConnect::Group::"ops", action == NowConnect::Action::"http-request",
        resource == NowConnect::Endpoint::"shop-admin");
"#;

/// What `docs/viewer-authentication.md` shows, and says of it.
#[tokio::test]
async fn the_documented_example_works() {
    let document = include_str!("../../../../docs/viewer-authentication.md");
    let (_, section) = document.split_once("\n## Signed assertions\n").unwrap();
    let (_, example) = section.split_once("```yaml cloud\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let port = "ingress:\n  listeners:\n    - {name: web, bind: \"127.0.0.1:0\"}\n";
    let example = example
        .replace("/etc/nowconnect/", "")
        .replacen("ingress:\n", port, 1);
    let service = origin(&[]).await;
    let hub = hub()
        .policy_file("http.cedar", PERMIT_HTTP)
        .policy_file("shop.cedar", PERMIT_SHOP)
        .file("users", ANN)
        .file("assertion.key", key())
        .top(&example)
        .start()
        .await;
    let _agent = hub.plant("shop", service.address()).await;
    let request = format!(
        "GET /admin/orders HTTP/1.1\r\nhost: shop.example.com\r\n\
         authorization: {ANN_SHOWS}\r\n\r\n"
    );
    assert_eq!(ask(web(&hub), request).await.status(), 200);
    let told = assertion(&service.last());
    let at = "/admin/.well-known/nowconnect/jwks.json";
    assert!(section.contains(&format!("https://shop.example.com{at}")));
    let keys = get(web(&hub), "shop.example.com", at).await;
    let mut claims = checked(&keys.text(), &told).unwrap();
    let (iat, exp) = (
        claims["iat"].as_u64().unwrap(),
        claims["exp"].as_u64().unwrap(),
    );
    assert!((59..=61).contains(&(exp - iat)), "a minute: {claims}");
    for of_time in ["iat", "exp", "jti"] {
        claims.as_object_mut().unwrap().remove(of_time);
    }
    let expected = json!({
        "iss": "https://hub.example.com", "aud": "shop", "sub": "basic:ann", "tenant": "default",
        "host": "shop.example.com", "groups": ["ops"], "amr": ["pwd"],
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn a_service_checks_with_the_published_keys_who_asks() {
    let service = origin(&[]).await;
    let keys = "issuer: https://hub.example.com, key_files: [assertion.key]";
    let hub = plan(keys).start().await;
    let _agent = hub.plant("shop", service.address()).await;

    assert_eq!(
        shows(&hub, ANN_SHOWS, "x-viewer-assertion: mine\r\n").await,
        200
    );
    let first = assertion(&service.last());
    let keys = get(web(&hub), "admin.example.com", KEYS).await;
    assert_eq!(keys.status(), 200, "{keys:?}");
    let claims = checked(&keys.text(), &first).unwrap();
    assert_eq!(claims["iss"], "https://hub.example.com");
    assert_eq!(claims["sub"], "basic:ann");
    assert_eq!(claims["tenant"], "default");
    assert_eq!(claims["host"], "admin.example.com");
    assert_eq!(claims["groups"], json!(["ops"]));
    assert_eq!(claims["amr"], json!(["pwd"]));

    // Told again, and of no use at the hub itself.
    assert_eq!(shows(&hub, ANN_SHOWS, "").await, 200);
    assert_eq!(assertion(&service.last()), first);
    assert_eq!(shows(&hub, &format!("Bearer {first}"), "").await, 401);

    // No viewer says it of himself, at any route, and nobody is told of under no name.
    let request = format!(
        "GET / HTTP/1.1\r\nhost: open.example.com\r\nx-viewer-assertion: {first}\r\n\
         X_Viewer_Assertion: {first}\r\n\r\n"
    );
    assert_eq!(ask(web(&hub), request).await.status(), 200);
    for (name, _) in &service.last().fields {
        assert!(!name.contains("assertion"), "{name}");
    }
    // The keys are those of the route, and of no other.
    let elsewhere = get(web(&hub), "open.example.com", KEYS).await;
    assert_eq!(elsewhere.text(), KEYS, "it is the service's");

    // Another key in the place of the first.
    std::fs::write(hub.path("assertion.key"), key()).unwrap();
    assert!(hub.reload().await.ok);
    assert_eq!(shows(&hub, ANN_SHOWS, "").await, 200);
    let next = assertion(&service.last());
    let keys = get(web(&hub), "admin.example.com", KEYS).await.text();
    assert!(checked(&keys, &next).is_some());
    assert!(checked(&keys, &first).is_none(), "its key was taken out");
}

#[tokio::test]
async fn the_control_api_has_the_keys_where_there_are_no_others() {
    let service = origin(&[]).await;
    let hub = plan("claims: []")
        .top("control: {listen: \"127.0.0.1:0\", domain: tunnels.example.com}")
        .start()
        .await;
    let _agent = hub.plant("shop", service.address()).await;
    assert_eq!(shows(&hub, ANN_SHOWS, "").await, 200);
    let told = assertion(&service.last());
    let keys = get(hub.control_address(), "127.0.0.1", "/.well-known/jwks.json").await;
    assert_eq!(checked(&keys.text(), &told).unwrap()["sub"], "basic:ann");
    let at_route = get(web(&hub), "admin.example.com", KEYS).await;
    assert!(checked(&at_route.text(), &told).is_some());
}

fn plan(more: &str) -> HubPlan {
    let set = format!(
        "viewer_auth:\n  - name: staff\n    ways:\n      \
         - bearer: {{audience: viewers}}\n      - basic: {{users_file: users}}\n    \
         assertion: {{audience: shop, {more}}}\n"
    );
    hub()
        .policy_file("http.cedar", PERMIT_HTTP)
        .policy_file("viewers.cedar", PERMIT_VIEWERS)
        .file("users", ANN)
        .file("assertion.key", key())
        .top(&ingress(&[ADMIN, OPEN], &set))
}

fn key() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    key.serialize_pem()
}

/// One request to `admin`; its status.
async fn shows(hub: &TestHub, authorization: &str, more: &str) -> u16 {
    let request = format!(
        "GET / HTTP/1.1\r\nhost: admin.example.com\r\nauthorization: {authorization}\r\n{more}\r\n"
    );
    ask(web(hub), request).await.status()
}

fn assertion(seen: &Message) -> String {
    let all = seen.fields.iter();
    let mut all = all.filter(|(name, _)| name.eq_ignore_ascii_case("x-viewer-assertion"));
    let (_, told) = all.next().expect("the service was told");
    assert!(all.next().is_none(), "twice: {seen:?}");
    told.clone()
}

/// As a service does it.
fn checked(keys: &str, token: &str) -> Option<Value> {
    let keys: JwkSet = serde_json::from_str(keys).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(header.alg, Algorithm::EdDSA);
    let key = DecodingKey::from_jwk(keys.find(&header.kid?)?).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["shop"]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    Some(
        jsonwebtoken::decode(token, &key, &validation)
            .unwrap()
            .claims,
    )
}
