//! A tunnel that breaks need not cut its clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nowconnect::registry::{
    AgentKey, AgentPresence, ClaimRequest, ConnectorKey, Epoch, Granted, Health, HubPresence,
    MemoryRegistry, Offer, Ownership, ProvisionalClaim, Registry, RegistryError, ReplicaId,
    SweepCursor, SweepReport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::{Link, SOON, echo, eventually, hub};

#[tokio::test]
async fn flows_go_on_from_the_exact_byte_when_the_tunnel_is_cut() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let link = Link::to(hub.tunnel_address()).await;
    let agent = hub
        .agent("plant")
        .through(&link)
        .target("echo", target.address())
        .ready()
        .await;
    let client = hub.client("echo").await;
    let (mut reader, mut writer) = client.stream.into_split();
    // 4 MiB that repeat nowhere, so that a byte lost, doubled or swapped shows.
    let sent: Vec<u8> = (0..1_048_576_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        for chunk in sent.chunks(64 * 1024) {
            writer.write_all(chunk).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::with_capacity(expected.len());
    let mut buffer = vec![0; 64 * 1024];
    let mut cuts = 0;
    loop {
        let length = timeout(SOON, reader.read(&mut buffer))
            .await
            .expect("the flow should have gone on")
            .unwrap();
        if length == 0 {
            break;
        }
        received.extend_from_slice(&buffer[..length]);
        if cuts < 3 && received.len() > (cuts + 1) * 900_000 {
            cuts += 1;
            let before = agent.running.state().tunnels;
            link.cut();
            agent.until(|state| state.tunnels > before).await;
        }
    }
    writing.await.unwrap();
    assert_eq!(cuts, 3);
    assert!(received == expected, "the bytes differ");
    assert!(
        agent.running.state().resumed >= 3,
        "{:?}",
        agent.running.state()
    );
    assert_eq!(target.seen().len(), 1, "the target was dialled again");
}

#[tokio::test]
async fn a_new_flow_waits_for_nobody_while_the_agent_is_away() {
    let target = echo().await;
    let hub = hub().listener("echo").start().await;
    let link = Link::to(hub.tunnel_address()).await;
    let _agent = hub
        .agent("plant")
        .through(&link)
        .target("echo", target.address())
        .ready()
        .await;
    let mut waiting = hub.client("echo").await;
    waiting.echoes(b"before").await;
    link.close();
    eventually("the hub notices", || async {
        hub.metrics().contains("nowconnect_sessions_detached 1")
    })
    .await;
    hub.client("echo").await.is_closed().await;
}

#[tokio::test]
async fn flows_of_an_agent_that_stays_away_end_after_the_grace_time() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .tunnel("resume_grace_ms: 1000")
        .start()
        .await;
    let link = Link::to(hub.tunnel_address()).await;
    let _agent = hub
        .agent("plant")
        .through(&link)
        .target("echo", target.address())
        .ready()
        .await;
    let mut client = hub.client("echo").await;
    client.echoes(b"before").await;
    link.close();
    client.is_closed().await;
    eventually("the cause is counted", || async {
        hub.metrics()
            .contains("nowconnect_flow_ends_total{cause=\"ws_broken\"} 1")
    })
    .await;
}

#[tokio::test]
async fn without_a_grace_time_a_broken_tunnel_ends_its_flows() {
    let target = echo().await;
    let hub = hub()
        .listener("echo")
        .tunnel("resume_grace_ms: 0")
        .start()
        .await;
    let link = Link::to(hub.tunnel_address()).await;
    let agent = hub
        .agent("plant")
        .through(&link)
        .target("echo", target.address())
        .ready()
        .await;
    let mut client = hub.client("echo").await;
    client.echoes(b"before").await;
    link.cut();
    client.is_closed().await;
    agent.until(|state| state.tunnels == 2).await;
    hub.client("echo").await.echoes(b"and new ones work").await;
    assert!(link.carried() >= 2);
}

/// The agent comes back, and its new tunnel breaks while the hub still asks the registry.
#[tokio::test]
async fn flows_outlive_a_newcomer_that_breaks_while_it_is_claimed() {
    let target = echo().await;
    let registry = Arc::new(SlowRegistry::default());
    let hub = hub()
        .listener("echo")
        .top("ha: {enabled: true, mode: shadow, replica_id: hub-a}")
        .registry(Arc::clone(&registry) as Arc<dyn Registry>)
        .start()
        .await;
    let link = Link::to(hub.tunnel_address()).await;
    let agent = hub
        .agent("plant")
        .through(&link)
        .target("echo", target.address())
        .ready()
        .await;
    let mut client = hub.client("echo").await;
    client.echoes(b"before").await;

    registry.held.send_replace(true);
    for attempt in 1..=3 {
        link.cut();
        eventually("the agent is back and waits for its claim", || async {
            registry.waited.load(Ordering::SeqCst) >= attempt
        })
        .await;
        assert!(
            hub.metrics().contains("nowconnect_sessions_detached 1"),
            "the flows do not wait while their agent is claimed"
        );
    }
    registry.held.send_replace(false);
    agent.until(|state| state.resumed >= 1).await;
    client.echoes(b"after").await;
    assert_eq!(target.seen().len(), 1, "the target was dialled again");
    assert!(hub.metrics().contains("nowconnect_sessions_detached 0"));
}

/// A registry whose claims can be made to wait.
#[derive(Debug, Default)]
struct SlowRegistry {
    inner: MemoryRegistry,
    held: watch::Sender<bool>,
    /// Claims that found it held.
    waited: AtomicUsize,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, RegistryError>>;

impl Registry for SlowRegistry {
    fn claim_ownership<'a>(&'a self, claim: &'a ClaimRequest) -> Answer<'a, Granted> {
        async move {
            let mut held = self.held.subscribe();
            if *held.borrow() {
                self.waited.fetch_add(1, Ordering::SeqCst);
            }
            // The sender lives as long as this value.
            let _ = held.wait_for(|held| !*held).await;
            self.inner.claim_ownership(claim).await
        }
        .boxed()
    }

    fn publish_claim<'a>(&'a self, claim: &'a ProvisionalClaim) -> Answer<'a, ()> {
        self.inner.publish_claim(claim)
    }

    fn renew<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()> {
        self.inner.renew(agent, epoch)
    }

    fn add_connectors<'a>(
        &'a self,
        agent: &'a AgentKey,
        epoch: &'a Epoch,
        offer: &'a Offer,
    ) -> Answer<'a, ()> {
        self.inner.add_connectors(agent, epoch, offer)
    }

    fn release<'a>(&'a self, agent: &'a AgentKey, epoch: &'a Epoch) -> Answer<'a, ()> {
        self.inner.release(agent, epoch)
    }

    fn list_agents<'a>(&'a self, connector: &'a ConnectorKey) -> Answer<'a, Vec<AgentPresence>> {
        self.inner.list_agents(connector)
    }

    fn get_owner<'a>(&'a self, agent: &'a AgentKey) -> Answer<'a, Option<Ownership>> {
        self.inner.get_owner(agent)
    }

    fn announce_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()> {
        self.inner.announce_hub(hub)
    }

    fn withdraw_hub<'a>(&'a self, hub: &'a HubPresence) -> Answer<'a, ()> {
        self.inner.withdraw_hub(hub)
    }

    fn list_hubs(&self) -> Answer<'_, Vec<HubPresence>> {
        self.inner.list_hubs()
    }

    fn hold_lease<'a>(
        &'a self,
        name: &'static str,
        holder: &'a ReplicaId,
        ttl: Duration,
    ) -> Answer<'a, bool> {
        self.inner.hold_lease(name, holder, ttl)
    }

    fn drop_lease<'a>(&'a self, name: &'static str, holder: &'a ReplicaId) -> Answer<'a, ()> {
        self.inner.drop_lease(name, holder)
    }

    fn sweep(&self, from: SweepCursor, budget: usize) -> Answer<'_, SweepReport> {
        self.inner.sweep(from, budget)
    }

    fn ownership_lease(&self) -> Duration {
        self.inner.ownership_lease()
    }

    fn hub_presence(&self) -> Duration {
        self.inner.hub_presence()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }
}
