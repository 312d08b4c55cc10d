#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nowconnect_protocol::{ConnectorName, Refusal};

use super::Standing;
use crate::fixture::{Fixture, SOON, agent_key, eventually};
use crate::hub::Hub;

/// Far longer than either act takes where nothing holds it up.
const A_WHILE: Duration = Duration::from_millis(300);

/// A tunnel that ends takes its agent's row away, and the agent's next one puts it there. Were each
/// not one act with its place in the router, the old tunnel could take the new one's row away.
#[tokio::test]
async fn a_tunnel_comes_into_force_and_leaves_together_with_its_agents_row() {
    let fixture = Fixture::start().await;
    let hub = fixture.running.hub();
    let key = agent_key("plant");
    let first = fixture.agent("plant");
    first
        .ready(SOON)
        .await
        .map_err(|state| format!("{state:?}"))
        .unwrap();
    let tunnel = hub.router().tunnel_of(&key).unwrap();

    let held = HeldPresence::of(hub);
    first.stop_now();
    eventually("the tunnel has ended", || tunnel.is_gone()).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(
        hub.router().tunnel_of(&key).is_some(),
        "it left in two steps"
    );
    held.let_go();
    eventually("the tunnel is gone", || {
        hub.router().tunnel_of(&key).is_none()
    })
    .await;

    let held = HeldPresence::of(hub);
    let second = fixture.agent("plant");
    eventually("the second tunnel is about to come into force", || {
        hub.last_session.load(std::sync::atomic::Ordering::Relaxed) > tunnel.session
    })
    .await;
    tokio::time::sleep(A_WHILE).await;
    assert!(
        hub.router().tunnel_of(&key).is_none(),
        "it came in two steps"
    );
    held.let_go();
    second
        .ready(SOON)
        .await
        .map_err(|state| format!("{state:?}"))
        .unwrap();
    assert!(hub.router().tunnel_of(&key).is_some());
}

/// A client that chose the agent before it lost the connector, and whose flow comes after what ran
/// was withdrawn.
#[tokio::test]
async fn a_flow_that_comes_after_its_agent_lost_the_connector_ends() {
    let fixture = Fixture::start().await;
    let hub = fixture.running.hub();
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = fixture.agent_to("plant", service.local_addr().unwrap().port());
    agent
        .ready(SOON)
        .await
        .map_err(|state| format!("{state:?}"))
        .unwrap();
    let tunnel = hub.router().tunnel_of(&agent_key("plant")).unwrap();
    // The router still offers the agent, as it did when the client chose it.
    assert!(tunnel.lose(&[lost()]).is_empty());
    tunnel.withdraw(vec![lost().connector]);
    let address = fixture.running.listener_address("echo").unwrap();
    let _client = tokio::net::TcpStream::connect(address).await.unwrap();
    eventually("the flow has come and is gone", || {
        hub.flows().opened() == 1 && hub.flows().is_empty()
    })
    .await;
    let ended = "{cause=\"scope_lost\"} 1\n";
    assert!(hub.metrics().render().contains(ended));
}

#[tokio::test]
async fn what_was_taken_away_while_a_renewal_was_decided_stays_away() {
    let fixture = Fixture::start().await;
    let hub = fixture.running.hub();
    let agent = fixture.agent("plant");
    agent
        .ready(SOON)
        .await
        .map_err(|state| format!("{state:?}"))
        .unwrap();
    let tunnel = hub.router().tunnel_of(&agent_key("plant")).unwrap();
    let before = tunnel.standing();
    tunnel.lose(&[lost()]);
    let renewed = tunnel.renew(Standing {
        identity: Arc::clone(&before.identity),
        agent: Arc::clone(&before.agent),
        connectors: Arc::clone(&before.connectors),
        refused: Vec::new(),
        carry: before.carry.clone(),
    });
    assert_eq!(before.connectors.len(), 1);
    assert!(renewed.connectors.is_empty(), "it has the connector back");
    assert_eq!(renewed.refused, [lost()]);
    assert!(Arc::ptr_eq(&renewed, &tunnel.standing()));
}

fn lost() -> Refusal {
    Refusal {
        connector: ConnectorName::parse("echo").unwrap(),
        code: "not_permitted".to_owned(),
        message: "the policies do not allow it".to_owned(),
        decision: "0123456789abcdef-0123456789".to_owned(),
    }
}

/// Somebody who is in the middle of the act.
struct HeldPresence {
    go: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl HeldPresence {
    fn of(hub: &Arc<Hub>) -> Self {
        let (go, may_go) = mpsc::channel();
        let (holds, held) = mpsc::channel();
        let hub = Arc::clone(hub);
        let thread = std::thread::spawn(move || {
            let _presence = hub.presence.lock();
            holds.send(()).unwrap();
            // An error lets go as well: the test has failed.
            let _ = may_go.recv();
        });
        held.recv().unwrap();
        Self { go, thread }
    }

    fn let_go(self) {
        self.go.send(()).unwrap();
        self.thread.join().unwrap();
    }
}
