//! What an embedding program, the health server and the service manager may know of an agent.

use std::time::{Duration, SystemTime};

use nowconnect_protocol::{ConnectorName, Refusal, ReplicaId};

use crate::config::HubUrl;

/// Where an agent is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Dialling, or waiting to dial again.
    #[default]
    Connecting,
    /// The hub accepted HELLO; flows may come.
    Ready,
    /// A stop was asked for; running flows finish.
    Stopping,
    /// Nothing runs any more.
    Stopped,
}

/// A snapshot of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentState {
    /// Where it is in its life.
    pub phase: Phase,
    /// The hub that holds the tunnel, while there is one.
    pub replica: Option<ReplicaId>,
    /// The address under which the agent reached it: one of several, where several are configured.
    pub hub: Option<HubUrl>,
    /// The last measured round trip to it.
    pub round_trip: Option<Duration>,
    /// The session's name at that hub.
    pub session: Option<u64>,
    /// Connectors that clients may reach through this agent.
    pub accepted: Vec<ConnectorName>,
    /// Connectors that the hub refused, with reasons.
    pub refused: Vec<Refusal>,
    /// Tunnels that were welcomed since the start.
    pub tunnels: u64,
    /// Tunnels that were welcomed with the flows of an earlier one.
    pub resumed: u64,
    /// The last thing that went wrong, without secrets; cleared by a welcome.
    pub problem: Option<String>,
    /// What a person can do about it, where there is a word to say.
    pub advice: Option<&'static str>,
    /// When the token in force runs out, where it says so.
    pub token_expires_at: Option<SystemTime>,
}

impl AgentState {
    /// Whether the hub has accepted this agent.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }
}
