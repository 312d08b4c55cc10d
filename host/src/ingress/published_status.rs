//! Names that agents publish, as operators see them.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::admin::view::{PublishedState, PublishedStatus};
use crate::control::{Protocol, Published};
use crate::hub::Hub;

/// Names in one answer; the control API's `/v1/endpoints` lists all of them, page by page.
const MAX_LISTED: usize = 500;

/// The first names, and how many more there are; `requests` are those under way by endpoint.
pub(super) fn published(
    hub: &Hub,
    requests: &FxHashMap<String, u64>,
) -> (Vec<PublishedStatus>, u64) {
    let all = hub.published.all();
    let more = all.len().saturating_sub(MAX_LISTED);
    let listed = all.iter().take(MAX_LISTED);
    let listed = listed.map(|name| of(hub, name, requests)).collect();
    (listed, u64::try_from(more).unwrap_or(u64::MAX))
}

fn of(hub: &Hub, name: &Published, requests: &FxHashMap<String, u64>) -> PublishedStatus {
    let (state, since) = state(hub, name);
    let endpoint = name.facts.endpoint.as_str();
    PublishedStatus {
        endpoint: endpoint.to_owned(),
        host: name.host.to_string(),
        tenant: name.agent.tenant.to_string(),
        protocol: match name.protocol {
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
        }
        .to_owned(),
        agent: name.agent.to_string(),
        state,
        since_seconds: since.map(|since| since.as_secs()),
        requests: requests.get(endpoint).copied().unwrap_or(0),
    }
}

/// Whether its agent is here, and for how long that has been so.
fn state(hub: &Hub, name: &Published) -> (PublishedState, Option<Duration>) {
    if is_online(hub, name)
        && let Some(tunnel) = hub.router().tunnel_of(&name.agent)
    {
        return (PublishedState::Online, Some(tunnel.since.elapsed()));
    }
    let away = hub.parked.away_since(&name.agent);
    (PublishedState::Offline, away.map(|since| since.elapsed()))
}

fn is_online(hub: &Hub, name: &Published) -> bool {
    let pool = hub.router().pool(&name.connector);
    pool.is_some_and(|pool| pool.len() > 0)
}

/// Counts them for the metrics.
pub(super) fn count(hub: &Hub) {
    let all = hub.published.all();
    let online = all.iter().filter(|name| is_online(hub, name)).count();
    hub.metrics.http.published_names(online, all.len() - online);
}
