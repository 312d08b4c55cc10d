//! A hub and its agents in this process, for tests that have to look inside.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use nowconnect_agent::{Agent, AgentConfig, Auth, HubUrl, Secret, Target};
use nowconnect_protocol::{AgentId, ConnectorName, TenantName};
use serde_json::json;

use crate::config;
use crate::gateway::{Gateway, GatewayOptions, Running};
use crate::registry::AgentKey;

/// How long anything may take. Reached only where a test fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);

const ISSUER: &str = "https://idp.test";
const KEY_ID: &str = "k";

const PERMIT_ALL: &str = r#"
@id("hello")
permit (principal is NowConnect::Agent, action == NowConnect::Action::"hello", resource);
@id("announce")
permit (principal is NowConnect::Agent, action == NowConnect::Action::"announce", resource);
@id("open")
permit (principal is NowConnect::Viewer, action == NowConnect::Action::"open", resource);
"#;

/// A running hub with an issuer whose keys are in a file.
pub(crate) struct Fixture {
    pub(crate) running: Running,
    key: EncodingKey,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// A hub with a listener `echo` for the connector of that name.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let keys = json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": KEY_ID,
            "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw()),
        }]});
        std::fs::write(folder.path().join("jwks.json"), keys.to_string()).unwrap();
        std::fs::create_dir(folder.path().join("policies")).unwrap();
        std::fs::write(folder.path().join("policies/all.cedar"), PERMIT_ALL).unwrap();
        let text = format!(
            "listeners: [{{name: echo, bind: \"127.0.0.1:0\", connector: echo}}]\n\
             tunnel: {{host: 127.0.0.1, port: 0, workers: 2}}\n\
             security:\n  issuers:\n    - {{issuer: \"{ISSUER}\", jwks_file: jwks.json, \
             algorithms: [EdDSA]}}\n\
             policy: {{dir: policies}}\nobservability: {{metrics_port: null}}\n\
             admin: {{socket: \"\"}}\n"
        );
        let file = folder.path().join("cloud.yaml");
        let nothing = BTreeMap::new();
        let config =
            config::parse(&text, Some(&file), &nothing).unwrap_or_else(|error| panic!("{error}"));
        let running = Gateway::bind(config, GatewayOptions::default())
            .await
            .unwrap();
        Self {
            running,
            key: EncodingKey::from_ed_der(&pair.serialize_der()),
            _folder: folder,
        }
    }

    /// An agent that offers the connector `echo`, which leads nowhere.
    pub(crate) fn agent(&self, id: &str) -> nowconnect_agent::Running {
        self.agent_to(id, 9)
    }

    /// An agent whose connector `echo` leads to this port.
    pub(crate) fn agent_to(&self, id: &str, port: u16) -> nowconnect_agent::Running {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let claims = json!({"iss": ISSUER, "aud": "nowconnect", "sub": id, "agent_id": id,
                            "iat": now, "exp": now + 300});
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(KEY_ID.to_owned());
        let token = encode(&header, &claims, &self.key).unwrap();
        let url = format!("ws://{}/tunnel", self.running.tunnel_address());
        let config = AgentConfig::new(
            HubUrl::parse(&url, true).unwrap(),
            AgentId::parse(id).unwrap(),
            Auth::Fixed(Secret::new(token)),
        )
        .with_target(
            ConnectorName::parse("echo").unwrap(),
            Target::tcp("127.0.0.1", port),
        );
        Agent::start(config).unwrap()
    }
}

/// An agent of the default tenant.
pub(crate) fn agent_key(id: &str) -> AgentKey {
    AgentKey {
        tenant: TenantName::default(),
        agent: AgentId::parse(id).unwrap(),
    }
}

/// Asks again until it holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it did not come true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
