//! Which of several agents a viewer belongs to, for services that keep something of it in memory.
//!
//! A cookie names the agent without revealing it: its value is a keyed hash of the agent's name,
//! by a key that this process alone has. So it tells nothing, cannot be made up for another agent,
//! and after a restart of the hub a viewer is given a new one. Those that were given out are
//! remembered, so that a value costs the same whoever made it up. A header or the address needs no
//! memory: the same value leads to the same agent as long as that is there (rendezvous hashing).
//! Whoever's agent is gone, or down, gets another.

use std::num::NonZeroUsize;
use std::sync::Arc;

use http::HeaderValue;
use http::header::SET_COOKIE;
use jsonwebtoken::{Algorithm, EncodingKey};
use lru::LruCache;
use nowconnect_policy::Name;
use parking_lot::Mutex;

use super::cookies;
use super::head::Head;
use super::route::Route;
use crate::config::Sticky;
use crate::registry::AgentKey;
use crate::router::{Candidate as _, Pool};
use crate::session::LiveTunnel;

/// Bytes of a key that no one else has.
const KEY_BYTES: usize = 32;

/// Cookies that are remembered, at some 250 bytes each. There are as many as agents of endpoints
/// with cookies; a viewer whose cookie is forgotten gets another.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(32_768).expect("not zero");

/// See the module.
pub(super) struct StickyKey {
    key: EncodingKey,
    /// What was given out, so that to find whom it names takes no look at every agent.
    given: Mutex<LruCache<String, Named>>,
}

/// Whom a cookie names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    endpoint: Name,
    agent: AgentKey,
}

impl std::fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StickyKey(***)")
    }
}

impl StickyKey {
    pub(super) fn random() -> Self {
        Self {
            key: EncodingKey::from_secret(&rand::random::<[u8; KEY_BYTES]>()),
            given: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }

    /// What stands for `agent` in the cookie of an endpoint. None where it cannot be made, which
    /// leaves viewers without one.
    fn give(&self, endpoint: &Name, agent: &AgentKey) -> Option<String> {
        let message = format!("{}\n{agent}", endpoint.as_str());
        let signed = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, Algorithm::HS256);
        let tag = signed.ok()?;
        let named = Named {
            endpoint: endpoint.clone(),
            agent: agent.clone(),
        };
        self.given.lock().put(tag.clone(), named);
        Some(tag)
    }

    /// Whom a cookie of an endpoint names, if it was given out.
    fn named(&self, endpoint: &Name, tag: &str) -> Option<AgentKey> {
        let mut given = self.given.lock();
        let named = given.get(tag)?;
        (named.endpoint == *endpoint).then(|| named.agent.clone())
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
            Some(Sticky::Cookie) => shown(route, head)
                .and_then(|tag| self.named(&route.endpoint, tag))
                .and_then(|agent| pool.of(&agent))
                .filter(|tunnel| tunnel.takes_flows() && usable(tunnel))
                .cloned(),
        };
        own.or_else(|| pool.pick_among(route.config.balance, client, usable))
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
        let shown = shown(route, head);
        let named = shown.and_then(|tag| self.named(&route.endpoint, tag));
        if named.as_ref() == Some(agent) {
            return None;
        }
        let tag = self.give(&route.endpoint, agent)?;
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use nowconnect_protocol::{AgentId, TenantName};

    use super::*;

    #[test]
    fn a_cookie_names_an_agent_of_its_endpoint_alone() {
        let key = StickyKey::random();
        let agent = |id: &str| AgentKey {
            tenant: TenantName::default(),
            agent: AgentId::parse(id).unwrap(),
        };
        let (shop, docs) = (Name::bare("shop"), Name::bare("docs"));
        let tag = key.give(&shop, &agent("a1")).unwrap();
        assert_eq!(key.named(&shop, &tag), Some(agent("a1")));
        assert_eq!(key.named(&docs, &tag), None);
        assert_ne!(key.give(&docs, &agent("a1")), Some(tag.clone()));
        assert_eq!(key.give(&shop, &agent("a1")), Some(tag));
        // Another hub's, or made up.
        let foreign = StickyKey::random().give(&shop, &agent("a1")).unwrap();
        assert_eq!(key.named(&shop, &foreign), None);
    }
}
