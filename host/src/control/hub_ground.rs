//! The running hub as the ground of its control plane.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use nowconnect_control::Management;
use nowconnect_policy::AgentFacts;
use nowconnect_protocol::{AgentId, CloseCode, TenantName};
use nowconnect_store::Endpoint;

use super::ground::{Deed, Forbidden, Ground, Wanted};
use super::published::{Changed, facts};
use crate::authorize::{ControlClient, ControlDeed, Denial, policy_name};
use crate::hub::Hub;
use crate::ingress::HostPattern;
use crate::registry::AgentKey;
use crate::tunnel_endpoint::TUNNEL_PATH;

/// Does not keep the hub alive: the hub has the control plane.
#[derive(Debug)]
pub(super) struct HubGround(pub(super) Weak<Hub>);

impl HubGround {
    fn hub(&self) -> Result<Arc<Hub>, Forbidden> {
        self.0.upgrade().ok_or_else(|| Forbidden {
            why: "the hub is shutting down".to_owned(),
        })
    }
}

impl Ground for HubGround {
    fn may_create(&self, from: SocketAddr, wanted: &Wanted<'_>) -> Result<(), Forbidden> {
        let hub = self.hub()?;
        let endpoint = wanted.endpoint;
        let tenant = tenant(&endpoint.tenant)?;
        let agent = AgentFacts {
            agent: policy_name(&tenant, &endpoint.agent),
            scopes: vec![policy_name(&tenant, &endpoint.id)],
            ephemeral: true,
            token_expires_ms: wanted.token_until_ms,
            groups: Vec::new(),
            tags: Vec::new(),
        };
        let endpoint = facts(endpoint, &tenant, wanted.host, wanted.reserved);
        hub.authorizer()
            .publish(from, agent, endpoint, wanted.open_endpoints)
            .map_err(forbidden)
    }

    fn may(
        &self,
        from: SocketAddr,
        client: &Management,
        deed: Deed,
        endpoint: Option<(&Endpoint, &str)>,
    ) -> Result<(), Forbidden> {
        let hub = self.hub()?;
        let caller = ControlClient {
            client: policy_name(&tenant(&client.tenant)?, &client.sub),
            role: Arc::from(client.role.as_str()),
        };
        let endpoint = match endpoint {
            Some((endpoint, host)) => {
                let tenant = tenant(&endpoint.tenant)?;
                // Only who asks for one that nobody publishes needs a name reserved.
                Some(facts(endpoint, &tenant, host, deed == Deed::Reserve))
            }
            None => None,
        };
        let deed = match deed {
            Deed::List => ControlDeed::List,
            Deed::Close => ControlDeed::Close,
            Deed::Reserve => ControlDeed::Reserve,
        };
        hub.authorizer()
            .control(from, &caller, deed, endpoint)
            .map_err(forbidden)
    }

    fn is_configured(&self, tenant: &str, name: &str, host: &str) -> bool {
        self.0.upgrade().is_none_or(|hub| {
            hub.config().ingress.routes.iter().any(|route| {
                route.name.as_str() == name && route.tenant.as_str() == tenant
                    || matches!(&route.host, HostPattern::Exact(exact) if **exact == *host)
            })
        })
    }

    fn changed(&self, changed: &Changed) {
        let Some(hub) = self.0.upgrade() else {
            return;
        };
        // A reload may have brought a route of that name since; the row is the route's then.
        let config = hub.config();
        let routed = |row: &nowconnect_policy::Name| {
            let mut routes = config.ingress.routes.iter();
            routes.any(|route| policy_name(&route.tenant, route.name.as_str()) == *row)
        };
        let rows = hub.authorizer().facts();
        if let Some(was) = &changed.was
            && !routed(&was.facts.endpoint)
        {
            rows.remove_endpoint(&was.facts.endpoint);
        }
        if let Some(now) = &changed.now
            && !routed(&now.facts.endpoint)
        {
            rows.put_endpoint(&now.facts);
        }
    }

    fn is_here(&self, tenant: &str, agent: &str) -> bool {
        let (Some(hub), Some(key)) = (self.0.upgrade(), agent_key(tenant, agent)) else {
            return false;
        };
        hub.router().tunnel_of(&key).is_some()
    }

    fn send_away(&self, tenant: &str, agent: &str) {
        let (Some(hub), Some(key)) = (self.0.upgrade(), agent_key(tenant, agent)) else {
            return;
        };
        hub.parked.end(|parked, _| *parked == key);
        if let Some(tunnel) = hub.router().tunnel_of(&key) {
            tunnel.close(CloseCode::Revoked, "its tunnel was deleted");
        }
    }

    fn tunnel_url(&self) -> String {
        let Some(hub) = self.0.upgrade() else {
            return String::new();
        };
        let config = hub.config();
        if let Some(url) = &config.control.tunnel_url {
            return url.as_str().to_owned();
        }
        let scheme = if config.tunnel.tls.is_some() {
            "wss"
        } else {
            "ws"
        };
        let address = hub
            .tunnel_address
            .load_full()
            .map_or_else(|| config.tunnel.listen(), |address| *address);
        format!("{scheme}://{}{TUNNEL_PATH}", dialled(address))
    }

    fn replica(&self) -> String {
        self.0
            .upgrade()
            .map_or_else(String::new, |hub| hub.replica().to_string())
    }

    fn public_url(&self, host: &str) -> String {
        let Some(hub) = self.0.upgrade() else {
            return format!("https://{host}");
        };
        let config = hub.config();
        if let Some(template) = &config.control.url_template {
            return template.replace("{host}", host);
        }
        // The first port with TLS, else the first.
        let listeners = &config.ingress.listeners;
        let listener = listeners
            .iter()
            .find(|listener| listener.tls.is_some())
            .or_else(|| listeners.first());
        let Some(listener) = listener else {
            return format!("https://{host}");
        };
        let (scheme, usual) = match listener.tls {
            Some(_) => ("https", 443),
            None => ("http", 80),
        };
        let bound = hub.ingress.address(listener.name.as_str());
        let port = bound.unwrap_or(listener.bind).port();
        if port == usual {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }
}

/// An address that can be dialled from this machine, where the port is bound to all of them.
fn dialled(address: SocketAddr) -> SocketAddr {
    let mut dialled = address;
    if address.ip().is_unspecified() {
        dialled.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    dialled
}

fn forbidden(denial: Denial) -> Forbidden {
    Forbidden {
        why: denial.to_string(),
    }
}

fn tenant(text: &str) -> Result<TenantName, Forbidden> {
    TenantName::parse(text).map_err(|error| Forbidden {
        why: error.to_string(),
    })
}

fn agent_key(tenant: &str, agent: &str) -> Option<AgentKey> {
    Some(AgentKey {
        tenant: TenantName::parse(tenant).ok()?,
        agent: AgentId::parse(agent).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_is_dialled_on_this_machine() {
        for (bound, dials) in [
            ("0.0.0.0:8765", "127.0.0.1:8765"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.7:8765", "192.0.2.7:8765"),
        ] {
            let bound: Result<SocketAddr, _> = bound.parse();
            assert_eq!(
                bound.map(|bound| dialled(bound).to_string()),
                Ok(dials.to_owned())
            );
        }
    }
}
