//! Redis killed and back, slow, emptied, and set up to evict under a running hub.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use nowconnect_registry::{
    ClaimLost, ClaimSettings, Claims, EpochFence, LostClaim, Offered, RedisRegistry, Registry,
    Revocation, RevocationCursor, SharedState as _,
};
use tokio::sync::mpsc;

use crate::names::{agent, connector, offer, replica, request};
use crate::servers::{Server, skip_without_redis};
use crate::standalone::{config, until_away, until_healthy};
use crate::wait::{bounded, eventually};

/// A hub whose calls give up soon.
struct Hub {
    registry: Arc<RedisRegistry>,
    claims: Arc<Claims>,
    losses: mpsc::Receiver<LostClaim>,
    renewing: tokio::task::JoinHandle<()>,
}

impl Hub {
    async fn start(redis: &Server, name: &str) -> Self {
        let config = config(&redis.url(), |config| {
            config.timing.call = Duration::from_millis(500);
            config.timing.dial = Duration::from_secs(2);
            config.timing.probe = Duration::from_millis(200);
        });
        let registry = Arc::new(RedisRegistry::open(config).await.unwrap());
        until_healthy(&*registry).await;
        let claims = Arc::new(Claims::new(
            registry.clone(),
            replica(name),
            Arc::new(EpochFence::new(NonZeroUsize::new(64).unwrap())),
            ClaimSettings {
                recovery_spread: Duration::from_millis(100),
            },
        ));
        let (lost, losses) = mpsc::channel(8);
        let renewing = tokio::spawn({
            let claims = Arc::clone(&claims);
            async move { claims.run(lost).await }
        });
        Self {
            registry,
            claims,
            losses,
            renewing,
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

#[tokio::test]
async fn a_redis_that_was_killed_comes_back_empty_and_learns_the_claims_again() {
    if skip_without_redis() {
        return;
    }
    let mut redis = Server::start(&[]);
    let mut here = Hub::start(&redis, "hub-a").await;
    let there = Hub::start(&redis, "hub-b").await;
    let (stays, joins) = (agent("default", "stays"), agent("default", "joins"));
    let first = here.claims.claim(&stays, None).await.unwrap();
    here.claims
        .offer(&stays, &first.epoch, offer(&["ldap"], "facts"))
        .await
        .unwrap();

    redis.kill();
    until_away(&*here.registry).await;
    let joined = bounded("a claim", here.claims.claim(&joins, None))
        .await
        .unwrap();
    assert!(joined.provisional);
    let said = here
        .claims
        .offer(&joins, &joined.epoch, offer(&["ldap"], ""))
        .await;
    assert_eq!(said, Ok(Offered::LocalOnly));
    let lookup = bounded("a look-up", there.registry.get_owner(&stays)).await;
    assert!(lookup.unwrap_err().is_unavailable());
    assert_eq!(here.claims.counts(), (2, 1));

    redis.start_again();
    for (agent, epoch) in [(&stays, &first.epoch), (&joins, &joined.epoch)] {
        eventually("the claim is known again", async || {
            let owner = there.registry.get_owner(agent).await.ok()??;
            (owner.epoch == *epoch).then_some(())
        })
        .await;
    }
    eventually("the offers are known again", async || {
        let name = connector("default", "ldap");
        let found = there.registry.list_agents(&name).await.ok()?;
        (found.len() == 2).then_some(())
    })
    .await;
    assert_eq!(here.claims.counts(), (2, 0));
    assert!(here.losses.try_recv().is_err());
    // Nobody has to tell the other hub: it is above what came back.
    let taken = there.claims.claim(&stays, None).await.unwrap();
    assert!(taken.epoch > first.epoch);
}

/// Two tunnels of one agent, or two that dial at once: what orders them is the epoch.
#[tokio::test]
async fn claims_at_once_while_redis_hangs_are_different() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = Hub::start(&redis, "hub-a").await;
    let plant = agent("default", "plant");
    redis.pause();
    let (one, other) = tokio::join!(
        here.claims.claim(&plant, None),
        here.claims.claim(&plant, None)
    );
    let mut made = [one.unwrap(), other.unwrap()];
    assert!(made.iter().all(|claim| claim.provisional));
    made.sort_by(|a, b| a.epoch.cmp(&b.epoch));
    let [low, high] = made;
    assert!(low.epoch < high.epoch);
    // The end of the one takes nothing from the other.
    let _away = here.claims.release(&plant, &low.epoch).await;
    assert_eq!(here.claims.held(&plant), Some(high.epoch));
    redis.resume();
}

#[tokio::test]
async fn the_lower_of_two_claims_made_apart_is_lost() {
    if skip_without_redis() {
        return;
    }
    let mut redis = Server::start(&[]);
    let mut here = Hub::start(&redis, "hub-a").await;
    let mut there = Hub::start(&redis, "hub-b").await;
    redis.kill();
    until_away(&*here.registry).await;
    until_away(&*there.registry).await;
    let plant = agent("default", "plant");
    let first = here.claims.claim(&plant, None).await.unwrap().epoch;
    // The agent goes to the other hub, and tells it what it saw.
    let second = there.claims.claim(&plant, Some(first.clone())).await;
    let second = second.unwrap().epoch;
    assert!(second > first);
    redis.start_again();
    let lost = bounded("the lower claim is lost", here.losses.recv()).await;
    let overtaken = ClaimLost::Overtaken {
        current: second.clone(),
    };
    assert_eq!(
        lost,
        Some(LostClaim {
            agent: plant.clone(),
            held: first,
            why: overtaken,
        })
    );
    eventually("the higher claim is known", async || {
        let owner = here.registry.get_owner(&plant).await.ok()??;
        (owner.epoch == second).then_some(())
    })
    .await;
    assert_eq!(here.claims.held(&plant), None);
    assert_eq!(there.claims.held(&plant), Some(second));
    assert!(there.losses.try_recv().is_err());
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_up() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = Hub::start(&redis, "hub-a").await;
    let plant = agent("default", "plant");
    let first = here.claims.claim(&plant, None).await.unwrap().epoch;
    redis.pause();
    let second = bounded("a claim", here.claims.claim(&plant, Some(first.clone())))
        .await
        .unwrap();
    assert!(second.provisional && second.epoch > first);
    until_away(&*here.registry).await;
    let owner = bounded("a look-up", here.registry.get_owner(&plant)).await;
    assert!(owner.unwrap_err().is_unavailable());
    redis.resume();
    until_healthy(&*here.registry).await;
    // What the paused server did late stays below or is the same.
    eventually("the claim is known", async || {
        let owner = here.registry.get_owner(&plant).await.ok()??;
        (Some(owner.epoch) == here.claims.held(&plant)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_lost_everything_brings_no_epoch_back() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let registry = Hub::start(&redis, "hub-a").await.registry.clone();
    let plant = agent("default", "plant");
    let mut last = None;
    for by in ["hub-a", "hub-b", "hub-c"] {
        for _ in 0..3 {
            let claim = request(&plant, by, last.as_ref());
            let epoch = registry.claim_ownership(&claim).await.unwrap().epoch;
            assert!(Some(&epoch) > last.as_ref(), "the epoch went back");
            last = Some(epoch);
        }
        redis.cli(&["FLUSHALL"]);
    }
}

#[tokio::test]
async fn revocations_that_the_store_lost_are_told_of() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = Hub::start(&redis, "hub-a").await;
    let revocation = |entry: &str| Revocation {
        entry: entry.into(),
        ttl: Duration::from_secs(600),
    };
    here.registry.revoke(&revocation("one")).await.unwrap();
    let page = here
        .registry
        .revocations(&RevocationCursor::default())
        .await
        .unwrap();
    assert_eq!((page.entries.len(), page.reset), (1, false));
    redis.cli(&["FLUSHALL"]);
    let page = here.registry.revocations(&page.cursor).await.unwrap();
    assert_eq!((page.entries.len(), page.reset), (0, true));
    here.registry.revoke(&revocation("one")).await.unwrap();
    here.registry.revoke(&revocation("two")).await.unwrap();
    let page = here.registry.revocations(&page.cursor).await.unwrap();
    assert_eq!(page.entries.len(), 2);
}

#[tokio::test]
async fn a_redis_that_begins_to_evict_is_not_used_after_a_new_connection() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = Hub::start(&redis, "hub-a").await;
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("it is not used, with the reason", async || {
        let health = format!("{:?}", *here.registry.health().borrow());
        health.contains("volatile-lru").then_some(())
    })
    .await;
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    until_healthy(&*here.registry).await;
}

#[tokio::test]
async fn a_hub_starts_without_redis_and_finds_it_later() {
    if skip_without_redis() {
        return;
    }
    let mut redis = Server::start(&[]);
    redis.kill();
    let registry = RedisRegistry::open(config(&redis.url(), |_| ()))
        .await
        .unwrap();
    assert!(!registry.is_healthy());
    redis.start_again();
    until_healthy(&registry).await;
    let claim = request(&agent("default", "plant"), "hub-a", None);
    registry.claim_ownership(&claim).await.unwrap();
}
