//! The last hop: HELLO, said as a standby and taken back at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nowconnect_protocol::{CloseCode, HelloAck, InstanceId, ResetCode, TunnelClosed, TunnelConfig};
use nowconnect_tunnel::{
    AgentEvent, AgentShell, AgentTunnelHandle, Dial, DialError, Dialed, ResumeFrom, TunnelSettings,
    WebSocketStream, agent_channel, serve_agent,
};
use tokio::time::timeout;

use super::report::Report;
use crate::config::AgentConfig;
use crate::hub_dial::HubStream;
use crate::supervisor::{advice, hello};

/// The hub may take this long to decide.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What the hub said to HELLO.
pub(super) enum Answer {
    Accepted(Box<HelloAck>),
    Refused(TunnelClosed),
    Silent,
}

/// Refuses every flow and leaves once it is welcomed.
struct Visitor {
    handle: AgentTunnelHandle,
    ack: RefCell<Option<Box<HelloAck>>>,
}

impl AgentShell for Visitor {
    fn dial(&self, _dial: Dial) -> LocalBoxFuture<'static, Result<Dialed, DialError>> {
        let refused = DialError {
            code: ResetCode::Draining,
            message: "a diagnosis carries no flows".to_owned(),
        };
        async move { Err(refused) }.boxed_local()
    }

    fn event(&self, event: AgentEvent) {
        if let AgentEvent::Welcomed(ack) = event {
            self.ack.replace(Some(ack));
            self.handle
                .close(CloseCode::Shutdown, "diagnosis is done".to_owned());
        }
    }
}

pub(super) async fn say(config: &AgentConfig, websocket: WebSocketStream<HubStream>) -> Answer {
    let (handle, commands) = agent_channel();
    let visitor = Rc::new(Visitor {
        handle,
        ack: RefCell::new(None),
    });
    let settings = TunnelSettings {
        config: TunnelConfig {
            max_data_payload: config.tunnel.max_ws_payload,
            ..TunnelConfig::default()
        },
    };
    let standby = AgentConfig {
        standby: true,
        ..config.clone()
    };
    let instance = InstanceId(u64::from(std::process::id()));
    let first = hello(
        &standby,
        instance,
        &settings.config,
        &config.offered_connectors(),
    );
    let shell: Rc<dyn AgentShell> = Rc::<Visitor>::clone(&visitor);
    let served = serve_agent(
        websocket,
        first,
        ResumeFrom::Nothing,
        shell,
        commands,
        settings,
    );
    let ended = timeout(ANSWER_TIMEOUT, served).await;
    match (visitor.ack.take(), ended) {
        (Some(ack), _) => Answer::Accepted(ack),
        (None, Ok(end)) => Answer::Refused(end.closed),
        (None, Err(_)) => Answer::Silent,
    }
}

pub(super) fn judge(report: &mut Report, answer: &Answer) {
    match answer {
        Answer::Accepted(ack) => {
            let total = ack.accepted.len() + ack.refused.len();
            let detail = format!(
                "hub `{}` accepted {} of {total} connectors, protocol version {}",
                ack.replica,
                ack.accepted.len(),
                ack.ver
            );
            if ack.refused.is_empty() {
                report.ok("hello", detail);
            } else {
                report.failed(
                    "hello",
                    detail,
                    "compare the token's scopes and the hub's policies with the refusals above",
                );
            }
            for refusal in &ack.refused {
                report.note(format!(
                    "refused `{}`: `{}` {} (decision {})",
                    refusal.connector, refusal.code, refusal.message, refusal.decision
                ));
            }
        }
        // The hub got as far as comparing live agents, so everything before that is in order.
        Answer::Refused(closed) if closed.code == CloseCode::AgentIdInUse => report.ok(
            "hello",
            "another live agent holds this identity (most likely the running service); token and identity are accepted",
        ),
        Answer::Refused(closed) => {
            report.failed("hello", closed.to_string(), advice(closed.code));
        }
        Answer::Silent => report.failed(
            "hello",
            "the hub did not answer HELLO in time",
            "see the hub's log; its policies, plugins or registry may be stuck",
        ),
    }
}
