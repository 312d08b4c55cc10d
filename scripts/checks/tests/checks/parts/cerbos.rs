//! An AuthZEN decision point: Cerbos from npm. The package's own wrapper would leave its child
//! behind, so the program in it is run directly.

use std::path::Path;

use super::{Daemon, free_port, program};

/// The program that it needs.
pub(crate) const PROGRAMS: [&str; 1] =
    ["scripts/parts/node_modules/@cerbos/cerbos-linux-x64/cerbos-linux-x64"];

/// Who has the role `gateway` may do everything but reach the connector `secret`.
const POLICIES: [(&str, &str); 2] = [
    (
        "connector.yaml",
        r#"apiVersion: api.cerbos.dev/v1
resourcePolicy:
  version: default
  resource: Connector
  rules:
    - {actions: [open, announce], effect: EFFECT_ALLOW, roles: [gateway]}
    - actions: [open]
      effect: EFFECT_DENY
      roles: ["*"]
      condition: {match: {expr: R.id == "secret"}}
"#,
    ),
    (
        "node.yaml",
        r#"apiVersion: api.cerbos.dev/v1
resourcePolicy:
  version: default
  resource: Node
  rules:
    - {actions: [hello], effect: EFFECT_ALLOW, roles: [gateway]}
"#,
    ),
];

/// A decision point.
pub(crate) struct Cerbos {
    /// Its identifier and base URL.
    pub(crate) url: String,
    daemon: Daemon,
}

impl Cerbos {
    /// Starts one that watches the policies in `folder/cerbos`.
    pub(crate) fn start(folder: &Path) -> Self {
        let policies = folder.join("cerbos");
        std::fs::create_dir(&policies).unwrap();
        for (name, text) in POLICIES {
            std::fs::write(policies.join(name), text).unwrap();
        }
        let (http, grpc) = (free_port(), free_port());
        let config = folder.join("cerbos.yaml");
        let text = format!(
            "server: {{httpListenAddr: '127.0.0.1:{http}', grpcListenAddr: '127.0.0.1:{grpc}'}}\n\
             storage: {{driver: disk, disk: {{directory: '{}', watchForChanges: true}}}}\n\
             telemetry: {{disabled: true}}\n",
            policies.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = program(PROGRAMS[0]);
        command.args(["server", "--config"]).arg(&config);
        let mut daemon = Daemon::start("cerbos", &mut command, folder);
        daemon.wait_for_port(http);
        Self {
            url: format!("http://127.0.0.1:{http}"),
            daemon,
        }
    }

    /// All that it has printed.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }
}
