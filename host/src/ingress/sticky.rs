//! Which of several agents a viewer belongs to, for services that keep something of it in memory.
//!
//! A cookie names the agent without revealing it: its value is a keyed hash of the agent's name,
//! by a key that this process alone has. So it tells nothing, cannot be made up for another agent,
//! and after a restart of the hub a viewer is given a new one. A header or the address needs no
//! memory: the same value leads to the same agent as long as that is there (rendezvous hashing).
//! Whoever's agent is gone, or down, gets another.

use std::sync::Arc;

use http::HeaderValue;
use http::header::SET_COOKIE;
use jsonwebtoken::{Algorithm, EncodingKey};

use super::cookies;
use super::head::Head;
use super::route::Route;
use crate::config::Sticky;
use crate::registry::AgentKey;
use crate::router::{Candidate as _, Pool};
use crate::session::LiveTunnel;

/// Bytes of a key that no one else has.
const KEY_BYTES: usize = 32;

/// See the module.
pub(super) struct StickyKey(EncodingKey);

impl std::fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StickyKey(***)")
    }
}

impl StickyKey {
    pub(super) fn random() -> Self {
        Self(EncodingKey::from_secret(&rand::random::<[u8; KEY_BYTES]>()))
    }

    /// What stands for `agent` in the cookie of an endpoint. None where it cannot be made, which
    /// leaves viewers without one.
    fn tag(&self, route: &Route, agent: &AgentKey) -> Option<String> {
        let message = format!("{}\n{agent}", route.endpoint.as_str());
        jsonwebtoken::crypto::sign(message.as_bytes(), &self.0, Algorithm::HS256).ok()
    }

    /// The agent that a viewer belongs to, or the next best of those that are `usable`.
    pub(super) fn choose(
        &self,
        route: &Route,
        head: &Head,
        pool: &Pool<LiveTunnel>,
        usable: impl Fn(&LiveTunnel) -> bool,
    ) -> Option<Arc<LiveTunnel>> {
        let client = head.client.ip();
        let own = match &route.config.sticky {
            None => None,
            Some(Sticky::Header(name)) => match head.headers.get(name) {
                Some(value) => return pool.pick_for(value.as_bytes(), usable),
                None => None,
            },
            Some(Sticky::Cookie) => self.named(route, head, pool, &usable),
        };
        own.or_else(|| pool.pick_among(route.config.balance, client, usable))
    }

    fn named(
        &self,
        route: &Route,
        head: &Head,
        pool: &Pool<LiveTunnel>,
        usable: impl Fn(&LiveTunnel) -> bool,
    ) -> Option<Arc<LiveTunnel>> {
        let shown = shown(route, head)?;
        let fits = |tunnel: &&Arc<LiveTunnel>| {
            tunnel.takes_flows()
                && usable(tunnel)
                && self.tag(route, tunnel.agent()).as_deref() == Some(shown)
        };
        pool.tunnels().iter().find(fits).cloned()
    }

    /// The cookie for a viewer that was answered by `agent` and does not say so yet.
    pub(super) fn cookie(
        &self,
        route: &Route,
        head: &Head,
        agent: &AgentKey,
    ) -> Option<(http::HeaderName, HeaderValue)> {
        if route.config.sticky != Some(Sticky::Cookie) {
            return None;
        }
        let tag = self.tag(route, agent)?;
        if shown(route, head) == Some(&tag) {
            return None;
        }
        let name = cookie_name(route);
        let cookie = cookies::own(&name, &tag, head.from.scheme() == "https");
        Some((SET_COOKIE, HeaderValue::from_str(&cookie).ok()?))
    }
}

/// What a viewer's cookie says.
fn shown<'a>(route: &Route, head: &'a Head) -> Option<&'a str> {
    let name = cookie_name(route);
    let is_it = |(own, _): &&(String, String)| *own == name;
    let found = head.own_cookies.iter().find(is_it)?;
    Some(&found.1)
}

/// Endpoints of one host have one each. A tenant stands before a slash, which no cookie's name may
/// have.
fn cookie_name(route: &Route) -> String {
    format!("agent-{}", route.endpoint.as_str().replace('/', "."))
}
