//! From the file's shape and the environment to [`AgentConfig`], collecting every problem.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nowconnect_protocol::{AgentId, ConnectorName, TenantName};
use serde_saphyr::Spanned;

use super::env::{Env, NAMES, TARGET_PREFIX};
use super::error::{ConfigError, ConfigProblem, nearest};
use super::file::{
    AuthSection, FileConfig, LimitsSection, ObservabilitySection, OidcSection, ProxySection,
    TargetSection, TargetTlsSection, TunnelSection, known,
};
use super::url::FetchUrl;
use super::{
    AgentConfig, Auth, HubUrl, Limits, LogFormat, LogLevel, NoProxy, Observability, OidcAuth,
    OidcEndpoint, Outbound, ProxyHeader, ProxyUrl, Target, TargetAddress, TargetTls, TunnelTuning,
    WS_PAYLOAD_MAX, WS_PAYLOAD_MIN,
};

/// HELLO names at most this many connectors.
const CONNECTORS_MAX: usize = nowconnect_protocol::limits::MAX_CONNECTORS;
/// HELLO carries at most this many labels.
const LABELS_MAX: usize = nowconnect_protocol::limits::MAX_PAIRS;
/// Most bytes of a label's key or value.
const LABEL_BYTES_MAX: usize = 256;
/// The longest bound on a quiet flow, in milliseconds.
const WEEK_MS: u64 = 604_800_000;
const HEALTH_HOST: &str = "0.0.0.0";
const HEALTH_PORT: u64 = 8_090;

/// Where a value came from, for the message about it.
#[derive(Clone, Debug)]
enum Origin {
    File(Option<(u64, u64)>),
    Variable(String),
}

/// A value and where it came from.
#[derive(Clone, Debug)]
struct Found<T> {
    value: T,
    origin: Origin,
}

pub(super) fn check(
    file: FileConfig,
    label: Option<&str>,
    env: &dyn Env,
) -> Result<AgentConfig, ConfigError> {
    let mut checker = Checker {
        label: label.unwrap_or("environment").to_owned(),
        env,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let config = checker.agent_config(file);
    match config {
        Some(config) if checker.problems.is_empty() => Ok(config),
        _ => Err(ConfigError::many(checker.problems)),
    }
}

struct Checker<'a> {
    label: String,
    env: &'a dyn Env,
    problems: Vec<ConfigProblem>,
    warnings: Vec<String>,
}

impl Checker<'_> {
    fn agent_config(&mut self, file: FileConfig) -> Option<AgentConfig> {
        self.warn_unknown_variables();
        let tunnel = file.tunnel.unwrap_or_default();
        let limits = file.limits.unwrap_or_default();
        let observability = file.observability.unwrap_or_default();
        let proxy = file.proxy.unwrap_or_default();

        let hub = self.hub_url(&tunnel);
        let agent_id = self.required(
            "tunnel.agent_id",
            "NC_AGENT_ID",
            tunnel.agent_id.as_ref(),
            |text| AgentId::parse(text).map_err(|error| error.to_string()),
        );
        let tenant = self.optional("tunnel.tenant", None, tunnel.tenant.as_ref(), |text| {
            TenantName::parse(text).map_err(|error| error.to_string())
        });
        let mut targets = self.targets(file.targets.unwrap_or_default());
        let exported_connectors = self.exported_connectors(&tunnel);
        self.targets_from_env(&mut targets, &exported_connectors);
        let targets = self.checked_targets(targets);
        self.check_exported(&exported_connectors, &targets);
        let auth = self.auth(tunnel.auth.as_ref());
        let outbound = self.outbound(&tunnel, &proxy, hub.as_ref());
        let tuning = self.tuning(&tunnel);
        let labels = self.labels(&tunnel);
        let standby = self.optional(
            "tunnel.role",
            None,
            tunnel.role.as_ref(),
            |text| match text {
                "primary" => Ok(false),
                "standby" => Ok(true),
                _ => Err(format!("`{text}` must be `primary` or `standby`")),
            },
        );
        let limits = self.limits(&limits);
        let health = self.health(&observability);
        let observability = self.observability(&observability);
        Some(AgentConfig {
            hub: hub?,
            agent_id: agent_id?,
            tenant,
            exported_connectors: exported_connectors
                .into_iter()
                .map(|found| found.value)
                .collect(),
            targets,
            auth: auth?,
            labels,
            standby: standby.unwrap_or(false),
            tunnel: tuning,
            limits,
            outbound,
            health,
            observability,
            warnings: std::mem::take(&mut self.warnings),
        })
    }

    fn hub_url(&mut self, tunnel: &TunnelSection) -> Option<HubUrl> {
        let allow_plaintext = self
            .flag("NC_ALLOW_PLAINTEXT")
            .or(tunnel.allow_plaintext)
            .unwrap_or(false);
        self.required("tunnel.url", "NC_AGENT_URL", tunnel.url.as_ref(), |text| {
            HubUrl::parse(text, allow_plaintext).map_err(|error| error.to_string())
        })
    }

    fn exported_connectors(&mut self, tunnel: &TunnelSection) -> Vec<Found<ConnectorName>> {
        let given: Vec<Found<String>> = match self.env.var("NC_CONNECTORS") {
            Some(list) => list
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(|name| Found {
                    value: name.to_owned(),
                    origin: Origin::Variable("NC_CONNECTORS".to_owned()),
                })
                .collect(),
            None => tunnel
                .exported_connectors
                .iter()
                .flatten()
                .map(found)
                .collect(),
        };
        let mut names: Vec<Found<ConnectorName>> = Vec::new();
        for found in given {
            match ConnectorName::parse(&found.value) {
                Ok(name) if names.iter().any(|known| known.value == name) => self.problem(
                    &found.origin,
                    format!("`tunnel.exported_connectors` names `{name}` twice"),
                ),
                Ok(value) => names.push(Found {
                    value,
                    origin: found.origin,
                }),
                Err(error) => self.problem(
                    &found.origin,
                    format!("`tunnel.exported_connectors`: {error}"),
                ),
            }
        }
        names
    }

    fn check_exported(
        &mut self,
        exported: &[Found<ConnectorName>],
        targets: &BTreeMap<ConnectorName, Target>,
    ) {
        let count = if exported.is_empty() {
            targets.len()
        } else {
            exported.len()
        };
        if count > CONNECTORS_MAX {
            self.problem(
                &Origin::File(None),
                format!("{count} connectors are offered; one agent may offer {CONNECTORS_MAX}"),
            );
        }
        if count == 0 {
            self.problem(
                &Origin::File(None),
                "no connector is configured; add one under `targets`, such as `ssh: {host: 127.0.0.1, port: 22}`"
                    .to_owned(),
            );
        }
        for found in exported {
            if !targets.contains_key(&found.value) {
                let near = nearest(
                    found.value.as_str(),
                    targets.keys().map(ConnectorName::as_str),
                );
                let hint =
                    near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                self.problem(
                    &found.origin,
                    format!(
                        "connector `{}` is exported but has no entry under `targets`{hint}",
                        found.value
                    ),
                );
            }
        }
    }

    fn targets(
        &mut self,
        sections: BTreeMap<String, Spanned<TargetSection>>,
    ) -> BTreeMap<ConnectorName, (Origin, TargetSection)> {
        let mut targets = BTreeMap::new();
        for (name, section) in sections {
            let origin = Origin::File(known(section.referenced));
            match ConnectorName::parse(&name) {
                Ok(name) => {
                    targets.insert(name, (origin, section.value));
                }
                Err(error) => self.problem(&origin, format!("`targets.{name}`: {error}")),
            }
        }
        targets
    }

    /// `NC_TARGET_<name>_HOST` and `_PORT` change a known target or add a new one. A variable's
    /// name cannot hold `-` or `.`, so those of a known connector match `_` too.
    fn targets_from_env(
        &mut self,
        targets: &mut BTreeMap<ConnectorName, (Origin, TargetSection)>,
        exported: &[Found<ConnectorName>],
    ) {
        for variable in self.env.names(TARGET_PREFIX) {
            let origin = Origin::Variable(variable.clone());
            let rest = &variable[TARGET_PREFIX.len()..];
            let Some((name, field)) = rest.rsplit_once('_') else {
                continue;
            };
            let value = self.env.var(&variable).unwrap_or_default();
            let known: Vec<ConnectorName> = targets
                .keys()
                .chain(exported.iter().map(|found| &found.value))
                .filter(|known| known.as_str() == name)
                .cloned()
                .collect();
            let mut known = if known.is_empty() {
                targets
                    .keys()
                    .chain(exported.iter().map(|found| &found.value))
                    .filter(|known| as_variable(known.as_str()) == as_variable(name))
                    .cloned()
                    .collect()
            } else {
                known
            };
            known.sort();
            known.dedup();
            if known.len() > 1 {
                self.problem(
                    &origin,
                    format!(
                        "matches the connectors `{}` and `{}`; set that target in the file",
                        known[0], known[1]
                    ),
                );
                continue;
            }
            let connector = match known.pop().map_or_else(|| ConnectorName::parse(name), Ok) {
                Ok(connector) => connector,
                Err(error) => {
                    self.problem(&origin, error.to_string());
                    continue;
                }
            };
            let entry = targets
                .entry(connector)
                .or_insert_with(|| (origin.clone(), TargetSection::default()));
            match field {
                "HOST" => {
                    entry.1.host = Some(unplaced(value));
                    entry.1.unix = None;
                }
                "PORT" => match value.trim().parse::<u64>() {
                    Ok(port) => {
                        entry.1.port = Some(unplaced(port));
                        entry.1.unix = None;
                    }
                    Err(_) => self.problem(
                        &origin,
                        format!("`{value}` must be a port number from 1 to 65535"),
                    ),
                },
                _ => self.problem(
                    &origin,
                    format!("unknown field `{field}` of a target; known are `HOST` and `PORT`"),
                ),
            }
        }
    }

    fn checked_targets(
        &mut self,
        sections: BTreeMap<ConnectorName, (Origin, TargetSection)>,
    ) -> BTreeMap<ConnectorName, Target> {
        let mut targets = BTreeMap::new();
        for (name, (origin, section)) in sections {
            if let Some(target) = self.target(&name, &origin, section) {
                targets.insert(name, target);
            }
        }
        targets
    }

    fn target(
        &mut self,
        name: &ConnectorName,
        origin: &Origin,
        section: TargetSection,
    ) -> Option<Target> {
        let key = format!("targets.{name}");
        let address = match (section.unix, section.host, section.port) {
            (Some(path), None, None) => Some(TargetAddress::Unix(PathBuf::from(path.value))),
            (Some(_), _, _) => {
                self.problem(
                    origin,
                    format!("`{key}` has `unix` beside `host` or `port`; keep one of the two"),
                );
                None
            }
            (None, Some(host), Some(port)) => self.tcp_address(&key, &host, &port),
            (None, Some(_), None) => {
                self.problem(origin, format!("`{key}` has a `host` but no `port`"));
                None
            }
            (None, None, _) => {
                self.problem(
                    origin,
                    format!("`{key}` needs `host` and `port`, or `unix: /path/of/socket`"),
                );
                None
            }
        };
        let tls = section.tls.map(|tls| self.target_tls(&key, tls));
        if let (Some(tls), Some(TargetAddress::Unix(_))) = (&tls, &address)
            && tls.server_name.is_none()
        {
            self.problem(
                origin,
                format!("`{key}.tls.server_name` is needed: a Unix socket has no host name"),
            );
        }
        let header_key = format!("{key}.proxy_protocol");
        let proxy_header = self.optional(
            &header_key,
            None,
            section.proxy_protocol.as_ref(),
            |text| match text {
                "off" => Ok(ProxyHeader::Off),
                "v1" => Ok(ProxyHeader::V1),
                "v2" => Ok(ProxyHeader::V2),
                _ => Err(format!("`{text}` must be `off`, `v1` or `v2`")),
            },
        );
        let timeout_key = format!("{key}.connect_timeout_ms");
        let connect_timeout = section
            .connect_timeout_ms
            .map(|value| Duration::from_millis(self.bounded(&timeout_key, &value, 1, 120_000)));
        Some(Target {
            address: address?,
            tls,
            proxy_header: proxy_header.unwrap_or_default(),
            connect_timeout,
        })
    }

    fn tcp_address(
        &mut self,
        key: &str,
        host: &Spanned<String>,
        port: &Spanned<u64>,
    ) -> Option<TargetAddress> {
        let text = host.value.trim();
        let text = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        let odd = |char: char| char.is_whitespace() || "/@?#".contains(char);
        let is_name_or_address = !text.contains(':') || text.parse::<IpAddr>().is_ok();
        if text.is_empty() || text.len() > 253 || text.contains(odd) || !is_name_or_address {
            self.problem(
                &Origin::File(known(host.referenced)),
                format!("`{key}.host`: `{}` is not a host name or an IP address; the port has a key of its own", host.value),
            );
            return None;
        }
        let port = u16::try_from(self.bounded(&format!("{key}.port"), port, 1, 65_535)).ok()?;
        Some(TargetAddress::Tcp {
            host: text.to_owned(),
            port,
        })
    }

    fn target_tls(&mut self, key: &str, section: TargetTlsSection) -> TargetTls {
        let ca_bundle = section.ca_bundle.map(|path| PathBuf::from(path.value));
        let name_key = format!("{key}.tls.server_name");
        let server_name = self.optional(&name_key, None, section.server_name.as_ref(), server_name);
        let mut alpn = Vec::new();
        for protocol in section.alpn.unwrap_or_default() {
            if protocol.value.is_empty() || protocol.value.len() > 255 {
                self.problem(
                    &Origin::File(known(protocol.referenced)),
                    format!("`{key}.tls.alpn`: a protocol has 1 to 255 bytes"),
                );
            } else {
                alpn.push(protocol.value);
            }
        }
        TargetTls {
            ca_bundle,
            server_name,
            alpn,
        }
    }

    fn auth(&mut self, section: Option<&AuthSection>) -> Option<Auth> {
        if let Some(path) = self.env.var("NC_TOKEN_FILE") {
            return Some(Auth::TokenFile(PathBuf::from(path)));
        }
        let token_file = section.and_then(|section| section.token_file.as_ref());
        let oidc = section.and_then(|section| section.oidc.as_ref());
        match (token_file, oidc) {
            (Some(path), None) => Some(Auth::TokenFile(PathBuf::from(&path.value))),
            (None, Some(oidc)) => {
                let origin = Origin::File(known(oidc.referenced));
                self.oidc(&origin, &oidc.value).map(Auth::Oidc)
            }
            (Some(path), Some(_)) => {
                self.problem(
                    &Origin::File(known(path.referenced)),
                    "`tunnel.auth` has `token_file` and `oidc`; keep one of the two".to_owned(),
                );
                None
            }
            (None, None) => {
                self.problem(
                    &Origin::File(None),
                    "no token is configured; set `tunnel.auth.token_file` (or `NC_TOKEN_FILE`), or `tunnel.auth.oidc`"
                        .to_owned(),
                );
                None
            }
        }
    }

    fn oidc(&mut self, origin: &Origin, section: &OidcSection) -> Option<OidcAuth> {
        let mut url = |key: &str, value: Option<&Spanned<String>>| {
            self.optional(key, None, value, |text| {
                FetchUrl::parse(text)
                    .map(|_| text.trim_end_matches('/').to_owned())
                    .map_err(|error| error.to_string())
            })
        };
        let issuer = url("tunnel.auth.oidc.issuer", section.issuer.as_ref());
        let token_url = url("tunnel.auth.oidc.token_url", section.token_url.as_ref());
        let endpoint = match (issuer, token_url) {
            (_, Some(_)) => section
                .token_url
                .as_ref()
                .map(|url| OidcEndpoint::TokenUrl(url.value.trim().to_owned())),
            (Some(_), None) => section
                .issuer
                .as_ref()
                .map(|issuer| OidcEndpoint::Issuer(issuer.value.trim().to_owned())),
            (None, None) => {
                if section.issuer.is_none() && section.token_url.is_none() {
                    self.problem(
                        origin,
                        "`tunnel.auth.oidc` needs `issuer` or `token_url`".to_owned(),
                    );
                }
                None
            }
        };
        for (name, value) in [
            ("client_id", &section.client_id),
            ("client_secret_file", &section.client_secret_file),
        ] {
            if value.is_none() {
                self.problem(origin, format!("`tunnel.auth.oidc` needs `{name}`"));
            }
        }
        Some(OidcAuth {
            endpoint: endpoint?,
            client_id: section.client_id.as_ref()?.value.clone(),
            client_secret_file: PathBuf::from(&section.client_secret_file.as_ref()?.value),
            audience: section.audience.clone(),
            resource: section.resource.clone(),
            scope: section.scope.clone(),
        })
    }

    fn outbound(
        &mut self,
        tunnel: &TunnelSection,
        section: &ProxySection,
        hub: Option<&HubUrl>,
    ) -> Outbound {
        let trust_env = self
            .flag("NC_TRUST_ENV")
            .or(section.trust_env)
            .unwrap_or(false);
        let from_file = self.optional(
            "proxy.https_proxy",
            None,
            section.https_proxy.as_ref(),
            parse_proxy,
        );
        let mut outbound = Outbound {
            hub_proxy: from_file.clone(),
            https_proxy: from_file,
            no_proxy: section
                .no_proxy
                .as_ref()
                .map(|hosts| NoProxy::parse(&hosts.value.joined()))
                .unwrap_or_default(),
            ca_bundle: self
                .env
                .var("NC_CA_BUNDLE")
                .or_else(|| section.ca_bundle.as_ref().map(|path| path.value.clone()))
                .map(PathBuf::from),
            server_name: self.optional(
                "tunnel.server_name",
                None,
                tunnel.server_name.as_ref(),
                server_name,
            ),
        };
        if trust_env {
            let all = self.proxy_variable(&["ALL_PROXY", "all_proxy"]);
            let https = self.proxy_variable(&["HTTPS_PROXY", "https_proxy"]);
            // `HTTP_PROXY` in capitals can be set by a request's `Proxy:` header in a CGI program,
            // so only the small form is read.
            let http = self.proxy_variable(&["http_proxy"]);
            let plain_hub = hub.is_some_and(|hub| !hub.tls);
            let for_hub = if plain_hub { http } else { https.clone() };
            outbound.hub_proxy = for_hub.or_else(|| all.clone()).or(outbound.hub_proxy);
            outbound.https_proxy = https.or(all).or(outbound.https_proxy);
            if let Some(hosts) = self.first_variable(&["NO_PROXY", "no_proxy"]) {
                outbound.no_proxy = NoProxy::parse(&hosts.value);
            }
        }
        outbound
    }

    fn proxy_variable(&mut self, names: &[&str]) -> Option<ProxyUrl> {
        let found = self.first_variable(names)?;
        match parse_proxy(&found.value) {
            Ok(proxy) => Some(proxy),
            Err(message) => {
                self.problem(&found.origin, message);
                None
            }
        }
    }

    fn first_variable(&self, names: &[&str]) -> Option<Found<String>> {
        names.iter().find_map(|name| {
            self.env
                .var(name)
                .filter(|value| !value.trim().is_empty())
                .map(|value| Found {
                    value,
                    origin: Origin::Variable((*name).to_owned()),
                })
        })
    }

    fn tuning(&mut self, section: &TunnelSection) -> TunnelTuning {
        let mut tuning = TunnelTuning::default();
        let seconds = Duration::from_secs;
        let millis = Duration::from_millis;
        if let Some(value) = &section.ping_interval_sec {
            tuning.ping_interval =
                seconds(self.bounded("tunnel.ping_interval_sec", value, 1, 3_600));
        }
        if let Some(value) = &section.ping_timeout_sec {
            tuning.ping_timeout = seconds(self.bounded("tunnel.ping_timeout_sec", value, 1, 3_600));
        }
        if let Some(value) = &section.max_ws_payload {
            let (low, high) = (u64::from(WS_PAYLOAD_MIN), u64::from(WS_PAYLOAD_MAX));
            let bytes = self.bounded("tunnel.max_ws_payload", value, low, high);
            tuning.max_ws_payload = u32::try_from(bytes).unwrap_or(WS_PAYLOAD_MAX);
        }
        if let Some(value) = &section.connect_timeout_ms {
            tuning.connect_timeout =
                millis(self.bounded("tunnel.connect_timeout_ms", value, 100, 120_000));
        }
        if let Some(value) = &section.renew_before_sec {
            tuning.renew_before =
                seconds(self.bounded("tunnel.renew_before_sec", value, 1, 86_400));
        }
        if let Some(reconnect) = &section.reconnect {
            let backoff = &mut tuning.backoff;
            if let Some(value) = &reconnect.base_ms {
                backoff.base = millis(self.bounded("tunnel.reconnect.base_ms", value, 10, 60_000));
            }
            if let Some(value) = &reconnect.cap_ms {
                backoff.cap = millis(self.bounded("tunnel.reconnect.cap_ms", value, 10, 3_600_000));
                if backoff.cap < backoff.base {
                    self.problem(
                        &Origin::File(known(value.referenced)),
                        "`tunnel.reconnect.cap_ms` is below `tunnel.reconnect.base_ms`".to_owned(),
                    );
                }
            }
            if let Some(value) = &reconnect.stable_after_sec {
                backoff.stable_after =
                    seconds(self.bounded("tunnel.reconnect.stable_after_sec", value, 1, 86_400));
            }
        }
        tuning
    }

    fn labels(&mut self, section: &TunnelSection) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (name, value) in section.labels.iter().flatten() {
            let origin = Origin::File(known(value.referenced));
            if name.is_empty()
                || name.len() > LABEL_BYTES_MAX
                || value.value.len() > LABEL_BYTES_MAX
            {
                self.problem(
                    &origin,
                    format!("`tunnel.labels.{name}`: name and value have at most {LABEL_BYTES_MAX} bytes"),
                );
            }
            labels.insert(name.clone(), value.value.clone());
            if labels.len() == LABELS_MAX + 1 {
                self.problem(
                    &origin,
                    format!("`tunnel.labels` has more than {LABELS_MAX} labels"),
                );
            }
        }
        labels
    }

    fn limits(&mut self, section: &LimitsSection) -> Limits {
        let mut limits = Limits::default();
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        if let Some(value) = &section.idle_timeout_ms {
            let bound = self.bounded("limits.idle_timeout_ms", value, 100, WEEK_MS);
            limits.idle_timeout = Some(Duration::from_millis(bound));
        }
        if let Some(value) = &section.stall_timeout_ms {
            let bound = self.bounded("limits.stall_timeout_ms", value, 100, WEEK_MS);
            limits.stall_timeout = Duration::from_millis(bound);
        }
        if let Some(value) = &section.connect_timeout_ms {
            limits.connect_timeout =
                Duration::from_millis(self.bounded("limits.connect_timeout_ms", value, 1, 120_000));
        }
        if let Some(value) = &section.queue_depth_per_cid {
            limits.queue_depth_per_cid =
                small(self.bounded("limits.queue_depth_per_cid", value, 1, 10_000));
        }
        if let Some(value) = &section.max_inflight_cids {
            limits.max_inflight_cids =
                small(self.bounded("limits.max_inflight_cids", value, 1, 1_000_000));
        }
        if let Some(value) = &section.shutdown_timeout_sec {
            limits.shutdown_timeout =
                Duration::from_secs(self.bounded("limits.shutdown_timeout_sec", value, 0, 3_600));
        }
        limits
    }

    fn health(&mut self, section: &ObservabilitySection) -> Option<SocketAddr> {
        let port = match self.first_variable(&["NC_HEALTH_PORT"]) {
            Some(found) => match found.value.trim().parse::<u16>() {
                Ok(port) => u64::from(port),
                Err(_) => {
                    let message = format!("`{}` must be a port number, or 0 for none", found.value);
                    self.problem(&found.origin, message);
                    return None;
                }
            },
            None => section.health_port.as_ref().map_or(HEALTH_PORT, |value| {
                self.bounded("observability.health_port", value, 0, 65_535)
            }),
        };
        let host = self.optional(
            "observability.health_host",
            Some("NC_HEALTH_HOST"),
            section.health_host.as_ref(),
            |text| match text {
                "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
                _ => text.parse().map_err(|_| {
                    format!("`{text}` must be an IP address, such as `{HEALTH_HOST}`")
                }),
            },
        );
        let host = host.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        match u16::try_from(port) {
            Ok(0) | Err(_) => None,
            Ok(port) => Some(SocketAddr::new(host, port)),
        }
    }

    fn observability(&mut self, section: &ObservabilitySection) -> Observability {
        let log_level = self.optional(
            "observability.log_level",
            Some("NC_LOG_LEVEL"),
            section.log_level.as_ref(),
            |text| match text.to_ascii_lowercase().as_str() {
                "error" => Ok(LogLevel::Error),
                "warn" | "warning" => Ok(LogLevel::Warn),
                "info" => Ok(LogLevel::Info),
                "debug" => Ok(LogLevel::Debug),
                "trace" => Ok(LogLevel::Trace),
                _ => Err(format!(
                    "`{text}` must be `error`, `warn`, `info`, `debug` or `trace`"
                )),
            },
        );
        let log_format = self.optional(
            "observability.log_format",
            Some("NC_LOG_FORMAT"),
            section.log_format.as_ref(),
            |text| match text.to_ascii_lowercase().as_str() {
                "plain" => Ok(LogFormat::Plain),
                "json" => Ok(LogFormat::Json),
                _ => Err(format!("`{text}` must be `plain` or `json`")),
            },
        );
        let otlp_endpoint = self.optional(
            "observability.otlp_endpoint",
            Some("OTEL_EXPORTER_OTLP_ENDPOINT"),
            section.otlp_endpoint.as_ref(),
            |text| {
                if text.starts_with("http://") || text.starts_with("https://") {
                    Ok(text.trim_end_matches('/').to_owned())
                } else {
                    Err(format!("`{text}` must start with `http://` or `https://`"))
                }
            },
        );
        Observability {
            log_level: log_level.unwrap_or_default(),
            log_format: log_format.unwrap_or_default(),
            otlp_endpoint,
        }
    }

    fn warn_unknown_variables(&mut self) {
        for name in self.env.names("NC_") {
            if name.starts_with(TARGET_PREFIX) || NAMES.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let near = nearest(&name, NAMES.iter().map(|(known, _)| *known));
            self.warnings.push(match near {
                Some(near) => {
                    format!(
                        "variable `{name}` is not known and has no effect; did you mean `{near}`?"
                    )
                }
                None => format!("variable `{name}` is not known and has no effect"),
            });
        }
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        let found = self.first_variable(&[name])?;
        match found.value.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => {
                let message = format!("`{}` must be `true` or `false`", found.value);
                self.problem(&found.origin, message);
                None
            }
        }
    }

    fn required<T>(
        &mut self,
        key: &str,
        variable: &str,
        value: Option<&Spanned<String>>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if value.is_none() && self.env.var(variable).is_none() {
            self.problem(
                &Origin::File(None),
                format!("`{key}` is missing; set it, or the variable `{variable}`"),
            );
            return None;
        }
        self.optional(key, Some(variable), value, parse)
    }

    fn optional<T>(
        &mut self,
        key: &str,
        variable: Option<&str>,
        value: Option<&Spanned<String>>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let from_env = variable.and_then(|name| self.first_variable(&[name]));
        let found = from_env.or_else(|| value.map(found))?;
        match parse(found.value.trim()) {
            Ok(value) => Some(value),
            Err(message) => {
                let message = match &found.origin {
                    Origin::File(_) => format!("`{key}`: {message}"),
                    Origin::Variable(_) => message,
                };
                self.problem(&found.origin, message);
                None
            }
        }
    }

    fn bounded(&mut self, key: &str, value: &Spanned<u64>, low: u64, high: u64) -> u64 {
        if !(low..=high).contains(&value.value) {
            self.problem(
                &Origin::File(known(value.referenced)),
                format!(
                    "`{key}` is {}; it must be from {low} to {high}",
                    value.value
                ),
            );
        }
        value.value.clamp(low, high)
    }

    fn problem(&mut self, origin: &Origin, message: String) {
        let (source, position) = match origin {
            Origin::File(position) => (self.label.clone(), *position),
            Origin::Variable(name) => (name.clone(), None),
        };
        self.problems.push(ConfigProblem {
            source,
            position,
            message,
        });
    }
}

fn found(value: &Spanned<String>) -> Found<String> {
    Found {
        value: value.value.clone(),
        origin: Origin::File(known(value.referenced)),
    }
}

fn unplaced<T>(value: T) -> Spanned<T> {
    let nowhere = serde_saphyr::Location::UNKNOWN;
    Spanned::new(value, nowhere, nowhere)
}

fn as_variable(name: &str) -> String {
    name.to_ascii_uppercase().replace(['-', '.'], "_")
}

fn parse_proxy(text: &str) -> Result<ProxyUrl, String> {
    ProxyUrl::parse(text).map_err(|error| error.to_string())
}

fn server_name(text: &str) -> Result<String, String> {
    rustls_pki_types::ServerName::try_from(text.to_owned())
        .map(|_| text.to_owned())
        .map_err(|_| format!("`{text}` is not a DNS name or an IP address"))
}
