//! The end of an agent reaches responses that their viewers do not read.

use serde_json::Value;
use tokio::task::JoinHandle;

use super::endings::{ended, flood, is_reset, stuck};
use super::streams::Played;
use super::{SHOP, web, web_hub};
use crate::cluster::web::{Message, Web, ask};
use crate::cluster::{HubPlan, TestAgent, TestHub};

/// The secret of a client of the control API.
const SECRET: &str = "4f9d2a7c1e8b5063f7a1c9e2d4b6a8f0";

#[tokio::test]
async fn an_operators_kick_reaches_viewers_that_read_nothing() {
    let origin = Played::new().await;
    let hub = web_hub(&[SHOP]).admin().start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let unread = Unread::new(&hub, &origin).await;
    hub.operator().kick_agent("plant").await.unwrap();
    unread.until_ended(&hub).await;
}

#[tokio::test]
async fn a_tenants_kick_reaches_viewers_that_read_nothing() {
    let origin = Played::new().await;
    let hub = of_acme().start().await;
    let _agent = agent(&hub, &origin, 3600).await;
    let unread = Unread::new(&hub, &origin).await;
    let body = format!(
        r#"{{"grant_type":"client_credentials","client_id":"ops","client_secret":"{SECRET}"}}"#
    );
    let token = call(&hub, "/auth/token", "", &body).await;
    assert_eq!(token.status(), 200, "{token:?}");
    let token: Value = serde_json::from_str(&token.text()).unwrap();
    let proof = format!(
        "authorization: Bearer {}\r\n",
        token["token"].as_str().unwrap()
    );
    let kicked = call(&hub, "/v1/agents/site/kick", &proof, "{}").await;
    assert_eq!(kicked.status(), 204, "{kicked:?}");
    unread.until_ended(&hub).await;
}

#[tokio::test]
async fn the_end_of_an_agents_token_reaches_viewers_that_read_nothing() {
    let origin = Played::new().await;
    let hub = of_acme()
        .security("on_expiry: close\nclock_skew_ms: 0")
        .start()
        .await;
    // Long enough for all buffers to be full.
    let _agent = agent(&hub, &origin, 12).await;
    let unread = Unread::new(&hub, &origin).await;
    unread.until_ended(&hub).await;
}

/// A hub whose control API serves a client of the tenant `acme`, with a route to that tenant.
fn of_acme() -> HubPlan {
    let route = format!("{SHOP}, tenant: acme");
    web_hub(&[&route])
        .policy_file(
            "endpoints.cedar",
            include_str!("../../../../policies/endpoint.cedar"),
        )
        .policy_file(
            "operators.cedar",
            include_str!("../../../../policies/admin.cedar"),
        )
        .file("ops.secret", SECRET)
        .top(
            "control:\n  listen: \"127.0.0.1:0\"\n  domain: tunnels.example.com\n  clients:\n    \
             - {id: ops, secret_file: ops.secret, tenant: acme, scopes: [sessions]}",
        )
}

async fn agent(hub: &TestHub, origin: &Played, expires_in_s: i64) -> TestAgent {
    hub.agent("site")
        .claims(|claims| claims.with("tenant", "acme").expires_in_s(expires_in_s))
        .target("shop", origin.address())
        .ready()
        .await
}

async fn call(hub: &TestHub, path: &str, more: &str, body: &str) -> Message {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{more}\r\n{body}",
        body.len()
    );
    ask(hub.control_address(), request).await
}

/// A response without end whose viewer has read its head, and nothing since.
struct Unread {
    viewer: Web,
    flooding: JoinHandle<()>,
}

impl Unread {
    async fn new(hub: &TestHub, origin: &Played) -> Self {
        let mut viewer = Web::connect(web(hub)).await;
        let flooding = flood(&mut viewer, origin).await;
        stuck(hub).await;
        Self { viewer, flooding }
    }

    async fn until_ended(mut self, hub: &TestHub) {
        self.flooding.await.unwrap();
        ended(hub, "origin_broke").await;
        assert!(is_reset(&mut self.viewer.stream).await);
    }
}
