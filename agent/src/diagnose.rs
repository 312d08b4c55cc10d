//! `nowconnect-agent diagnose`: walks the whole way, hop by hop, with the same code that `run`
//! uses, and says which hop fails, why, and what to try.

mod certificate;
mod hello;
mod report;
mod targets;
mod walk;

use std::path::Path;
use std::process::ExitCode;

use tokio::task::LocalSet;

use self::report::Report;
use self::walk::Walk;
use crate::agent::build_runtime;
use crate::cli::{say, say_error};
use crate::config::{self, Env};

/// Runs the command; `with_hello` says HELLO at the end of the way.
pub(crate) fn command(
    path: Option<&Path>,
    env: &dyn Env,
    json: bool,
    with_hello: bool,
) -> ExitCode {
    let runtime = match build_runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            say_error(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let report = runtime.block_on(LocalSet::new().run_until(diagnose(path, env, with_hello)));
    runtime.shutdown_background();
    say(&if json {
        report.to_json()
    } else {
        report.to_text()
    });
    if report.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn diagnose(path: Option<&Path>, env: &dyn Env, with_hello: bool) -> Report {
    let mut report = Report::default();
    let source = path.map_or_else(
        || "environment".to_owned(),
        |path| path.display().to_string(),
    );
    let config = match config::load(path, env) {
        Ok(config) => config,
        Err(error) => {
            for problem in error.problems() {
                report.failed(
                    "config",
                    problem.to_string(),
                    "`nowconnect-agent config check` shows the same; `--help` lists the variables",
                );
            }
            return report;
        }
    };
    report.ok(
        "config",
        format!(
            "{source}: agent `{}` offers {} connectors to {}",
            config.agent_id,
            config.offered_connectors().len(),
            config.hub
        ),
    );
    for warning in &config.warnings {
        report.note(warning.clone());
    }
    Walk::new(config, report).run(with_hello).await
}
