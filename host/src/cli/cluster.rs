//! `nowconnect cluster`: the other hubs as a running hub sees them, and certificates for them.

mod certs;

use clap::Subcommand;

use super::Exit;
use super::control::{Socket, call};
use super::status::table::{self, Align, Table};
use crate::cluster::{ClusterStatus, JoinedStatus, RegistryKind, RegistryStatus};

/// `nowconnect cluster`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show the registry, the other hubs, what they have in force, and the links to them
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Where the hub is
        #[command(flatten)]
        socket: Socket,
    },
    /// Make an authority and a certificate for each hub, where you have no authority of your own
    Certs(certs::Certs),
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Exit {
        match self {
            Self::Certs(certs) => certs.run(),
            Self::Status { json, socket } => {
                let admin = socket.client();
                call(async move { admin.cluster().await }, |status, out| {
                    if json {
                        let text = serde_json::to_string_pretty(&status)?;
                        writeln!(out, "{text}")?;
                    } else {
                        out.write_all(render(&status).as_bytes())?;
                    }
                    Ok(Exit::Success)
                })
            }
        }
    }
}

fn render(status: &ClusterStatus) -> String {
    let joined = match status.joined {
        JoinedStatus::Alone => "stands alone",
        JoinedStatus::No => "is not seen by the others now",
        JoinedStatus::Yes => "is seen by the others",
        JoinedStatus::NameTaken => "has the name of another hub: change ha.replica_id",
    };
    let mut lines = vec![
        format!("hub {}  mode {}  {joined}", status.hub, status.mode),
        registry(&status.registry),
        format!("in force {}{}", status.generation, skew(status)),
    ];
    let mut text = String::new();
    for line in lines.drain(..) {
        text.push_str(&table::clean_line(&line));
        text.push('\n');
    }
    if !status.hubs.is_empty() {
        text.push('\n');
        text.push_str(&hubs(status).render());
    }
    if !status.links.is_empty() {
        text.push('\n');
        text.push_str(&links(status).render());
    }
    text
}

fn registry(registry: &RegistryStatus) -> String {
    let kind = match registry.kind {
        RegistryKind::Memory => "in this hub's memory",
        RegistryKind::Redis => "in redis",
    };
    let health = match (registry.healthy, registry.reason.as_str()) {
        (true, _) => "answers".to_owned(),
        (false, reason) => format!("is away: {reason}"),
    };
    let provisional = match registry.provisional {
        0 => String::new(),
        count => format!(", {count} of them not known to the registry yet"),
    };
    format!(
        "registry {kind} {health}  agents here {}{provisional}",
        registry.agents
    )
}

fn skew(status: &ClusterStatus) -> String {
    match status.skew_seconds {
        None => String::new(),
        Some(seconds) => format!(
            "  other hubs have had something else for {}",
            table::duration(seconds)
        ),
    }
}

fn hubs(status: &ClusterStatus) -> Table {
    let mut table = Table::new(&[
        ("HUB", Align::Left),
        ("MODE", Align::Left),
        ("VERSION", Align::Left),
        ("IN FORCE", Align::Left),
        ("ADDRESS", Align::Left),
    ]);
    for hub in &status.hubs {
        let differs = if hub.skewed { " (differs)" } else { "" };
        table.row(vec![
            hub.hub.clone(),
            hub.mode.clone(),
            hub.version.clone(),
            format!("{}{differs}", hub.generation),
            hub.address.clone(),
        ]);
    }
    table
}

fn links(status: &ClusterStatus) -> Table {
    let mut table = Table::new(&[
        ("LINK", Align::Left),
        ("STATE", Align::Left),
        ("RTT", Align::Right),
        ("FLOWS", Align::Right),
    ]);
    for link in &status.links {
        table.row(vec![
            link.peer.clone(),
            link.state.clone(),
            link.rtt_us.map_or_else(|| String::from("-"), table::micros),
            link.flows.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{HubSeenStatus, MeshLinkStatus};

    #[test]
    fn it_shows_what_is_wrong_and_with_whom() {
        let text = render(&ClusterStatus {
            hub: "hub-a".to_owned(),
            mode: "active".to_owned(),
            joined: JoinedStatus::No,
            generation: "r7-0123456789abcdef".to_owned(),
            skew_seconds: Some(90),
            registry: RegistryStatus {
                kind: RegistryKind::Redis,
                healthy: false,
                reason: "connection refused".to_owned(),
                agents: 3,
                provisional: 1,
            },
            hubs: vec![HubSeenStatus {
                hub: "hub-b".to_owned(),
                mode: "shadow".to_owned(),
                version: "0.1.0".to_owned(),
                generation: "r6-fedcba9876543210".to_owned(),
                skewed: true,
                address: "wss://hub-b\u{1b}[2J/mesh".to_owned(),
            }],
            links: vec![MeshLinkStatus {
                peer: "hub-b".to_owned(),
                state: "backoff".to_owned(),
                flows: 0,
                rtt_us: None,
            }],
        });
        for part in [
            "hub hub-a  mode active  is not seen by the others now",
            "registry in redis is away: connection refused  agents here 3, 1 of them not known",
            "in force r7-0123456789abcdef  other hubs have had something else for",
            "r6-fedcba9876543210 (differs)",
            "backoff",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "a hub commands the terminal");
    }
}
