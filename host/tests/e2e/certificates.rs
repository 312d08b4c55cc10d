//! Certificates change while the hub runs, and other's certificates are checked.

use nowconnect::health::{Readiness, ReasonCode};

use crate::cluster::tls::{authority, certificate, shown, write_pair, write_pair_until};
use crate::cluster::{Issuer, echo, eventually, hub, now_s};

#[tokio::test]
async fn a_new_certificate_is_shown_to_newcomers_and_leaves_running_flows_alone() {
    let target = echo().await;
    let hub = hub().listener("echo").tls().start().await;
    let agent = hub.plant("echo", target.address()).await;
    let mut idle = hub.client("echo").await;
    idle.echoes(b"before").await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let mut busy = hub.client("echo").await;
    let traffic = tokio::spawn(async move {
        let mut rounds = 0_u32;
        while stopped.try_recv().is_err() {
            busy.echoes(&[7; 32 * 1024]).await;
            rounds += 1;
        }
        rounds
    });

    let mut known = vec![certificate(&hub.path("hub.pem"))];
    for _ in 0..3 {
        let before = known.last().unwrap().clone();
        assert_eq!(
            shown(hub.tunnel_address(), &known).await.unwrap(),
            before,
            "another certificate than the one in force"
        );
        write_pair(&hub.path(""), "hub");
        let next = certificate(&hub.path("hub.pem"));
        assert_ne!(next, before);
        let report = hub.reload().await;
        assert!(report.ok, "{report:?}");
        assert!(
            report.changed.contains(&"certificates".to_owned()),
            "{report:?}"
        );
        known.push(next.clone());
        assert_eq!(shown(hub.tunnel_address(), &known).await.unwrap(), next);
        assert!(
            shown(hub.tunnel_address(), &[before]).await.is_err(),
            "who trusts only the old certificate is served"
        );
        idle.echoes(b"still here").await;
        hub.client("echo").await.echoes(b"a new flow").await;
    }
    stop.send(()).unwrap();
    assert!(traffic.await.unwrap() > 0);
    assert_eq!(agent.running.state().tunnels, 1, "the tunnel was cut");
    // It trusts what the file holds now.
    hub.agent("newcomer")
        .target("other", target.address())
        .ready()
        .await;
}

#[tokio::test]
async fn the_end_of_the_certificate_in_force_is_a_metric() {
    let hub = hub().tls().start().await;
    let not_after = || {
        let metrics = hub.metrics();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("nowconnect_certificate_not_after_seconds"))
            .unwrap_or_default()
            .to_owned();
        line.strip_prefix("nowconnect_certificate_not_after_seconds{certificate=\"tunnel\"} ")
            .and_then(|seconds| seconds.parse::<u64>().ok())
    };
    let in_two_days = now_s() + 2 * 86_400;
    assert!(not_after().unwrap() > in_two_days, "{:?}", not_after());
    write_pair_until(&hub.path(""), "hub", in_two_days);
    assert!(hub.reload().await.ok);
    assert_eq!(not_after(), Some(in_two_days));
    std::fs::write(hub.path("hub.pem"), "no certificate").unwrap();
    assert!(!hub.reload().await.ok);
    assert_eq!(
        not_after(),
        Some(in_two_days),
        "the refused one does not count"
    );
}

#[tokio::test]
async fn the_admin_port_shows_its_new_certificate_as_well() {
    // More lines of the section `admin`, which comes last.
    let lines = "  listen: 127.0.0.1:0\n  token_file: token\n  \
                 tls: {cert_file: hub.pem, key_file: hub.key}";
    let hub = hub()
        .tls()
        .file("token", "0123456789abcdef")
        .top(lines)
        .start()
        .await;
    let address = hub.running().admin_address().unwrap();
    let first = certificate(&hub.path("hub.pem"));
    let served = shown(address, std::slice::from_ref(&first)).await;
    assert_eq!(served.unwrap(), first);
    let in_two_days = now_s() + 2 * 86_400;
    let ends = |at: u64| {
        let line =
            format!("nowconnect_certificate_not_after_seconds{{certificate=\"admin\"}} {at}\n");
        hub.metrics().contains(&line)
    };
    assert!(!ends(in_two_days));
    write_pair_until(&hub.path(""), "hub", in_two_days);
    let report = hub.reload().await;
    assert!(report.ok, "{report:?}");
    assert!(ends(in_two_days), "{}", hub.metrics());
    let next = certificate(&hub.path("hub.pem"));
    let served = shown(address, &[first, next.clone()]).await;
    assert_eq!(served.unwrap(), next);
}

#[tokio::test]
async fn a_broken_certificate_is_refused_and_the_old_one_stays() {
    let target = echo().await;
    let hub = hub().admin().listener("echo").tls().start().await;
    let _agent = hub.plant("echo", target.address()).await;
    let mut running = hub.client("echo").await;
    running.echoes(b"before").await;
    let good = certificate(&hub.path("hub.pem"));
    let pem = std::fs::read(hub.path("hub.pem")).unwrap();
    let key = std::fs::read(hub.path("hub.key")).unwrap();
    write_pair(&hub.path(""), "other");
    let other_key = std::fs::read(hub.path("other.key")).unwrap();

    for (what, pem, key) in [
        ("cut in the middle", &pem[..pem.len() / 2], &key[..]),
        ("empty", &b""[..], &key[..]),
        ("with another's key", &pem[..], &other_key[..]),
        ("without a key", &pem[..], &b"no key"[..]),
    ] {
        std::fs::write(hub.path("hub.pem"), pem).unwrap();
        std::fs::write(hub.path("hub.key"), key).unwrap();
        let report = hub.reload().await;
        assert!(!report.ok, "{what}: {report:?}");
        assert!(report.errors[0].contains("hub."), "{what}: {report:?}");
        let served = shown(hub.tunnel_address(), std::slice::from_ref(&good)).await;
        assert_eq!(served.unwrap(), good, "{what}");
        let status = hub.operator().status().await.unwrap();
        let readiness = serde_json::to_string(&status.readiness).unwrap();
        assert!(readiness.contains("bundle_stale"), "{what}: {readiness}");
    }
    running.echoes(b"after").await;
    hub.client("echo").await.echoes(b"a new flow").await;

    write_pair(&hub.path(""), "hub");
    assert!(hub.reload().await.ok);
    let next = certificate(&hub.path("hub.pem"));
    let served = shown(hub.tunnel_address(), &[good, next.clone()]).await;
    assert_eq!(served.unwrap(), next);
}

#[tokio::test]
async fn an_https_issuer_is_believed_only_under_the_named_authority() {
    let (right, tls) = authority();
    let (wrong, _) = authority();
    for (what, bundle, let_in) in [
        ("the right bundle", Some(right), true),
        ("no bundle", None, false),
        ("another authority's bundle", Some(wrong), false),
    ] {
        let issuer = Issuer::start_tls(tls.clone()).await;
        let mut plan = hub().issuer(issuer);
        if let Some(pem) = bundle {
            plan = plan
                .file("issuer-ca.pem", pem)
                .security("jwks_ca_bundle: issuer-ca.pem");
        }
        let hub = plan.start().await;
        let agent = hub
            .agent("plant")
            .target("echo", ([127, 0, 0, 1], 9).into())
            .start();
        if let_in {
            agent.ready().await;
            continue;
        }
        let problem = agent.problem("503").await;
        assert!(problem.contains("keys_unavailable"), "{what}: {problem}");
        assert_eq!(agent.running.state().tunnels, 0, "{what}");
    }
}

#[tokio::test]
async fn an_issuer_whose_keys_cannot_be_had_is_a_reason_in_readyz() {
    let (_, tls) = authority();
    // No bundle names its authority, so the hub does not believe it.
    let issuer = Issuer::start_tls(tls).await;
    let hub = hub().issuer(issuer).start().await;
    eventually("the trouble shows", || async {
        hub.get("/readyz").await
            == (
                200,
                r#"{"status":"degraded","reasons":["keys_stale"]}"#.to_owned(),
            )
    })
    .await;
}

/// It serves all the same, and says which one.
#[tokio::test]
async fn a_certificate_that_nobody_renews_degrades_the_hub() {
    let hub = hub().tls().admin().start().await;
    let told = || async {
        let status = hub.operator().status().await.unwrap();
        match status.readiness {
            Readiness::Degraded(reasons) => reasons
                .into_iter()
                .filter(|reason| reason.code == ReasonCode::CertificateEnding)
                .map(|reason| reason.detail)
                .collect(),
            Readiness::Ready | Readiness::Starting | Readiness::Draining => Vec::new(),
        }
    };
    assert_eq!(told().await, [""; 0]);
    for (until, expected, count) in [
        (now_s() + 2 * 86_400, &["tunnel.tls"][..], 1),
        (now_s() + 60 * 86_400, &[], 0),
    ] {
        write_pair_until(&hub.path(""), "hub", until);
        assert!(hub.reload().await.ok);
        eventually("the readiness of then", || async {
            told().await == expected
        })
        .await;
        let line = format!("nowconnect_certificates_ending {count}\n");
        assert!(hub.metrics().contains(&line), "{}", hub.metrics());
    }
}
