//! The control API against its own description: it is called as the document allows, and as it
//! does not, by a program of others.

use std::time::Duration;

use serde_json::json;

use crate::gateway::{PATIENCE, Setup, http, post};
use crate::parts::{Daemon, eventually, free_port, program, skip_without};

/// How long the calls may take on a slow machine.
const SUITE_DEADLINE: Duration = Duration::from_secs(600);

const SECRET: &str = "0b7e4c1d9a2f6358e1c4b7a0d3f6925c";

#[test]
#[ignore = "slow: some thousand calls"]
fn the_control_api_keeps_to_its_document() {
    if skip_without(&["schemathesis"]) {
        return;
    }
    let mut setup = Setup::new();
    let port = free_port();
    let secret = setup.folder().join("ops.secret");
    std::fs::write(&secret, SECRET).unwrap();
    // The policies that are shipped.
    setup.config["policy"] = json!({});
    setup.config["security"]["revocation_file"] = json!(setup.folder().join("revoked.jsonl"));
    setup.config["control"] = json!({
        "listen": format!("127.0.0.1:{port}"),
        "state_file": setup.folder().join("control.redb"),
        "anonymous": {"enabled": true},
        // What is bounded answers 403 and 429, which says nothing of the document.
        "max_endpoints_per_tenant": 1_000_000,
        "max_endpoints": 1_000_000,
        "max_names_per_tenant": 1_000_000,
        "rate_per_source": {"per_second": 1_000_000},
        "clients": [
            {"id": "ops", "secret_file": secret,
             "scopes": ["tunnels", "names", "sessions", "quotas"]},
            {"id": "billing", "secret_file": secret, "role": "quota-admin",
             "scopes": ["quotas"]},
        ],
    });
    let _hub = setup.hub();
    // The second one may set quotas, which the first may not.
    for (client, paths, tested) in [("ops", ".", 23), ("billing", "^/v1/quotas", 4)] {
        let told = called_as(&setup, port, client, paths);
        // A run that calls nothing cannot pass.
        assert!(told.contains(&format!("Tested: {tested}")), "{told}");
    }
    assert!(http(port, "/.well-known/jwks.json").is_some());
}

/// Calls what the document describes below these paths, as a client; what the program told.
fn called_as(setup: &Setup, port: u16, client: &str, paths: &str) -> String {
    let asked = json!({
        "grant_type": "client_credentials", "client_id": client, "client_secret": SECRET,
    });
    let token = eventually("a token", PATIENCE, || {
        let answer = post(port, "/auth/token", &asked)?;
        answer["token"].as_str().map(str::to_owned)
    });
    let config = setup.folder().join("schemathesis.toml");
    std::fs::write(
        &config,
        format!("[headers]\nAuthorization = \"Bearer {token}\"\n"),
    )
    .unwrap();
    let mut command = program("schemathesis");
    command
        .arg("--config-file")
        .arg(&config)
        .arg("run")
        .arg(format!("http://127.0.0.1:{port}/openapi.json"))
        .args(["--include-path-regex", paths])
        .args(["--generation-deterministic", "--max-examples", "60"])
        .arg("--no-color")
        .current_dir(setup.folder());
    let mut suite = Daemon::start("schemathesis", &mut command, setup.folder());
    let status = suite.wait_until_ended(SUITE_DEADLINE);
    let told = suite.log();
    assert!(status.success(), "{told}");
    told
}
