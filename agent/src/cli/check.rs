//! `nowconnect-agent config check`: the file, the environment, and what they name on this machine.

use std::path::Path;
use std::process::ExitCode;

use super::{refuse, say, say_error};
use crate::config::{self, AgentConfig, Auth, ConfigError, ConfigProblem, Env, PublishConfig};
use crate::connectors::PreparedTarget;
use crate::signing::Signer;
use crate::tls;
use crate::token::TokenSource;

pub(super) fn check(path: Option<&Path>, env: &dyn Env, syntax_only: bool) -> ExitCode {
    let config = match config::load_start(path, env) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if !syntax_only {
        let mut problems = Problems::of(path);
        if let Some(agent) = &config.agent {
            problems.of_agent(agent);
        }
        if let Some(publish) = &config.publish {
            problems.of_services(publish);
        }
        if !problems.found.is_empty() {
            let code = refuse(&ConfigError::many(problems.found));
            say_error(
                "--syntax-only checks file and environment alone, where this machine lacks what they name",
            );
            return code;
        }
    }
    for warning in &config.warnings {
        say_error(&format!("warning: {warning}"));
    }
    let source = path.map_or("environment", |path| path.to_str().unwrap_or("file"));
    let agent = config.agent.map(|agent| {
        format!(
            "; agent `{}` offers {} connectors to {}",
            agent.agent_id,
            agent.offered_connectors().len(),
            agent.hub
        )
    });
    let publish = config.publish.map(|publish| {
        format!(
            "; `start` publishes {} services through {}",
            publish.services.len(),
            publish.point.url
        )
    });
    say(&format!(
        "{source}: ok{}{}",
        agent.unwrap_or_default(),
        publish.unwrap_or_default()
    ));
    ExitCode::SUCCESS
}

/// Every file that is named and cannot be used, read as the agent reads it.
struct Problems {
    source: String,
    found: Vec<ConfigProblem>,
}

impl Problems {
    fn of(path: Option<&Path>) -> Self {
        let source = path.map_or_else(
            || "environment".to_owned(),
            |path| path.display().to_string(),
        );
        Self {
            source,
            found: Vec::new(),
        }
    }

    fn note(&mut self, message: String) {
        self.found.push(ConfigProblem {
            source: self.source.clone(),
            position: None,
            message,
        });
    }

    fn of_agent(&mut self, config: &AgentConfig) {
        if let Err(error) = TokenSource::new(&config.auth, &config.outbound).check() {
            let key = match config.auth {
                Auth::Oidc(_) => "tunnel.auth.oidc.client_secret_file",
                Auth::TokenFile(_) | Auth::Fixed(_) | Auth::Asked(_) => "tunnel.auth.token_file",
            };
            self.note(format!("`{key}`: {error}"));
        }
        if let Some(Err(error)) = Signer::of(config).map(|signer| signer.check()) {
            self.note(format!("`tunnel.auth.hmac_secret_file`: {error}"));
        }
        // Also where nothing is dialled by TLS now: what is named should be right.
        let needs_trust = config.hub.tls
            || matches!(config.auth, Auth::Oidc(_))
            || config.outbound.ca_bundle.is_some();
        if needs_trust && let Err(error) = tls::roots(config.outbound.ca_bundle.as_deref()) {
            self.note(format!("`proxy.ca_bundle`: {error}"));
        }
        for (connector, target) in &config.targets {
            if let Err(error) = PreparedTarget::new(target, config.limits.connect_timeout) {
                self.note(format!("`targets.{connector}.tls`: {error}"));
            }
        }
    }

    fn of_services(&mut self, config: &PublishConfig) {
        if let Some(client) = &config.point.client
            && let Err(error) = crate::secret::read_file(&client.secret_file)
        {
            let path = client.secret_file.display();
            self.note(format!("`publish.client_secret_file` `{path}`: {error}"));
        }
    }
}
