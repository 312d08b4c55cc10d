#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use super::*;
use crate::telemetry::decisions::{DecisionAction, Why};

#[test]
fn the_published_names_and_labels_are_there() {
    let metrics = Metrics::new();
    let published: &[(&str, &[&str])] = &[
        ("nowconnect_tcp_connections_total", &["connector"]),
        ("nowconnect_tcp_active_connections", &[]),
        ("nowconnect_tcp_bytes_total", &["direction"]),
        ("nowconnect_tunnel_reconnects_total", &["agent", "reason"]),
        ("nowconnect_tunnel_uptime_seconds", &["agent"]),
        ("nowconnect_listener_accept_errors_total", &["connector"]),
        ("nowconnect_queue_overflow_total", &["side", "connector"]),
        ("nowconnect_fin_sent", &[]),
        ("nowconnect_fin_recv", &[]),
        ("nowconnect_rst_sent", &[]),
        ("nowconnect_rst_recv", &[]),
        ("nowconnect_pdp_allow_total", &[]),
        ("nowconnect_pdp_deny_total", &[]),
        ("nowconnect_pdp_errors_total", &[]),
        ("nowconnect_pdp_decisions_total", &["result"]),
        ("nowconnect_connection_duration_seconds", &[]),
        ("nowconnect_write_drain_seconds", &["connector", "phase"]),
        ("nowconnect_inbound_queue_size", &["connector"]),
        ("nowconnect_listener_errors_total", &["connector", "type"]),
        ("nowconnect_owner_epoch_mismatch_total", &[]),
    ];
    for (name, labels) in published {
        let family = metrics
            .families()
            .iter()
            .find(|family| family.name == *name);
        assert_eq!(family.unwrap().labels, *labels, "{name}");
    }
}

/// What a control plane of tunnels should show stands in the documents beside metrics that exist.
#[test]
fn what_is_wanted_of_a_control_plane_is_counted() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let document = std::fs::read_to_string(path).unwrap();
    let metrics = Metrics::new();
    for wanted in [
        "connections",
        "active tunnels",
        "streams open",
        "streams closed",
        "stream errors",
        "handshake latency",
        "throughput",
        "of each endpoint",
        "of each agent's tunnel",
    ] {
        let begin = format!("| {wanted} | ");
        let row = document.lines().find_map(|line| line.strip_prefix(&begin));
        let names: Vec<&str> = row
            .unwrap_or_else(|| panic!("docs/metrics.md has no row for `{wanted}`"))
            .split('`')
            .filter(|part| part.starts_with("nowconnect_"))
            .collect();
        assert!(!names.is_empty(), "{wanted}");
        for name in names {
            let mut families = metrics.families().iter();
            assert!(families.any(|family| family.name == name), "{name}");
        }
    }
}

#[test]
fn the_documentation_lists_every_family() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let table = markdown_table(Metrics::new().families());
    let document = std::fs::read_to_string(path).unwrap();
    assert!(
        document.contains(&table),
        "docs/metrics.md differs from the registry; its table should be:\n{table}"
    );
}

#[test]
fn a_connection_counts_in_and_out() {
    let metrics = Metrics::new();
    let ldap = metrics.traffic.connector("ldap");
    let open = ldap.connection();
    ldap.bytes(3, 5);
    assert_eq!(metrics.traffic.active_connections(), 1);
    drop(open);
    assert_eq!(metrics.traffic.active_connections(), 0);
    let text = metrics.render();
    for line in [
        "nowconnect_tcp_connections_total{connector=\"ldap\"} 1",
        "nowconnect_tcp_active_connections 0",
        "nowconnect_tcp_bytes_total{direction=\"c2a\"} 3",
        "nowconnect_tcp_bytes_total{direction=\"a2c\"} 5",
        "nowconnect_connector_bytes_total{connector=\"ldap\",direction=\"a2c\"} 5",
        "nowconnect_connection_duration_seconds_count 1",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line} in\n{text}");
    }
}

#[test]
fn connectors_beyond_the_cap_share_one_series() {
    let metrics = Metrics::new();
    for number in 0..label::MAX_CONNECTORS + 10 {
        metrics.traffic.connector(&format!("c{number}")).bytes(1, 0);
    }
    let text = metrics.render();
    let other = "nowconnect_connector_bytes_total{connector=\"other\",direction=\"c2a\"} 10";
    assert!(text.contains(other));
}

#[test]
fn a_forgotten_connector_leaves_the_scrape() {
    let metrics = Metrics::new();
    metrics.traffic.connector("gone").bytes(1, 1);
    assert!(metrics.render().contains("connector=\"gone\""));
    metrics.traffic.forget_connector("gone");
    assert!(!metrics.render().contains("connector=\"gone\""));
}

#[test]
fn uptime_is_zero_without_a_tunnel() {
    let metrics = Metrics::new();
    let agent = metrics.traffic.agent("dc1");
    let down = "nowconnect_tunnel_uptime_seconds{agent=\"dc1\"} 0\n";
    assert!(metrics.render().contains(down));
    agent.tunnel_up();
    std::thread::sleep(Duration::from_millis(2));
    assert!(!metrics.render().contains(down));
    metrics.traffic.tunnel_reconnected(&agent, "ping_timeout");
    agent.tunnel_down();
    let text = metrics.render();
    assert!(text.contains(down));
    let reconnects = "nowconnect_tunnel_reconnects_total{agent=\"dc1\",reason=\"ping_timeout\"} 1";
    assert!(text.contains(reconnects));
    metrics.traffic.forget_agent("dc1");
    assert!(
        !metrics
            .render()
            .contains("nowconnect_tunnel_uptime_seconds{agent=\"dc1\"}")
    );
}

#[test]
fn decisions_carry_their_reason() {
    let metrics = Metrics::new();
    let (took, open) = (Duration::from_micros(12), DecisionAction::Open);
    metrics
        .policy
        .decided(open, false, Why::Forbidden, Some("deny-night"), took);
    metrics.policy.evaluation_error(open);
    metrics.policy.pdp(PdpResult::Error);
    metrics.policy.generation_activated(7, SystemTime::now());
    let text = metrics.render();
    for line in [
        "nowconnect_policy_decisions_total{action=\"open\",kind=\"forbidden\",policy=\"deny-night\",result=\"deny\"} 1",
        "nowconnect_policy_evaluation_errors_total{action=\"open\"} 1",
        "nowconnect_pdp_errors_total 1",
        "nowconnect_pdp_decisions_total{result=\"error\"} 1",
        "nowconnect_generation 7",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn the_plugins_in_force_replace_each_other() {
    let metrics = Metrics::new();
    metrics
        .plugins
        .set_active(&[("geo", "sha256:1"), ("mask", "sha256:2")]);
    metrics.plugins.set_active(&[("geo", "sha256:3")]);
    metrics
        .plugins
        .called("geo", "enrich", "timeout", Duration::from_millis(5));
    let text = metrics.render();
    assert!(text.contains("nowconnect_plugin_active{digest=\"sha256:3\",plugin=\"geo\"} 1"));
    assert!(!text.contains("sha256:1") && !text.contains("sha256:2"));
    assert!(text.contains(
        "nowconnect_plugin_calls_total{hook=\"enrich\",outcome=\"timeout\",plugin=\"geo\"} 1"
    ));
}

#[test]
fn a_scrape_asks_the_hooks_first() {
    let metrics = Metrics::new();
    assert!(metrics.on_scrape(|metrics| metrics.hub.set_window_pool(4096)));
    assert!(
        metrics
            .render()
            .contains("nowconnect_window_pool_bytes_in_use 4096")
    );
}

#[test]
fn guards_bring_gauges_back() {
    let metrics = Metrics::new();
    let tunnel = metrics.hub.tunnel();
    let flow = metrics.hub.flow();
    assert_eq!((metrics.hub.tunnels_up(), metrics.hub.flows_open()), (1, 1));
    drop((tunnel, flow));
    assert_eq!((metrics.hub.tunnels_up(), metrics.hub.flows_open()), (0, 0));
}
