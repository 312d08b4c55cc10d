//! The running hub as the ground of its control plane.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use nowconnect_control::Management;
use nowconnect_policy::AgentFacts;
use nowconnect_protocol::{AgentId, CloseCode, TenantName};

use super::edges::Edge;
use super::ground::{Deed, Ending, EndpointSubject, Forbidden, Ground, Subject, Wanted};
use super::published::{Changed, facts};
use super::shapes::{Agent, Flow, Route};
use crate::admin::view::AdminRefusal;
use crate::authorize::{ControlClient, ControlDeed, ControlSubject, Denial, policy_name};
use crate::config::CloudConfig;
use crate::drain::Phase;
use crate::hub::Hub;
use crate::identity::AgentIdentity;
use crate::ingress::HostPattern;
use crate::registry::AgentKey;
use crate::revocation::{self, Revocation, RevocationError, Revoked, time};
use crate::session;
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
        subject: Subject<'_>,
    ) -> Result<(), Forbidden> {
        let hub = self.hub()?;
        let own = tenant(&client.tenant)?;
        let caller = ControlClient {
            client: policy_name(&own, &client.sub),
            role: Arc::from(client.role.as_str()),
        };
        let subject = match subject {
            Subject::All => ControlSubject::Hub,
            Subject::Endpoint(EndpointSubject {
                endpoint,
                host,
                reserved,
            }) => {
                let tenant = tenant(&endpoint.tenant)?;
                ControlSubject::Endpoint(Box::new(facts(endpoint, &tenant, host, reserved)))
            }
            Subject::Agent(agent) => ControlSubject::Agent(Box::new(AgentFacts {
                agent: policy_name(&own, agent),
                scopes: Vec::new(),
                ephemeral: false,
                token_expires_ms: 0,
                groups: Vec::new(),
                tags: Vec::new(),
            })),
        };
        let deed = match deed {
            Deed::List => ControlDeed::List,
            Deed::Close => ControlDeed::Close,
            Deed::Reserve => ControlDeed::Reserve,
            Deed::ListAgents => ControlDeed::ListAgents,
            Deed::EndAgent => ControlDeed::EndAgent,
            Deed::ListFlows => ControlDeed::ListFlows,
            Deed::CloseFlow => ControlDeed::CloseFlow,
            Deed::ListQuotas => ControlDeed::ListQuotas,
            Deed::SetQuota => ControlDeed::SetQuota,
        };
        hub.authorizer()
            .control(from, &caller, deed, subject)
            .map_err(forbidden)
    }

    fn agents(&self, tenant: &str) -> Vec<Agent> {
        let Some(hub) = self.0.upgrade() else {
            return Vec::new();
        };
        let mut agents: Vec<Agent> = hub
            .agents_now()
            .into_iter()
            .filter_map(|agent| {
                let key = crate::hub_view::agent_key(&agent.agent).ok()?;
                (key.tenant.as_str() == tenant).then(|| Agent::of(&key.agent, agent))
            })
            .collect();
        agents.sort_unstable_by(|a, b| a.agent_id.cmp(&b.agent_id));
        agents
    }

    fn end_agent(&self, tenant: &str, agent: &str, ending: Ending) -> Result<(), AdminRefusal> {
        let missing = || AdminRefusal::NotFound {
            what: "agent",
            name: agent.to_owned(),
        };
        let hub = self.0.upgrade().ok_or_else(missing)?;
        let key = agent_key(tenant, agent).ok_or_else(missing)?;
        match ending {
            Ending::Kick => hub.kick_now(&key.to_string()),
            Ending::Drain => {
                let tunnel = hub.router().tunnel_of(&key).ok_or_else(missing)?;
                tunnel.drain(hub.config().tunnel.drain_timeout);
                Ok(())
            }
            Ending::Revoke => revoke(&hub, key),
        }
    }

    fn flows(&self, tenant: &str) -> Vec<(u64, Flow)> {
        let Some(hub) = self.0.upgrade() else {
            return Vec::new();
        };
        let flows = hub
            .flows()
            .collect(|flow| flow.agent.tenant.as_str() == tenant);
        flows
            .iter()
            .map(|flow| (flow.flow_ref.number, Flow::of(flow)))
            .collect()
    }

    fn close_flow(&self, tenant: &str, flow: &str) -> Result<(), AdminRefusal> {
        let missing = || AdminRefusal::NotFound {
            what: "flow",
            name: flow.to_owned(),
        };
        let hub = self.0.upgrade().ok_or_else(missing)?;
        let number = flow.rsplit('.').next();
        number
            .and_then(|number| number.parse().ok())
            .and_then(|number| hub.flows().find(number))
            .filter(|entry| entry.agent.tenant.as_str() == tenant)
            .ok_or_else(missing)?;
        hub.close_flow_now(flow)
    }

    fn routes(&self, tenant: &str) -> Vec<Route> {
        let Some(hub) = self.0.upgrade() else {
            return Vec::new();
        };
        let config = hub.config();
        let mut routes: Vec<Route> = config
            .ingress
            .routes
            .iter()
            .filter(|route| route.tenant.as_str() == tenant)
            .map(|route| {
                let pool = hub.router().pool(&route.connector_key());
                Route {
                    name: route.name.to_string(),
                    host: route.host.to_string(),
                    path: if route.path.is_empty() {
                        "/".to_owned()
                    } else {
                        route.path.clone()
                    },
                    exact: route.exact,
                    connector: route.connector.to_string(),
                    public: route.public,
                    agents: pool.map_or(0, |pool| pool.len() as u64),
                }
            })
            .collect();
        routes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        routes
    }

    fn is_revoked(&self, client: &Management) -> bool {
        // A client counts as an agent of its name: what the list says of an id, a time or a tenant
        // holds for it, too.
        let (Some(hub), Some(key)) = (self.0.upgrade(), agent_key(&client.tenant, &client.sub))
        else {
            return true;
        };
        let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let identity = AgentIdentity {
            tenant: key.tenant,
            agent_id: key.agent,
            issuer: hub
                .control()
                .map(|plane| plane.issuer())
                .unwrap_or_default(),
            subject: Some(client.sub.clone()),
            jti: Some(client.jti.clone()),
            issued_at: at(client.iat),
            expires_at: at(client.exp).unwrap_or(SystemTime::UNIX_EPOCH),
            scopes: None,
            tags: BTreeMap::new(),
            groups: Vec::new(),
            ephemeral: false,
        };
        hub.authorizer().revocations().is_revoked(&identity)
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
            let reason = "its tunnel was deleted";
            session::end_session(&hub, &tunnel, CloseCode::Revoked, reason);
        }
    }

    fn edges(&self) -> Vec<Edge> {
        let Some(hub) = self.0.upgrade() else {
            return Vec::new();
        };
        let config = hub.config();
        let agents = hub.router().agent_count();
        let places = usize::try_from(config.limits.max_agents).unwrap_or(usize::MAX);
        let own = Edge {
            hub: hub.replica().to_string(),
            url: tunnel_url(&hub, &config),
            region: config.control.region.clone(),
            note: None,
            takes_agents: hub.current_phase() == Phase::Serving && agents < places,
            load: u32::try_from(agents.saturating_mul(1000) / places.max(1)).unwrap_or(u32::MAX),
        };
        let more = config.control.more_tunnel_urls.iter().map(|way| Edge {
            url: way.url.as_str().to_owned(),
            region: way.region.clone(),
            note: way.note.clone(),
            ..own.clone()
        });
        std::iter::once(own.clone()).chain(more).collect()
    }

    fn replica(&self) -> String {
        self.0
            .upgrade()
            .map_or_else(String::new, |hub| hub.replica().to_string())
    }

    fn public_url(&self, host: &str, port: Option<u16>) -> String {
        let Some(hub) = self.0.upgrade() else {
            return format!("https://{host}");
        };
        let config = hub.config();
        if let (Some(port), Some(ports)) = (port, &config.control.tcp_ports) {
            let host = ports.host.as_deref().unwrap_or(host);
            return format!("tcp://{host}:{port}");
        }
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

/// Where agents dial this hub.
fn tunnel_url(hub: &Hub, config: &CloudConfig) -> String {
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

/// Writes the agent into the hub's revocation list, and ends what it has. Blocks on the disk.
fn revoke(hub: &Hub, key: AgentKey) -> Result<(), AdminRefusal> {
    let config = hub.config();
    let Some(path) = &config.security.revocation_file else {
        return Err(AdminRefusal::Unavailable(
            "the hub has no `security.revocation_file`".to_owned(),
        ));
    };
    let failed = |error: RevocationError| AdminRefusal::Unavailable(error.to_string());
    let revoked = Revoked::Agent {
        tenant: key.tenant,
        agent: key.agent,
    };
    let entry = Revocation {
        revoked,
        reason: Some("revoked over the control API".to_owned()),
        revoked_at: time::now_seconds(),
    };
    let max_entries = config.security.revocation_max_entries;
    revocation::edit(path, max_entries, |entries| {
        entries.retain(|old| old.revoked != entry.revoked);
        entries.push(entry);
    })
    .map_err(failed)?;
    hub.authorizer().revocations().reload().map_err(failed)?;
    session::end_revoked(hub);
    Ok(())
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
