//! What every registry has to do. A further implementation calls [`conforms`] in its tests.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use nowconnect_protocol::{AgentId, ConnectorName, Epoch, ReplicaId, TenantName};

use super::memory::MemoryRegistry;
use super::{AgentKey, ConnectorKey, Registry, RegistryError};

#[tokio::test]
async fn the_memory_registry_conforms() {
    conforms(&MemoryRegistry::default()).await;
}

#[test]
fn names_are_bare_in_the_default_tenant() {
    assert_eq!(agent("default", "plant-1").to_string(), "plant-1");
    assert_eq!(agent("acme", "plant-1").to_string(), "acme/plant-1");
    assert_eq!(connector("acme", "ldap").to_string(), "acme/ldap");
}

/// The behaviour that the hub relies on, whatever the store.
pub(crate) async fn conforms(registry: &dyn Registry) {
    let (here, there) = (replica("hub-a"), replica("hub-b"));
    let plant = agent("default", "plant-1");
    let ldap = ConnectorName::parse("ldap").unwrap();

    let first = registry
        .claim_ownership(plant.clone(), here.clone(), None)
        .await
        .unwrap();
    registry
        .add_connectors(plant.clone(), first.clone(), vec![ldap.clone()])
        .await
        .unwrap();
    assert_eq!(
        registry.get_owner(plant.clone()).await.unwrap(),
        Some((here.clone(), first.clone()))
    );
    let found = registry
        .list_agents(connector("default", "ldap"))
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].connectors, vec![ldap.clone()]);
    assert!(
        registry
            .list_agents(connector("acme", "ldap"))
            .await
            .unwrap()
            .is_empty(),
        "an agent of another tenant was listed"
    );

    // A later claim wins, and the earlier one is fenced off.
    let second = registry
        .claim_ownership(plant.clone(), there.clone(), Some(first.clone()))
        .await
        .unwrap();
    assert!(second.counter > first.counter);
    assert!(matches!(
        registry
            .add_connectors(plant.clone(), first.clone(), vec![ldap])
            .await,
        Err(RegistryError::Overtaken { .. })
    ));
    assert!(registry.release(plant.clone(), first).await.is_err());

    // The agent is a witness: what it saw counts though the store knows nothing of it.
    let witnessed = Epoch {
        counter: second.counter + 1_000,
        replica: there.clone(),
    };
    let third = registry
        .claim_ownership(plant.clone(), here, Some(witnessed.clone()))
        .await
        .unwrap();
    assert!(third.counter > witnessed.counter);

    // A release leaves nobody, and never lets the epoch go back.
    registry
        .release(plant.clone(), third.clone())
        .await
        .unwrap();
    assert_eq!(registry.get_owner(plant.clone()).await.unwrap(), None);
    let fourth = registry.claim_ownership(plant, there, None).await.unwrap();
    assert!(fourth.counter > third.counter);
    assert!(registry.is_healthy());
}

fn agent(tenant: &str, id: &str) -> AgentKey {
    AgentKey {
        tenant: TenantName::parse(tenant).unwrap(),
        agent: AgentId::parse(id).unwrap(),
    }
}

fn connector(tenant: &str, name: &str) -> ConnectorKey {
    ConnectorKey {
        tenant: TenantName::parse(tenant).unwrap(),
        name: ConnectorName::parse(name).unwrap(),
    }
}

fn replica(name: &str) -> ReplicaId {
    ReplicaId::parse(name).unwrap()
}
