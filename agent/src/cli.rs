//! `nowconnect-agent`: http, tcp, start, connect, run, config check, diagnose.

mod check;
mod connect;
mod end_signals;
mod foreground;
mod printer;
mod publish;
mod run;
mod screen;
mod start;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, AgentConfig, ConfigError, Env, ProcessEnv};
use crate::connectors::ConnectorMap;
use crate::diagnose;
use crate::publish::Protocol;

/// A bad command line or config, as `sysexits.h` numbers it.
pub const EXIT_CONFIG: u8 = 64;

const AFTER_HELP: &str = "\
A public address for what runs on this machine:

  nowconnect dev                       a hub for this machine; or one of your own, see --control
  nowconnect-agent http 3000           prints the address; it is the same the next time
  nowconnect-agent http 3000 -n shop   with a name of your choice

An agent for operators, with an identity and a token of its own:

  nowconnect-agent connect --gateway wss://hub.example.com --id site-1 --token-file token ssh=22
  nowconnect-agent run --config premise.yaml

The config comes from a YAML file and from the environment; the environment wins. Without \
--config and NC_CONFIG, config/premise.yaml is read if it is there, else the environment alone is \
used:

  NC_AGENT_URL=wss://hub.example.com/tunnel NC_AGENT_ID=premise-1 \\
  NC_TOKEN_FILE=/etc/nowconnect/token \\
  NC_TARGET_ssh_HOST=127.0.0.1 NC_TARGET_ssh_PORT=22 nowconnect-agent run

Variables:
  NC_CONFIG                         path of the config file
  NC_AGENT_URL                      tunnel.url
  NC_AGENT_ID                       tunnel.agent_id
  NC_TOKEN_FILE                     tunnel.auth.token_file
  NC_TOKEN                          the token itself; a file is read by fewer
  NC_HMAC_SECRET_FILE               tunnel.auth.hmac_secret_file: what upgrades are signed with
  NC_HMAC_SECRET                    that secret itself; a file is read by fewer
  NC_CONTROL_URL                    publish.control_url, --control
  NC_CLIENT_ID                      publish.client_id, --client-id
  NC_CLIENT_SECRET_FILE             publish.client_secret_file, --client-secret-file
  NC_CONNECTORS                     tunnel.exported_connectors, comma list; empty: all targets
  NC_TARGET_<name>_HOST, _PORT      targets.<name>.host, .port; - and . of the name as _
  NC_ALLOW_PLAINTEXT                tunnel.allow_plaintext: true or false
  NC_CA_BUNDLE                      proxy.ca_bundle: CA certificates (PEM) in place of the system's
  NC_TRUST_ENV                      true: use HTTPS_PROXY, ALL_PROXY and NO_PROXY
  NC_HEALTH_HOST, NC_HEALTH_PORT    health server, 0.0.0.0:8090; port 0 for none
  NC_LOG_LEVEL, NC_LOG_FORMAT       error, warn, info, debug, trace; plain, json
  OTEL_EXPORTER_OTLP_ENDPOINT       send traces there (OTLP over HTTP)

Something does not work? Run `nowconnect-agent diagnose`: it walks the whole way and says which \
hop fails and why.

Exit codes: 0 done, 1 failed, 64 bad command line or config.";

/// Dials out to a NowConnect hub and gives its clients a way to private services.
#[derive(Debug, Parser)]
#[command(name = "nowconnect-agent", version, about, after_help = AFTER_HELP)]
struct Arguments {
    /// Path of the config file
    #[arg(long, short, global = true, env = "NC_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give an HTTP service a public address, until Ctrl-C
    ///
    /// The address is printed once it works, then each request with its status and time. The agent
    /// keeps what it needs to get the same address again in a private file below
    /// $XDG_STATE_HOME/nowconnect, or ~/.local/state/nowconnect.
    Http(publish::PublishArgs),
    /// Give a TCP service a name at a hub, until Ctrl-C
    Tcp(publish::PublishArgs),
    /// Run all that the file names, until Ctrl-C: `publish.services`, and the agent of `tunnel`
    Start,
    /// Run an agent with an identity of its own from the command line, until Ctrl-C
    ///
    /// The token comes from a file or from the variable NC_TOKEN, never from the command line, which
    /// others on the machine can read.
    Connect(connect::ConnectArgs),
    /// Run the agent until SIGTERM or SIGINT
    ///
    /// SIGTERM lets running flows finish within limits.shutdown_timeout_sec; a second one ends at
    /// once. SIGHUP, or a change of the config file, reloads it: targets and connectors change at
    /// once and running flows go on.
    Run,
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Walk config, DNS, proxy, TLS, token, upgrade, HELLO and each target, and say which hop fails
    ///
    /// HELLO is said as another instance of the same identity. A running agent keeps its tunnel
    /// where the hub has security.duplicate_agent: refuse (the default); where it says replace,
    /// use --no-hello.
    Diagnose {
        /// One JSON object in place of text
        #[arg(long)]
        json: bool,
        /// Stop after the upgrade; do not say HELLO
        #[arg(long)]
        no_hello: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check file and environment, and what they name on this machine, without dialling; exit code
    /// 64 where something is wrong
    Check {
        /// Path of the config file, in place of --config
        file: Option<PathBuf>,
        /// Look at file and environment alone, such as on a machine that has no token and no
        /// certificates
        #[arg(long)]
        syntax_only: bool,
    },
    /// Print the JSON Schema of the config file, for editors
    Schema,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is the reader's choice.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_CONFIG)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let env = ProcessEnv;
    let path = config_path(arguments.config);
    match arguments.command {
        Command::Http(arguments) => arguments.run(Protocol::Http, &env),
        Command::Tcp(arguments) => arguments.run(Protocol::Tcp, &env),
        Command::Start => start::start(path.as_deref(), &env),
        Command::Connect(arguments) => arguments.run(&env),
        Command::Run => run::run(path.as_deref(), &env),
        Command::Config(ConfigCommand::Check { file, syntax_only }) => {
            check::check(file.or(path).as_deref(), &env, syntax_only)
        }
        Command::Config(ConfigCommand::Schema) => {
            say(config::json_schema().trim_end());
            ExitCode::SUCCESS
        }
        Command::Diagnose { json, no_hello } => {
            diagnose::command(path.as_deref(), &env, json, !no_hello)
        }
    }
}

/// The file that was named, or the default one where it exists.
fn config_path(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| {
        let default = PathBuf::from(config::DEFAULT_PATH);
        default.exists().then_some(default)
    })
}

/// Loads the config and everything it names that must be readable before dialling.
fn load(path: Option<&Path>, env: &dyn Env) -> Result<AgentConfig, ConfigError> {
    let config = config::load(path, env)?;
    let label = path.map_or_else(
        || "environment".to_owned(),
        |path| path.display().to_string(),
    );
    let problem = |message: String| {
        ConfigError::one(config::ConfigProblem {
            source: label.clone(),
            position: None,
            message,
        })
    };
    ConnectorMap::build(&config).map_err(|error| problem(error.to_string()))?;
    let needs_trust = config.hub.tls || matches!(config.auth, config::Auth::Oidc(_));
    if needs_trust {
        crate::tls::roots(config.outbound.ca_bundle.as_deref())
            .map_err(|error| problem(error.to_string()))?;
    }
    Ok(config)
}

fn refuse(error: &ConfigError) -> ExitCode {
    for problem in error.problems() {
        say_error(&problem.to_string());
    }
    ExitCode::from(EXIT_CONFIG)
}

/// One line to standard output. A reader that went away ends nothing.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// One line to standard error.
pub(crate) fn say_error(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::NAMES;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_names_every_variable() {
        for (name, _) in NAMES {
            assert!(AFTER_HELP.contains(name), "{name}");
        }
    }

    /// Others on the machine read the arguments of a process: secrets come by file.
    #[test]
    fn an_agent_takes_no_secret_on_its_command_line() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str().to_ascii_lowercase();
                for word in ["token", "secret", "password", "credential"] {
                    let by_file = name.ends_with("_file");
                    assert!(by_file || !name.contains(word), "`{name}` of {command}");
                }
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Arguments::command());
    }
}
