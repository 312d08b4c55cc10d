#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use super::*;
use crate::fixture::Fixture;
use crate::health::{Readiness, ReasonCode};

fn another_port(hub: &Arc<Hub>) -> Arc<Port> {
    let config = hub.config();
    Port::bind(Rules::new(hub, &config, &config.listeners[0], None)).unwrap()
}

#[tokio::test]
async fn a_listener_that_takes_nobody_is_a_reason_in_readyz() {
    let fixture = Fixture::start().await;
    let hub = fixture.running.hub();
    assert_eq!(hub.readiness(), Readiness::Ready);

    let port = another_port(hub);
    hub.ports.lock().push(Arc::clone(&port));
    assert_eq!(hub.readiness(), Readiness::Ready);
    // What is left of it once its accept loop has broken.
    *port.socket.lock() = None;
    let Readiness::Degraded(reasons) = hub.readiness() else {
        panic!("{:?}", hub.readiness());
    };
    let told: Vec<_> = reasons
        .iter()
        .map(|reason| (reason.code, reason.detail.as_str()))
        .collect();
    assert_eq!(told, [(ReasonCode::ListenerDown, "echo")]);

    // One that an operator removed is not missed.
    port.stop();
    assert_eq!(hub.readiness(), Readiness::Ready);
}

#[tokio::test]
async fn a_listener_that_no_worker_takes_refuses_clients_instead_of_holding_them() {
    let fixture = Fixture::start().await;
    let hub = Arc::clone(fixture.running.hub());
    fixture.running.shutdown().await;
    assert!(hub.workers().is_none());
    let port = another_port(&hub);
    assert!(TcpStream::connect(port.address).is_ok());
    port.serve(&hub);
    assert!(port.is_down());
    assert!(TcpStream::connect(port.address).is_err());
}
