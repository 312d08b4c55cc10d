//! The suite over one Redis server, and what is particular to it.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_registry::redis::{Eviction, OpenError, RedisConfig};
use nowconnect_registry::{EpochFence, RedisRegistry, Registry, Sweeper, Swept};

use crate::names::{agent, offer, replica, request};
use crate::servers::{Server, skip_without_redis};
use crate::suite::{Subject, conforms, offered, sweep};
use crate::wait::eventually;

/// A hub's registry; its calls have time even on a machine that is busy.
pub(crate) async fn open(url: &str, change: impl FnOnce(&mut RedisConfig)) -> RedisRegistry {
    RedisRegistry::open(config(url, change)).await.unwrap()
}

pub(crate) fn config(url: &str, change: impl FnOnce(&mut RedisConfig)) -> RedisConfig {
    let mut config = RedisConfig::from_url(url).unwrap();
    config.timing.call = Duration::from_secs(20);
    config.timing.dial = Duration::from_secs(20);
    config.timing.backoff_max = Duration::from_millis(500);
    change(&mut config);
    config
}

/// Three hubs at one store.
pub(crate) async fn subject(url: &str, change: impl Fn(&mut RedisConfig)) -> Subject {
    let here = Arc::new(open(url, &change).await);
    let there = Arc::new(open(url, &change).await);
    let brief = open(url, |config| {
        change(config);
        config.ownership_lease = Duration::from_millis(100);
        config.hub_presence = Duration::from_millis(100);
    })
    .await;
    let subject = Subject {
        here: here.clone(),
        there: there.clone(),
        brief: Arc::new(brief),
        shared: [here, there],
    };
    for registry in [&subject.here, &subject.there, &subject.brief] {
        until_healthy(&**registry).await;
    }
    subject
}

pub(crate) async fn until_healthy(registry: &dyn Registry) {
    eventually("redis answers", async || {
        registry.is_healthy().then_some(())
    })
    .await;
}

pub(crate) async fn until_away(registry: &dyn Registry) -> String {
    eventually("redis is away", async || {
        let health = registry.health().borrow().clone();
        (!health.is_healthy()).then(|| format!("{health:?}"))
    })
    .await
}

#[tokio::test]
async fn one_server_conforms() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    conforms(&subject(&redis.url(), |_| ()).await).await;
}

#[tokio::test]
async fn every_key_begins_with_the_prefix_and_what_is_left_ends_by_itself() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let subject = subject(&redis.url(), |config| {
        config.prefix = "two:words".to_owned()
    })
    .await;
    conforms(&subject).await;
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(keys.lines().count() > 20);
    for key in keys.lines() {
        assert!(key.starts_with("two:words:"), "{key}");
    }
    for key in keys
        .lines()
        .filter(|key| key.contains(":owner:") || key.contains(":index:"))
    {
        assert_ne!(redis.cli(&["PTTL", key]), "-1", "{key} stays for ever");
    }
}

#[tokio::test]
async fn stale_hints_are_not_believed_and_are_swept() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = open(&redis.url(), |_| ()).await;
    let index = "nowconnect:index:{default/ldap}";
    let first = offered(&here, "default", "plant", &["ldap"]).await;
    // A hint of an epoch that was overtaken, one of an agent that nobody ever owned, and one that
    // another release may have written.
    redis.cli(&["HSET", index, "ghost", "7 hub-z 1"]);
    redis.cli(&["HSET", index, "odd", "in another form"]);
    let second = request(&agent("default", "plant"), "hub-b", Some(&first));
    here.claim_ownership(&second).await.unwrap();
    let name = crate::names::connector("default", "ldap");
    assert_eq!(here.list_agents(&name).await.unwrap(), []);
    assert_eq!(redis.cli(&["HLEN", index]), "3");

    let report = sweep(&here).await;
    assert_eq!((report.checked, report.removed), (3, 2));
    assert_eq!(redis.cli(&["HKEYS", index]), "odd");
    let report = sweep(&here).await;
    assert_eq!((report.checked, report.removed), (1, 0));

    // The last entry takes the index out of the sweeper's list, and it comes back with the next.
    redis.cli(&["DEL", index]);
    sweep(&here).await;
    assert_eq!(redis.cli(&["SCARD", "nowconnect:indexes"]), "0");
    offered(&here, "default", "plant", &["ldap"]).await;
    assert_eq!(redis.cli(&["SCARD", "nowconnect:indexes"]), "1");
    assert_eq!(here.list_agents(&name).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_hint_is_never_replaced_by_an_earlier_one() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = open(&redis.url(), |_| ()).await;
    let index = "nowconnect:index:{default/ldap}";
    redis.cli(&["HSET", index, "plant", "900 hub-z 1"]);
    offered(&here, "default", "plant", &["ldap"]).await;
    assert_eq!(redis.cli(&["HGET", index, "plant"]), "900 hub-z 1");
    // A hint only says where to look: the record says that it is true.
    let name = crate::names::connector("default", "ldap");
    assert_eq!(here.list_agents(&name).await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_hub_sweeps_and_another_takes_over() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let registry: Arc<dyn Registry> = Arc::new(open(&redis.url(), |_| ()).await);
    let sweeper = |name: &str| {
        let interval = Duration::from_secs(600);
        Sweeper::new(Arc::clone(&registry), replica(name), interval, 10)
    };
    let (mut one, mut other) = (sweeper("hub-a"), sweeper("hub-b"));
    assert!(matches!(one.step().await, Ok(Swept::Here(_))));
    assert_eq!(other.step().await, Ok(Swept::Elsewhere));
    assert!(matches!(one.step().await, Ok(Swept::Here(_))));
    one.resign().await.unwrap();
    assert!(matches!(other.step().await, Ok(Swept::Here(_))));
}

#[tokio::test]
async fn a_sweep_goes_on_where_it_stopped() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = open(&redis.url(), |_| ()).await;
    let names: Vec<_> = (0..600).map(|n| format!("connector-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let plant = agent("default", "plant");
    let claim = request(&plant, "hub-a", None);
    let epoch = here.claim_ownership(&claim).await.unwrap().epoch;
    here.add_connectors(&plant, &epoch, &offer(&names, ""))
        .await
        .unwrap();
    redis.cli(&["DEL", "nowconnect:owner:{default/plant}"]);
    let first = here.sweep(Default::default(), 50).await.unwrap();
    assert!(!first.next.is_start(), "600 indexes in a step of 50");
    assert!(first.removed >= 50);
    let mut removed = first.removed;
    let mut next = first.next;
    while !next.is_start() {
        let step = here.sweep(next, 50).await.unwrap();
        (removed, next) = (removed + step.removed, step.next);
    }
    assert_eq!(removed, 600);
}

#[tokio::test]
async fn eviction_is_read_at_the_start() {
    if skip_without_redis() {
        return;
    }
    let evicting = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let error = RedisRegistry::open(config(&evicting.url(), |_| ()))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        OpenError::Evicts {
            policy: "allkeys-lru".to_owned()
        }
    );
    let fit = Server::start(&[]);
    assert_eq!(open(&fit.url(), |_| ()).await.eviction(), Eviction::Off);
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_sent_again() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = open(&redis.url(), |_| ()).await;
    let first = offered(&here, "default", "plant", &["ldap"]).await;
    redis.cli(&["SCRIPT", "FLUSH"]);
    let second = offered(&here, "default", "plant", &["ldap"]).await;
    assert!(second > first);
    assert!(here.is_healthy());
}

#[tokio::test]
async fn what_another_program_keeps_there_is_refused_and_not_touched() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = open(&redis.url(), |_| ()).await;
    let key = "nowconnect:owner:{default/plant}";
    redis.cli(&["SET", key, "another's"]);
    let claim = request(&agent("default", "plant"), "hub-a", None);
    let error = here.claim_ownership(&claim).await.unwrap_err();
    assert!(!error.is_unavailable() && !error.is_epoch_lost(), "{error}");
    assert!(error.to_string().contains("claim"), "{error}");
    assert_eq!(redis.cli(&["GET", key]), "another's");
    assert!(here.is_healthy(), "one bad key made the registry go away");
    let other = request(&agent("default", "other"), "hub-a", None);
    here.claim_ownership(&other).await.unwrap();
}

#[tokio::test]
async fn a_fence_takes_what_the_registry_gives() {
    if skip_without_redis() {
        return;
    }
    let redis = Server::start(&[]);
    let here = open(&redis.url(), |_| ()).await;
    let fence = EpochFence::new(16.try_into().unwrap());
    let plant = agent("default", "plant");
    let first = offered(&here, "default", "plant", &[]).await;
    assert!(fence.observe(&plant, &first).is_accepted());
    let second = offered(&here, "default", "plant", &[]).await;
    assert!(fence.observe(&plant, &second).is_accepted());
    assert!(!fence.observe(&plant, &first).is_accepted());
}
