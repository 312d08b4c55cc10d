//! The suite over a cluster of three masters, and one that goes.

use std::time::Duration;

use nowconnect_registry::Registry as _;

use crate::names::{agent, request};
use crate::servers::{Cluster, skip_without_redis};
use crate::standalone::{open, subject, until_away, until_healthy};
use crate::suite::conforms;
use crate::tls::RIGHTS;
use crate::wait::bounded;

#[tokio::test]
async fn three_masters_conform() {
    if skip_without_redis() {
        return;
    }
    let cluster = Cluster::start().await;
    for node in &cluster.nodes {
        let user = [
            "ACL", "SETUSER", "hub", "on", ">secret", "+info", "+cluster",
        ];
        assert_eq!(node.cli(&[&user[..], &RIGHTS].concat()), "OK");
    }
    let url = cluster.url().replace("//", "//hub:secret@");
    conforms(&subject(&url, |_| ()).await).await;
    for node in &cluster.nodes {
        assert_ne!(node.cli(&["DBSIZE"]), "0", "a master holds nothing");
    }
}

#[tokio::test]
async fn a_master_that_goes_is_noticed_and_comes_back() {
    if skip_without_redis() {
        return;
    }
    let mut cluster = Cluster::start().await;
    let registry = open(&cluster.url(), |config| {
        config.timing.call = Duration::from_secs(1);
        config.timing.dial = Duration::from_secs(5);
    })
    .await;
    until_healthy(&registry).await;
    cluster.nodes[2].kill();
    until_away(&registry).await;
    let plant = agent("default", "plant");
    let claim = request(&plant, "hub-a", None);
    let refused = bounded("a claim", registry.claim_ownership(&claim)).await;
    assert!(refused.unwrap_err().is_unavailable());
    cluster.nodes[2].start_again();
    cluster.wait_until_ok().await;
    until_healthy(&registry).await;
    crate::wait::eventually("a claim is granted", async || {
        registry.claim_ownership(&claim).await.ok()
    })
    .await;
}
