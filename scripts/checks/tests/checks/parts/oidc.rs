//! An OpenID provider: `oidc-provider` from npm, run by `scripts/parts/oidc.mjs`.

use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use serde_json::{Value, json};

use super::{Daemon, program, run_ok};
use crate::repository::root;

/// The programs and packages that it needs.
pub(crate) const PROGRAMS: [&str; 3] = [
    "node",
    "curl",
    "scripts/parts/node_modules/oidc-provider/package.json",
];

/// A provider that issues tokens for one agent, `site-1`, to one client of the same name.
pub(crate) struct Oidc {
    /// The issuer's URL.
    pub(crate) issuer: String,
    daemon: Daemon,
    // The provider ends when this closes, also if this process is killed.
    _stdin: ChildStdin,
}

impl Oidc {
    /// Starts a provider for `connectors`; its tokens live `ttl_s` seconds.
    pub(crate) fn start(folder: &Path, secret: &str, connectors: &[&str], ttl_s: u32) -> Self {
        let settings = json!({"ttl_s": ttl_s, "clients": [{
            "id": "site-1", "secret": secret, "agent_id": "site-1", "connectors": connectors,
        }]});
        let mut command = program("node");
        command
            .arg(root().join("scripts/parts/oidc.mjs"))
            .arg(settings.to_string())
            .current_dir(root().join("scripts/parts"))
            .stdin(Stdio::piped());
        let mut daemon = Daemon::start("oidc", &mut command, folder);
        let stdin = daemon.child.stdin.take().unwrap();
        let hello = daemon.wait_for("its first line", first_json_line);
        Self {
            issuer: hello["issuer"].as_str().unwrap().to_owned(),
            daemon,
            _stdin: stdin,
        }
    }

    /// Where the OpenID configuration is.
    pub(crate) fn discovery(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.issuer)
    }

    /// A new signing key; `keep` still publishes the old one.
    pub(crate) fn rotate(&self, keep: bool) -> Value {
        self.control("POST", &format!("rotate?keep={}", u8::from(keep)))
    }

    /// Whether everything answers 503 from now on.
    pub(crate) fn outage(&self, on: bool) -> Value {
        self.control("POST", &format!("outage?on={}", u8::from(on)))
    }

    /// How often `token`, `jwks` or `discovery` was asked for.
    pub(crate) fn count(&self, what: &str) -> u64 {
        self.control("GET", "counts")["counts"][what]
            .as_u64()
            .unwrap()
    }

    /// The provider's own log.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    fn control(&self, method: &str, path: &str) -> Value {
        let url = format!("{}/control/{path}", self.issuer);
        let mut command: Command = program("curl");
        let answer = run_ok(command.args([
            "-fsS",
            "--noproxy",
            "*",
            "--max-time",
            "10",
            "-X",
            method,
            &url,
        ]));
        serde_json::from_str(&answer).unwrap()
    }
}

/// The first line of a server's output that is a JSON object.
pub(super) fn first_json_line(daemon: &Daemon) -> Option<Value> {
    let log = daemon.log();
    let complete = &log[..=log.rfind('\n')?];
    complete
        .lines()
        .find_map(|line| serde_json::from_str(line).ok().filter(Value::is_object))
}
