//! Bundles change while clients come as fast as they can, and several at once.
#![expect(clippy::print_stdout, reason = "times are shown and not asserted")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nowconnect::bundle::state::Stage;
use nowconnect::bundle::view::ActivateRequest;
use nowconnect::telemetry::decisions::{DecisionAction, DecisionFilter};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{begin, code, push};
use crate::cluster::{Bundler, SOON, echo, hub};

/// Clients at once.
const CLIENTS: u64 = 8;

/// Swaps under load.
const SWAPS: u64 = 20;

/// Flows that are to have run before each swap, so that each falls among them.
const FLOWS_BETWEEN: u64 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flow_fails_and_no_decision_mixes_generations_while_bundles_swap() {
    let target = echo().await;
    let maker = Bundler::new();
    let hub = hub()
        .admin()
        .listener("echo")
        .policy("decisions_kept: 100000")
        .bundles(&maker, "keep: 2")
        .start()
        .await;
    let report = push(&hub, revision(&maker, 1)).await.unwrap();
    let mut revisions = BTreeMap::from([(report.activation.unwrap().generation.unwrap(), 1)]);
    let _agent = hub
        .agent("plant")
        .target("echo", target.address())
        .ready()
        .await;

    let (done, flows) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let address = hub.address("echo");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (done, flows) = (Arc::clone(&done), Arc::clone(&flows));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    one_flow(address).await;
                    flows.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let started = Instant::now();
    let mut visible = Vec::new();
    for number in 2..2 + SWAPS {
        let before = flows.load(Ordering::Relaxed);
        let deadline = Instant::now() + SOON;
        while flows.load(Ordering::Relaxed) < before + FLOWS_BETWEEN {
            assert!(Instant::now() < deadline, "no flows come");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let report = push(&hub, revision(&maker, number)).await.unwrap();
        let activation = report.activation.unwrap();
        assert_eq!(activation.flows_closed, 0);
        visible.push(activation.visible_after_us);
        revisions.insert(activation.generation.unwrap(), number);
    }
    let took = started.elapsed();
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("a flow failed");
    }

    let filter = DecisionFilter {
        action: Some(DecisionAction::Open),
        ..DecisionFilter::default()
    };
    let records = hub.running().hub().decisions().recent(&filter, usize::MAX);
    let flows = flows.load(Ordering::Relaxed);
    // One for each flow, or as many as are kept.
    assert!(records.len() > 400, "{} records", records.len());
    let mut seen = BTreeMap::new();
    for record in &records {
        assert!(record.allow, "{record:?}");
        let revision = revisions[&record.generation];
        let expected = format!("open-{revision}");
        assert_eq!(record.policies.len(), 1);
        assert_eq!(
            record.policies[0].id.as_ref(),
            expected,
            "a mixed generation"
        );
        *seen.entry(revision).or_insert(0_u64) += 1;
    }
    assert!(
        seen.len() > 10,
        "too few revisions decided anything: {seen:?}"
    );
    visible.sort_unstable();
    println!(
        "{flows} flows, {:.0} per second, over {SWAPS} swaps; a new generation decided {:.1} ms \
         after its order at the median, {:.1} ms at worst",
        flows as f64 / took.as_secs_f64(),
        visible[visible.len() / 2] as f64 / 1000.0,
        visible[visible.len() - 1] as f64 / 1000.0,
    );
}

#[tokio::test]
async fn bundles_that_come_at_once_are_taken_one_after_another() {
    let maker = Bundler::new();
    let hub = hub().admin().bundles(&maker, "").start().await;
    begin(&hub, &maker).await;
    let (three, two) = tokio::join!(
        push(&hub, revision(&maker, 3)),
        push(&hub, revision(&maker, 2))
    );
    assert_eq!(three.unwrap().stage, Stage::Active);
    match two {
        Ok(report) => assert_eq!(report.stage, Stage::Active),
        Err(error) => assert_eq!(code(error), "bundle_rollback"),
    }
    let status = hub.operator().bundles().await.unwrap();
    assert_eq!(status.active.unwrap().revision, 3);
    let active = status
        .history
        .iter()
        .filter(|entry| entry.stage == Stage::Active)
        .count();
    assert_eq!(active, 1);
}

#[tokio::test]
async fn two_activations_at_once_make_one_generation() {
    let maker = Bundler::new();
    let hub = hub().admin().bundles(&maker, super::STAGE).start().await;
    begin(&hub, &maker).await;
    push(&hub, revision(&maker, 2)).await.unwrap();
    let before = hub.running().hub().generations().current().number();
    let (operator, request) = (hub.operator(), ActivateRequest::default());
    let (first, second) = tokio::join!(
        operator.activate_bundle(&request),
        operator.activate_bundle(&request)
    );
    let (activated, refused) = match (first, second) {
        (Ok(report), Err(error)) | (Err(error), Ok(report)) => (report, code(error)),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused, "bundle_none_staged");
    assert_eq!(activated.generation, Some(before + 1));
    let now = hub.running().hub().generations().current().number();
    assert_eq!(now, before + 1);
}

/// What permits everything, by a policy that is named after its revision.
fn revision(maker: &Bundler, revision: u64) -> Vec<u8> {
    let text = format!(
        "@id(\"hello-{revision}\") permit (principal, action == NowConnect::Action::\"hello\", resource);\n\
         @id(\"announce-{revision}\") permit (principal, action == NowConnect::Action::\"announce\", resource);\n\
         @id(\"open-{revision}\") permit (principal, action == NowConnect::Action::\"open\", resource);\n"
    );
    maker.exactly(revision, &text).to_tar().unwrap()
}

async fn one_flow(address: std::net::SocketAddr) {
    let flow = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"ping").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"ping");
        std::io::Result::Ok(())
    };
    tokio::time::timeout(SOON, flow)
        .await
        .expect("a flow took too long")
        .expect("a flow failed");
}
