//! Public names for private services: the control API on a real hub, with real agents.

mod guard;
mod keys;
mod names;
mod ports;
mod published;
mod quotas;
mod sessions;
mod signed;
mod signers;
mod survival;
mod tunnels;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::cluster::web::{Message, Web};
use crate::cluster::{HubPlan, TestAgent, TestHub, hub};

/// The secret of the clients below.
const SECRET: &str = "4f9d2a7c1e8b5063f7a1c9e2d4b6a8f0";

/// A hub with an API that serves two tenants' clients; more lines of `control`.
fn control_hub(lines: &str) -> HubPlan {
    hub()
        .policy_file(
            "endpoints.cedar",
            include_str!("../../../policies/endpoint.cedar"),
        )
        .policy_file(
            "operators.cedar",
            include_str!("../../../policies/admin.cedar"),
        )
        .file("ops.secret", SECRET)
        .top(&control(lines))
}

/// Its section of the configuration.
fn control(lines: &str) -> String {
    let more: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "control:\n  listen: \"127.0.0.1:0\"\n  domain: tunnels.example.com\n  \
             rate_per_source: {{per_second: 1000}}\n  clients:\n    \
             - {{id: ops, secret_file: ops.secret, tenant: acme}}\n    \
             - {{id: reader, secret_file: ops.secret, tenant: acme, scopes: [names]}}\n    \
             - {{id: rival, secret_file: ops.secret, tenant: rival, scopes: [tunnels, names, sessions]}}\n    \
             - {{id: billing, secret_file: ops.secret, tenant: acme, scopes: [quotas], role: quota-admin}}\n    \
             - {{id: keeper, secret_file: ops.secret, tenant: acme, scopes: [tunnels, names, sessions, quotas]}}\n{more}"
    )
}

/// One with anonymous callers too.
fn open_hub() -> HubPlan {
    control_hub("anonymous: {enabled: true}")
}

/// Somebody who calls the API.
#[derive(Clone)]
struct Caller {
    address: SocketAddr,
    /// The name that he calls it by.
    host: String,
    token: Option<String>,
}

/// An answer of the API.
#[derive(Debug)]
struct Answer {
    status: u16,
    message: Message,
    body: Value,
}

impl Answer {
    fn text(&self, field: &str) -> &str {
        let value = &self.body[field];
        value
            .as_str()
            .unwrap_or_else(|| panic!("no text `{field}` in {self:?}"))
    }

    /// The code of a refusal.
    fn code(&self) -> &str {
        assert_eq!(
            self.message.field("content-type").as_deref(),
            Some("application/problem+json"),
            "{self:?}"
        );
        self.text("code")
    }
}

/// Whoever comes without a token.
fn anonymous(hub: &TestHub) -> Caller {
    Caller {
        address: hub.control_address(),
        host: hub.control_address().to_string(),
        token: None,
    }
}

/// A client with a management token.
async fn client(hub: &TestHub, id: &str) -> Caller {
    let asked = ask_token(hub, id, SECRET).await;
    assert_eq!(asked.status, 200, "{asked:?}");
    Caller {
        token: Some(asked.text("token").to_owned()),
        ..anonymous(hub)
    }
}

async fn ask_token(hub: &TestHub, id: &str, secret: &str) -> Answer {
    let body = json!({
        "grant_type": "client_credentials", "client_id": id, "client_secret": secret,
    });
    anonymous(hub).post("/auth/token", &body).await
}

impl Caller {
    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[], Some(body)).await
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n",
            self.host,
            body.len()
        );
        if let Some(token) = &self.token {
            request.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        for (name, value) in fields {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(&body);
        let mut web = Web::connect(self.address).await;
        web.send(request).await;
        let message = web.response().await;
        Answer {
            status: message.status(),
            body: serde_json::from_slice(&message.body).unwrap_or(Value::Null),
            message,
        }
    }

    /// A new tunnel.
    async fn create(&self, wish: Value) -> Answer {
        let created = self.post("/tunnels/create", &wish).await;
        assert_eq!(created.status, 201, "{created:?}");
        created
    }

    async fn delete(&self, tunnel: &str) -> Answer {
        self.post("/tunnels/delete", &json!({"tunnel_id": tunnel}))
            .await
    }
}

/// The agent of a tunnel with its first token.
fn agent_of(hub: &TestHub, created: &Answer, target: SocketAddr) -> TestAgent {
    let id = created.text("tunnel_id");
    hub.agent(id)
        .token(created.text("ephemeral_token"))
        .target(id, target)
        .start()
}
