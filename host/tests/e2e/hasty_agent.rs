//! An agent that has proven who it is and does not keep to its pace.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt};
use nowconnect_protocol::{
    AgentId, CloseCode, ConnectorName, Features, Hello, HelloAck, InstanceId, RenewAck, ResetCode,
    Role,
};
use nowconnect_tunnel::tungstenite::Message;
use nowconnect_tunnel::{
    AgentEvent, AgentShell, AgentTunnelHandle, Dial, DialError, Dialed, ResumeFrom, TunnelEnd,
    TunnelSettings, WebSocketStream, agent_channel, serve_agent, websocket_config,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use crate::cluster::{Claims, SOON, TestHub, eventually, hub};

/// Each is a signature to be checked and a question about each connector.
#[tokio::test]
async fn renewals_that_come_faster_than_their_pace_end_the_tunnel() {
    let hub = hub().start().await;
    let run = async {
        let mut agent = HastyAgent::join(&hub).await;
        // Three may come at once.
        for _ in 0..3 {
            agent.renew(&hub);
            assert!(agent.renewed().await, "a renewal in good time was refused");
        }
        agent.renew(&hub);
        let end = agent.ended().await;
        assert_eq!(end.closed.code, CloseCode::ProtocolViolation);
        assert!(!end.closed.local);
        assert!(end.closed.detail.contains("RENEW"), "{}", end.closed);
        eventually("the hub has let it go", || async {
            hub.metrics().contains("\nnowconnect_tunnels 0\n")
        })
        .await;
        // It may come back.
        let _again = HastyAgent::join(&hub).await;
    };
    LocalSet::new().run_until(run).await;
}

#[tokio::test]
async fn a_flood_of_renewals_waits_in_no_queue() {
    let hub = hub().start().await;
    let run = async {
        let agent = HastyAgent::join(&hub).await;
        for _ in 0..32 {
            agent.renew(&hub);
        }
        let end = agent.ended().await;
        assert_eq!(end.closed.code, CloseCode::ProtocolViolation);
        assert!(!end.closed.local);
    };
    LocalSet::new().run_until(run).await;
}

/// What is well formed gets an answer at least: here nothing is read of it. A lower bound of the
/// hub's is not this one: nobody was told of it before HELLO.
#[tokio::test]
async fn a_message_beyond_the_protocols_bound_breaks_the_tunnel_unread() {
    const BOUND: usize = 262_144;
    let hub = hub().tunnel("max_ws_message: 139264").start().await;
    for (length, is_read) in [(BOUND, true), (BOUND + 1, false)] {
        let mut websocket = upgraded(&hub).await;
        // The break may come before the end of the message.
        let _ = websocket.send(Message::binary(vec![0; length])).await;
        let answer = timeout(SOON, websocket.next()).await.unwrap();
        let says_goodbye = matches!(answer, Some(Ok(Message::Binary(_))));
        assert_eq!(says_goodbye, is_read, "{length}: {answer:?}");
    }
}

#[tokio::test]
async fn an_agent_without_a_transport_of_the_hub_is_told_so() {
    let hub = hub().start().await;
    let with = |transports: &[&str]| Hello {
        transports: transports.iter().map(|one| (*one).to_owned()).collect(),
        ..hello()
    };
    let run = async {
        let agent = HastyAgent::begin(&hub, with(&["quic", "webtransport"])).await;
        let end = agent.ended().await;
        assert_eq!(end.closed.code, CloseCode::TransportUnsupported);
        assert!(!end.closed.local && !end.closed.is_retryable());
        HastyAgent::join_with(&hub, with(&["quic", "wss"])).await;
    };
    LocalSet::new().run_until(run).await;
}

/// Who offers a tunnel of the control plane gets the requests for its public name.
#[tokio::test]
async fn a_tunnel_is_offered_with_its_own_token_alone() {
    const TUNNEL: &str = "tun_0k3m9w5r7t2v4x6z8b1d3f5h7j";
    let hub = hub().start().await;
    let offered = ["echo", TUNNEL].map(|name| ConnectorName::parse(name).unwrap());
    // Neither a token that names nothing nor one of another issuer that names it.
    let run = async {
        let hello = Hello {
            connectors: offered.to_vec(),
            ..hello()
        };
        let (mut agent, welcome) = HastyAgent::join_with(&hub, hello).await;
        assert_eq!(welcome.accepted, offered[..1]);
        assert_eq!(welcome.refused[0].code, "tunnel_of_another");
        let claims = Claims::of("plant").with("connectors", vec![TUNNEL, "echo"]);
        let token = hub.issuer.sign(&claims);
        assert!(agent.handle.renew(Some(token), Some(offered.to_vec())));
        let renewed = agent.renewal().await;
        assert!(renewed.ok, "{renewed:?}");
        assert_eq!(renewed.accepted, offered[..1]);
    };
    LocalSet::new().run_until(run).await;
}

/// An agent whose every word the test chooses.
struct HastyAgent {
    handle: AgentTunnelHandle,
    events: mpsc::UnboundedReceiver<AgentEvent>,
    driver: JoinHandle<TunnelEnd>,
}

struct Shell(mpsc::UnboundedSender<AgentEvent>);

impl AgentShell for Shell {
    fn dial(&self, _dial: Dial) -> LocalBoxFuture<'static, Result<Dialed, DialError>> {
        async {
            Err(DialError {
                code: ResetCode::ConnectFailed,
                message: String::new(),
            })
        }
        .boxed_local()
    }

    fn event(&self, event: AgentEvent) {
        // The test may have seen enough.
        let _ = self.0.send(event);
    }
}

impl HastyAgent {
    /// Joins as `plant`, once the hub has said HELLO_ACK.
    async fn join(hub: &TestHub) -> Self {
        Self::join_with(hub, hello()).await.0
    }

    /// The same with these words, and what the hub said to them.
    async fn join_with(hub: &TestHub, hello: Hello) -> (Self, HelloAck) {
        let mut agent = Self::begin(hub, hello).await;
        let first = timeout(SOON, agent.events.recv()).await.unwrap();
        match first {
            Some(AgentEvent::Welcomed(ack)) => (agent, *ack),
            other => panic!("no welcome: {other:?}"),
        }
    }

    async fn begin(hub: &TestHub, hello: Hello) -> Self {
        let websocket = upgraded(hub).await;
        let (told, events) = mpsc::unbounded_channel();
        let (handle, commands) = agent_channel();
        let driver = spawn_local(serve_agent(
            websocket,
            hello,
            ResumeFrom::Nothing,
            Rc::new(Shell(told)),
            commands,
            TunnelSettings::default(),
        ));
        Self {
            handle,
            events,
            driver,
        }
    }

    fn renew(&self, hub: &TestHub) {
        let token = hub.issuer.sign(&Claims::of("plant"));
        assert!(self.handle.renew(Some(token), None));
    }

    /// Whether the hub takes the next renewal.
    async fn renewed(&mut self) -> bool {
        self.renewal().await.ok
    }

    /// What the hub says to the next renewal.
    async fn renewal(&mut self) -> RenewAck {
        loop {
            match timeout(SOON, self.events.recv()).await.unwrap() {
                Some(AgentEvent::Renewed(ack)) => return *ack,
                Some(_) => {}
                None => panic!("the tunnel ended"),
            }
        }
    }

    async fn ended(self) -> TunnelEnd {
        timeout(SOON, self.driver).await.unwrap().unwrap()
    }
}

/// A WebSocket that the hub has taken for `plant`'s.
async fn upgraded(hub: &TestHub) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(hub.tunnel_address()).await.unwrap();
    let token = hub.issuer.sign(&Claims::of("plant"));
    let request = http::Request::builder()
        .uri(format!("ws://{}/tunnel", hub.tunnel_address()))
        .header("host", "hub")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "nowconnect.v1")
        .header("authorization", format!("Bearer {token}"))
        .body(())
        .unwrap();
    let limits = websocket_config();
    let (websocket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(limits))
        .await
        .unwrap();
    websocket
}

fn hello() -> Hello {
    Hello {
        ver_min: 1,
        ver_max: 1,
        agent_id: AgentId::parse("plant").unwrap(),
        tenant: None,
        instance: InstanceId(7),
        role: Role::Primary,
        connectors: vec![ConnectorName::parse("echo").unwrap()],
        labels: Vec::new(),
        transports: Vec::new(),
        features: Features::default(),
        last_epoch: None,
        resume: None,
        agent_version: "test".to_owned(),
        max_data_payload: 131_072,
        flow_window: 32_768,
    }
}
