//! Upgrades that an agent signs with a secret of its own.

use std::net::SocketAddr;

use nowconnect_control::{SCHEME, sign};

use super::SECRET;
use crate::cluster::{Claims, HubPlan, Issuer, Redis, TestHub, eventually, http_get, hub, now_s};

const WRONG: &str = "00000000000000000000000000000000";

async fn signing_hub() -> TestHub {
    signing(hub()).await
}

async fn signing(plan: HubPlan) -> TestHub {
    plan.file("plant.secret", format!("{SECRET}\n"))
        .tunnel("hello_timeout_ms: 200")
        .security("signed_agents: [{agent: plant, secret_file: plant.secret}]")
        .start()
        .await
}

/// One upgrade with this `Authorization`; the code of its refusal, or nothing where it was let in.
async fn upgrade(address: SocketAddr, authorization: &str) -> Option<String> {
    let headers = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "nowconnect.v1"),
        ("authorization", authorization),
    ];
    let (status, body) = http_get(address, "/tunnel", &headers).await;
    if status == 101 {
        return None;
    }
    assert_eq!(status, 401, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    Some(answer["code"].as_str().unwrap().to_owned())
}

/// What an agent sends.
struct Request<'a> {
    agent: &'a str,
    secret: &'a str,
    at: u64,
    nonce: &'a str,
    token: &'a str,
}

impl Request<'_> {
    fn authorization(&self) -> String {
        let signature = sign(
            self.secret.as_bytes(),
            self.agent,
            self.at,
            self.nonce,
            self.token,
        );
        format!(
            "{SCHEME} agent={}, timestamp={}, nonce={}, signature={signature}, token={}",
            self.agent, self.at, self.nonce, self.token
        )
    }
}

#[tokio::test]
async fn a_signed_upgrade_counts_once_and_a_token_alone_does_not() {
    let hub = signing_hub().await;
    let address = hub.tunnel_address();
    let token = hub.issuer.sign(&Claims::of("plant"));
    let code = upgrade(address, &format!("Bearer {token}")).await;
    assert_eq!(code.as_deref(), Some("signature_missing"));

    let good = Request {
        agent: "plant",
        secret: SECRET,
        at: now_s(),
        nonce: "0123456789abcdef",
        token: &token,
    };
    assert_eq!(upgrade(address, &good.authorization()).await, None);
    let again = upgrade(address, &good.authorization()).await;
    assert_eq!(again.as_deref(), Some("signature_replayed"));
    let next = Request {
        nonce: "0123456789abcdeg",
        ..good
    };
    assert_eq!(upgrade(address, &next.authorization()).await, None);
}

#[tokio::test]
async fn a_signed_upgrade_counts_once_over_all_hubs_of_a_cluster() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    let issuer = Issuer::start().await;
    let on = |name: &str| {
        let plan = hub().issuer(issuer.clone());
        signing(plan.top(&redis.ha(name, "active")))
    };
    let (a, b) = (on("hub-a").await, on("hub-b").await);
    let token = issuer.sign(&Claims::of("plant"));
    let good = Request {
        agent: "plant",
        secret: SECRET,
        at: now_s(),
        nonce: "0123456789abcdef",
        token: &token,
    };
    let used = Some("signature_replayed");
    assert_eq!(
        upgrade(a.tunnel_address(), &good.authorization()).await,
        None
    );
    let again = upgrade(b.tunnel_address(), &good.authorization()).await;
    assert_eq!(again.as_deref(), used);

    // Without the registry agents get in all the same, and each hub still counts for itself.
    redis.kill();
    eventually("the hub sees that the registry is away", || async {
        !a.running().cluster().registry.healthy
    })
    .await;
    let next = Request {
        nonce: "0123456789abcdeg",
        ..good
    };
    assert_eq!(
        upgrade(a.tunnel_address(), &next.authorization()).await,
        None
    );
    let again = upgrade(a.tunnel_address(), &next.authorization()).await;
    assert_eq!(again.as_deref(), used);
}

#[tokio::test]
async fn what_is_not_signed_by_the_agent_now_is_refused() {
    let hub = signing_hub().await;
    let address = hub.tunnel_address();
    let plant = hub.issuer.sign(&Claims::of("plant"));
    let other = hub.issuer.sign(&Claims::of("other"));
    let now = now_s();
    for (request, code) in [
        // Another secret, another agent's name, another token than was signed.
        (("plant", WRONG, now, plant.as_str()), "signature_wrong"),
        (("other", SECRET, now, plant.as_str()), "signature_wrong"),
        // An agent without a secret is not told so.
        (("other", SECRET, now, other.as_str()), "signature_wrong"),
        (("other", "", now, other.as_str()), "signature_wrong"),
        (
            ("plant", SECRET, now - 120, plant.as_str()),
            "signature_stale",
        ),
        (
            ("plant", SECRET, now + 120, plant.as_str()),
            "signature_stale",
        ),
    ] {
        let (agent, secret, at, token) = request;
        let request = Request {
            agent,
            secret,
            at,
            nonce: "0123456789abcdef",
            token,
        };
        let refused = upgrade(address, &request.authorization()).await;
        assert_eq!(refused.as_deref(), Some(code), "{agent} {at}");
    }
    let replaced = Request {
        agent: "plant",
        secret: SECRET,
        at: now,
        nonce: "0123456789abcdef",
        token: &plant,
    };
    let swapped = replaced.authorization().replace(&plant, &other);
    let refused = upgrade(address, &swapped).await;
    assert_eq!(refused.as_deref(), Some("signature_wrong"));
    let malformed = upgrade(address, &format!("{SCHEME} agent=plant")).await;
    assert_eq!(malformed.as_deref(), Some("token_malformed"));
    // Whoever need not sign comes as before.
    assert_eq!(upgrade(address, &format!("Bearer {other}")).await, None);
}
