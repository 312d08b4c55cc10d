//! `nowconnect-agent start`: everything that the file names, in the foreground.

use std::path::Path;
use std::process::ExitCode;

use super::foreground::{self, Plan, state_folder};
use super::{refuse, say_error};
use crate::config::{self, Env};

pub(super) fn start(path: Option<&Path>, env: &dyn Env) -> ExitCode {
    let config = match config::load_start(path, env) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    for warning in &config.warnings {
        say_error(&format!("warning: {warning}"));
    }
    foreground::run(Plan {
        agent: config.agent,
        publish: config.publish,
        outbound: config.outbound,
        observability: config.observability,
        log_level: config.log_level,
        allow_plaintext: config.allow_plaintext,
        shutdown_timeout: Some(config.shutdown_timeout),
        memory: state_folder(),
        // A service manager may start both on one machine.
        patient: true,
    })
}
