//! From the file's shape and the environment to [`AgentConfig`], collecting every problem.

mod connectors;
mod outbound;
pub(super) mod publish;
mod values;

use std::path::{Path, PathBuf};

use nowconnect_protocol::{AgentId, TenantName};
use serde_saphyr::Spanned;

use super::env::{Env, NAMES, TARGET_PREFIX};
use super::error::{ConfigError, ConfigProblem, nearest};
use super::file::{FileConfig, ObservabilitySection, TunnelSection, known};
use super::{AgentConfig, HubUrl, StartConfig};

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
    folder: Option<&Path>,
    env: &dyn Env,
) -> Result<AgentConfig, ConfigError> {
    let mut checker = Checker::new(label, folder, env);
    if file.publish.is_some() {
        checker
            .warnings
            .push("`publish` is for `nowconnect-agent start`; here it has no effect".to_owned());
    }
    let config = checker.agent_config(file);
    checker.outcome(config)
}

/// The same for `start`: an agent where the file has one, and what it publishes.
pub(super) fn check_all(
    file: FileConfig,
    label: Option<&str>,
    folder: Option<&Path>,
    env: &dyn Env,
) -> Result<StartConfig, ConfigError> {
    let mut checker = Checker::new(label, folder, env);
    let config = checker.start_config(file);
    checker.outcome(config)
}

/// What the environment alone says, without an agent and without services.
pub(super) fn check_around(env: &dyn Env) -> Result<StartConfig, ConfigError> {
    let mut checker = Checker::new(None, None, env);
    let config = checker.around(FileConfig::default());
    checker.outcome(Some(config))
}

struct Checker<'a> {
    label: String,
    /// The folder of the file, where its relative paths start. Those of variables start where
    /// the process runs.
    folder: Option<PathBuf>,
    env: &'a dyn Env,
    problems: Vec<ConfigProblem>,
    warnings: Vec<String>,
}

impl<'a> Checker<'a> {
    fn new(label: Option<&str>, folder: Option<&Path>, env: &'a dyn Env) -> Self {
        Self {
            label: label.unwrap_or("environment").to_owned(),
            folder: folder.map(Path::to_owned),
            env,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn outcome<T>(self, config: Option<T>) -> Result<T, ConfigError> {
        match config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(ConfigError::many(self.problems)),
        }
    }
}

impl Checker<'_> {
    fn start_config(&mut self, file: FileConfig) -> Option<StartConfig> {
        let named = ["NC_AGENT_URL", "NC_AGENT_ID"].map(|name| self.env.var(name));
        let has_agent = file.tunnel.is_some() || file.targets.is_some() || named != [None, None];
        let publish = file.publish.as_ref().map(|section| self.publish(section));
        if publish.is_none() && !has_agent {
            self.problem(
                &Origin::File(None),
                "there is nothing to start; add `publish.services`, or `tunnel` and `targets`"
                    .to_owned(),
            );
            return None;
        }
        let has_level = self.says_log_level(file.observability.as_ref());
        let section = file.tunnel.as_ref();
        let in_file = section.and_then(|tunnel| tunnel.allow_plaintext);
        let mut config = if has_agent {
            let agent = self.agent_config(file)?;
            StartConfig {
                publish: None,
                outbound: agent.outbound.clone(),
                log_level: has_level.then_some(agent.observability.log_level),
                observability: agent.observability.clone(),
                allow_plaintext: self.flag("NC_ALLOW_PLAINTEXT").or(in_file).unwrap_or(false),
                shutdown_timeout: agent.limits.shutdown_timeout,
                warnings: agent.warnings.clone(),
                agent: Some(agent),
            }
        } else {
            self.around(file)
        };
        if let Some(publish) = publish {
            config.publish = Some(publish?);
        }
        Some(config)
    }

    fn around(&mut self, file: FileConfig) -> StartConfig {
        self.warn_unknown_variables();
        let has_level = self.says_log_level(file.observability.as_ref());
        let proxy = file.proxy.unwrap_or_default();
        let outbound = self.outbound(&TunnelSection::default(), &proxy, None);
        let observability = self.observability(&file.observability.unwrap_or_default());
        StartConfig {
            agent: None,
            publish: None,
            outbound,
            log_level: has_level.then_some(observability.log_level),
            observability,
            allow_plaintext: self.flag("NC_ALLOW_PLAINTEXT").unwrap_or(false),
            shutdown_timeout: self
                .limits(&file.limits.unwrap_or_default())
                .shutdown_timeout,
            warnings: std::mem::take(&mut self.warnings),
        }
    }

    fn says_log_level(&self, section: Option<&ObservabilitySection>) -> bool {
        section.is_some_and(|section| section.log_level.is_some())
            || self.env.var("NC_LOG_LEVEL").is_some()
    }

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
        let signing_secret = self.signing_secret(tunnel.auth.as_ref());
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
            other_hubs: Vec::new(),
            agent_id: agent_id?,
            tenant,
            exported_connectors: exported_connectors
                .into_iter()
                .map(|found| found.value)
                .collect(),
            targets,
            auth: auth?,
            signing_secret,
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

    /// A path of the file as the agent opens it.
    fn path(&self, written: &Spanned<String>) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.join(&written.value),
            None => PathBuf::from(&written.value),
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

fn server_name(text: &str) -> Result<String, String> {
    rustls_pki_types::ServerName::try_from(text.to_owned())
        .map(|_| text.to_owned())
        .map_err(|_| format!("`{text}` is not a DNS name or an IP address"))
}
