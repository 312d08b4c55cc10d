//! `nowconnect-agent http 3000` and `tcp 22`: a public address for a service of this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::foreground::{self, Plan, state_folder};
use super::{EXIT_CONFIG, refuse, say_error};
use crate::config::{
    self, DEFAULT_CONTROL_URL, Env, PublishConfig, Service, check_name, control_url, parse_target,
};
use crate::publish::{ControlClient, ControlPoint, Protocol, Wish};

/// What is published, and by whom.
#[derive(Args, Debug)]
pub(super) struct PublishArgs {
    /// The service: a port of this machine, HOST:PORT, unix:PATH, or for HTTP https://HOST
    service: String,
    /// The wished name; without it the hub chooses one
    #[arg(long, short, value_parser = name)]
    name: Option<String>,
    /// The hub's control API
    #[arg(long, env = "NC_CONTROL_URL", value_name = "URL", default_value = DEFAULT_CONTROL_URL)]
    control: String,
    /// Ask for a hub in this region
    #[arg(long)]
    region: Option<String>,
    /// The client id, where the hub asks for one
    #[arg(
        long,
        env = "NC_CLIENT_ID",
        value_name = "ID",
        requires = "client_secret_file"
    )]
    client_id: Option<String>,
    /// The file with the client's secret
    #[arg(
        long,
        env = "NC_CLIENT_SECRET_FILE",
        value_name = "FILE",
        requires = "client_id"
    )]
    client_secret_file: Option<PathBuf>,
    /// Take a new address and keep nothing
    #[arg(long)]
    fresh: bool,
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_ascii_lowercase())
}

impl PublishArgs {
    /// Publishes until SIGTERM or SIGINT.
    pub(super) fn run(self, protocol: Protocol, env: &dyn Env) -> ExitCode {
        let publish = match self.publish(protocol) {
            Ok(publish) => publish,
            Err(problem) => {
                say_error(&problem);
                return ExitCode::from(EXIT_CONFIG);
            }
        };
        let around = match config::load_around(env) {
            Ok(around) => around,
            Err(error) => return refuse(&error),
        };
        for warning in &around.warnings {
            say_error(&format!("warning: {warning}"));
        }
        foreground::run(Plan {
            agent: None,
            publish: Some(publish),
            outbound: around.outbound,
            observability: around.observability,
            log_level: around.log_level,
            allow_plaintext: around.allow_plaintext,
            shutdown_timeout: None,
            memory: state_folder().filter(|_| !self.fresh),
            patient: false,
        })
    }

    fn publish(&self, protocol: Protocol) -> Result<PublishConfig, String> {
        let target = parse_target(&self.service, protocol)?;
        let url = control_url(&self.control).map_err(|error| format!("`--control`: {error}"))?;
        let client = match (&self.client_id, &self.client_secret_file) {
            (Some(id), Some(file)) => Some(ControlClient {
                id: id.clone(),
                secret_file: file.clone(),
            }),
            _ => None,
        };
        Ok(PublishConfig {
            point: ControlPoint { url, client },
            services: vec![Service {
                wish: Wish {
                    name: self.name.clone(),
                    protocol,
                    region: self.region.clone(),
                },
                target,
            }],
        })
    }
}
