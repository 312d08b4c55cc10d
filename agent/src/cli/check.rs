//! `nowconnect-agent config check`: the file, the environment, and what they name on this machine.

use std::path::Path;
use std::process::ExitCode;

use super::{refuse, say, say_error};
use crate::config::{self, AgentConfig, Auth, ConfigError, ConfigProblem, Env};
use crate::connectors::PreparedTarget;
use crate::tls;
use crate::token::TokenSource;

pub(super) fn check(path: Option<&Path>, env: &dyn Env, syntax_only: bool) -> ExitCode {
    let config = match config::load(path, env) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if !syntax_only {
        let problems = unusable(&config, path);
        if !problems.is_empty() {
            let code = refuse(&ConfigError::many(problems));
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
    say(&format!(
        "{source}: ok; agent `{}` offers {} connectors to {}",
        config.agent_id,
        config.offered_connectors().len(),
        config.hub
    ));
    ExitCode::SUCCESS
}

/// Every file that is named and cannot be used, read as the agent reads it.
fn unusable(config: &AgentConfig, path: Option<&Path>) -> Vec<ConfigProblem> {
    let source = path.map_or_else(
        || "environment".to_owned(),
        |path| path.display().to_string(),
    );
    let mut problems = Vec::new();
    let mut note = |message: String| {
        problems.push(ConfigProblem {
            source: source.clone(),
            position: None,
            message,
        });
    };
    if let Err(error) = TokenSource::new(&config.auth, &config.outbound).check() {
        let key = match config.auth {
            Auth::Oidc(_) => "tunnel.auth.oidc.client_secret_file",
            Auth::TokenFile(_) | Auth::Fixed(_) | Auth::Asked(_) => "tunnel.auth.token_file",
        };
        note(format!("`{key}`: {error}"));
    }
    // Also where nothing is dialled by TLS now: what is named should be right.
    let needs_trust = config.hub.tls
        || matches!(config.auth, Auth::Oidc(_))
        || config.outbound.ca_bundle.is_some();
    if needs_trust && let Err(error) = tls::roots(config.outbound.ca_bundle.as_deref()) {
        note(format!("`proxy.ca_bundle`: {error}"));
    }
    for (connector, target) in &config.targets {
        if let Err(error) = PreparedTarget::new(target, config.limits.connect_timeout) {
            note(format!("`targets.{connector}.tls`: {error}"));
        }
    }
    problems
}
