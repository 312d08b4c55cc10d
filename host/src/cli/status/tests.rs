#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;
use crate::admin::view::{
    AgentState, ConnectorStatus, GenerationStatus, HttpListenerStatus, ListenerStatus,
    PluginStatus, PublishedState, PublishedStatus, RecheckStatus, RefusedConnector, RouteStatus,
};
use crate::health::{Reason, ReasonCode};

#[test]
fn the_table_shows_what_matters() {
    let rates = Rates::between(
        &Totals::default(),
        &Totals {
            flows_total: 30,
            bytes_c2a: 3_000_000,
            ..Totals::default()
        },
        Duration::from_secs(2),
    );
    let text = render(&snapshot("dc1"), Some(rates));
    let expected = "\
hub hub-1  version 0.1.0  up 1h1m  degraded: plugin_quarantined geo
generation 7  12 policies  1 plugins  in quarantine: geo
asking again about what runs: 12 of 40 flows, 0 of 1 agents
newest sources refused: base.cedar:3:1: unexpected token
agents 1  tunnels 1  detached 0  flows 2  opened 9  denied 1
to agents 1.5 MB  from agents 20.0 GB  now 1.5 MB/s to, 0 B/s from, 15 flows/s

LISTENER  ADDRESS         CONNECTOR  AGENTS  FLOWS
ldaps     127.0.0.1:6361  ldaps_dc1       1      2

HTTP LISTENER  ADDRESS         TLS
web            127.0.0.1:8443  yes

ROUTE  HOST              PATH  CONNECTOR  AGENTS  DOWN  REQUESTS
shop   shop.example.com  /*    shop            2     1         7

PUBLISHED           TENANT  SPEAKS  AGENT       STATE    SINCE  REQUESTS
blog.t.example.com  acme    http    acme/tun_1  online     59s         3
wiki.t.example.com  public  tcp     public/t-2  offline      -         0
and 4 more, listed by the control API

AGENT  STATE  NETWORK       UP   RTT     TOKEN    FLOWS  TO      FROM  CONNECTORS
dc1    up     192.0.2.0/24  59s  1.5 ms  expired      2  1.5 MB  12 B  ldaps_dc1,ssh(down: timeout)
refused: db of dc1: scope_missing (nowconnect policy explain b-2)
";
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed(&text), squeezed(expected), "{text}");
    assert_eq!(text.lines().count(), expected.lines().count());
}

#[test]
fn an_agents_name_cannot_command_the_terminal() {
    let text = render(&snapshot("dc1\u{1b}[2J\n\u{202e}x"), None);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert!(text.contains("dc1\\u001b[2J\\n"), "{text}");
}

#[test]
fn numbers_are_short() {
    for (count, text) in [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (99_960_000, "100 MB"),
        (u64::MAX, "18447 PB"),
    ] {
        assert_eq!(table::bytes(count), text);
    }
    for (seconds, text) in [(59, "59s"), (61, "1m1s"), (3661, "1h1m"), (90_000, "1d1h")] {
        assert_eq!(table::duration(seconds), text);
    }
    assert_eq!(per_second(10, 5, Duration::from_secs(1)), 0.0);
    assert_eq!(per_second(0, 5, Duration::ZERO), 0.0);
}

#[tokio::test]
async fn without_a_hub_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let args = Args {
        socket: Some(folder.path().join("none.sock")),
        json: false,
    };
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let exit = args.run_with(&mut out, &mut problems).await;
    assert_eq!(exit, Exit::Failure);
    assert!(out.is_empty());
    assert!(
        String::from_utf8(problems)
            .unwrap()
            .contains("is it running?")
    );
}

pub(in super::super) fn snapshot(agent: &str) -> Snapshot {
    let readiness = Readiness::serving(vec![Reason {
        code: ReasonCode::PluginQuarantined,
        detail: String::from("geo"),
    }]);
    let plugin = PluginStatus {
        name: String::from("geo"),
        digest: String::new(),
        hooks: Vec::new(),
        quarantined: true,
    };
    let status = HubStatus {
        hub: String::from("hub-1"),
        version: String::from("0.1.0"),
        uptime_seconds: 3661,
        readiness,
        generation: GenerationStatus {
            number: 7,
            policies: 12,
            plugins: vec![plugin],
            last_errors: vec![String::from("base.cedar:3:1: unexpected token")],
            recheck: RecheckStatus {
                running: true,
                flows: 40,
                flows_asked: 12,
                agents: 1,
                ..RecheckStatus::default()
            },
            ..GenerationStatus::default()
        },
        listeners: vec![ListenerStatus {
            name: String::from("ldaps"),
            address: "127.0.0.1:6361".parse().unwrap(),
            connector: String::from("ldaps_dc1"),
            agents: 1,
            flows: 2,
        }],
        http: HttpStatus {
            listeners: vec![HttpListenerStatus {
                name: String::from("web"),
                address: "127.0.0.1:8443".parse().unwrap(),
                tls: true,
            }],
            routes: vec![RouteStatus {
                endpoint: String::from("shop"),
                host: String::from("shop.example.com"),
                path: String::from("/*"),
                connector: String::from("shop"),
                agents: 2,
                down: 1,
                requests: 7,
            }],
            published: vec![
                published("blog", "acme", "http", PublishedState::Online),
                published("wiki", "public", "tcp", PublishedState::Offline),
            ],
            published_more: 4,
        },
        tunnel_address: None,
        totals: Totals {
            agents: 1,
            tunnels: 1,
            sessions_detached: 0,
            flows: 2,
            flows_total: 9,
            denied_total: 1,
            bytes_c2a: 1_500_000,
            bytes_a2c: 20_000_000_000,
        },
    };
    Snapshot {
        status,
        agents: vec![agent_status(agent)],
    }
}

pub(in super::super) fn agent_status(agent: &str) -> AgentStatus {
    let connector = |name: &str, down: Option<&str>| ConnectorStatus {
        name: name.to_owned(),
        flows: 1,
        down: down.map(str::to_owned),
    };
    AgentStatus {
        agent: agent.to_owned(),
        session: 3,
        state: AgentState::Up,
        role: String::from("primary"),
        network: Some("192.0.2.0/24".parse().unwrap()),
        version: String::from("0.1.0"),
        connectors: vec![
            connector("ldaps_dc1", None),
            connector("ssh", Some("timeout")),
        ],
        refused: vec![RefusedConnector {
            name: String::from("db"),
            code: String::from("scope_missing"),
            decision: String::from("b-2"),
        }],
        tunnel_seconds: 59,
        rtt_us: Some(1540),
        flows: 2,
        bytes_c2a: 1_500_000,
        bytes_a2c: 12,
        token_expires_seconds: Some(-1),
        labels: std::collections::BTreeMap::new(),
    }
}

fn published(name: &str, tenant: &str, protocol: &str, state: PublishedState) -> PublishedStatus {
    let online = state == PublishedState::Online;
    PublishedStatus {
        endpoint: format!("{tenant}/{name}"),
        host: format!("{name}.t.example.com"),
        tenant: tenant.to_owned(),
        protocol: protocol.to_owned(),
        agent: format!("{tenant}/{}", if online { "tun_1" } else { "t-2" }),
        state,
        since_seconds: online.then_some(59),
        requests: if online { 3 } else { 0 },
    }
}
