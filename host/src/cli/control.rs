//! Commands to a running hub over its admin socket, and `version`.

use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Exit;
use super::status::rechecking;
use crate::admin::view::{FlowQuery, ReloadReport};
use crate::admin::{AdminClient, ClientError};

/// Where the hub's admin socket is.
#[derive(Clone, Debug, Args)]
pub struct Socket {
    /// The admin socket; without it the usual places
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Socket {
    pub(super) fn client(&self) -> AdminClient {
        AdminClient::find(self.socket.as_deref())
    }
}

/// `nowconnect reload`.
#[derive(Clone, Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    socket: Socket,
}

impl Reload {
    /// Asks for a reload and prints the report; fails if anything was refused.
    pub fn run(self) -> Exit {
        let client = self.socket.client();
        call(
            async move { client.reload().await },
            |report: ReloadReport, out| {
                for line in &report.changed {
                    writeln!(out, "changed: {line}")?;
                }
                for key in &report.needs_restart {
                    writeln!(out, "needs a restart: {key}")?;
                }
                for error in &report.errors {
                    writeln!(out, "refused: {error}")?;
                }
                if report.ok {
                    writeln!(
                        out,
                        "generation {} is in force; {} running flows were ended",
                        report.generation, report.flows_closed
                    )?;
                    if let Some(recheck) = report.recheck.filter(|recheck| recheck.running) {
                        writeln!(out, "{}", rechecking(&recheck))?;
                    }
                    Ok(Exit::Success)
                } else {
                    let number = report.generation;
                    if report.recheck.is_some() {
                        let rest =
                            "the rest is in force, what was refused keeps its last good form";
                        writeln!(out, "{rest}; generation {number}")?;
                    } else {
                        writeln!(out, "nothing changed; generation {number} stays in force")?;
                    }
                    Ok(Exit::Failure)
                }
            },
        )
    }
}

/// `nowconnect flows`.
#[derive(Clone, Debug, Subcommand)]
pub enum Flows {
    /// List running flows, newest first
    List {
        /// Only those of this agent
        #[arg(long)]
        agent: Option<String>,
        /// Only those of this connector
        #[arg(long)]
        connector: Option<String>,
        /// Only those of this client: IP or IP:PORT
        #[arg(long)]
        client: Option<String>,
        /// At most this many
        #[arg(long)]
        limit: Option<usize>,
        /// Where the hub is
        #[command(flatten)]
        socket: Socket,
    },
    /// End one flow; its client sees a reset
    Close {
        /// The flow as `flows list` prints it
        flow: String,
        /// Where the hub is
        #[command(flatten)]
        socket: Socket,
    },
}

impl Flows {
    /// Runs it.
    pub fn run(self) -> Exit {
        match self {
            Self::List {
                agent,
                connector,
                client,
                limit,
                socket,
            } => {
                let admin = socket.client();
                let query = FlowQuery {
                    agent,
                    connector,
                    client,
                    limit,
                };
                call(async move { admin.flows(&query).await }, |page, out| {
                    writeln!(
                        out,
                        "{:<32} {:<20} {:<20} {:<22} {:>8}  DECISION",
                        "FLOW", "CONNECTOR", "AGENT", "CLIENT", "SECONDS"
                    )?;
                    for flow in &page.flows {
                        let client = flow
                            .client
                            .map_or(String::new(), |client| client.to_string());
                        writeln!(
                            out,
                            "{:<32} {:<20} {:<20} {:<22} {:>8}  {}",
                            flow.flow,
                            flow.connector,
                            flow.agent,
                            client,
                            flow.age_seconds,
                            flow.decision
                        )?;
                    }
                    let listed = u64::try_from(page.flows.len()).unwrap_or(u64::MAX);
                    if page.selected > listed {
                        writeln!(out, "… and {} more", page.selected - listed)?;
                    }
                    Ok(Exit::Success)
                })
            }
            Self::Close { flow, socket } => {
                let admin = socket.client();
                call(async move { admin.close_flow(&flow).await }, |_, _| {
                    Ok(Exit::Success)
                })
            }
        }
    }
}

/// `nowconnect version`.
pub fn version() -> Exit {
    let text = format!(
        "nowconnect {}\nwire {}\nplugin contract {}\n",
        env!("CARGO_PKG_VERSION"),
        nowconnect_protocol::frame::SUBPROTOCOL,
        nowconnect_plugins::CONTRACT_VERSIONS
    );
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Exit::Success,
        Err(_) => Exit::Failure,
    }
}

/// Calls the hub and shows the answer. Trouble with writing fails: nobody is reading.
pub(super) fn call<T>(
    answer: impl Future<Output = Result<T, ClientError>>,
    show: impl FnOnce(T, &mut dyn Write) -> io::Result<Exit>,
) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answer = match runtime {
        Ok(runtime) => runtime.block_on(answer).map_err(|error| error.to_string()),
        Err(error) => Err(format!("no runtime: {error}")),
    };
    match answer {
        Ok(answer) => show(answer, &mut io::stdout().lock()).unwrap_or(Exit::Failure),
        Err(problem) => {
            // Where stderr is closed the exit code still tells.
            let _ = writeln!(io::stderr().lock(), "nowconnect: {problem}");
            Exit::Failure
        }
    }
}
