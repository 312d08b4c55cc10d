//! What proves the tokens, and the description of the API.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{anonymous, client, control_hub, open_hub};

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn tokens_say_what_they_are_for_and_the_key_set_has_their_keys() {
    let hub = open_hub().start().await;
    let created = anonymous(&hub)
        .create(json!({"requested_name": "shop", "recreate_token_ttl_seconds": 120}))
        .await;
    let ops = client(&hub, "ops").await;
    let set = anonymous(&hub).get("/.well-known/jwks.json").await;
    let keys = set.body["keys"].as_array().unwrap();
    let management = ops.token.clone().unwrap();
    for token in [
        created.text("ephemeral_token"),
        created.text("recreate_token"),
        &management,
    ] {
        let header = part(token, 0);
        assert_eq!(header["alg"], "EdDSA");
        assert!(
            keys.iter()
                .any(|key| key["kid"] == header["kid"] && key.get("d").is_none()),
            "{keys:?}"
        );
    }
    let issuer = format!("http://{}", hub.control_address());
    let ephemeral = part(created.text("ephemeral_token"), 1);
    assert_eq!(ephemeral["iss"], issuer);
    assert_eq!(ephemeral["sub"], created.body["tunnel_id"]);
    assert_eq!(ephemeral["aud"], "nowconnect");
    assert_eq!(ephemeral["name"], "shop");
    assert_eq!(life(&ephemeral), 300);
    let recreate = part(created.text("recreate_token"), 1);
    assert_eq!(recreate["sub"], created.body["tunnel_id"]);
    assert_eq!(recreate["name"], "shop");
    assert_eq!(life(&recreate), 120);
    let management = part(&management, 1);
    assert_eq!(management["sub"], "ops");
    assert_eq!(management["scope"], "tunnels names");
    assert_eq!(management["role"], "tenant-admin");
    assert_eq!(life(&management), 86_400);
}

fn life(claims: &Value) -> u64 {
    claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap()
}

#[tokio::test]
async fn a_client_that_is_taken_out_of_the_configuration_is_nobody_at_once() {
    let mut hub = control_hub("").start().await;
    let ops = client(&hub, "ops").await;
    assert_eq!(ops.get("/tunnels/list").await.status, 200);
    hub.clear_top();
    hub.rewrite(|plan| plan.top("control: {listen: \"127.0.0.1:0\", domain: tunnels.example.com}"));
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    let refused = ops.get("/tunnels/list").await;
    assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
}

#[tokio::test]
async fn the_api_describes_itself() {
    let hub = open_hub().start().await;
    let caller = anonymous(&hub);
    let document = caller.get("/openapi.json").await;
    assert_eq!(document.status, 200);
    assert!(document.text("openapi").starts_with("3."));
    for path in [
        "/tunnels/create",
        "/tunnels/list",
        "/auth/token",
        "/v1/names",
    ] {
        assert!(document.body["paths"].get(path).is_some(), "{path}");
    }
    let page = caller.get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(page.message.text().contains("openapi.json"));
    assert!(page.message.field("content-security-policy").is_some());
}

/// A token with another header, signed as that says.
fn forged(token: &str, header: Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    let claims = token.split('.').nth(1).unwrap();
    let text = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// The public key as a shared secret, no algorithm, another algorithm, a key brought along: none
/// of it proves anything, whichever key signs here.
#[tokio::test]
async fn a_token_proves_nothing_by_another_algorithm_than_its_keys() {
    for algorithm in ["EdDSA", "RS256", "HS256"] {
        let hub = control_hub(&format!("tokens: {{algorithm: {algorithm}}}"))
            .start()
            .await;
        let ops = client(&hub, "ops").await;
        let good = ops.token.clone().unwrap();
        assert_eq!(part(&good, 0)["alg"], algorithm);
        assert_eq!(ops.get("/tunnels/list").await.status, 200);
        let kid = part(&good, 0)["kid"].clone();
        let set = ops.get("/.well-known/jwks.json").await.body;
        let public = set["keys"].get(0).cloned().unwrap_or(Value::Null);
        assert_eq!(public.is_null(), algorithm == "HS256", "no secret is shown");
        let public_bytes = ["x", "n"]
            .iter()
            .find_map(|field| public[*field].as_str())
            .map_or_else(Vec::new, |text| URL_SAFE_NO_PAD.decode(text).unwrap());
        let hmac = |secret: Vec<u8>| {
            move |text: &[u8]| {
                let key = jsonwebtoken::EncodingKey::from_secret(&secret);
                let tag = jsonwebtoken::crypto::sign(text, &key, jsonwebtoken::Algorithm::HS256);
                URL_SAFE_NO_PAD.decode(tag.unwrap()).unwrap()
            }
        };
        let header = |alg: &str| json!({"typ": "JWT", "alg": alg, "kid": kid});
        let tokens = [
            forged(&good, header("none"), |_| Vec::new()),
            forged(&good, header("HS256"), hmac(public_bytes.clone())),
            forged(
                &good,
                header("HS256"),
                hmac(public.to_string().into_bytes()),
            ),
            forged(&good, header("HS256"), hmac(Vec::new())),
            forged(&good, header("HS512"), hmac(public_bytes.clone())),
            forged(&good, header("ES256"), hmac(public_bytes)),
            forged(&good, json!({"alg": algorithm}), |_| vec![0; 64]),
        ];
        for token in tokens {
            let forger = super::Caller {
                token: Some(token.clone()),
                ..ops.clone()
            };
            let refused = forger.get("/tunnels/list").await;
            assert_eq!(
                (refused.status, refused.code()),
                (401, "unauthenticated"),
                "{algorithm}: {token}"
            );
            let created = ops.create(json!({})).await;
            let id = created.text("tunnel_id");
            let header = part(&token, 0);
            let ephemeral = forged(created.text("ephemeral_token"), header, |_| vec![1; 64]);
            hub.agent(id)
                .token(&ephemeral)
                .target(id, ([127, 0, 0, 1], 9).into())
                .start()
                .problem("401")
                .await;
        }
    }
}
