//! The suite over Sentinel, and a failover under it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use nowconnect_registry::{ClaimSettings, Claims, EpochFence, Offered, Registry};
use tokio::sync::mpsc;

use crate::names::{agent, connector, offer, replica};
use crate::servers::{Sentinels, skip_without_redis};
use crate::standalone::{open, subject, until_healthy};
use crate::suite::conforms;
use crate::tls::RIGHTS;
use crate::wait::{bounded, eventually};

#[tokio::test]
async fn the_master_that_sentinels_name_conforms() {
    if skip_without_redis() {
        return;
    }
    let sentinels = Sentinels::start().await;
    let user = ["ACL", "SETUSER", "hub", "on", ">secret", "+info", "+role"];
    let user = [&user[..], &RIGHTS].concat();
    assert_eq!(sentinels.master.cli(&user), "OK");
    let url = sentinels.url().replace("//", "//hub:secret@");
    conforms(&subject(&url, |_| ()).await).await;
    assert_ne!(sentinels.master.cli(&["DBSIZE"]), "0");
}

/// One Sentinel that is gone and one that hangs do not keep a hub from the master.
#[tokio::test]
async fn a_sentinel_that_hangs_is_passed_over() {
    if skip_without_redis() {
        return;
    }
    let mut sentinels = Sentinels::start().await;
    let [first, second, _] = &mut sentinels.sentinels[..] else {
        unreachable!("three Sentinels")
    };
    first.kill();
    second.pause();
    let registry = open(&sentinels.url(), |config| {
        config.timing.dial = Duration::from_secs(5);
    })
    .await;
    until_healthy(&registry).await;
}

#[tokio::test]
async fn claims_outlive_a_failover_and_epochs_go_on_rising() {
    if skip_without_redis() {
        return;
    }
    let mut sentinels = Sentinels::start().await;
    let registry: Arc<dyn Registry> = Arc::new(
        open(&sentinels.url(), |config| {
            config.timing.call = Duration::from_secs(1);
            config.timing.dial = Duration::from_secs(5);
        })
        .await,
    );
    let hub = |name: &str| {
        let fence = Arc::new(EpochFence::new(NonZeroUsize::new(64).unwrap()));
        let settings = ClaimSettings {
            recovery_spread: Duration::from_millis(50),
        };
        Claims::new(Arc::clone(&registry), replica(name), fence, settings)
    };
    let (here, there) = (hub("hub-a"), hub("hub-b"));
    let plant = agent("default", "plant");
    let first = here.claim(&plant, None).await.unwrap();
    assert!(!first.provisional);
    here.offer(&plant, &first.epoch, offer(&["ldap"], "facts"))
        .await
        .unwrap();

    sentinels.master.kill();
    // While nobody is master: served locally, above all that was seen.
    let second = bounded("a claim", here.claim(&plant, Some(first.epoch.clone())))
        .await
        .unwrap();
    assert!(second.epoch > first.epoch);
    let said = here
        .offer(&plant, &second.epoch, offer(&["ldap"], "facts"))
        .await
        .unwrap();
    assert_eq!(said == Offered::LocalOnly, second.provisional);

    let (lost, mut losses) = mpsc::channel(8);
    let renewing = async { here.run(lost).await };
    let watching = async {
        eventually("the new master knows the claim", async || {
            let owner = registry.get_owner(&plant).await.ok()??;
            (owner.epoch == second.epoch).then_some(())
        })
        .await;
        eventually("the new master knows the offer", async || {
            let found = registry.list_agents(&connector("default", "ldap")).await;
            (found.ok()?.len() == 1).then_some(())
        })
        .await;
    };
    tokio::select! {
        () = watching => {}
        () = renewing => panic!("the hub stopped renewing"),
    }
    assert!(losses.try_recv().is_err(), "a claim was lost");
    let role = sentinels.replica.cli(&["ROLE"]);
    assert!(role.starts_with("master"), "{role}");
    let third = there.claim(&plant, Some(second.epoch.clone())).await;
    let third = third.unwrap();
    assert!(!third.provisional && third.epoch > second.epoch);
    assert_eq!(third.previous.unwrap().epoch, second.epoch);
}
