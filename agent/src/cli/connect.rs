//! `nowconnect-agent connect`: an agent with an identity of its own, from the command line alone.
//!
//! Each argument stands for a variable and wins over it, so that both are checked alike.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::foreground::{self, Plan};
use super::{EXIT_CONFIG, refuse, say_error};
use crate::config::{self, ConfigError, Env, TargetAddress, parse_target};
use crate::publish::Protocol;

/// The connector of a service that was given without a name.
const NAMELESS: &str = "http";

/// Which hub, who, and what for.
#[derive(Args, Debug)]
pub(super) struct ConnectArgs {
    /// The hub, such as wss://hub.example.com; ws:// for one on this machine
    #[arg(long, value_name = "URL", env = "NC_AGENT_URL")]
    gateway: String,
    /// Who this agent is; must equal the token's `agent_id`
    #[arg(long, value_name = "AGENT", env = "NC_AGENT_ID")]
    id: String,
    /// The file with the token; without it the variable NC_TOKEN holds the token
    #[arg(long, value_name = "FILE", env = "NC_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The file with the secret that the hub wants upgrades signed with; or the variable
    /// NC_HMAC_SECRET holds it
    #[arg(long, value_name = "FILE", env = "NC_HMAC_SECRET_FILE")]
    hmac_secret_file: Option<PathBuf>,
    /// What to offer: NAME=PORT or NAME=HOST:PORT; a PORT or HOST:PORT alone is the connector `http`
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

/// Variables with what the command line says on top.
#[derive(Debug)]
struct Overlay<'a> {
    below: &'a dyn Env,
    set: BTreeMap<String, String>,
}

impl Env for Overlay<'_> {
    fn var(&self, name: &str) -> Option<String> {
        self.set.get(name).cloned().or_else(|| self.below.var(name))
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        let mut names = self.below.names(prefix);
        names.extend(self.set.names(prefix));
        names.sort();
        names.dedup();
        names
    }
}

impl ConnectArgs {
    /// Connects until SIGTERM or SIGINT.
    pub(super) fn run(self, env: &dyn Env) -> ExitCode {
        let overlay = match self.overlay(env) {
            Ok(overlay) => overlay,
            Err(problem) => {
                say_error(&problem);
                return ExitCode::from(EXIT_CONFIG);
            }
        };
        let mut config = match config::load(None, &overlay) {
            Ok(config) => config,
            Err(error) => return refuse(&renamed(&error)),
        };
        let given = |name: &str| env.var(name).is_some();
        for warning in std::mem::take(&mut config.warnings) {
            say_error(&format!("warning: {warning}"));
        }
        // A person watches, no probe.
        if !given("NC_HEALTH_HOST") && !given("NC_HEALTH_PORT") {
            config.health = None;
        }
        let observability = config.observability.clone();
        foreground::run(Plan {
            publish: None,
            outbound: config.outbound.clone(),
            log_level: given("NC_LOG_LEVEL").then_some(observability.log_level),
            observability,
            agent: Some(config),
            allow_plaintext: false,
            shutdown_timeout: None,
            memory: None,
            patient: true,
        })
    }

    fn overlay<'a>(&self, below: &'a dyn Env) -> Result<Overlay<'a>, String> {
        let mut set = BTreeMap::from([
            ("NC_AGENT_URL".to_owned(), self.gateway.clone()),
            ("NC_AGENT_ID".to_owned(), self.id.clone()),
        ]);
        if let Some(file) = &self.token_file {
            let file = file.to_str().ok_or("`--token-file` is not text")?;
            set.insert("NC_TOKEN_FILE".to_owned(), file.to_owned());
        }
        if let Some(file) = &self.hmac_secret_file {
            let file = file.to_str().ok_or("`--hmac-secret-file` is not text")?;
            set.insert("NC_HMAC_SECRET_FILE".to_owned(), file.to_owned());
        }
        for service in &self.services {
            let (name, place) = service.split_once('=').unwrap_or((NAMELESS, service));
            let target = parse_target(place, Protocol::Tcp)?;
            let TargetAddress::Tcp { host, port } = target.address else {
                return Err(format!(
                    "`{service}`: a socket of this machine goes in the file, under `targets`"
                ));
            };
            let host = set.insert(format!("NC_TARGET_{name}_HOST"), host);
            set.insert(format!("NC_TARGET_{name}_PORT"), port.to_string());
            if host.is_some() {
                return Err(format!("the connector `{name}` is there twice"));
            }
        }
        Ok(Overlay { below, set })
    }
}

/// The same problems under the names that the person used.
fn renamed(error: &ConfigError) -> ConfigError {
    let problems = error.problems().iter().cloned().map(|mut problem| {
        for (variable, argument) in [
            ("NC_AGENT_URL", "--gateway"),
            ("NC_AGENT_ID", "--id"),
            ("NC_TOKEN_FILE", "--token-file"),
            ("NC_HMAC_SECRET_FILE", "--hmac-secret-file"),
            ("environment", "command line"),
        ] {
            if problem.source == variable {
                problem.source = argument.to_owned();
            }
        }
        for (key, argument) in [
            (
                "set `tunnel.auth.token_file` (or `NC_TOKEN_FILE`, or `NC_TOKEN`), or `tunnel.auth.oidc`",
                "name its file with `--token-file`, or set the variable `NC_TOKEN`",
            ),
            (
                "set `tunnel.allow_plaintext: true`",
                "set the variable `NC_ALLOW_PLAINTEXT=true`",
            ),
        ] {
            problem.message = problem.message.replace(key, argument);
        }
        problem
    });
    ConfigError::many(problems.collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use nowconnect_protocol::ConnectorName;

    use super::*;
    use crate::config::{AgentConfig, Auth, NoEnv, SigningSecret, Target};
    use crate::secret::Secret;

    #[test]
    fn arguments_win_over_variables() {
        let env = BTreeMap::from([
            ("NC_AGENT_ID".to_owned(), "other".to_owned()),
            ("NC_TOKEN".to_owned(), "t0ken".to_owned()),
        ]);
        let config = config_of(&["3000", "ssh=box.lan:22", "my-db=5432"], None, &env).unwrap();
        assert_eq!(config.agent_id.as_str(), "site-1");
        assert_eq!(config.auth, Auth::Fixed(Secret::new("t0ken")));
        let target = |name: &str| &config.targets[&ConnectorName::parse(name).unwrap()];
        assert_eq!(target("http"), &Target::tcp("localhost", 3000));
        assert_eq!(target("ssh"), &Target::tcp("box.lan", 22));
        assert_eq!(target("my-db"), &Target::tcp("localhost", 5432));
    }

    #[test]
    fn a_secret_to_sign_with_comes_by_file() {
        let env = BTreeMap::from([("NC_TOKEN".to_owned(), "t0ken".to_owned())]);
        let mut arguments = arguments(&["3000"], None);
        arguments.hmac_secret_file = Some("/run/secret".into());
        let config = config::load(None, &arguments.overlay(&env).unwrap()).unwrap();
        let of_file = SigningSecret::File("/run/secret".into());
        assert_eq!(config.signing_secret, Some(of_file));
    }

    #[test]
    fn a_problem_names_the_argument() {
        let error = config_of(&["3000"], None, &NoEnv).unwrap_err();
        assert!(
            error.contains("no token is configured") && error.contains("`--token-file`"),
            "{error}"
        );
        let env = BTreeMap::from([("NC_TOKEN".to_owned(), "t0ken".to_owned())]);
        let error = config_of(&["3000"], Some("token"), &env).unwrap_err();
        assert!(error.contains("keep one of the two"), "{error}");
        let mut plain = arguments(&["3000"], None);
        plain.gateway = "ws://hub.example.com".to_owned();
        let error = config::load(None, &plain.overlay(&env).unwrap()).unwrap_err();
        let error = renamed(&error).to_string();
        assert!(error.contains("NC_ALLOW_PLAINTEXT=true"), "{error}");
        for (services, said) in [
            (&["a b=1"][..], "a b"),
            (&["web=x"], "is no service"),
            (&["web=1", "web=2"], "there twice"),
        ] {
            let error = config_of(services, None, &env).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    fn config_of(
        services: &[&str],
        token_file: Option<&str>,
        env: &dyn Env,
    ) -> Result<AgentConfig, String> {
        let arguments = arguments(services, token_file);
        let overlay = arguments.overlay(env)?;
        config::load(None, &overlay).map_err(|error| renamed(&error).to_string())
    }

    fn arguments(services: &[&str], token_file: Option<&str>) -> ConnectArgs {
        ConnectArgs {
            gateway: "wss://hub.example.com".to_owned(),
            id: "site-1".to_owned(),
            token_file: token_file.map(PathBuf::from),
            hmac_secret_file: None,
            services: services.iter().map(|&text| text.to_owned()).collect(),
        }
    }
}
