//! `nowconnect drain`: end a running hub without cutting what it carries.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::Exit;
use super::control::Socket;
use super::status::failed;
use crate::admin::view::{DrainProgress, DrainRequest, DrainState};
use crate::admin::{AdminClient, ClientError};

/// How long one look waits for the end; a change of the figures is shown as late as this.
const LOOK: Duration = Duration::from_secs(1);

/// How long a hub may take from the order until it drains.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// Ends a running hub: nobody is let in any more, agents are asked to move to another hub, and
/// running flows may finish. At the timeout, or when none is left, the hub ends.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nowconnect drain                        ask for it and return at once
  nowconnect drain --wait --timeout 300   give flows five minutes, and say how it went

`/readyz` answers 503 `draining` from the first moment, so that a load balancer sends nothing more \
here. A SIGTERM to the hub does the same with tunnel.drain_timeout_ms; a second one ends it at once, \
also while this command waits.

Exit codes: 0 asked, or with --wait: every flow finished; 1 the hub does not answer, was draining \
already, or with --wait: flows were cut.")]
pub struct Args {
    /// Seconds for which running flows may go on, 0 to cut them now; without it
    /// tunnel.drain_timeout_ms
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    timeout: Option<u64>,
    /// Follow the drain to its end and report its progress; also one that somebody else began
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    socket: Socket,
}

impl Args {
    /// Runs it.
    #[must_use]
    pub fn run(self) -> Exit {
        let problems = &mut io::stderr().lock();
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return failed(problems, &error),
        };
        let client = self.socket.client();
        let out = &mut io::stdout().lock();
        match runtime.block_on(self.drain(&client, out)) {
            Ok(exit) => exit,
            Err(problem) => failed(problems, &format_args!("nowconnect: {problem}")),
        }
    }

    async fn drain(&self, client: &AdminClient, out: &mut dyn Write) -> Result<Exit, Trouble> {
        let request = DrainRequest {
            deadline_ms: self.timeout.map(|seconds| seconds.saturating_mul(1_000)),
        };
        match client.drain(&request).await {
            Ok(_) => {}
            Err(ClientError::Refused { status: 503, .. }) if self.wait => {
                writeln!(
                    out,
                    "the hub is draining already, with a timeout of its own"
                )?;
            }
            Err(error) => return Err(error.into()),
        }
        if self.wait {
            return follow(client, out).await;
        }
        writeln!(
            out,
            "the hub drains; `nowconnect drain --wait` follows it to its end"
        )?;
        Ok(Exit::Success)
    }
}

/// Why the command cannot say how the drain went.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("nobody reads what is printed: {0}")]
    Output(#[from] io::Error),
    #[error("the hub does not answer any more, so how many flows were cut is not known: {0}")]
    Lost(ClientError),
    #[error("the hub took the order and does not drain: it was not started by `nowconnect run`")]
    NotBegun,
}

async fn follow(client: &AdminClient, out: &mut dyn Write) -> Result<Exit, Trouble> {
    let begins_by = Instant::now() + BEGINS_WITHIN;
    let mut shown = None;
    let mut wait = Duration::ZERO;
    loop {
        let progress = client.drain_progress(wait).await.map_err(Trouble::Lost)?;
        match progress.state {
            DrainState::Serving if Instant::now() >= begins_by => return Err(Trouble::NotBegun),
            DrainState::Serving => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            DrainState::Draining => {
                let figures = (progress.flows, progress.agents);
                if shown.replace(figures) != Some(figures) {
                    writeln!(out, "{}", still_there(&progress))?;
                    out.flush()?;
                }
            }
            DrainState::Ended => return Ok(ended(&progress, out)?),
        }
        wait = LOOK;
    }
}

fn still_there(progress: &DrainProgress) -> String {
    let left = progress.remaining_ms.unwrap_or(0).div_ceil(1_000);
    format!(
        "{} and {} left, at most {left} s to go",
        counted(progress.flows, "flow"),
        counted(progress.agents, "agent")
    )
}

fn ended(progress: &DrainProgress, out: &mut dyn Write) -> io::Result<Exit> {
    match progress.flows_cut {
        None | Some(0) => {
            writeln!(out, "every flow has finished; the hub ends")?;
            Ok(Exit::Success)
        }
        Some(flows) => {
            writeln!(out, "{} cut; the hub ends", counted(flows, "flow"))?;
            Ok(Exit::Failure)
        }
    }
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}
