//! The driver of the hub's end.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::BoxFuture;
use nowconnect_protocol::{
    CloseCode, FlowEvent, FlowKind, HubEnd, HubEvent, OpenRequest, Renew, RenewAck, ResetCode,
    TunnelClosed, TunnelCounters, Welcome as ProtocolWelcome,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;

use super::{Core, MESSAGES_PER_ROUND, ROUNDS_PER_POLL};
use crate::detached::DetachedSession;
use crate::handle::{Command, OpenFlow, SharedStats, TunnelHandle};
use crate::hub::{HelloVerdict, HubShell, RenewVerdict, Welcome};
use crate::observer::FailedOpen;
use crate::settings::{TunnelEnd, TunnelSettings};
use crate::sockets::FlowSocket;

/// RENEW frames that wait for the one before them. An agent sends one in minutes.
const RENEW_QUEUE: usize = 8;

struct HubDriver<S> {
    core: Core<HubEnd, S>,
    shell: Box<dyn HubShell>,
    handle: Option<TunnelHandle>,
    commands: mpsc::Receiver<Command>,
    stats: Arc<SharedStats>,
    hello: Option<BoxFuture<'static, HelloVerdict>>,
    renew: Option<BoxFuture<'static, RenewVerdict>>,
    renew_waiting: Vec<Renew>,
    probes: Vec<oneshot::Sender<()>>,
    handed_over: bool,
    /// Flows that were asked for by somebody who did not wait for them.
    left: Option<DetachedSession>,
    reported: TunnelCounters,
}

pub(crate) async fn serve<S>(
    ws: WebSocketStream<S>,
    shell: Box<dyn HubShell>,
    settings: TunnelSettings,
) -> TunnelEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (handle, commands) = TunnelHandle::new();
    let stats = Arc::clone(&handle.stats);
    let mut driver = HubDriver {
        core: Core::new(HubEnd::new(Instant::now(), settings.config), ws),
        shell,
        handle: Some(handle),
        commands,
        stats,
        hello: None,
        renew: None,
        renew_waiting: Vec::new(),
        probes: Vec::new(),
        handed_over: false,
        left: None,
        reported: TunnelCounters::default(),
    };
    // The driver bounds its own polls; the runtime's budget would wake flows one by one.
    tokio::task::unconstrained(poll_fn(|cx| driver.poll(cx))).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> HubDriver<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        self.core.ready.register(cx.waker());
        for _ in 0..ROUNDS_PER_POLL {
            let now = Instant::now();
            let mut progress = self.take_commands(cx, now);
            progress |= self.take_verdicts(cx, now);
            for _ in 0..MESSAGES_PER_ROUND {
                if !self.core.receive_one(cx, now) {
                    break;
                }
                progress = true;
                self.take_events(now);
            }
            progress |= self.core.serve_woken(now);
            if self.core.tick(cx, now) {
                self.report();
            }
            progress |= self.take_events(now);
            progress |= self.core.transmit(cx, now);
            progress |= self.take_events(now);
            if self.core.is_over(cx, now) {
                return Poll::Ready(self.end(now));
            }
            if !progress {
                self.publish();
                return Poll::Pending;
            }
        }
        self.publish();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells what flows and tunnel have done so far.
    fn report(&mut self) {
        let counters = self.core.end.tunnel().counters();
        if counters != self.reported {
            self.reported = counters;
            self.shell.counted(&counters);
        }
        for (cid, socket) in &mut self.core.sockets.by_cid {
            if let Some((sent, received)) = self.core.end.tunnel().flow_bytes(*cid) {
                socket.tell(sent, received);
            }
        }
    }

    fn publish(&self) {
        let tunnel = self.core.end.tunnel();
        let counters = tunnel.counters();
        self.stats
            .bytes_c2a
            .store(counters.bytes_sent, Ordering::Relaxed);
        self.stats
            .bytes_a2c
            .store(counters.bytes_received, Ordering::Relaxed);
        if let Some(rtt) = tunnel.round_trip() {
            let micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
            self.stats.rtt_us.store(micros, Ordering::Relaxed);
        }
    }

    // ---- acts of the hub ------------------------------------------------------------------

    fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) {
            any = true;
            match command {
                Command::Open(flow) => self.open(now, *flow),
                Command::CloseFlow(flow_ref, code, message) => {
                    self.core
                        .end
                        .tunnel_mut()
                        .reset_ref(now, &flow_ref, code, &message);
                }
                Command::Withdraw(connectors) => self.withdraw(now, &connectors),
                Command::Drain(deadline) => self.core.end.drain(deadline),
                Command::Close(code, message) => self.core.end.tunnel_mut().close(code, &message),
                Command::Probe(answer) => {
                    self.probes.push(answer);
                    self.core.end.tunnel_mut().ping(now);
                }
                Command::Detach(answer) => self.hand_over(answer),
            }
        }
        any
    }

    fn withdraw(&mut self, now: Instant, connectors: &[nowconnect_protocol::ConnectorName]) {
        self.core
            .end
            .tunnel_mut()
            .reset_connectors(now, ResetCode::ScopeLost, |connector| {
                !connectors.contains(connector)
            });
    }

    fn hand_over(&mut self, answer: oneshot::Sender<Option<DetachedSession>>) {
        let session = self.left.take().unwrap_or_else(|| self.core.detach());
        match answer.send(Some(session)) {
            Ok(()) => self.handed_over = true,
            // They stay with this tunnel and are left behind when it ends.
            Err(session) => self.left = session,
        }
        self.core
            .end
            .tunnel_mut()
            .close(CloseCode::Replaced, "a newer tunnel took over");
    }

    fn open(&mut self, now: Instant, flow: OpenFlow) {
        let OpenFlow {
            flow_ref,
            connector,
            client_address,
            metadata,
            trace_parent,
            proxy_protocol,
            terms,
            io,
            early,
            observer,
        } = flow;
        let io = match io.registered() {
            Ok(io) => io,
            Err(error) => {
                // Nothing was opened and no socket is left to try again with.
                self.stats.flows.fetch_sub(1, Ordering::Relaxed);
                observer.ended(lost_socket(flow_ref, &error));
                return;
            }
        };
        let request = OpenRequest {
            flow_ref,
            connector: connector.clone(),
            kind: FlowKind::Tcp,
            client_address,
            trace_parent,
            metadata,
            proxy_protocol,
            terms,
            early,
        };
        match self.core.end.open(now, request) {
            Ok(cid) => {
                let socket =
                    FlowSocket::new(cid, connector, Some(io), Some(observer), &self.core.ready);
                self.core.add_socket(cid, socket);
                self.core.end.tunnel_mut().readable(cid);
            }
            Err((request, code)) => {
                self.stats.flows.fetch_sub(1, Ordering::Relaxed);
                observer.not_started(FailedOpen {
                    code,
                    message: String::new(),
                    io,
                    early: request.early,
                });
            }
        }
    }

    // ---- decisions ------------------------------------------------------------------------

    fn take_verdicts(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        if let Some(hello) = &mut self.hello
            && let Poll::Ready(verdict) = hello.as_mut().poll(cx)
        {
            any = true;
            self.hello = None;
            match verdict {
                HelloVerdict::Accept(welcome) => self.accept(now, *welcome),
                HelloVerdict::Refuse { code, message } => self.core.end.refuse(code, &message),
            }
        }
        if let Some(renew) = &mut self.renew
            && let Poll::Ready(verdict) = renew.as_mut().poll(cx)
        {
            any = true;
            self.renew = None;
            self.apply_renew(now, verdict);
        }
        if self.renew.is_none() && !self.renew_waiting.is_empty() {
            any = true;
            let renew = self.renew_waiting.remove(0);
            self.renew = Some(self.shell.renew(renew));
        }
        any
    }

    fn accept(&mut self, now: Instant, welcome: Welcome) {
        let resume = welcome.resume.map(|mut session| {
            self.core.attach(std::mem::take(&mut session.sockets));
            std::mem::take(&mut session.flows)
        });
        self.core.end.accept(
            now,
            ProtocolWelcome {
                session: welcome.session,
                replica: welcome.replica,
                epoch: welcome.epoch,
                accepted: welcome.accepted,
                refused: welcome.refused,
                resume_token: welcome.resume_token,
                resume,
                token_expires_in: welcome.token_expires_in,
            },
        );
        self.shell.established();
    }

    fn apply_renew(&mut self, now: Instant, verdict: RenewVerdict) {
        match verdict {
            RenewVerdict::Accept {
                accepted,
                refused,
                token_expires_in,
            } => {
                self.core.end.renewed(RenewAck {
                    ok: true,
                    message: String::new(),
                    accepted: accepted.clone(),
                    refused,
                    token_expires_in_ms: token_expires_in
                        .map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                });
                self.core.end.tunnel_mut().reset_connectors(
                    now,
                    ResetCode::ScopeLost,
                    |connector| accepted.contains(connector),
                );
            }
            RenewVerdict::Refuse { message } => self.core.end.renewed(RenewAck {
                ok: false,
                message,
                accepted: Vec::new(),
                refused: Vec::new(),
                token_expires_in_ms: None,
            }),
            RenewVerdict::Close { code, message } => {
                self.core.end.tunnel_mut().close(code, &message)
            }
        }
    }

    // ---- what the machine reports ---------------------------------------------------------

    fn take_events(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = self.core.end.poll_event() {
            any = true;
            match event {
                HubEvent::Hello(hello) => {
                    if let Some(handle) = self.handle.take() {
                        self.hello = Some(self.shell.hello(*hello, handle));
                    }
                }
                HubEvent::Renew(renew) => {
                    if self.renew_waiting.len() >= RENEW_QUEUE {
                        self.core
                            .end
                            .tunnel_mut()
                            .close(CloseCode::ProtocolViolation, "too many renewals at once");
                    } else {
                        self.renew_waiting.push(*renew);
                    }
                }
                HubEvent::Flow(event) => self.flow_event(now, event),
            }
        }
        if !self.probes.is_empty() && self.core.end.tunnel().ping_answered() {
            for answer in self.probes.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = answer.send(());
            }
        }
        any
    }

    fn flow_event(&mut self, now: Instant, event: FlowEvent) {
        match event {
            FlowEvent::Acknowledged(ack) => {
                if let Some(socket) = self.core.sockets.by_cid.get_mut(&ack.cid)
                    && let Some(observer) = &mut socket.observer
                {
                    observer.acknowledged(&ack);
                }
            }
            FlowEvent::Data { cid, payload } => self.core.data(now, cid, payload),
            FlowEvent::Finish { cid } => self.core.finish(now, cid),
            FlowEvent::Resumed { flow_ref, cid } => {
                self.stats.flows.fetch_add(1, Ordering::Relaxed);
                self.core.resumed(now, &flow_ref, cid);
            }
            FlowEvent::NotStarted {
                cid,
                code,
                message,
                early,
            } => {
                self.stats.flows.fetch_sub(1, Ordering::Relaxed);
                if let Some(socket) = self.core.sockets.by_cid.remove(&cid)
                    && let (Some(observer), Some(io)) = (socket.observer, socket.io)
                {
                    observer.not_started(FailedOpen {
                        code,
                        message,
                        io,
                        early,
                    });
                }
            }
            FlowEvent::Closed { cid, summary } => {
                self.stats.flows.fetch_sub(1, Ordering::Relaxed);
                if let Some(socket) = self.core.sockets.by_cid.remove(&cid)
                    && let Some(observer) = socket.observer
                {
                    observer.ended(summary);
                }
            }
            FlowEvent::Lost { summary } => {
                if let Some(socket) = self.core.waiting.remove(&summary.flow_ref)
                    && let Some(observer) = socket.observer
                {
                    observer.ended(summary);
                }
            }
        }
    }

    // ---- the end --------------------------------------------------------------------------

    fn end(&mut self, now: Instant) -> TunnelEnd {
        let closed = self.core.end.tunnel().closed().cloned().unwrap_or_else(|| {
            TunnelClosed::local(CloseCode::Internal, "the tunnel ended without a reason")
        });
        self.refuse_what_waits();
        let left = self.left.take();
        let detached = (closed.is_resumable() && !self.handed_over)
            .then(|| left.unwrap_or_else(|| self.core.detach()))
            .filter(|session| !session.is_empty());
        if detached.is_none() {
            self.core
                .end
                .tunnel_mut()
                .reset_all(now, flow_code(closed.code));
            self.take_events(now);
        }
        self.report();
        TunnelEnd { closed, detached }
    }

    /// Flows that were on their way to this driver go back: nothing of them was started.
    fn refuse_what_waits(&mut self) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Open(flow) = command {
                self.stats.flows.fetch_sub(1, Ordering::Relaxed);
                flow.observer.not_started(FailedOpen {
                    code: ResetCode::Draining,
                    message: String::new(),
                    io: flow.io,
                    early: flow.early,
                });
            }
        }
    }
}

fn lost_socket(
    flow_ref: nowconnect_protocol::FlowRef,
    error: &std::io::Error,
) -> nowconnect_protocol::FlowSummary {
    nowconnect_protocol::FlowSummary {
        flow_ref,
        cid: 0,
        cause: nowconnect_protocol::FlowCause::Reset {
            code: ResetCode::ClientReset,
            local: true,
            message: error.to_string(),
        },
        bytes_c2a: 0,
        bytes_a2c: 0,
        lasted: std::time::Duration::ZERO,
        acknowledged: false,
        resumes: 0,
    }
}

/// What a flow's end is called when its tunnel ends for `code`.
pub(super) fn flow_code(code: CloseCode) -> ResetCode {
    match code {
        CloseCode::Shutdown | CloseCode::DrainDone => ResetCode::HubShutdown,
        CloseCode::TokenExpired => ResetCode::TokenExpired,
        CloseCode::Revoked => ResetCode::Revoked,
        CloseCode::Denied
        | CloseCode::AgentIdMismatch
        | CloseCode::AgentIdInUse
        | CloseCode::Unauthenticated
        | CloseCode::NoConnectors
        | CloseCode::ConnectorLimit => ResetCode::PolicyDenied,
        CloseCode::Replaced
        | CloseCode::VersionUnsupported
        | CloseCode::TransportUnsupported
        | CloseCode::HelloTimeout
        | CloseCode::PingTimeout
        | CloseCode::ProtocolViolation
        | CloseCode::Overloaded
        | CloseCode::EpochLost
        | CloseCode::Internal
        | CloseCode::TransportLost => ResetCode::WsBroken,
    }
}
