//! Bounds on time, number and memory.

use std::time::Duration;

use super::build::{ms, rate};
use super::file::LimitsFile;
use super::problem::Problems;
use super::tree::Path;

/// So many in a second, with a burst on top of an empty bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many tokens come back in a second.
    pub per_second: u32,
    /// How many tokens the bucket holds.
    pub burst: u32,
}

/// The times that end a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTimes {
    /// No byte accepted from either end and none waiting.
    pub idle_timeout: Duration,
    /// Bytes waiting on a reader that takes none.
    pub stall_timeout: Duration,
    /// How long the sweeper waits for the peer's FIN after its own.
    pub linger: Duration,
}

/// `limits`: bounds that hold for the whole hub.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsConfig {
    /// `idle_timeout_ms`, `stall_timeout_ms`, `linger_ms` where nothing overrides them.
    pub flow_times: FlowTimes,
    /// From OPEN until the agent says that the target is connected.
    pub open_timeout: Duration,
    /// Chunks that may wait in one flow's queue.
    pub queue_depth_per_cid: u32,
    /// The most client connections at once, over all listeners.
    pub max_conn_total: u32,
    /// The most agents (tunnels) at once.
    pub max_agents: u32,
    /// The most connectors in one HELLO.
    pub max_connectors_per_agent: u32,
    /// The most flows at once through one agent.
    pub max_flows_per_agent: u32,
    /// New flows a second through one agent.
    pub rate_per_agent: Option<RateLimit>,
    /// New client connections a second over all listeners.
    pub rate: Option<RateLimit>,
    /// What every flow is sure of, in bytes for each direction.
    pub flow_window_min: u32,
    /// The most that one flow's window grows to, in bytes for each direction.
    pub flow_window_max: u32,
    /// What all windows of the hub together may grow by, in bytes.
    pub window_pool_bytes: u64,
    /// Bytes written to one tunnel and not yet received by its far side.
    pub per_link_max_inflight_bytes: u64,
    /// How many agents are tried for one client before the first byte was answered.
    pub open_attempts: u32,
}

impl LimitsConfig {
    pub(super) fn build(file: &LimitsFile, path: &Path, problems: &mut Problems<'_>) -> Self {
        if file.flow_window_max < file.flow_window_min {
            problems.add_with_help(
                &path.key("flow_window_max"),
                format!(
                    "`limits.flow_window_max` is `{}`, less than `flow_window_min` of `{}`",
                    file.flow_window_max, file.flow_window_min
                ),
                "raise it, or lower `limits.flow_window_min`",
            );
        }
        Self {
            flow_times: FlowTimes {
                idle_timeout: ms(file.idle_timeout_ms),
                stall_timeout: ms(file.stall_timeout_ms),
                linger: ms(file.linger_ms),
            },
            open_timeout: ms(file.open_timeout_ms),
            queue_depth_per_cid: file.queue_depth_per_cid,
            max_conn_total: file.max_conn_total,
            max_agents: file.max_agents,
            max_connectors_per_agent: file.max_connectors_per_agent,
            max_flows_per_agent: file.max_flows_per_agent,
            rate_per_agent: rate(file.rate_per_agent.as_ref()),
            rate: rate(file.rate.as_ref()),
            flow_window_min: file.flow_window_min,
            flow_window_max: file.flow_window_max,
            window_pool_bytes: file.window_pool_bytes,
            per_link_max_inflight_bytes: file.per_link_max_inflight_bytes,
            open_attempts: file.open_attempts,
        }
    }
}
