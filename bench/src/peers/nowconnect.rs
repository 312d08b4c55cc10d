//! This product as a peer: hub and agent with TLS, a real token, policies and plugins.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::credentials::{ServerFiles, TokenIssuer};
use super::{RunningPeer, Yard, free_port};
use crate::failure::{Context, Failure};
use crate::process::Meter;

/// Connections a hub may hold here: the 9,000 idle ones and room. The default is 2,000.
const MAX_CONNECTIONS: u32 = 12_000;

const AGENT_ID: &str = "bench-agent";

/// The connector that leads to an HTTP origin.
const WEB: &str = "web";

/// The connector that leads to the backend.
pub(crate) const CONNECTOR: &str = "bench";

/// What a hub has in the path of a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HubShape {
    /// Policies beside the shipped ones.
    pub(crate) more_policies: usize,
    pub(crate) plugins: Plugins,
    /// A second listener to a second connector to the same target.
    pub(crate) second: bool,
    /// An ingress to an HTTP origin at this port of loopback.
    pub(crate) origin: Option<u16>,
    pub(crate) decision_log: DecisionLog,
}

/// The ports of an ingress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IngressPorts {
    /// In the clear.
    pub(crate) plain: u16,
    pub(crate) tls: u16,
}

/// Where a hub writes its decisions to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecisionLog {
    Off,
    File,
    Stdout,
}

/// The plugins of a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plugins {
    /// All built-in plugins, each bound to its own hooks.
    Shipped,
    /// So many built-in plugins bound to OPEN.
    AtOpen(usize),
    /// `header-inject` so many times at `http_request`.
    AtHttpRequest(usize),
    /// An enricher whose signals have this number in their name.
    Stamp(u64),
}

impl HubShape {
    /// As installed: the shipped policies and the built-in plugins.
    pub(crate) const fn shipped() -> Self {
        Self {
            more_policies: 0,
            plugins: Plugins::Shipped,
            second: false,
            origin: None,
            decision_log: DecisionLog::Off,
        }
    }
}

/// Starts hub and agent; their files are in the yard.
pub(super) fn start(yard: &Yard<'_>, shape: &HubShape) -> Result<RunningPeer, Failure> {
    start_shaped(yard, shape).map(|running| running.peer)
}

/// Starts the two halves of the data path alone.
pub(super) fn start_bare(yard: &Yard<'_>) -> Result<RunningPeer, Failure> {
    let (tunnel, public) = (free_port()?, free_port()?);
    let link = yard.link(tunnel)?;
    let files = ServerFiles::create(&yard.dir)?;
    let own = std::env::current_exe()?.display().to_string();
    let text = |path: &Path| path.display().to_string();
    let (tunnel, dialled) = (tunnel.to_string(), link.port.to_string());
    let hub = [
        "bare",
        "hub",
        "--public",
        &public.to_string(),
        "--tunnel",
        &tunnel,
        "--certificate",
        &text(&files.certificate),
        "--key",
        &text(&files.key),
    ];
    let hub = yard.spawn_file("hub", Path::new(&own), &hub)?;
    let agent = [
        "bare",
        "agent",
        "--tunnel",
        &dialled,
        "--ca",
        &text(&files.ca),
        "--target",
        &yard.site.backend.to_string(),
    ];
    let agent = yard.spawn_file("agent", Path::new(&own), &agent)?;
    Ok(RunningPeer::new(public, vec![hub, agent], Some(link)))
}

/// A running hub and agent, with what a test may want to change.
#[derive(Debug)]
pub(crate) struct RunningHub {
    pub(crate) peer: RunningPeer,
    pub(crate) config: CloudFile,
    pub(crate) policy_dir: PathBuf,
    /// The listener of the second connector, or 0.
    pub(crate) second_port: u16,
    pub(crate) ingress: Option<IngressPorts>,
    pub(crate) admin_socket: PathBuf,
    pub(crate) metrics_port: u16,
    /// The decision log, where it is a file.
    pub(crate) decisions: PathBuf,
    /// The hub's process, without the agent's.
    pub(crate) hub: Meter,
}

/// A hub's configuration, of which policies and plugins can be changed in one step.
#[derive(Debug)]
pub(crate) struct CloudFile {
    path: PathBuf,
    before: String,
    after: String,
}

impl CloudFile {
    /// Puts a file with these policies and plugins in the place of the one before.
    pub(crate) fn put(
        &self,
        root: &Path,
        policies: &Path,
        plugins: Plugins,
    ) -> Result<(), Failure> {
        let text = format!(
            "{}policy:\n  dir: {}\n{}{}",
            self.before,
            policies.display(),
            plugins_section(root, plugins)?,
            self.after
        );
        let next = self.path.with_extension("yaml.next");
        fs::write(&next, text).context(|| format!("write {}", next.display()))?;
        fs::rename(&next, &self.path).context(|| format!("rename to {}", self.path.display()))
    }
}

/// Starts hub and agent and waits for nothing.
pub(crate) fn start_shaped(yard: &Yard<'_>, shape: &HubShape) -> Result<RunningHub, Failure> {
    let (tunnel_port, public) = (free_port()?, free_port()?);
    let second_port = if shape.second { free_port()? } else { 0 };
    let link = yard.link(tunnel_port)?;
    let files = ServerFiles::create(&yard.dir)?;
    let issuer = TokenIssuer::start()?;
    let policy_dir = yard.dir.join("policies");
    write_policies(&yard.site.root, &policy_dir, shape.more_policies)?;
    let admin_socket = yard.dir.join("admin.sock");
    let decisions = yard.dir.join("decisions.jsonl");
    let metrics_port = free_port()?;

    let mut listeners = listener(CONNECTOR, public);
    let mut targets = target(CONNECTOR, yard.site.backend.port());
    let mut connectors = vec![CONNECTOR];
    if shape.second {
        listeners += &listener("second", second_port);
        targets += &target("second", yard.site.backend.port());
        connectors.push("second");
    }
    let ingress = match shape.origin {
        Some(_) => Some(IngressPorts {
            plain: free_port()?,
            tls: free_port()?,
        }),
        None => None,
    };
    if let Some(port) = shape.origin {
        targets += &target(WEB, port);
        connectors.push(WEB);
    }
    let web = ingress.map_or_else(String::new, |ports| ingress_section(ports, &files));
    let before = format!(
        "listeners:\n{listeners}{web}\
         tunnel:\n  host: 127.0.0.1\n  port: {tunnel_port}\n  \
         tls: {{cert_file: {certificate}, key_file: {key}}}\n\
         limits:\n  max_conn_total: {MAX_CONNECTIONS}\n\
         security:\n  issuer: {issuer}\n  jwks_url: {jwks}\n  \
         jwks_allow_private: true\n  jwks_allow_plain_http: true\n",
        certificate = files.certificate.display(),
        key = files.key.display(),
        issuer = issuer.issuer(),
        jwks = issuer.jwks_url(),
    );
    let after = format!(
        "observability:\n  metrics_port: {metrics_port}\n  log_level: warn\n{decision_log}\
         admin:\n  socket: {socket}\n",
        decision_log = decision_log_section(shape.decision_log, &decisions),
        socket = admin_socket.display(),
    );
    let path = yard.dir.join("cloud.yaml");
    let config = CloudFile {
        path,
        before,
        after,
    };
    config.put(&yard.site.root, &policy_dir, shape.plugins)?;
    let cloud = config.path.display().to_string();
    let hub = yard.spawn("hub", "nowconnect", &["run", "--config", &cloud], &[])?;
    let hub_alone = Meter::of(vec![hub.pid()]);

    let token = yard.write("token", &issuer.token(AGENT_ID, &connectors)?)?;
    let premise = format!(
        "tunnel:\n  url: wss://localhost:{port}/tunnel\n  agent_id: {AGENT_ID}\n  \
         exported_connectors: [{connectors}]\n  auth: {{token_file: {token}}}\n  \
         reconnect: {{base_ms: 50, cap_ms: 500}}\n\
         targets:\n{targets}\
         limits:\n  max_inflight_cids: {MAX_CONNECTIONS}\n\
         observability:\n  log_level: warn\n  health_host: 127.0.0.1\n  health_port: {health}\n\
         proxy:\n  ca_bundle: {ca}\n",
        port = link.port,
        connectors = connectors.join(", "),
        token = token.display(),
        health = free_port()?,
        ca = files.ca.display(),
    );
    let premise = yard.write("premise.yaml", &premise)?.display().to_string();
    let agent = ["run", "--config", &premise];
    let agent = yard.spawn("agent", "nowconnect-agent", &agent, &[])?;
    Ok(RunningHub {
        peer: RunningPeer::new(public, vec![hub, agent], Some(link)),
        config,
        policy_dir,
        second_port,
        ingress,
        admin_socket,
        metrics_port,
        decisions,
        hub: hub_alone,
    })
}

fn decision_log_section(log: DecisionLog, file: &Path) -> String {
    match log {
        DecisionLog::Off => String::new(),
        DecisionLog::File => format!("  decision_log: {{file: {}}}\n", file.display()),
        DecisionLog::Stdout => "  decision_log: {file: \"-\"}\n".to_owned(),
    }
}

fn listener(connector: &str, port: u16) -> String {
    format!("  - {{name: {connector}, bind: \"127.0.0.1:{port}\", connector: {connector}}}\n")
}

fn ingress_section(ports: IngressPorts, files: &ServerFiles) -> String {
    format!(
        "ingress:\n  listeners:\n    - {{name: web, bind: \"127.0.0.1:{plain}\"}}\n    \
         - {{name: web-tls, bind: \"127.0.0.1:{tls}\", tls: {{cert_file: {certificate}, \
         key_file: {key}}}}}\n  \
         routes:\n    - {{name: web, host: localhost, connector: {WEB}, public: true, \
         idle_timeout_ms: 300000}}\n  \
         limits: {{max_connections_per_source: {MAX_CONNECTIONS}, pool_idle: 256}}\n",
        plain = ports.plain,
        tls = ports.tls,
        certificate = files.certificate.display(),
        key = files.key.display(),
    )
}

fn target(connector: &str, port: u16) -> String {
    format!("  {connector}: {{host: 127.0.0.1, port: {port}}}\n")
}

/// Copies the shipped policies and adds `more` beside them.
pub(crate) fn write_policies(root: &Path, to: &Path, more: usize) -> Result<(), Failure> {
    let from = root.join("policies");
    fs::create_dir_all(to).context(|| format!("create {}", to.display()))?;
    let entries = fs::read_dir(&from).context(|| format!("read {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, to.join(name)).context(|| format!("copy {}", path.display()))?;
        }
    }
    let numbers: Vec<usize> = (0..more).collect();
    for (file, numbers) in numbers.chunks(100).enumerate() {
        let text: String = numbers
            .iter()
            .map(|number| generated_policy(*number))
            .collect();
        let path = to.join(format!("generated-{file:02}.cedar"));
        fs::write(&path, text).context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The `number`-th of a set as an operator of many services has it: four of five speak of one
/// other connector, one of five of a group; one in a hundred is about the measured connector
/// and one in a hundred about all, and those are evaluated at each OPEN without deciding it.
pub(crate) fn generated_policy(number: usize) -> String {
    let id = format!("@id(\"generated-{number}\")\n");
    let action = "action == NowConnect::Action::\"open\"";
    let octet = number % 250 + 1;
    let outside = format!("when {{ context.net.srcIp.isInRange(ip(\"203.0.{octet}.0/24\")) }};\n");
    match number % 100 {
        0 => format!(
            "{id}forbid (principal, {action}, resource == NowConnect::Connector::\"{CONNECTOR}\")\n\
             {outside}"
        ),
        50 => format!("{id}forbid (principal, {action}, resource)\n{outside}"),
        rest if rest % 5 == 1 => format!(
            "{id}permit (principal, {action}, resource in NowConnect::Group::\"group-{number}\")\n\
             when {{ context.openFlows < 512 && context.net.srcIp.isInRange(ip(\"10.{octet}.0.0/16\")) }};\n"
        ),
        _ => format!(
            "{id}permit (principal, {action}, resource == NowConnect::Connector::\"service-{number}\")\n\
             when {{ context.net.srcIp.isInRange(ip(\"10.{octet}.0.0/16\")) }};\n"
        ),
    }
}

/// A built-in plugin, its settings, and the hooks it is bound to as installed.
struct BuiltIn {
    name: &'static str,
    hooks: &'static str,
    more: &'static str,
}

/// Settings that let all of the load pass: what is measured is the call, not a refusal.
const BUILT_IN: [BuiltIn; 4] = [
    BuiltIn {
        name: "scope-guard",
        hooks: "[hello, open]",
        more: ", grants: [config], config: {agent_names: [\"bench-*\"], connector_names: [\"*\"], \
               listeners: {\"*\": [\"*\"]}}",
    },
    BuiltIn {
        name: "rate-limit",
        hooks: "[open]",
        more: ", grants: [config, \"kv:4MiB\"], \
               config: {limits: [{per: [client_ip], flows: 1000000000, window_seconds: 60}]}",
    },
    BuiltIn {
        name: "header-inject",
        hooks: "[http_request]",
        more: ", grants: [config, \"headers.set:x-forwarded-for, x-netbore-*\"], \
               config: {forwarded_for: replace, client_ip: true}",
    },
    BuiltIn {
        name: "log-mask",
        hooks: "[mask]",
        more: ", grants: [config], config: {emails: hash, tokens: erase, ips: hash}",
    },
];

/// Says of loopback that it is loopback, under its own name.
const STAMP: BuiltIn = BuiltIn {
    name: "geo-signal",
    hooks: "[enrich]",
    more: ", grants: [config, log, \"signals:*\"]",
};

fn plugins_section(root: &Path, plugins: Plugins) -> Result<String, Failure> {
    let mut lines = String::new();
    let mut add = |name: &str, built_in: &BuiltIn, hooks: &str| {
        let file = component(root, built_in.name);
        // Writing to a string cannot fail.
        let _ = writeln!(
            lines,
            "    - {{name: {name}, file: {}, hooks: {hooks}{}}}",
            file.display(),
            built_in.more
        );
    };
    match plugins {
        Plugins::Shipped => {
            for built_in in &BUILT_IN {
                add(built_in.name, built_in, built_in.hooks);
            }
        }
        Plugins::AtOpen(count) => {
            for number in 0..count {
                // The two that know OPEN, in turn.
                let built_in = &BUILT_IN[number % 2];
                add(&format!("{}-{number}", built_in.name), built_in, "[open]");
            }
        }
        Plugins::AtHttpRequest(count) => {
            for number in 0..count {
                let built_in = &BUILT_IN[2];
                add(
                    &format!("{}-{number}", built_in.name),
                    built_in,
                    built_in.hooks,
                );
            }
        }
        Plugins::Stamp(number) => add(&format!("stamp-{number}"), &STAMP, STAMP.hooks),
    }
    if lines.is_empty() {
        return Ok(String::new());
    }
    let first = component(root, BUILT_IN[0].name);
    if !first.is_file() {
        return Err(Failure::new(format!(
            "{} is not built; run scripts/build-guests.sh",
            first.display()
        )));
    }
    Ok(format!(
        "plugins:\n  require_signature: false\n  list:\n{lines}"
    ))
}

/// Where the guests' build leaves a plugin.
pub(crate) fn component(root: &Path, name: &str) -> PathBuf {
    root.join("plugins/target/components")
        .join(format!("{name}.wasm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_policies_are_mostly_of_other_services() {
        let policies: Vec<String> = (0..1000).map(generated_policy).collect();
        let about = |what: &str| policies.iter().filter(|text| text.contains(what)).count();
        assert_eq!(about("Connector::\"bench\""), 10);
        assert_eq!(about("resource)"), 10);
        assert_eq!(about("Group::"), 200);
        assert_eq!(about("Connector::\"service-"), 780);
    }
}
