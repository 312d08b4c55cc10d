//! One screen of `nowconnect top`, made from two looks at the hub.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::status::table::{self, Align, Table};
use super::super::status::{Rates, Snapshot, head, per_second};
use crate::admin::view::FlowStatus;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    /// Agents with their traffic.
    Agents,
    /// Listeners with their flows.
    Listeners,
    /// Flows.
    Flows,
}

impl View {
    pub(super) const fn next(self) -> Self {
        match self {
            Self::Agents => Self::Listeners,
            Self::Listeners => Self::Flows,
            Self::Flows => Self::Agents,
        }
    }
}

/// What stands on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Most bytes per second.
    Bytes,
    /// Most flows; the oldest among flows.
    Flows,
    /// By name.
    Name,
}

/// Lines and columns to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) lines: usize,
    pub(super) columns: usize,
}

impl Size {
    pub(super) const UNBOUNDED: Self = Self {
        lines: usize::MAX,
        columns: usize::MAX,
    };
}

/// Bytes of both directions, and their growth per second.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    c2a: u64,
    a2c: u64,
    c2a_rate: f64,
    a2c_rate: f64,
}

impl Traffic {
    fn since(before: Option<&Self>, c2a: u64, a2c: u64, time: Duration) -> Self {
        let (c2a_rate, a2c_rate) = before.map_or((0.0, 0.0), |before| {
            (
                per_second(before.c2a, c2a, time),
                per_second(before.a2c, a2c, time),
            )
        });
        Self {
            c2a,
            a2c,
            c2a_rate,
            a2c_rate,
        }
    }

    fn rate(&self) -> f64 {
        self.c2a_rate + self.a2c_rate
    }
}

/// The state of the screen.
pub(super) struct Frame {
    pub(super) view: View,
    pub(super) order: Order,
    /// Shown instead of news while the hub does not answer.
    pub(super) problem: Option<String>,
    snapshot: Option<Snapshot>,
    flows: Vec<FlowStatus>,
    rates: Rates,
    agent_traffic: BTreeMap<(String, u64), Traffic>,
    flow_traffic: BTreeMap<String, Traffic>,
    looked: Option<Instant>,
}

const KEYS: &str = "q quit   tab next view   b by bytes   f by flows   n by name";

impl Frame {
    pub(super) const fn new(view: View, order: Order) -> Self {
        Self {
            view,
            order,
            problem: None,
            snapshot: None,
            flows: Vec::new(),
            rates: Rates {
                flows: 0.0,
                bytes_c2a: 0.0,
                bytes_a2c: 0.0,
            },
            agent_traffic: BTreeMap::new(),
            flow_traffic: BTreeMap::new(),
            looked: None,
        }
    }

    /// Takes a new look in; rates come from the one before.
    pub(super) fn update(&mut self, snapshot: Snapshot, flows: Vec<FlowStatus>, now: Instant) {
        let time = self
            .looked
            .map_or(Duration::ZERO, |before| now.duration_since(before));
        if let Some(before) = &self.snapshot {
            self.rates = Rates::between(&before.status.totals, &snapshot.status.totals, time);
        }
        self.agent_traffic = snapshot
            .agents
            .iter()
            .map(|agent| {
                let key = (agent.agent.clone(), agent.session);
                let before = self.agent_traffic.get(&key);
                let traffic = Traffic::since(before, agent.bytes_c2a, agent.bytes_a2c, time);
                (key, traffic)
            })
            .collect();
        self.flow_traffic = flows
            .iter()
            .map(|flow| {
                let before = self.flow_traffic.get(&flow.flow);
                let traffic = Traffic::since(before, flow.bytes_c2a, flow.bytes_a2c, time);
                (flow.flow.clone(), traffic)
            })
            .collect();
        self.snapshot = Some(snapshot);
        self.flows = flows;
        self.looked = Some(now);
        self.problem = None;
    }

    /// The screen as lines, none longer than the size and not more of them.
    pub(super) fn render(&self, size: Size) -> String {
        let mut text = String::new();
        if let Some(problem) = &self.problem {
            text.push_str(&table::clean_line(problem));
            text.push('\n');
        }
        if let Some(snapshot) = &self.snapshot {
            text.push_str(&head(&snapshot.status, Some(self.rates)));
            text.push('\n');
            text.push_str(&self.table(snapshot).render());
        } else if self.problem.is_none() {
            text.push_str("looking …\n");
        }
        let mut lines: Vec<&str> = text.lines().collect();
        let live = size != Size::UNBOUNDED;
        if live {
            lines.truncate(size.lines.saturating_sub(1));
            lines.push(KEYS);
        }
        let mut screen = String::with_capacity(text.len());
        for line in lines {
            screen.extend(line.chars().take(size.columns));
            screen.push('\n');
        }
        screen
    }

    fn table(&self, snapshot: &Snapshot) -> Table {
        match self.view {
            View::Agents => self.agents(snapshot),
            View::Listeners => self.listeners(snapshot),
            View::Flows => self.flows(),
        }
    }

    fn agents(&self, snapshot: &Snapshot) -> Table {
        let mut table = Table::new(&[
            ("AGENT", Align::Left),
            ("STATE", Align::Left),
            ("UP", Align::Right),
            ("RTT", Align::Right),
            ("FLOWS", Align::Right),
            ("TO/s", Align::Right),
            ("FROM/s", Align::Right),
            ("TO", Align::Right),
            ("FROM", Align::Right),
            ("CONNECTORS", Align::Left),
        ]);
        let mut agents: Vec<_> = snapshot.agents.iter().collect();
        let traffic = |agent: &crate::admin::view::AgentStatus| {
            let key = (agent.agent.clone(), agent.session);
            self.agent_traffic.get(&key).copied().unwrap_or_default()
        };
        match self.order {
            Order::Bytes => {
                agents.sort_by(|one, other| traffic(other).rate().total_cmp(&traffic(one).rate()));
            }
            Order::Flows => agents.sort_by_key(|agent| Reverse(agent.flows)),
            Order::Name => agents.sort_by(|one, other| one.agent.cmp(&other.agent)),
        }
        for agent in agents {
            let seen = traffic(agent);
            let connectors: Vec<String> = agent
                .connectors
                .iter()
                .map(|connector| format!("{}:{}", connector.name, connector.flows))
                .collect();
            table.row(vec![
                agent.agent.clone(),
                agent.state.as_str().to_owned(),
                table::duration(agent.tunnel_seconds),
                agent
                    .rtt_us
                    .map_or_else(|| String::from("-"), table::micros),
                agent.flows.to_string(),
                table::rate(seen.c2a_rate),
                table::rate(seen.a2c_rate),
                table::bytes(seen.c2a),
                table::bytes(seen.a2c),
                connectors.join(" "),
            ]);
        }
        table
    }

    fn listeners(&self, snapshot: &Snapshot) -> Table {
        let mut table = Table::new(&[
            ("LISTENER", Align::Left),
            ("ADDRESS", Align::Left),
            ("CONNECTOR", Align::Left),
            ("AGENTS", Align::Right),
            ("FLOWS", Align::Right),
        ]);
        let mut listeners: Vec<_> = snapshot.status.listeners.iter().collect();
        match self.order {
            Order::Bytes | Order::Flows => {
                listeners.sort_by_key(|listener| Reverse(listener.flows));
            }
            Order::Name => listeners.sort_by(|one, other| one.name.cmp(&other.name)),
        }
        for listener in listeners {
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

    fn flows(&self) -> Table {
        let mut table = Table::new(&[
            ("FLOW", Align::Left),
            ("CLIENT", Align::Left),
            ("CONNECTOR", Align::Left),
            ("AGENT", Align::Left),
            ("AGE", Align::Right),
            ("TO/s", Align::Right),
            ("FROM/s", Align::Right),
            ("TO", Align::Right),
            ("FROM", Align::Right),
            ("DECISION", Align::Left),
        ]);
        let mut flows: Vec<_> = self.flows.iter().collect();
        let traffic = |flow: &FlowStatus| {
            self.flow_traffic
                .get(&flow.flow)
                .copied()
                .unwrap_or_default()
        };
        match self.order {
            Order::Bytes => {
                flows.sort_by(|one, other| traffic(other).rate().total_cmp(&traffic(one).rate()));
            }
            Order::Flows => flows.sort_by_key(|flow| Reverse(flow.age_seconds)),
            Order::Name => flows.sort_by(|one, other| one.connector.cmp(&other.connector)),
        }
        for flow in flows {
            let seen = traffic(flow);
            table.row(vec![
                flow.flow.clone(),
                flow.client
                    .map_or_else(|| String::from("-"), |client| client.to_string()),
                flow.connector.clone(),
                flow.agent.clone(),
                table::duration(flow.age_seconds),
                table::rate(seen.c2a_rate),
                table::rate(seen.a2c_rate),
                table::bytes(seen.c2a),
                table::bytes(seen.a2c),
                flow.decision.clone(),
            ]);
        }
        table
    }
}
