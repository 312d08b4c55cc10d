//! Bounds, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A rate: a bucket of `burst` tokens that gets `per_second` back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateFile {
    /// How many a second in the long run.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_second: u32,
    /// How many at once after a quiet time. Default: the same as `per_second`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
}

/// Bounds on time, number and memory. `nowconnect config check` prints the worst case of memory
/// that follows from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsFile {
    /// A flow ends when for so long no byte was accepted from either end and none waits. A
    /// connector's or listener's value wins. Milliseconds. Default 60000.
    #[schemars(range(min = 1, max = 604_800_000))]
    pub idle_timeout_ms: u64,
    /// A flow ends with `stalled` when bytes wait for so long on a reader that takes none.
    /// Milliseconds. Default 300000.
    #[schemars(range(min = 1, max = 604_800_000))]
    pub stall_timeout_ms: u64,
    /// How long the idle sweeper waits for the peer's FIN after its own before it resets.
    /// Milliseconds. Default 10000.
    #[schemars(range(min = 0, max = 604_800_000))]
    pub linger_ms: u64,
    /// From OPEN until the agent says that the target is connected. Should be longer than the
    /// agents' own `connect_timeout_ms`. Milliseconds. Default 10000.
    #[schemars(range(min = 1, max = 600_000))]
    pub open_timeout_ms: u64,
    /// How much may wait for one flow's client, in chunks of `tunnel.max_ws_payload`: a ceiling for
    /// the flow's window beside `flow_window_max`. An agent that sends more has the flow reset with
    /// `queue_overflow`. Default 100.
    #[schemars(range(min = 1, max = 65_536))]
    pub queue_depth_per_cid: u32,
    /// The most client connections at once over all listeners; more are closed at once.
    /// Default 2000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_conn_total: u32,
    /// The most agents at once; more are refused with `overloaded`. Default 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_agents: u32,
    /// The most connectors in one HELLO. Default 256.
    #[schemars(range(min = 1, max = 1024))]
    pub max_connectors_per_agent: u32,
    /// The most flows at once through one agent; more get `agent_busy`. Default 16384.
    #[schemars(range(min = 1, max = 20_000))]
    pub max_flows_per_agent: u32,
    /// New flows a second through one agent. Default `null`: no bound.
    pub rate_per_agent: Option<RateFile>,
    /// New client connections a second over all listeners. Default `null`: no bound.
    pub rate: Option<RateFile>,
    /// What every flow is sure of in each direction, whatever the others do. Bytes.
    /// Default 32768.
    #[schemars(range(min = 4096, max = 1_048_576))]
    pub flow_window_min: u32,
    /// The most that one direction of a flow grows to: bandwidth times delay of the fastest long
    /// line. Bytes. Default 33554432.
    #[schemars(range(min = 4096, max = 268_435_456))]
    pub flow_window_max: u32,
    /// What all flows together may grow beyond `flow_window_min`. A flow grows only while its
    /// reader drains. Bytes. Default 268435456.
    #[schemars(range(min = 0, max = 1_099_511_627_776_u64))]
    pub window_pool_bytes: u64,
    /// Bytes written to one tunnel and not yet received by its far side. Bytes. Default 8388608.
    #[schemars(range(min = 65_536, max = 1_073_741_824))]
    pub per_link_max_inflight_bytes: u64,
    /// How many agents are tried for one client, as long as nothing was started. Default 3.
    #[schemars(range(min = 1, max = 16))]
    pub open_attempts: u32,
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            idle_timeout_ms: 60_000,
            stall_timeout_ms: 300_000,
            linger_ms: 10_000,
            open_timeout_ms: 10_000,
            queue_depth_per_cid: 100,
            max_conn_total: 2000,
            max_agents: 1000,
            max_connectors_per_agent: 256,
            max_flows_per_agent: 16_384,
            rate_per_agent: None,
            rate: None,
            flow_window_min: 32 << 10,
            flow_window_max: 32 << 20,
            window_pool_bytes: 256 << 20,
            per_link_max_inflight_bytes: 8 << 20,
            open_attempts: 3,
        }
    }
}
