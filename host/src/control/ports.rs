//! Public TCP ports of tunnels: each listens while its tunnel is published, and is a listener like
//! those of the configuration, with the same policies, limits and metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::published::Published;
use crate::config::{
    Balance, CloudConfig, ListenerConfig, ListenerName, ProxyProtocolAccept, ProxyProtocolIn,
    TcpPorts,
};
use crate::hub::Hub;
use crate::listener::{self, Port, Rules};
use crate::telemetry::events;

/// How long until a port that could not be bound is tried again: another program may have it, or
/// the tunnel before is just letting go of it.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Clients that wait to be accepted, as for a listener of the configuration.
const BACKLOG: u32 = 1024;

/// Keeps ports open for the tunnels that have one, until dropped.
pub(crate) async fn keep_ports(hub: Arc<Hub>) {
    let mut changes = hub.published.changes();
    let mut failed = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let config = hub.config();
        let Some(ports) = &config.control.tcp_ports else {
            return;
        };
        close_those_without_tunnel(&hub, ports);
        failed = open_the_others(&hub, &config, ports, &failed);
        let again = async {
            match failed.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(TRIED_AGAIN_AFTER).await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

fn wanted(hub: &Hub, ports: &TcpPorts) -> BTreeMap<u16, Arc<Published>> {
    let mut wanted = hub.published.with_ports();
    // Others are of a range before this one: their agents get a port when they ask again.
    wanted.retain(|port, _| ports.range.contains(*port));
    wanted
}

fn close_those_without_tunnel(hub: &Hub, ports: &TcpPorts) {
    let wanted = wanted(hub, ports);
    let has_tunnel = |port: &Port| {
        let rules = port.rules();
        let published = wanted.get(&port.address.port());
        !rules.of_tunnel
            || published.is_some_and(|published| published.connector == rules.connector.key)
    };
    let mut bound = hub.ports.lock();
    let (kept, over): (Vec<_>, Vec<_>) = bound.drain(..).partition(|port| has_tunnel(port));
    *bound = kept;
    drop(bound);
    for port in over {
        port.stop();
        hub.retired.lock().push(port.rules());
    }
    listener::forget_retired(hub);
}

/// Those that could not be opened, with the reason, which is told once.
fn open_the_others(
    hub: &Arc<Hub>,
    config: &CloudConfig,
    ports: &TcpPorts,
    failed_before: &BTreeMap<u16, String>,
) -> BTreeMap<u16, String> {
    let mut missing = wanted(hub, ports);
    for port in hub
        .ports
        .lock()
        .iter()
        .filter(|port| port.rules().of_tunnel)
    {
        missing.remove(&port.address.port());
    }
    let mut failed = BTreeMap::new();
    for (number, published) in missing {
        let address = SocketAddr::new(ports.bind, number);
        let Some(rules) = rules(hub, config, address, &published) else {
            continue;
        };
        match Port::bind(rules) {
            Ok(port) => {
                let facts = port.rules().facts(number);
                hub.authorizer().facts().put_listener(&facts);
                port.serve(hub);
                hub.ports.lock().push(port);
            }
            Err(error) => {
                let error = error.to_string();
                if failed_before.get(&number) != Some(&error) {
                    warn!(
                        event = events::TUNNEL_PORT_FAILED,
                        endpoint = %published.id,
                        address = %address,
                        error,
                        "the public port of a tunnel cannot be bound; it is tried again"
                    );
                }
                failed.insert(number, error);
            }
        }
    }
    failed
}

/// `None` for an id that no release makes.
fn rules(
    hub: &Hub,
    config: &CloudConfig,
    address: SocketAddr,
    published: &Published,
) -> Option<Rules> {
    let listener = ListenerConfig {
        name: ListenerName::parse(&published.id).ok()?,
        bind: address,
        connector: published.connector.name.clone(),
        tenant: published.connector.tenant.clone(),
        allow_cidrs: Vec::new(),
        max_connections: None,
        rate: None,
        rate_per_source: None,
        proxy_protocol: ProxyProtocolIn {
            accept: ProxyProtocolAccept::Off,
            trusted: Vec::new(),
            header_timeout: Duration::ZERO,
        },
        balance: Balance::LeastFlows,
        idle_timeout: None,
        stall_timeout: None,
        backlog: BACKLOG,
    };
    let mut rules = Rules::new(hub, config, &listener, None);
    rules.of_tunnel = true;
    Some(rules)
}
