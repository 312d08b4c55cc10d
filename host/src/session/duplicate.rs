//! A HELLO of an agent that is here already.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nowconnect_protocol::{CloseCode, Hello, Role};
use tracing::warn;

use super::live::LiveTunnel;
use crate::config::DuplicateAgent;
use crate::hub::Hub;
use crate::telemetry::events;

/// How long the earlier tunnel has to answer before it counts as dead.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// The least age of a tunnel that another instance may replace, so that two instances under one
/// identity do not throw each other out in a loop.
const REPLACE_EVERY: Duration = Duration::from_secs(5);

/// What becomes of the newcomer.
pub(super) enum Verdict {
    /// Nobody is here.
    Free,
    /// The earlier tunnel gives way.
    TakesOver(Arc<LiveTunnel>),
    /// The earlier tunnel stays.
    InUse,
}

/// The same instance, or an earlier tunnel that does not answer, gives way at once: the agent
/// itself has come back. Another living instance is refused or replaces, as configured.
pub(super) async fn settle(hub: &Hub, earlier: Option<Arc<LiveTunnel>>, hello: &Hello) -> Verdict {
    let Some(earlier) = earlier else {
        return Verdict::Free;
    };
    if earlier.instance == hello.instance || earlier.is_gone() {
        return Verdict::TakesOver(earlier);
    }
    if !earlier.answers(PROBE_WITHIN).await {
        return Verdict::TakesOver(earlier);
    }
    let replace = match hub.config().security.duplicate_agent {
        DuplicateAgent::Refuse => false,
        // A standby carries nothing, so it never throws out a tunnel that does.
        DuplicateAgent::Replace => {
            hello.role == Role::Primary
                && Instant::now().duration_since(earlier.since) >= REPLACE_EVERY
        }
    };
    let result = if replace { "replaced" } else { "refused" };
    hub.metrics().hub.duplicate_agent(result);
    warn!(
        target: events::SECURITY,
        event = events::AGENT_REFUSED,
        agent_id = %earlier.key,
        code = CloseCode::AgentIdInUse.as_str(),
        replaced = replace,
        "a second instance of an agent that is connected said hello"
    );
    if replace {
        Verdict::TakesOver(earlier)
    } else {
        Verdict::InUse
    }
}
