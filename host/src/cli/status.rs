//! `nowconnect status`: the hub at a glance.

pub(super) mod table;
#[cfg(test)]
pub(super) mod tests;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Exit;
use crate::admin::view::{
    AgentStatus, ConnectorStatus, HttpStatus, HubStatus, RecheckStatus, Totals,
};
use crate::admin::{AdminClient, ClientError};
use crate::health::Readiness;
use table::{Align, Table};

/// Time between the two looks from which rates are made.
const RATE_INTERVAL: Duration = Duration::from_millis(300);

/// Shows the hub: readiness, generation, listeners, routes, published names, agents with their
/// connectors, flows, rates.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The hub's admin socket; without it the usual places are tried
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// What is shown, and the form of `--json`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Snapshot {
    pub(super) status: HubStatus,
    pub(super) agents: Vec<AgentStatus>,
}

/// Changes per second between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) flows: f64,
    pub(super) bytes_c2a: f64,
    pub(super) bytes_a2c: f64,
}

impl Args {
    /// Runs it; the exit code is 1 where no hub answers or it is not ready.
    #[must_use]
    pub fn run(self) -> Exit {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return failed(&mut io::stderr().lock(), &error),
        };
        runtime.block_on(self.run_with(&mut io::stdout().lock(), &mut io::stderr().lock()))
    }

    /// Runs it with these outputs.
    pub async fn run_with(self, out: &mut dyn Write, problems: &mut dyn Write) -> Exit {
        let client = AdminClient::find(self.socket.as_deref());
        let looked = if self.json {
            look(&client).await.map(|seen| (seen, None))
        } else {
            look_twice(&client).await
        };
        let (snapshot, rates) = match looked {
            Ok(looked) => looked,
            Err(error) => return failed(problems, &error),
        };
        let text = if self.json {
            match serde_json::to_string_pretty(&snapshot) {
                Ok(json) => json + "\n",
                Err(error) => return failed(problems, &error),
            }
        } else {
            render(&snapshot, rates)
        };
        if out.write_all(text.as_bytes()).is_err() {
            return Exit::Failure;
        }
        match snapshot.status.readiness {
            Readiness::Ready | Readiness::Degraded(_) => Exit::Success,
            Readiness::Starting | Readiness::Draining => Exit::Failure,
        }
    }
}

pub(super) fn failed(problems: &mut dyn Write, error: &dyn std::fmt::Display) -> Exit {
    // Where even stderr is gone the exit code still says it.
    let _ = writeln!(problems, "{error}");
    Exit::Failure
}

pub(super) async fn look(client: &AdminClient) -> Result<Snapshot, ClientError> {
    let status = client.status().await?;
    let mut agents = client.agents().await?.agents;
    agents.sort_by(|one, other| one.agent.cmp(&other.agent));
    Ok(Snapshot { status, agents })
}

async fn look_twice(client: &AdminClient) -> Result<(Snapshot, Option<Rates>), ClientError> {
    let before = client.status().await?;
    let then = Instant::now();
    tokio::time::sleep(RATE_INTERVAL).await;
    let snapshot = look(client).await?;
    let rates = Rates::between(&before.totals, &snapshot.status.totals, then.elapsed());
    Ok((snapshot, Some(rates)))
}

impl Rates {
    pub(super) fn between(before: &Totals, after: &Totals, time: Duration) -> Self {
        Self {
            flows: per_second(before.flows_total, after.flows_total, time),
            bytes_c2a: per_second(before.bytes_c2a, after.bytes_c2a, time),
            bytes_a2c: per_second(before.bytes_a2c, after.bytes_a2c, time),
        }
    }
}

/// The growth of a counter per second; 0 where it went back, as after a restart.
pub(super) fn per_second(before: u64, after: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return 0.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate for reading needs no more than three digits"
    )]
    let grown = after.saturating_sub(before) as f64;
    grown / seconds
}

pub(super) fn render(snapshot: &Snapshot, rates: Option<Rates>) -> String {
    let mut text = head(&snapshot.status, rates);
    text.push('\n');
    text.push_str(&listeners(&snapshot.status).render());
    text.push('\n');
    let http = &snapshot.status.http;
    if !http.is_empty() {
        text.push_str(&http_listeners(http).render());
        text.push('\n');
        text.push_str(&routes(http).render());
        text.push('\n');
    }
    if !http.published.is_empty() {
        text.push_str(&published(http).render());
        if http.published_more > 0 {
            let more = http.published_more;
            text.push_str(&format!("and {more} more, listed by the control API\n"));
        }
        text.push('\n');
    }
    text.push_str(&agents(&snapshot.agents).render());
    for agent in &snapshot.agents {
        for refused in &agent.refused {
            let line = format!(
                "refused: {} of {}: {} (nowconnect policy explain {})\n",
                refused.name, agent.agent, refused.code, refused.decision
            );
            text.push_str(&table::clean_line(&line));
        }
    }
    text
}

/// The lines above the tables.
pub(super) fn head(status: &HubStatus, rates: Option<Rates>) -> String {
    let totals = &status.totals;
    let mut lines = vec![format!(
        "hub {}  version {}  up {}  {}",
        status.hub,
        status.version,
        table::duration(status.uptime_seconds),
        readiness(&status.readiness)
    )];
    let generation = &status.generation;
    lines.push(format!(
        "generation {}  {} policies  {} plugins{}",
        generation.number,
        generation.policies,
        generation.plugins.len(),
        quarantined(status)
    ));
    if let Some(revision) = generation.policy_revision {
        let staged = generation
            .staged_revision
            .map(|staged| format!("  staged {staged}"))
            .unwrap_or_default();
        lines.push(format!("policy revision {revision}{staged}"));
    }
    if generation.recheck.running {
        lines.push(rechecking(&generation.recheck));
    }
    for error in &generation.last_errors {
        lines.push(format!("newest sources refused: {error}"));
    }
    lines.push(format!(
        "agents {}  tunnels {}  detached {}  flows {}  opened {}  denied {}",
        totals.agents,
        totals.tunnels,
        totals.sessions_detached,
        totals.flows,
        totals.flows_total,
        totals.denied_total
    ));
    let mut traffic = format!(
        "to agents {}  from agents {}",
        table::bytes(totals.bytes_c2a),
        table::bytes(totals.bytes_a2c)
    );
    if let Some(rates) = rates {
        traffic.push_str(&format!(
            "  now {} to, {} from, {:.0} flows/s",
            table::rate(rates.bytes_c2a),
            table::rate(rates.bytes_a2c),
            rates.flows
        ));
    }
    lines.push(traffic);
    let mut text = String::new();
    for line in lines {
        text.push_str(&table::clean_line(&line));
        text.push('\n');
    }
    text
}

/// How far what runs is asked about again.
pub(super) fn rechecking(recheck: &RecheckStatus) -> String {
    format!(
        "asking again about what runs: {} of {} flows, {} of {} agents",
        recheck.flows_asked, recheck.flows, recheck.agents_asked, recheck.agents
    )
}

fn readiness(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Degraded(reasons) => {
            let reasons: Vec<String> = reasons
                .iter()
                .map(|reason| match reason.detail.as_str() {
                    "" => reason.code.as_str().to_owned(),
                    detail => format!("{} {detail}", reason.code.as_str()),
                })
                .collect();
            format!("degraded: {}", reasons.join(", "))
        }
        Readiness::Ready | Readiness::Starting | Readiness::Draining => {
            readiness.as_str().to_owned()
        }
    }
}

fn quarantined(status: &HubStatus) -> String {
    let names: Vec<&str> = status
        .generation
        .plugins
        .iter()
        .filter(|plugin| plugin.quarantined)
        .map(|plugin| plugin.name.as_str())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("  in quarantine: {}", names.join(", "))
    }
}

pub(super) fn listeners(status: &HubStatus) -> Table {
    let mut table = Table::new(&[
        ("LISTENER", Align::Left),
        ("ADDRESS", Align::Left),
        ("CONNECTOR", Align::Left),
        ("AGENTS", Align::Right),
        ("FLOWS", Align::Right),
    ]);
    for listener in &status.listeners {
        table.row(vec![
            listener.name.clone(),
            listener.address.to_string(),
            listener.connector.clone(),
            listener.agents.to_string(),
            listener.flows.to_string(),
        ]);
    }
    table
}

fn http_listeners(http: &HttpStatus) -> Table {
    let mut table = Table::new(&[
        ("HTTP LISTENER", Align::Left),
        ("ADDRESS", Align::Left),
        ("TLS", Align::Left),
    ]);
    for listener in &http.listeners {
        table.row(vec![
            listener.name.clone(),
            listener.address.to_string(),
            if listener.tls { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table
}

fn routes(http: &HttpStatus) -> Table {
    let mut table = Table::new(&[
        ("ROUTE", Align::Left),
        ("HOST", Align::Left),
        ("PATH", Align::Left),
        ("CONNECTOR", Align::Left),
        ("AGENTS", Align::Right),
        ("DOWN", Align::Right),
        ("REQUESTS", Align::Right),
    ]);
    for route in &http.routes {
        table.row(vec![
            route.endpoint.clone(),
            route.host.clone(),
            route.path.clone(),
            route.connector.clone(),
            route.agents.to_string(),
            route.down.to_string(),
            route.requests.to_string(),
        ]);
    }
    table
}

/// The names that agents publish.
fn published(http: &HttpStatus) -> Table {
    let mut table = Table::new(&[
        ("PUBLISHED", Align::Left),
        ("TENANT", Align::Left),
        ("SPEAKS", Align::Left),
        ("AGENT", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Right),
        ("REQUESTS", Align::Right),
    ]);
    for name in &http.published {
        table.row(vec![
            name.host.clone(),
            name.tenant.clone(),
            name.protocol.clone(),
            name.agent.clone(),
            name.state.as_str().to_owned(),
            name.since_seconds
                .map_or_else(|| String::from("-"), table::duration),
            name.requests.to_string(),
        ]);
    }
    table
}

/// A connector's name, marked where its target does not answer.
fn connector(connector: &ConnectorStatus) -> String {
    match &connector.down {
        Some(why) => format!("{}(down: {why})", connector.name),
        None => connector.name.clone(),
    }
}

fn agents(agents: &[AgentStatus]) -> Table {
    let mut table = Table::new(&[
        ("AGENT", Align::Left),
        ("STATE", Align::Left),
        ("NETWORK", Align::Left),
        ("UP", Align::Right),
        ("RTT", Align::Right),
        ("TOKEN", Align::Right),
        ("FLOWS", Align::Right),
        ("TO", Align::Right),
        ("FROM", Align::Right),
        ("CONNECTORS", Align::Left),
    ]);
    for agent in agents {
        let connectors: Vec<String> = agent.connectors.iter().map(connector).collect();
        table.row(vec![
            agent.agent.clone(),
            agent.state.as_str().to_owned(),
            agent
                .network
                .map_or_else(|| String::from("-"), |network| network.to_string()),
            table::duration(agent.tunnel_seconds),
            agent
                .rtt_us
                .map_or_else(|| String::from("-"), table::micros),
            agent
                .token_expires_seconds
                .map_or_else(|| String::from("-"), table::expiry),
            agent.flows.to_string(),
            table::bytes(agent.bytes_c2a),
            table::bytes(agent.bytes_a2c),
            connectors.join(","),
        ]);
    }
    table
}
