//! Names, made of texts that are known to be right.

use nowconnect_registry::{
    AgentId, AgentKey, ClaimRequest, ConnectorKey, ConnectorName, Epoch, HaMode, HubPresence,
    Offer, ProvisionalClaim, ReplicaId, TenantName,
};

pub(crate) fn replica(name: &str) -> ReplicaId {
    ReplicaId::parse(name).unwrap()
}

pub(crate) fn agent(tenant: &str, id: &str) -> AgentKey {
    AgentKey {
        tenant: TenantName::parse(tenant).unwrap(),
        agent: AgentId::parse(id).unwrap(),
    }
}

pub(crate) fn connector(tenant: &str, name: &str) -> ConnectorKey {
    ConnectorKey {
        tenant: TenantName::parse(tenant).unwrap(),
        name: ConnectorName::parse(name).unwrap(),
    }
}

pub(crate) fn offer(connectors: &[&str], facts: &str) -> Offer {
    let names = connectors
        .iter()
        .map(|name| ConnectorName::parse(name).unwrap());
    Offer::new(names.collect(), facts).unwrap()
}

pub(crate) fn epoch(counter: u64, by: &str) -> Epoch {
    Epoch {
        counter,
        replica: replica(by),
    }
}

pub(crate) fn request(agent: &AgentKey, by: &str, above: Option<&Epoch>) -> ClaimRequest {
    ClaimRequest {
        agent: agent.clone(),
        replica: replica(by),
        above: above.cloned(),
        leap: None,
    }
}

pub(crate) fn provisional(agent: &AgentKey, epoch: &Epoch) -> ProvisionalClaim {
    ProvisionalClaim {
        agent: agent.clone(),
        epoch: epoch.clone(),
    }
}

pub(crate) fn hub(name: &str, boot: u64) -> HubPresence {
    HubPresence {
        replica: replica(name),
        boot,
        address: format!("wss://{name}.example.org/mesh"),
        certificate: format!("{name}.example.org"),
        version: "0.1.0".to_owned(),
        mode: HaMode::Shadow,
        generation: "7".to_owned(),
    }
}
